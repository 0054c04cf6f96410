//! HTTP/3: one QUIC endpoint per worker and address, the same routing, policies, logs and limits as over TCP.
//!
//! Not here: WebSocket (RFC 9220), which the released `h3` cannot do, and 0-RTT, which stays off.

mod body;
mod connection;
mod endpoint;
mod qpack;
mod quic;
mod request;
mod response;

pub(super) use endpoint::listen;
