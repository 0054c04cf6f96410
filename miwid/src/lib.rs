//! The daemon of miwidothttp, room by room, ground floor first. A room imports only from floors below its own
//! (`ARCHITECTURE.md` beside this crate has the plan; `tests/tidy.rs` keeps it).

// Floor 1
pub mod link;
pub mod telemetry;
// Floor 2
pub mod net;
// Floor 3
pub mod client;
pub mod encoding;
pub mod exchange;
// Floor 4
#[cfg(feature = "cloudflare")]
pub mod cloudflare;
// Floor 5
pub mod tls;
// Floor 6
pub mod upstream;
// Floor 7
pub mod app;
pub mod builtin;
pub mod files;
pub mod policy;
pub mod proxy;
// Floor 8
pub mod routing;
// Floor 9
pub mod snapshot;
// Floor 10
pub mod server;
// Floor 11
pub mod reload;
// Floor 12
pub mod control;
// Roof
pub mod cli;
pub mod daemon;
pub mod signal;
// Apart: knows `link` alone
pub mod warden;
