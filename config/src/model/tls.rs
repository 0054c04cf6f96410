//! Certificates: where they come from and to whom they are shown.

use std::path::PathBuf;

use serde::Serialize;

use super::Origin;
use crate::Secret;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ssl {
    pub auto_cert: bool,
    pub domains: Vec<String>,
    pub issuer: Issuer,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub min_version: Option<String>,
    pub client_auth: Option<String>,
    pub client_ca: Option<PathBuf>,
    pub unknown_sni: UnknownSni,
    /// HTTP/3 only.
    pub early_data: bool,
    pub ktls: bool,
    pub storage: Option<PathBuf>,
    /// Where the files were named.
    #[serde(skip)]
    pub places: SslPlaces,
}

/// Where the keys of an `[ssl]` table were written. Not part of what the table means: any two are equal.
#[derive(Clone, Debug, Default)]
pub struct SslPlaces {
    pub cert: Origin,
    pub key: Origin,
    pub client_auth: Origin,
    pub client_ca: Origin,
    pub issuer: Origin,
    pub ktls: Origin,
}

impl PartialEq for SslPlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Issuer {
    #[default]
    Auto,
    CloudflareOrigin,
    Acme,
    Local,
    File,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownSni {
    #[default]
    Reject,
    Default,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Acme {
    pub directory: Option<String>,
    pub contact: Vec<String>,
    pub challenge: Option<String>,
    pub http_port_public: Option<u16>,
    pub profile: Option<String>,
    pub eab: Option<Eab>,
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eab {
    pub key_id: String,
    pub hmac_key: Secret,
}
