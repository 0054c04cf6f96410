//! The record of an exchange that has become a tunnel: it is written when the tunnel ends, and thousands wait for that, so it
//! keeps what the record needs and nothing else.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode};

use super::worker::Worker;
use crate::{
    exchange::{Context, Meter, Scheme, TunnelEnd},
    net::Running,
    telemetry::Record,
};

/// What is known of the request itself. Copies: what it came in is let go of.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: Box<str>,
    pub(super) protocol: &'static str,
    pub(super) referer: Box<[u8]>,
    pub(super) user_agent: Box<[u8]>,
    pub(super) meter: Meter,
}

/// What Cloudflare calls the request.
struct Ray(Box<str>);

/// Dropped unwritten, it says that the client went away.
pub(super) struct Lasting {
    worker: Rc<Worker>,
    started: Instant,
    started_at: SystemTime,
    client_ip: IpAddr,
    peer_ip: IpAddr,
    scheme: Scheme,
    status: StatusCode,
    written: bool,
    asked: Asked,
    host: Box<str>,
    request_id: Box<[u8]>,
    /// Behind a thin pointer, which most have no use for.
    ray: Option<Box<Ray>>,
    site: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    upstream_duration: Option<Duration>,
    /// The connection counts as busy until the record is written.
    _running: Option<Running>,
}

impl Lasting {
    pub(super) fn new(
        worker: Rc<Worker>,
        context: &mut Context,
        asked: Asked,
        status: StatusCode,
        running: Option<Running>,
    ) -> Self {
        Self {
            worker,
            started: context.started,
            started_at: context.started_at,
            client_ip: context.client_ip,
            peer_ip: context.peer.remote.ip(),
            scheme: context.scheme,
            status,
            written: false,
            asked,
            host: std::mem::take(&mut context.host).into(),
            request_id: context.request_id.as_ref().map_or(&[][..], HeaderValue::as_bytes).into(),
            ray: context.ray.take().map(|it| Box::new(Ray(it))),
            site: context.site.take(),
            upstream: context.upstream.take(),
            upstream_duration: context.upstream_duration,
            _running: running,
        }
    }

    pub(super) fn write(&mut self, bytes: TunnelEnd, aborted: bool) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let (worker, asked) = (&self.worker, &self.asked);
        let duration = self.started.elapsed();
        worker.shard.request(&asked.method, self.status.as_u16(), duration);
        let record = Record {
            started: self.started_at,
            duration,
            client_ip: self.client_ip,
            peer_ip: self.peer_ip,
            method: asked.method.as_str(),
            target: &asked.target,
            protocol: asked.protocol,
            scheme: self.scheme.as_str(),
            host: &self.host,
            status: self.status.as_u16(),
            bytes_sent: bytes.to_client,
            bytes_received: bytes.from_client.max(asked.meter.bytes()),
            referer: &asked.referer,
            user_agent: &asked.user_agent,
            request_id: str::from_utf8(&self.request_id).unwrap_or_default(),
            ray: self.ray.as_ref().map_or("", |it| &it.0),
            site: self.site.as_deref().unwrap_or_default(),
            upstream: self.upstream.as_deref().unwrap_or_default(),
            upstream_duration: self.upstream_duration,
            reason: "",
            aborted,
        };
        worker.access.borrow_mut().record(&record);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.write(TunnelEnd::default(), true);
    }
}
