//! Who signs: Cloudflare's Origin CA, an ACME authority or the local CA, behind one question.

use std::time::SystemTime;

use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;

use super::{acme::Acme, renewal::Patience};
#[cfg(feature = "cloudflare")]
use crate::cloudflare::{Api, Class, Error};
use crate::tls::{Tls, pair::Issued, store::Advice};

/// What is asked for.
#[cfg_attr(not(feature = "cloudflare"), expect(dead_code, reason = "only Cloudflare is told for how long"))]
pub(super) struct Ask<'a> {
    pub(super) csr_pem: &'a str,
    pub(super) hosts: &'a [String],
    pub(super) days: u32,
    pub(super) now: SystemTime,
    /// What it takes the place of, for an authority that wants to know.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

pub(super) struct Answer {
    pub(super) id: String,
    pub(super) chain_pem: String,
}

/// Why there is no certificate.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// One word: `auth`, `config`, `throttled`, `transient`, `rejected`, `storage`, `busy`.
    pub(super) class: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) patience: Patience,
    /// Nobody may be asked before, whatever the operator wishes.
    pub(super) blocked: Option<SystemTime>,
    /// A certificate may have been made, although we did not get it.
    pub(super) may_be_done: bool,
}

impl Failure {
    pub(super) fn new(class: &'static str, message: impl Into<String>) -> Self {
        let patience = if matches!(class, "auth" | "config" | "rejected") { Patience::Long } else { Patience::Usual };
        Self { class, message: message.into(), hint: None, patience, blocked: None, may_be_done: false }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

pub(super) enum Issuer {
    #[cfg(feature = "cloudflare")]
    Cloudflare {
        api: Box<Api>,
        roots: Vec<CertificateDer<'static>>,
    },
    Acme(Box<Acme>),
    Local(Tls),
}

impl Issuer {
    pub(super) fn issued(&self) -> Issued {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { .. } => Issued::Cloudflare,
            Self::Acme(_) => Issued::Acme,
            Self::Local(_) => Issued::Local,
        }
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { roots, .. } => roots,
            Self::Acme(_) | Self::Local(_) => &[],
        }
    }

    pub(super) async fn issue(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { api, .. } => match api.create(ask.csr_pem, ask.hosts, "ecc", ask.days, ask.now).await {
                Ok(created) => Ok(Answer { id: created.id, chain_pem: created.certificate }),
                Err(error) => Err(advised(api, error, ask.now).await),
            },
            Self::Acme(acme) => acme.issue(ask).await,
            Self::Local(tls) => {
                let chain_pem = tls.sign(ask.csr_pem).map_err(|error| Failure::new("transient", error))?;
                Ok(Answer { id: String::new(), chain_pem })
            }
        }
    }

    /// Those of the issuer's certificates that may be the answer to an earlier question, newest last. An issuer that cannot
    /// tell has none.
    pub(super) async fn orphans(&self, host: &str, now: SystemTime) -> Vec<Answer> {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { api, .. } => match api.list(host, now).await {
                Ok(listed) => listed
                    .into_iter()
                    .filter(|it| !it.is_revoked)
                    .map(|it| Answer { id: it.id, chain_pem: it.certificate })
                    .collect(),
                Err(error) => {
                    tracing::info!(target: "tls", %error, "cannot look for the certificate of a lost answer; it stays unused");
                    Vec::new()
                }
            },
            Self::Acme(_) | Self::Local(_) => {
                let _ = (host, now);
                Vec::new()
            }
        }
    }

    /// `chain_pem` begins with the certificate that is meant.
    pub(super) async fn revoke(&self, id: &str, chain_pem: &str, now: SystemTime) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { api, .. } => Ok(api.revoke(id, now).await?),
            Self::Acme(acme) => acme.revoke(chain_pem).await,
            Self::Local(_) => {
                let _ = (id, now);
                Err(Failure::new("config", "whoever signed it is not asked to revoke in this version")
                    .hint("`miwictl cert remove` forgets a certificate"))
            }
        }
    }

    /// When the issuer wants this certificate replaced; `None` when it does not say such things.
    pub(super) async fn advice(
        &self,
        certificate: &CertificateIdentifier<'_>,
        now: SystemTime,
    ) -> Result<Option<Advice>, String> {
        match self {
            Self::Acme(acme) => acme.advice(certificate, now).await,
            _ => Ok(None),
        }
    }

    /// Identifiers of the certificates that the issuer has revoked, as far as it tells.
    pub(super) async fn revoked(&self, host: &str, now: SystemTime) -> Vec<String> {
        match self {
            #[cfg(feature = "cloudflare")]
            Self::Cloudflare { api, .. } => {
                let listed = api.list(host, now).await.unwrap_or_default();
                listed.into_iter().filter(|it| it.is_revoked).map(|it| it.id).collect()
            }
            Self::Acme(_) | Self::Local(_) => {
                let _ = (host, now);
                Vec::new()
            }
        }
    }
}

/// Whether it is the token itself or only a right that it lacks. What the check says is advice: it knows no rights.
#[cfg(feature = "cloudflare")]
async fn advised(api: &Api, error: Error, now: SystemTime) -> Failure {
    let is_auth = error.class == Class::Auth;
    let mut failure = Failure::from(error);
    if is_auth && let Ok(state) = api.verify(now).await {
        failure.message = format!("{}; the token itself is {state}", failure.message);
    }
    failure
}

#[cfg(feature = "cloudflare")]
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (class, blocked) = match error.class {
            Class::Auth => ("auth", None),
            Class::Config | Class::NotFound | Class::Exists => ("config", None),
            Class::Throttled { until } => ("throttled", Some(until)),
            Class::Transient => ("transient", None),
            Class::Unknown => ("unknown", None),
        };
        let patience = if class == "unknown" { Patience::Long } else { Self::new(class, "").patience };
        Self {
            class,
            message: error.message,
            hint: error.hint.map(str::to_owned),
            patience,
            blocked,
            may_be_done: error.may_be_done,
        }
    }
}
