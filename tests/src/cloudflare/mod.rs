//! A double of Cloudflare's API v4, as strict as the real one is known to be and stricter where that is cheap: Origin CA,
//! token checks, zones with their settings and caches, DNS records and the address ranges. It listens on the loopback only.
//!
//! Codes and texts of errors are documented, observed or invented; `answers` says which. Never quote an invented one.

mod answers;
mod authority;
mod control;
mod double;
mod faults;
mod json;
mod judge;
mod nameserver;
mod routes;
mod state;
mod wire;
mod zoned;

pub use authority::Mutation;
pub use double::{Cloudflare, Options};
pub use faults::{RetryAfter, Rule, Then};
pub use state::{Issued, Right, Status, Token, TokenKind, Zone};
