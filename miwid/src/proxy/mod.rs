//! Requests that somebody else answers: forwarded to an endpoint of a set, retried where that is safe, held while an
//! app restarts, handed over to a tunnel when they upgrade.

mod blame;
mod forward;
mod headers;
mod hold;
mod relay;
mod retry;
#[cfg(test)]
mod tests;
mod upgrade;

pub use forward::{Exchange, Forwarder};

/// The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::headers::{prepare, strip_hop_by_hop};
}
