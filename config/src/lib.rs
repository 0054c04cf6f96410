//! The configuration of miwid: TOML text -> `file` (as written) -> `Config` (understood).
//!
//! No async, no TLS, no network: `miwictl config check` works offline.

mod backend;
mod diagnostic;
mod diff;
mod globals;
mod load;
mod model;
mod process;
mod section;
mod tree;
mod units;

pub use diagnostic::{Problem, Severity, summary};
pub use diff::{Change, diff, show};
pub use load::{builtin, load, load_text};
pub use model::*;
pub use units::{ByteSize, Secret};

/// What the binary that will run this configuration can do.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// Keys (dotted; `*` for one segment) whose feature is absent, with what to say: "not available in this version".
    /// A trailing `**` matches any rest; a pattern may end in `=value` to refuse that value only.
    pub unavailable: Vec<(&'static str, String)>,
}

/// A configuration that loaded, with the warnings it raised.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}
