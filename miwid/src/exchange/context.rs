//! What is known about one exchange beside its head and body: who asks, over what, since when, and what came of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

use super::{Ending, ExtraHeaders, Offer, Sharing};

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

/// The two ends of the connection, and what TLS settled between them.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TCP or QUIC peer; with the PROXY protocol, what a trusted sender says of it.
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub scheme: Scheme,
    /// `None` in cleartext.
    pub secured: Option<Arc<Secured>>,
}

/// What a TLS handshake settled. Requests are held against it: a host that it does not cover gets a 421.
#[derive(Clone, Debug)]
pub struct Secured {
    /// Lower-cased; `None` when the client named no server.
    pub server_name: Option<Box<str>>,
    /// The names of the certificate that was shown, wildcards included.
    pub names: Arc<[String]>,
    /// Which client-auth policy the handshake was made under; equal numbers are equal policies, and 0 asks for nothing.
    pub policy: u64,
    /// `TLSv1.3`, `TLSv1.2`.
    pub version: &'static str,
    pub cipher: &'static str,
    /// The client's certificate, if one was asked for and verified.
    pub client: Option<ClientCertificate>,
}

impl Secured {
    /// No client certificate was asked for: over QUIC none can be.
    pub fn is_open_to_all(&self) -> bool {
        self.policy == 0
    }
}

#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub subject: String,
    /// SHA-256 of its DER form, in lower-case hexadecimal.
    pub fingerprint: String,
}

/// Made when the head has arrived; filled on the way; read for the access record when the body has ended.
#[derive(Debug)]
pub struct Context {
    pub peer: Peer,
    /// The TCP peer, or what a trusted proxy says.
    pub client_ip: IpAddr,
    /// The peer is in `trusted_proxies`: its forwarding headers are kept and extended.
    pub trusted: bool,
    /// It is trusted because it stands at Cloudflare's edge, and so only in what Cloudflare itself says: a visitor's
    /// `X-Real-IP` passes through there as it came.
    pub is_edge: bool,
    /// The name of the request at Cloudflare, from somebody trusted.
    pub ray: Option<Box<str>>,
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
    /// What the configuration adds to the answer: for all, until the route is known.
    pub extra: Option<Arc<ExtraHeaders>>,
    /// What the answer says of CORS, where that is said here.
    pub sharing: Option<Box<Sharing>>,
    // Filled on the way:
    pub site: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub upstream_duration: Option<Duration>,
    pub reason: Option<&'static str>,
    /// This is the answer, whole, and will be that of the next plain GET for the same host and target. Whoever makes an answer
    /// depend on more than these (and Accept-Encoding) must take it away.
    pub offer: Option<Offer>,
    /// Set with a 101 (or a CONNECT's 200): when the tunnel ends, the access record is written.
    pub tunnel: Option<Ending>,
}
