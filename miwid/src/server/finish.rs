//! The end of an exchange (hot): the headers that every answer gets, and one access record and one count when the last
//! byte has been handed over, the client has gone, or the tunnel has closed.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header, request::Parts, response,
};
use http_body::{Body as _, Frame, SizeHint};

use super::{
    lasting::{Asked, Lasting},
    shelf::{self, Label},
    worker::Worker,
};
use crate::{
    builtin::Pages,
    exchange::{Body, Context, Meter, Scheme, TunnelEnd, headers, is_call},
    net::Running,
    snapshot::Snapshot,
    telemetry::Record,
};

/// No status is sent to a client that has gone; logs know it by nginx's number.
pub(super) const CLIENT_GONE: u16 = 499;

/// What the access record needs of the head, kept when the head itself has moved on. Copies are reference counts.
pub(super) struct Summary {
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    accept_encoding: Option<HeaderValue>,
    /// There is more than that line, and all of them decide.
    accepts_more: bool,
    /// The content type of a gRPC call.
    call: Option<HeaderValue>,
    meter: Meter,
}

impl Summary {
    pub(super) fn of(parts: &Parts, meter: Meter) -> Self {
        let mut summary = Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            referer: None,
            user_agent: None,
            accept: None,
            accept_encoding: None,
            accepts_more: false,
            call: None,
            meter,
        };
        // One look at each field costs less than a search for each name.
        for (name, value) in &parts.headers {
            let Some(place) = summary.place(name) else { continue };
            if place.is_none() {
                *place = Some(value.clone());
            } else if *name == header::ACCEPT_ENCODING {
                summary.accepts_more = true;
            }
        }
        if summary.call.is_some() && !is_call(parts.version, &parts.headers) {
            summary.call = None;
        }
        summary
    }

    fn place(&mut self, name: &HeaderName) -> Option<&mut Option<HeaderValue>> {
        Some(match name {
            _ if *name == header::REFERER => &mut self.referer,
            _ if *name == header::USER_AGENT => &mut self.user_agent,
            _ if *name == header::ACCEPT => &mut self.accept,
            _ if *name == header::ACCEPT_ENCODING => &mut self.accept_encoding,
            _ if *name == header::CONTENT_TYPE => &mut self.call,
            _ => return None,
        })
    }

    /// What of it a record needs that will be written long after.
    fn asked(&self) -> Asked {
        Asked {
            method: self.method.clone(),
            target: self.target().into(),
            protocol: protocol(self.version),
            referer: bytes_of(&self.referer).into(),
            user_agent: bytes_of(&self.user_agent).into(),
            meter: self.meter.clone(),
        }
    }

    fn target(&self) -> &str {
        self.uri.path_and_query().map_or("*", |it| it.as_str())
    }

    /// The headers that decide how an error looks.
    pub(super) fn accept(&self) -> HeaderMap {
        let kept = [(header::ACCEPT, &self.accept), (header::CONTENT_TYPE, &self.call)];
        kept.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Dresses the answer and ties its end to the record.
pub(super) fn finish(
    mut pending: Box<Pending>,
    snapshot: &Arc<Snapshot>,
    response: Response<Body>,
) -> Response<Tracked> {
    let settings = &snapshot.settings;
    let (mut parts, body) = response.into_parts();
    let context = &mut pending.context;
    if settings.server_header {
        parts.headers.insert(header::SERVER, HeaderValue::from_static("miwid"));
    }
    if settings.request_id_header && context.request_id.is_none() {
        context.request_id = Some(super::service::new_request_id());
    }
    if let Some(id) = &context.request_id {
        parts.headers.insert(headers::X_REQUEST_ID, id.clone());
    }
    if context.peer.secured.as_ref().is_some_and(|it| it.is_open_to_all())
        && pending.summary.version != Version::HTTP_3
        && !context.is_edge
        && let Some(alternative) = &*pending.worker.alternative.borrow()
    {
        parts.headers.insert(header::ALT_SVC, alternative.clone());
    }
    if let Some(extra) = &context.extra {
        extra.apply(&mut parts.headers, context.scheme);
    }
    if let Some(sharing) = &context.sharing {
        sharing.apply(&mut parts.headers);
    }
    if settings.trusts_edge() && !context.is_edge {
        // Cloudflare takes them off; others need not know what is purged together.
        parts.headers.remove(headers::CACHE_TAG);
    }
    let is_shelved = pending.shelve(snapshot, &parts);
    let length = http_body::Body::size_hint(&body).exact();
    let tunnel = pending.context.tunnel.take();
    pending.status = parts.status;
    let pending = match tunnel {
        Some(ending) => {
            let mut lasting = pending.into_lasting();
            ending.then(move |end| lasting.write(end, false));
            None
        }
        None => Some(pending),
    };
    Response::from_parts(parts, Tracked { body, length, bytes_sent: 0, pending, is_shelved })
}

/// An exchange whose record is still to be written. Dropped unwritten, it says that the client went away before it was
/// answered.
pub(super) struct Pending {
    worker: Rc<Worker>,
    pub(super) context: Context,
    pub(super) summary: Summary,
    status: StatusCode,
    written: bool,
    /// The connection counts as busy until the record is written.
    running: Option<Running>,
}

impl Pending {
    pub(super) fn new(worker: Rc<Worker>, context: Context, summary: Summary, running: Running) -> Box<Self> {
        let status = StatusCode::from_u16(CLIENT_GONE).expect("three digits are a status");
        Box::new(Self { worker, context, summary, status, written: false, running: Some(running) })
    }

    /// Whoever ends a tunnel will write its record.
    fn into_lasting(mut self: Box<Self>) -> Lasting {
        self.written = true;
        let (asked, running) = (self.summary.asked(), self.running.take());
        Lasting::new(self.worker.clone(), &mut self.context, asked, self.status, running)
    }

    /// Keeps the answer for the next who asks the same, if it is one that does not care who asks. True when the client's next
    /// request may do without the parser.
    fn shelve(&self, snapshot: &Arc<Snapshot>, parts: &response::Parts) -> bool {
        let Self { context, summary, worker, .. } = self;
        // In cleartext beside a redirect to HTTPS it depends on who asks: a proxy whose client came over HTTPS is not redirected.
        let depends = snapshot.settings.redirect_https.is_some() && context.peer.scheme == Scheme::Http;
        let is_plain = summary.version == Version::HTTP_11
            && summary.method == Method::GET
            && summary.uri.authority().is_none()
            && !summary.accepts_more
            && !context.trusted
            && !depends
            && context.peer.secured.as_ref().is_none_or(|it| it.is_open_to_all());
        if parts.status == StatusCode::NOT_MODIFIED && context.upstream.is_none() {
            // Nothing to keep, but who revalidates one file will do so with others, and those may be at hand.
            return is_plain;
        }
        if context.offer.is_none() || !is_plain || Pages::has(summary.uri.path()) {
            return false;
        }
        let label = Label {
            scheme: context.peer.scheme,
            host: context.authority.as_bytes(),
            accept_encoding: bytes_of(&summary.accept_encoding),
            target: summary.uri.path_and_query().map_or(&[][..], |it| it.as_str().as_bytes()),
        };
        // A client that closes after each answer takes the long way to what is at hand already.
        if worker.shelf.find(snapshot, &label, Instant::now()).is_some() {
            return true;
        }
        let Some(ready) = shelf::ready(parts.status, &parts.headers, context) else { return false };
        worker.shelf.put(snapshot, &label, ready);
        true
    }

    fn write(&mut self, bytes: TunnelEnd, aborted: bool) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let Self { worker, context, summary, status, .. } = &*self;
        let duration = context.started.elapsed();
        worker.shard.request(&summary.method, status.as_u16(), duration);
        if status.is_server_error() && context.reason.is_some() {
            worker.shard.fault();
        }
        let record = Record {
            started: context.started_at,
            duration,
            client_ip: context.client_ip,
            peer_ip: context.peer.remote.ip(),
            method: summary.method.as_str(),
            target: summary.target(),
            protocol: protocol(summary.version),
            scheme: context.scheme.as_str(),
            host: &context.host,
            status: status.as_u16(),
            bytes_sent: bytes.to_client,
            bytes_received: bytes.from_client.max(summary.meter.bytes()),
            referer: bytes_of(&summary.referer),
            user_agent: bytes_of(&summary.user_agent),
            request_id: context.request_id.as_ref().and_then(|it| it.to_str().ok()).unwrap_or_default(),
            site: context.site.as_deref().unwrap_or_default(),
            upstream: context.upstream.as_deref().unwrap_or_default(),
            upstream_duration: context.upstream_duration,
            reason: context.reason.unwrap_or_default(),
            ray: context.ray.as_deref().unwrap_or_default(),
            aborted,
        };
        worker.access.borrow_mut().record(&record);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.write(TunnelEnd::default(), true);
    }
}

fn bytes_of(value: &Option<HeaderValue>) -> &[u8] {
    value.as_ref().map_or(&[], HeaderValue::as_bytes)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// A response body that knows when it has ended.
pub(super) struct Tracked {
    body: Body,
    /// Where it is known beforehand.
    length: Option<u64>,
    bytes_sent: u64,
    pending: Option<Box<Pending>>,
    is_shelved: bool,
}

impl Tracked {
    /// The next request for the same will not need the parser.
    pub(super) fn is_shelved(&self) -> bool {
        self.is_shelved
    }

    fn ended(&mut self, aborted: bool) {
        if let Some(mut pending) = self.pending.take() {
            pending.write(TunnelEnd { from_client: 0, to_client: self.bytes_sent }, aborted);
        }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes_sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.body.is_end_stream() {
                    self.ended(false);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "response body ended early");
                self.ended(true);
            }
            Poll::Ready(None) => self.ended(false),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    /// A body is dropped that need not be sent (HEAD, 304), of which all was sent (an upstream may say its end later), or that can no
    /// longer be sent (the client has gone).
    fn drop(&mut self) {
        let is_whole = self.length == Some(self.bytes_sent) || self.body.is_end_stream();
        let is_done = self
            .pending
            .as_ref()
            .is_some_and(|it| is_whole || it.summary.method == Method::HEAD || it.status == StatusCode::NOT_MODIFIED);
        self.ended(!is_done);
    }
}
