//! Sockets: bound, accepted within limits, watched for idleness, drained. Knows bytes and time, and of HTTP only what a
//! byte stream shows: which version it speaks, and where its messages begin and end (`gate`).

mod accept;
mod activity;
mod bell;
mod drain;
pub mod edge;
mod frames;
mod gate;
mod gathered;
mod http2;
mod line;
mod lingering;
mod listener;
mod pipe;
mod prefixed;
pub mod proxy_protocol;
mod sendfile;
mod staged;
#[cfg(feature = "http3")]
mod steering;

pub use accept::{Acceptor, Admission, Permit};
pub use activity::{Activity, Phase, Running, Timeouts, Watched, patience};
pub use bell::{Bell, Rung};
pub use drain::{Drain, DrainSignal};
pub use frames::{Guard, Guarded};
pub use gate::{
    After, Desk, Flaw, Gated, NAME_MAX, Rules, Unchunk, Unchunked, Verdict, canonical_length, content_length, fields,
    is_field_value, is_origin_form,
};
pub use gathered::{Gatherer, gathered};
pub use http2::{CONNECTION_WINDOW, LocalExecutor, STREAM_WINDOW, STREAMS_MAX, head_max};
pub use line::{is_named, put_line};
pub use lingering::Lingering;
#[cfg(feature = "http3")]
pub use listener::bind_udp_group;
pub use listener::{BindError, bind_group, more_beside};
pub use pipe::Pipe;
pub use prefixed::{Preface, Prefixed, is_preface, sniff};
pub use sendfile::{Sending, poll_send_more};
pub use staged::Staged;
#[cfg(feature = "http3")]
pub use steering::SteeredIds;
