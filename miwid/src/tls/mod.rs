//! TLS as a server speaks it: which certificate for which name, under which policy, and what was settled.
//!
//! Everything that a handshake needs is in memory and never changes while a snapshot lives; files are read only when a
//! terminator is built.

mod carrier;
mod challenges;
mod forgettable;
mod kernel;
mod local;
mod managed;
mod names;
mod pair;
mod plan;
mod policy;
mod store;
mod stream;
mod terminator;
mod tickets;

pub use carrier::Carrier;
pub use challenges::PREFIX as CHALLENGES;
pub use kernel::Support;
pub use managed::{Clock, Handle, Order, Refusal as Refused, Standing};
pub use pair::{Certificate, Issued};
pub use stream::TlsStream;
pub use terminator::{HANDSHAKE_MAX, Refusal, Terminator, Tls, kind};
