//! What is written beside certificates. No secret is in any of it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What is wanted, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tls) struct Wish {
    pub(in crate::tls) name: String,
    pub(in crate::tls) hosts: Vec<String>,
    /// `cloudflare-origin`, `local` or `imported`.
    pub(in crate::tls) issuer: String,
    /// `configuration` or `operator`.
    pub(in crate::tls) origin: String,
    pub(in crate::tls) days: Option<u32>,
}

/// How it went so far. Outlives restarts: a daemon that crashes and starts again must not ask more often for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tls) struct Record {
    pub(in crate::tls) wish: Option<Wish>,
    /// Attempts that failed since the last that did not.
    #[serde(default)]
    pub(in crate::tls) attempts: u32,
    #[serde(default, with = "seconds")]
    pub(in crate::tls) next_attempt: Option<SystemTime>,
    /// Nobody is asked before, not even by force.
    #[serde(default, with = "seconds")]
    pub(in crate::tls) blocked: Option<SystemTime>,
    #[serde(default)]
    pub(in crate::tls) last_error: Option<String>,
    /// Identifiers that were revoked: never to be shown again.
    #[serde(default)]
    pub(in crate::tls) revoked: Vec<String>,
    /// When its authority wants it replaced.
    #[serde(default)]
    pub(in crate::tls) advice: Option<Advice>,
}

/// What an authority says about one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tls) struct Advice {
    /// The identifier of the certificate.
    pub(in crate::tls) of: String,
    #[serde(default, with = "seconds")]
    pub(in crate::tls) start: Option<SystemTime>,
    #[serde(default, with = "seconds")]
    pub(in crate::tls) end: Option<SystemTime>,
    /// When to ask for another.
    #[serde(default, with = "seconds")]
    pub(in crate::tls) again: Option<SystemTime>,
}

/// Of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tls) struct Meta {
    pub(in crate::tls) issuer: String,
    pub(in crate::tls) hosts: Vec<String>,
    /// What the issuer calls it; empty when it has no name for it.
    #[serde(default)]
    pub(in crate::tls) id: String,
    #[serde(default)]
    pub(in crate::tls) days: Option<u32>,
    #[serde(default, with = "seconds")]
    pub(in crate::tls) issued: Option<SystemTime>,
}

/// Times as seconds since 1970.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Duration, SystemTime};

    #[expect(clippy::ref_option, reason = "what serde asks for")]
    pub(super) fn serialize<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = at.and_then(|it| it.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|it| it.as_secs());
        match seconds {
            Some(seconds) => serializer.serialize_some(&seconds),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let seconds = Option::<u64>::deserialize(deserializer)?;
        Ok(seconds.and_then(|it| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(it))))
    }
}
