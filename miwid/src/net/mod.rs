//! Sockets: bound, accepted within limits, watched for idleness, drained. Knows bytes and time, nothing of HTTP beyond
//! telling the two kinds of first byte apart.

mod accept;
mod activity;
mod drain;
mod listener;
mod prefixed;
#[cfg(feature = "http3")]
mod steering;

pub use accept::{Acceptor, Admission, Permit};
pub use activity::{Activity, Phase, Running, Timeouts, Watched};
pub use drain::{Drain, DrainSignal};
#[cfg(feature = "http3")]
pub use listener::bind_udp_group;
pub use listener::{BindError, bind_group};
pub use prefixed::{Preface, Prefixed, sniff};
#[cfg(feature = "http3")]
pub use steering::SteeredIds;
