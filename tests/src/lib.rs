//! The harness: real daemons, clients, origins and apps for the tests that look at miwid from outside.
//!
//! A test that needs a daemon writes a few lines of TOML and calls `Daemon::start`; nothing here is
//! a double of miwid itself, so what passes here is what an operator gets.

mod binaries;
mod builder;
mod client;
mod daemon;
mod load;
mod notify;
mod origin;
mod process;
mod template;
mod trust;
mod websocket;

pub mod acme;
pub mod cloudflare;
pub mod h2;
pub mod java;
pub mod skip;
pub mod wait;

pub use binaries::{chaos_app, miwictl, miwid, repository};
pub use builder::{Builder, Output, Refusal};
pub use client::{Reply, get, raw_exchange, request};
pub use daemon::Daemon;
pub use load::{Load, LoadResult, Running};
pub use notify::FakeNotify;
pub use origin::{Origin, RawOrigin, Seen};
pub use process::{Process, descendants, exists, free_port, listening_on};
pub use trust::AnyCertificate;
pub use websocket::{Received, WebSocket};
