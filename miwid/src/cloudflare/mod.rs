//! Cloudflare's API v4: what it answers, understood and classed. API tokens only: Origin CA keys are dead, global API keys
//! can do far too much.

mod api;
mod dns;
mod error;
mod origin_ca;
mod zones;

pub use api::{Api, Settings};
pub use dns::Record;
pub use error::{Class, Error};
pub use origin_ca::{Created, Issued};
