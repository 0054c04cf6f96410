//! The roof: everything is put together here, in an order that is also, backwards, the order in which it ends.

mod backend;
mod banner;
mod check;
mod demo;
#[cfg(feature = "cloudflare")]
mod edge;
mod engine;
mod fitness;
mod gauges;
mod identity;
mod limits;
mod notify;
mod serve;
mod start;
mod upgrade;

pub use check::check;
pub use demo::demo_app;
pub use identity::identity;
pub use limits::forbid_cores;
pub use start::{run, run_engine};
pub use upgrade::handshake;
