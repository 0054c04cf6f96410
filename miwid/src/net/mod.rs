//! Sockets: bound, accepted within limits, watched for idleness, drained. Knows bytes and time, nothing of HTTP beyond
//! telling the two kinds of first byte apart.

mod accept;
mod activity;
mod drain;
mod frames;
mod listener;
mod prefixed;

pub use accept::{Acceptor, Admission, Permit};
pub use activity::{Activity, Phase, Running, Timeouts, Watched};
pub use drain::{Drain, DrainSignal};
pub use frames::{Guard, Guarded};
pub use listener::{BindError, bind_group};
pub use prefixed::{Preface, Prefixed, sniff};
