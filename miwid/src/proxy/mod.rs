//! Requests that somebody else answers: forwarded to an endpoint of a set, retried where that is safe, held while an
//! app restarts, handed over to a tunnel when they upgrade.

mod blame;
mod boundary;
mod errand;
mod fields;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hold;
mod lines;
mod patience;
mod pump;
mod relay;
mod replay;
mod retry;
mod stamp;
#[cfg(test)]
mod tests;
mod upgrade;
mod wake;

pub use errand::{Errand, Outcome, Resumed, Start};
pub use forward::{Exchange, Forwarder};
pub use lines::PlainRequest;
pub use relay::Relay;
pub use stamp::Stamp;
pub use upgrade::Tunnels;
pub use wake::WakeRules;
