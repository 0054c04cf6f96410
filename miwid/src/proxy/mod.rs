//! Requests that somebody else answers: forwarded to an endpoint of a set, retried where that is safe, held while an
//! app restarts, handed over to a tunnel when they upgrade.

mod blame;
mod boundary;
mod forward;
mod headers;
mod hold;
mod pump;
mod relay;
mod retry;
#[cfg(test)]
mod tests;
mod upgrade;

pub use forward::{Exchange, Forwarder};
