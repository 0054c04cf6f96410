//! Requests that somebody else answers: forwarded to an endpoint of a set, retried where that is safe, held while an
//! app restarts, handed over to a tunnel when they upgrade.

mod blame;
mod boundary;
mod fields;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hold;
mod patience;
mod pump;
mod relay;
mod replay;
mod retry;
#[cfg(test)]
mod tests;
mod upgrade;

pub use forward::{Exchange, Forwarder};
pub use upgrade::Tunnels;
