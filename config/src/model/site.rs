//! Sites, their routes, and what these lead to.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{Cache, Compression, Origin, Process, Security, Ssl};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// The key as written, lower-cased.
    pub host: String,
    /// The short name, else the host.
    pub name: String,
    pub aliases: Vec<String>,
    pub app_type: AppType,
    pub origin: Origin,
    /// What the path `/` leads to.
    pub target: Target,
    /// Longest prefix first.
    pub routes: Vec<Route>,
    pub process: Option<Process>,
    /// Tables set for this site alone; `None` = the global one.
    pub ssl: Option<Ssl>,
    pub compression: Option<Compression>,
    pub cache: Option<Cache>,
    pub security: Option<Security>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AppType {
    Nodejs,
    Python,
    Java,
    Tomcat,
    Command,
    Proxy,
    Static,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    /// Begins with `/`. Matches the path and everything below it (`/api` matches `/api` and `/api/x`, not `/apix`;
    /// `/api/` matches `/api/x` only).
    pub prefix: String,
    pub strip_prefix: bool,
    pub target: Target,
    pub origin: Origin,
    pub compression: Option<Compression>,
    pub cache: Option<Cache>,
    pub security: Option<Security>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Files(Files),
    Proxy(Proxy),
    /// The app of this backend's `process`.
    App(Proxy),
    Redirect {
        to: String,
        status: u16,
    },
    Respond {
        status: u16,
        body: String,
        content_type: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Files {
    pub root: PathBuf,
    pub index: Vec<String>,
    pub listing: bool,
    /// File served for a GET of HTML that finds nothing, relative to the root.
    pub spa_fallback: Option<String>,
    pub precompressed: bool,
    /// Globs of names that are never served, beside dotfiles (except `.well-known`).
    pub hidden: Vec<String>,
    pub cache_control: Option<String>,
    pub symlinks: Symlinks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Followed as long as they stay below the root.
    #[default]
    Inside,
    Follow,
    Never,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proxy {
    /// Empty for a managed app: miwid assigns its addresses.
    pub urls: Vec<UpstreamUrl>,
    pub strategy: Strategy,
    pub health: Health,
    pub preserve_host: bool,
    pub upstream_http: UpstreamHttp,
    pub connect_timeout: Duration,
    pub retries: u32,
    pub sticky: Option<String>,
    pub max_in_flight: Option<usize>,
    /// What connections to the upstream begin with.
    pub proxy_protocol: Option<ProxyProtocol>,
    pub tls_ca: Option<PemFile>,
    /// Certificate chain and key.
    pub tls_client_cert: Option<PemFile>,
}

/// A file of certificates. Its content counts as part of the configuration: a file that was exchanged is a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PemFile {
    pub path: PathBuf,
    #[serde(skip)]
    pub digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// `http://host:port`, `https://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamUrl {
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix { path: PathBuf },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    #[default]
    RoundRobin,
    LeastConn,
    IpHash,
    RandomTwo,
    LeastTime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum UpstreamHttp {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Health {
    /// Path of an HTTP check; `None` = none configured.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Status codes that count as healthy; empty = 200 to 299.
    pub expect: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamDrain {
    Wait,
    Now,
    CloseAfter(Duration),
}
