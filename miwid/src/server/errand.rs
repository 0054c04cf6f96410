//! A plain request for somebody else to answer (hot): whether it can be handed on without being taken apart, what of the answer's
//! head the client gets, and the record of it all. A client sees what it would see the other way; a test asks every case both
//! ways.

use std::{
    io,
    net::IpAddr,
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body as _, Frame};
use httparse::Header;

use super::{
    connection::Connection,
    dress::{Dress, Framing},
    finish::CLIENT_GONE,
    plain::{Plain, Verb},
    service::{RequestId, TakenUp},
    worker::Worker,
};
use crate::{
    builtin::Pages,
    encoding::Rules,
    exchange::{ExtraHeaders, Scheme},
    net::{Pipe, Running, is_origin_form},
    proxy::{self, Outcome, PlainRequest, Relay, Stamp, Start},
    routing::{Target, host_of, plan},
    snapshot::Snapshot,
    telemetry::Record,
    tls::CHALLENGES,
    upstream::Heard,
};

/// From here on the kernel moves what is left of an answer from socket to socket by itself.
const SPLICE_FROM: u64 = 32 << 10;

/// A request whose answer is awaited.
pub(super) struct Errand {
    exchange: Box<proxy::Errand>,
    kept: Box<Kept>,
}

/// What a plain request becomes that is not answered at once.
pub(super) enum Taken {
    Errand(Errand),
    /// It is for the service, which may find that something was done already.
    Service(Option<TakenUp>),
}

/// What the end of an exchange needs of its beginning. Dropped before that, it says that the client went away.
struct Kept {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    extra: Option<Arc<ExtraHeaders>>,
    rules: Option<Arc<Rules>>,
    site: Arc<str>,
    upstream: Arc<str>,
    upstream_duration: Option<Duration>,
    request_id: RequestId,
    peer: IpAddr,
    scheme: Scheme,
    host: String,
    verb: Verb,
    /// And the content behind it.
    head: Bytes,
    content: Range<usize>,
    target: Range<usize>,
    referer: Range<usize>,
    user_agent: Range<usize>,
    started: Instant,
    started_at: SystemTime,
    status: u16,
    sent: u64,
    running: Option<Running>,
}

/// Where a part of a head stands in it.
fn place(head: &[u8], part: &[u8]) -> Range<usize> {
    let at = (part.as_ptr().addr()).wrapping_sub(head.as_ptr().addr());
    if part.is_empty() || at > head.len() { 0..0 } else { at..at + part.len() }
}

/// A plain request and where it came from.
pub(super) struct Asked<'a> {
    pub(super) head: &'a [u8],
    pub(super) plain: &'a Plain<'a>,
    pub(super) fields: &'a [Header<'a>],
    pub(super) started: Instant,
}

/// Takes up what is plainly to be forwarded, on a connection that is ordinary.
pub(super) fn take(connection: &Connection, snapshot: &Arc<Snapshot>, asked: &Asked<'_>) -> Taken {
    begin(connection, snapshot, asked).unwrap_or(Taken::Service(None))
}

/// `None`: the service has to look at it.
fn begin(connection: &Connection, snapshot: &Arc<Snapshot>, asked: &Asked<'_>) -> Option<Taken> {
    let Asked { head, plain, fields, started } = *asked;
    let settings = &snapshot.settings;
    let target = plain.target.as_bytes();
    if target.len() > settings.uri_bytes_max || !is_origin_form(target) {
        return None;
    }
    let authority = str::from_utf8(plain.host).ok()?;
    let host = host_of(authority)?;
    if !is_welcome(connection, snapshot, &host) {
        return None;
    }
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&plain.target[..at], Some(&plain.target[at + 1..])),
        None => (plain.target, None),
    };
    if Pages::has(path) || path.starts_with(CHALLENGES) {
        return None;
    }
    let plan = plan(&snapshot.hosts, &host, path).ok()?;
    let Target::Proxy(forwarder) = &plan.route.target else { return None };
    // Who is not let in gets an answer of ours.
    plan.route.guard.is_none().then_some(())?;
    let (worker, scheme) = (&connection.worker, connection.peer.scheme);
    let (request_id, started_at) = (RequestId::new(), worker.clock.time(started));
    let peer = connection.peer.remote.ip();
    let stamp = Stamp { peer: peer.to_canonical(), scheme, authority, started_at, request_id: request_id.as_bytes() };
    let stripped = query.filter(|_| *plan.path != *path).map(|query| format!("{}?{query}", plan.path));
    let target = match &stripped {
        Some(target) => target,
        None if *plan.path == *path => plain.target,
        None => &plan.path,
    };
    let request = PlainRequest { method: plain.verb.as_str(), target, fields, stamp, started };
    let mut exchange = match forwarder.errand(&request, &worker.pools) {
        Start::Begun(exchange) => exchange,
        Start::Picked(resumed) => {
            let (snapshot, request_id, resumed) = (snapshot.clone(), Some(request_id.value()), Some(resumed));
            return Some(Taken::Service(Some(TakenUp { started, snapshot, request_id, resumed })));
        }
        Start::Weigh => return None,
    };
    let (head, content) = (Bytes::copy_from_slice(head), plain.length..plain.whole());
    exchange.put(head.slice(content.clone()));
    let kept = Kept {
        worker: worker.clone(),
        snapshot: snapshot.clone(),
        extra: plan.route.extra.clone(),
        rules: plan.route.compression.clone(),
        site: plan.site.name.clone(),
        upstream: exchange.in_flight().endpoint().text.clone(),
        upstream_duration: None,
        request_id,
        peer,
        scheme,
        host,
        verb: plain.verb,
        target: place(asked.head, plain.target.as_bytes()),
        referer: place(asked.head, plain.referer),
        user_agent: place(asked.head, plain.user_agent),
        head,
        content,
        started,
        started_at,
        status: CLIENT_GONE,
        sent: 0,
        running: Some(connection.activity.request(started)),
    };
    Some(Taken::Errand(Errand { exchange, kept: Box::new(kept) }))
}

/// Whether this host may be asked for over this connection (`secure` says why not).
fn is_welcome(connection: &Connection, snapshot: &Snapshot, host: &str) -> bool {
    match (&connection.peer.secured, connection.peer.scheme) {
        (Some(secured), _) => snapshot.tls.as_ref().is_some_and(|it| it.covers(secured, host)),
        (None, Scheme::Https) => false,
        (None, Scheme::Http) => {
            snapshot.settings.redirect_https.is_none()
                && !snapshot.tls.as_ref().is_some_and(|it| it.demands_certificate(host))
        }
    }
}

/// How an errand ends.
pub(super) enum Told {
    Answered(Passed, Framing),
    /// The rest is for the service.
    Service(Bytes, TakenUp),
}

impl Errand {
    /// When the answer must have begun.
    pub(super) fn deadline(&self) -> Instant {
        self.exchange.deadline()
    }

    /// The answer's head, dressed for the client, goes to `into`.
    pub(super) fn poll(
        &mut self,
        connection: &Connection,
        is_last: bool,
        into: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<(Heard, Option<Framing>)> {
        let kept = &mut *self.kept;
        let settings = &kept.snapshot.settings;
        let alternative = kept.worker.alternative.borrow();
        let dress = Dress {
            names_server: settings.server_header,
            hides_cache_tag: settings.trusts_edge(),
            request_id: kept.request_id.as_bytes(),
            alternative: alternative.as_ref().filter(|_| connection.peer.secured.is_some()).map(HeaderValue::as_bytes),
            extra: kept.extra.as_deref(),
            scheme: kept.scheme,
            rules: kept.rules.as_deref(),
            is_last,
        };
        let mut framing = None;
        let heard = ready!(self.exchange.poll(cx, |head| {
            framing = dress.write(head, || kept.worker.clock.date(Instant::now()), into);
            kept.status = if framing.is_some() { head.status.as_u16() } else { CLIENT_GONE };
            framing.is_some()
        }));
        Poll::Ready((heard, framing))
    }

    pub(super) fn end(self, heard: Heard, framing: Option<Framing>) -> Told {
        let Self { exchange, mut kept } = self;
        match exchange.end(heard, &kept.worker.pools) {
            Outcome::Answered { body, after } => {
                kept.upstream_duration = Some(after);
                kept.worker.shard.handed_on();
                Told::Answered(Passed { body, in_pipe: 0, kept }, framing.unwrap_or(Framing::None))
            }
            Outcome::Unfinished(resumed) => kept.hand_over(resumed),
        }
    }

    pub(super) fn overdue(self) -> Told {
        self.kept.hand_over(self.exchange.overdue())
    }
}

impl Kept {
    /// Somebody else will write the record.
    fn hand_over(mut self: Box<Self>, resumed: proxy::Resumed) -> Told {
        self.running = None;
        let (started, snapshot) = (self.started, self.snapshot.clone());
        let taken_up = TakenUp { started, snapshot, request_id: Some(self.request_id.value()), resumed: Some(resumed) };
        Told::Service(self.head.clone(), taken_up)
    }

    fn text(&self, part: &Range<usize>) -> &[u8] {
        &self.head[part.clone()]
    }

    fn write(&mut self, aborted: bool) {
        // Written when it has been let go of.
        if self.running.take().is_none() {
            return;
        }
        let duration = self.started.elapsed();
        self.worker.shard.request(&self.verb.method(), self.status, duration);
        let record = || Record {
            started: self.started_at,
            duration,
            client_ip: self.peer.to_canonical(),
            peer_ip: self.peer,
            method: self.verb.as_str(),
            target: str::from_utf8(self.text(&self.target)).unwrap_or_default(),
            protocol: "HTTP/1.1",
            scheme: self.scheme.as_str(),
            host: &self.host,
            status: self.status,
            bytes_sent: self.sent,
            bytes_received: self.content.len() as u64,
            referer: self.text(&self.referer),
            user_agent: self.text(&self.user_agent),
            request_id: self.request_id.as_str(),
            site: &self.site,
            upstream: &self.upstream,
            upstream_duration: self.upstream_duration,
            reason: "",
            ray: "",
            aborted,
        };
        self.worker.access.borrow_mut().record_with(record);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.write(true);
    }
}

/// The body of an answer that is handed on.
pub(super) struct Passed {
    body: Relay,
    /// Bytes that have left the upstream and not reached the client.
    in_pipe: u64,
    kept: Box<Kept>,
}

impl Passed {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.kept.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                self.settle();
            }
            Some(Err(error)) => tracing::debug!(%error, "response body ended early"),
            None => self.kept.write(false),
        }
        Poll::Ready(frame)
    }

    /// Whether the kernel should move the rest by itself.
    pub(super) fn is_spliceable(&self) -> bool {
        self.body.spliceable().is_some_and(|it| it >= SPLICE_FROM)
    }

    pub(super) fn poll_splice(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let moved = ready!(self.body.poll_splice(cx, pipe));
        match &moved {
            Ok(moved) => self.in_pipe += *moved as u64,
            Err(error) => tracing::debug!(%error, "response body ended early"),
        }
        Poll::Ready(moved)
    }

    /// So much of what is in the pipe has gone to the client.
    pub(super) fn drained(&mut self, count: usize) {
        self.in_pipe -= count as u64;
        self.kept.sent += count as u64;
        self.settle();
    }

    /// The record is written with the last byte.
    fn settle(&mut self) {
        if self.body.is_end_stream() && self.in_pipe == 0 {
            self.kept.write(false);
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.settle();
    }
}
