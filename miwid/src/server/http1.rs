//! HTTP/1.1 on a connection: the gate judges its bytes, hyper drives it, `Activity` ends it when it is silent for too long.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    connection::{Call, Connection, FAREWELL, Io, ended, service},
    front::{Departure, Front},
};
use crate::{
    net::{After, Desk, Gated, Phase, Preface, Prefixed, Rules, Timeouts, Watched, sniff},
    snapshot::Settings,
};

/// hyper has limits of its own, which must never be met before the gate's.
const PARSER_TARGET_MAX: usize = u16::MAX as usize - 2;
const PARSER_FIELDS: usize = 100;
const PARSER_BUFFER: usize = 400 << 10;
/// Method, spaces, version, and empty lines before them.
const REQUEST_LINE_REST: usize = 128;

/// A connection with nothing to do keeps its parser so long: to make a new one costs more than to keep it.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// With more connections than this on its worker, it is the memory that costs more.
const CROWDED: usize = 512;

impl Connection {
    /// From the first byte to the last: between requests, and for those that are plain, `Front` has the connection; the
    /// parser gets it for all others.
    pub(super) async fn http1<T: Io>(self, io: T) {
        let is_cleartext = io.socket().is_some();
        let mut front = Front::new(io, is_cleartext);
        loop {
            let unread = match front.serve(&self).await {
                Departure::End => return front.abandon(&self),
                Departure::Stalled => {
                    self.worker.metrics.connection_cut("write-stall");
                    return front.abandon(&self);
                }
                Departure::Parser(unread) => unread,
                Departure::Preface(unread) => {
                    let mut io = front.into_io();
                    let Some((preface, unread)) = self.sniff(&mut io, unread).await else { return };
                    let io = Prefixed::new(unread, io);
                    if preface == Preface::Http2 {
                        return Box::pin(self.http2(io)).await;
                    }
                    match Box::pin(self.parse(io)).await {
                        Some(io) => front = Front::new(io, false),
                        None => return,
                    }
                    continue;
                }
            };
            match Box::pin(self.parse(Prefixed::new(unread, front.into_io()))).await {
                Some(io) => front = Front::new(io, false),
                None => return,
            }
        }
    }

    async fn sniff(&self, io: &mut impl Io, unread: Bytes) -> Option<(Preface, Bytes)> {
        let (preface, unread) = tokio::time::timeout(self.timeouts.head, sniff(io, unread)).await.ok()?.ok()?;
        match preface {
            Preface::Closed => None,
            Preface::Http2 if self.worker.snapshot().settings.http2_cleartext => Some((preface, unread)),
            Preface::Http1 | Preface::Http2 => Some((Preface::Http1, unread)),
        }
    }

    /// Answers requests until the connection ends or has nothing to do; then its io comes back.
    async fn parse<T: Io>(&self, io: Prefixed<T>) -> Option<T> {
        self.activity.begin();
        let rules = rules(&self.worker.snapshot().settings);
        let desk = Desk::default();
        self.activity.set_desk(desk.clone());
        let io = TokioIo::new(Gated::new(self.watched(io), rules, desk.clone()));
        let (answer, number, clerk) = (service::<Incoming>(self), Cell::new(0), desk.clone());
        let brief = Rc::new(Cell::new(false));
        let last = brief.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (this, desk, last) = (number.get() + 1, clerk.clone(), last.clone());
            number.set(this);
            refused(&mut request, this, &desk);
            let answer = answer(request);
            async move {
                let answer = answer.await;
                let switches = answer.as_ref().is_ok_and(|it| it.status() == StatusCode::SWITCHING_PROTOCOLS);
                desk.answered(this, if switches { After::Tunnel } else { After::Http });
                last.set(answer.as_ref().is_ok_and(|it| it.body().is_shelved()));
                answer
            }
        });
        let mut connection = builder(&rules).serve_connection(io, service).with_upgrades();
        let mut park_after = PARK_AFTER;
        let call = loop {
            let call = {
                let timeouts = Timeouts { idle: self.timeouts.idle.min(park_after), ..self.timeouts };
                let mut called = pin!(self.called(timeouts));
                std::future::poll_fn(|cx| {
                    if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                        return Poll::Ready(Next::Done(done));
                    }
                    let at_once = brief.get() || self.worker.connections.get() > CROWDED;
                    if at_once && self.has_nothing_to_do(&desk) {
                        return Poll::Ready(Next::Park);
                    }
                    called.as_mut().poll(cx).map(Next::Call)
                })
                .await
            };
            match call {
                Next::Done(done) => {
                    if !desk.is_parked() || done.is_err() {
                        ended(done);
                        return None;
                    }
                    let parts = connection.into_parts()?;
                    return parts.io.into_inner().into_inner().map(Watched::into_inner).and_then(Prefixed::into_inner);
                }
                Next::Call(Call::Expired(Phase::Idle)) if self.activity.age() < self.timeouts.idle => {}
                Next::Call(call) => break call,
                Next::Park => {}
            }
            // Its client has not taken the last answer yet: it is looked at again later, and not at once for ever.
            park_after = self.activity.age() + PARK_AFTER;
            if self.has_nothing_to_do(&desk) {
                // On an idle connection this ends it without a byte written.
                desk.park();
                Pin::new(&mut connection).graceful_shutdown();
            }
        };
        match call {
            Call::Expired(Phase::Head) => {
                if desk.has_begun() {
                    self.worker.metrics.connection_cut("slow-head");
                }
                desk.expire();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            Call::Expired(Phase::Stalled) => self.worker.metrics.connection_cut("write-stall"),
            Call::Expired(_) => {
                Pin::new(&mut connection).graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            // The request that runs is finished, a head that has begun is still awaited.
            Call::Drain => {
                let last = farewell(connection, desk, |it| it.graceful_shutdown());
                self.last_request(last).await;
            }
        }
        None
    }

    /// Asked once: a parser that does not end when it is told to must not be told so for ever.
    fn has_nothing_to_do(&self, desk: &Desk) -> bool {
        self.activity.phase() == Phase::Idle && desk.is_quiet() && !desk.is_parked()
    }
}

enum Next {
    Done(hyper::Result<()>),
    Call(Call),
    Park,
}

fn builder(rules: &Rules) -> conn::http1::Builder {
    let mut builder = conn::http1::Builder::new();
    // hyper's own timer would cost a boxed sleep per request; `Activity` watches heads and idleness instead.
    builder
        .header_read_timeout(None)
        .max_header_size(rules.header_max + rules.target_max + REQUEST_LINE_REST)
        .writev(true);
    if rules.fields_max > PARSER_FIELDS {
        builder.max_headers(rules.fields_max);
    }
    if rules.header_max > PARSER_BUFFER / 2 {
        builder.max_buf_size(rules.header_max + PARSER_BUFFER);
    }
    builder
}

/// Drives the connection to its end, which `shut` tells it to come to. hyper would close one at once on which it has seen
/// nothing, though half a head may be held at the gate.
async fn farewell<C: Future + Unpin>(mut connection: C, desk: Desk, shut: impl Fn(Pin<&mut C>)) -> C::Output {
    let mut told = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(done);
            }
            if told || desk.has_begun() {
                return Poll::Pending;
            }
            told = true;
            shut(Pin::new(&mut connection));
        }
    })
    .await
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        target_max: settings.uri_bytes_max.min(PARSER_TARGET_MAX),
        header_max: settings.header_bytes_max,
        fields_max: settings.headers_max,
    }
}

/// What the parser saw in place of a refused request becomes, as far as it is known, that request again; its verdict goes
/// along.
fn refused(request: &mut Request<Incoming>, number: u64, desk: &Desk) {
    let Some(verdict) = desk.verdict(number) else { return };
    if let Some(method) = verdict.method.clone() {
        *request.method_mut() = method;
    }
    if let Some(target) = verdict.target.clone() {
        *request.uri_mut() = target;
    }
    request.extensions_mut().insert(verdict);
}
