//! What holds for every site: who is believed, who is kept out, what is compressed and kept.

use std::{path::PathBuf, time::Duration};

use indexmap::IndexMap;
use ipnet::IpNet;
use serde::Serialize;

use crate::{ByteSize, Secret};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cloudflare {
    pub api_token: Option<Secret>,
    /// Where the token was read; it may be another one later.
    pub api_token_file: Option<PathBuf>,
    pub zone_id: Option<String>,
    pub account_id: Option<String>,
    pub api_base: Option<String>,
    pub trust: bool,
    pub only: bool,
    /// Who is served with `only` although it comes from elsewhere.
    pub only_exempt: Vec<IpNet>,
    pub only_refusal: OnlyRefusal,
    pub origin_pulls: bool,
    pub origin_ca_validity_days: Option<u32>,
    pub origin_ca_roots: Option<PathBuf>,
}

/// What those get who do not come through Cloudflare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlyRefusal {
    #[default]
    Close,
    Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compression {
    pub enabled: bool,
    pub algorithms: Vec<String>,
    pub level: Option<u32>,
    pub min_size: ByteSize,
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cache {
    pub enabled: bool,
    pub max_size: ByteSize,
    pub ttl: Option<Duration>,
    pub ignore_cookies: Vec<String>,
    pub disk_path: Option<PathBuf>,
    pub disk_size: Option<ByteSize>,
    pub max_object_size: Option<ByteSize>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Security {
    /// The name of the table.
    #[serde(skip)]
    pub place: String,
    pub enable_cors: bool,
    pub cors_origins: Vec<String>,
    pub cors_credentials: bool,
    pub enable_csrf: bool,
    pub csrf_trusted_origins: Vec<String>,
    pub csrf_exempt_paths: Vec<String>,
    /// Requests per minute and client.
    pub rate_limit: Option<u32>,
    /// The table that set it: all who take it over from there count together.
    #[serde(skip)]
    pub rate_limit_place: String,
    pub rate_limit_exempt: Vec<IpNet>,
    /// `ip_whitelist` and `allow` together.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    /// Header name (with `-`) to value; an empty value removes.
    pub headers: IndexMap<String, String>,
    pub mode: SecurityMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    #[default]
    Enforce,
    Report,
}
