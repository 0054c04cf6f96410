//! The daemon itself: listeners, limits, and who steers it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Serialize;

use crate::{Account, ByteSize, Grant};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Addresses that every port below is bound on. Default `0.0.0.0` and `[::]`.
    pub bind: Vec<IpAddr>,
    /// 0 = off.
    pub http_port: u16,
    pub https_port: u16,
    /// `None` = on when a certificate or `auto_cert` is configured.
    pub enable_https: Option<bool>,
    pub http3: bool,
    pub redirect_https: bool,
    /// `None` (or 0 as written) = one per CPU that this process may use.
    pub workers: Option<usize>,
    pub max_connections: Option<usize>,
    pub keepalive_timeout: Duration,
    pub request_timeout: Duration,
    pub stream_idle_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub state_dir: Option<PathBuf>,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub h2c: bool,
    pub server_header: bool,
    pub request_id_header: bool,
    pub user: Option<String>,
    pub group: Option<String>,
    pub io_backend: IoBackend,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IoBackend {
    #[default]
    Auto,
    Epoll,
    IoUring,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub max_request_size: ByteSize,
    pub max_header_size: ByteSize,
    /// Bytes of the request target.
    pub max_uri_length: usize,
    /// Number of header fields.
    pub max_headers: usize,
    pub underscore_headers: UnderscoreHeaders,
}

/// What becomes of a request header whose name has an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnderscoreHeaders {
    #[default]
    Drop,
    Reject,
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// `None` = `"off"`.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Control {
    pub socket: Option<PathBuf>,
    pub group: Option<String>,
    /// `None`: whoever can open the socket may do everything.
    pub acl: Option<BTreeMap<Account, Grant>>,
}
