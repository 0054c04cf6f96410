//! The configuration as understood: every default filled in, every value with its proper type.
//!
//! Nothing here can be half right: `load` either returns a whole `Config` or a list of problems. Paths are absolute
//! (resolved against the directory of the file that wrote them), secrets are `Secret`, durations are `Duration`.

mod edge;
mod logging;
mod process;
mod server;
mod site;
mod tls;

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

pub use edge::*;
pub use logging::*;
pub use process::*;
pub use server::*;
pub use site::*;
pub use tls::*;

/// Where a value was written. `line` and `column` count from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The main file; `None` for the built-in default.
    pub path: Option<PathBuf>,
    /// Every file that was read: the main file, includes, secret files. An `env_file` is read at each start of its app
    /// and only named there.
    pub files: Vec<PathBuf>,
    pub server: Server,
    pub admin: Admin,
    pub control: Control,
    pub ssl: Ssl,
    pub cloudflare: Cloudflare,
    pub acme: Option<Acme>,
    pub compression: Compression,
    pub cache: Cache,
    pub security: Security,
    pub logging: Logging,
    pub tracing: Tracing,
    pub metrics: Metrics,
    /// By host as written: exact, `*.example.com` or `_`.
    pub backends: IndexMap<String, Backend>,
}

impl Config {
    /// Whether anything is served over TLS: as written, else when a certificate or `auto_cert` is configured.
    pub fn https(&self) -> bool {
        let asked = |ssl: &Ssl| ssl.auto_cert || ssl.cert.is_some();
        let sites = self.backends.values().filter_map(|it| it.ssl.as_ref());
        let wanted = self.server.enable_https.unwrap_or_else(|| asked(&self.ssl) || sites.into_iter().any(asked));
        wanted && self.server.https_port != 0
    }
}
