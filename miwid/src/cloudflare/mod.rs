//! Cloudflare's API v4: what it answers, understood and classed. API tokens only: Origin CA keys are dead, global API keys
//! can do far too much.

mod api;
mod dns;
mod doctor;
mod error;
mod look;
mod origin_ca;
mod purge;
mod ranges;
mod zones;

pub use api::Api;
pub use dns::Record;
pub use doctor::{Finding, Here, Severity, Shown, Site};
pub use error::{Class, Error};
pub use look::examine;
pub use origin_ca::{Created, Issued};
pub use purge::Purge;
pub use ranges::{Keeper, Standing};

/// Who signs the certificate that Cloudflare shows to origins, unless an account has one of its own.
pub const ORIGIN_PULL_CA: &str = include_str!("origin_pull_ca.pem");
