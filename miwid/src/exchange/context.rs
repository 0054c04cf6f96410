//! What is known about one exchange beside its head and body: who asks, over what, since when, and what came of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The two ends of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub scheme: Scheme,
}

/// Made when the head has arrived; filled on the way; read for the access record when the body has ended.
#[derive(Debug)]
pub struct Context {
    pub peer: Peer,
    /// The TCP peer, or what a trusted proxy says.
    pub client_ip: IpAddr,
    /// The peer is in `trusted_proxies`: its forwarding headers are kept and extended.
    pub trusted: bool,
    /// Scheme and host as the client sees them (a trusted proxy may have said so).
    pub scheme: Scheme,
    /// Lower-cased, without port.
    pub host: String,
    /// As in the Host header, with the port.
    pub authority: String,
    pub started: Instant,
    pub started_at: SystemTime,
    /// Set on proxied exchanges and errors (and on all when `request_id_header`).
    pub request_id: Option<HeaderValue>,
    // Filled on the way:
    pub site: Option<std::sync::Arc<str>>,
    pub upstream: Option<String>,
    pub upstream_duration: Option<Duration>,
    pub reason: Option<&'static str>,
    /// Set with a 101 (or a CONNECT's 200): resolves when the tunnel has ended, and the access record is written then.
    pub tunnel: Option<tokio::sync::oneshot::Receiver<TunnelEnd>>,
}

/// Bytes that went through a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct TunnelEnd {
    pub from_client: u64,
    pub to_client: u64,
}
