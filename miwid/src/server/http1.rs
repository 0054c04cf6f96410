//! HTTP/1.1 on a connection: the gate judges its bytes, hyper drives it, `Activity` ends it when it is silent for too long.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{
    connection::{Aborted, Answer, Call, Connection, FAREWELL, Io, ended, service},
    finish::Tracked,
    front::{Departure, Front},
};
use crate::{
    net::{After, Bell, Desk, Gated, Lingering, Phase, Preface, Prefixed, Rules, Timeouts, Watched, sniff},
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
    ///
    /// A block and not an `async fn`, which would keep room for its arguments twice; all that is not `Front` is boxed, so that
    /// it takes no room while `Front` has the connection; and what `Front` waits for beside its io is kept here, once.
    pub(super) fn http1<T: Io>(self, io: T) -> impl Future<Output = ()> {
        let is_cleartext = io.socket().is_some();
        let mut front = Front::new(io, is_cleartext);
        async move {
            let mut timer = pin!(tokio::time::sleep(self.timeouts.head.min(self.timeouts.idle)));
            let mut rung = self.bell.rung();
            loop {
                let served = std::future::poll_fn(|cx| front.poll_serve(&self, timer.as_mut(), &mut rung, cx));
                let departure = served.await;
                let Some(io) = Box::pin(self.depart(front, departure)).await else { return };
                front = Front::new(io, false);
            }
        }
    }

    /// What has to be done away from `Front`. The io comes back when the connection may go on as before.
    async fn depart<T: Io>(&self, mut front: Front<T>, departure: Departure) -> Option<T> {
        let unread = match departure {
            Departure::End => {
                front.abandon(self);
                return None;
            }
            Departure::Stalled => {
                self.worker.metrics.connection_cut("write-stall");
                front.abandon(self);
                return None;
            }
            Departure::Talkative => {
                // Whether it hears the goodbye is its own affair.
                let _ = Lingering::new(front.into_io()).shutdown().await;
                return None;
            }
            Departure::Parser(unread) => unread,
            Departure::Preface(unread) => match self.sniff(front.io(), unread).await? {
                (Preface::Http2, unread) => {
                    Box::pin(self.clone().http2(Prefixed::new(unread, front.into_io()))).await;
                    return None;
                }
                (_, unread) => unread,
            },
        };
        Box::pin(self.parse(Prefixed::new(unread, front.into_io()))).await
    }

    /// `None`: it never said what it speaks, or is owed nothing any more.
    async fn sniff(&self, io: &mut impl Io, unread: Bytes) -> Option<(Preface, Bytes)> {
        let (preface, unread) = tokio::select! {
            sniffed = tokio::time::timeout(self.timeouts.head, sniff(io, unread)) => sniffed.ok()?.ok()?,
            () = self.bell.rung() => return None,
        };
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
        self.activity.set_desk(Some(desk.clone()));
        let io = TokioIo::new(Gated::new(self.watched(io), rules, desk.clone()));
        let brief = Rc::new(Cell::new(false));
        let (answer, number) = (service::<Incoming>(self), Cell::new(0));
        let (clerk, last) = (desk.clone(), brief.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let this = number.get() + 1;
            number.set(this);
            refused(&mut request, this, &clerk);
            told(answer(request), this, clerk.clone(), last.clone(), self.bell.clone())
        });
        let mut connection = builder(&rules).serve_connection(io, service).with_upgrades();
        match self.drive(&mut connection, &desk, &brief, |it| it.graceful_shutdown()).await {
            Ok(Ok(())) if desk.is_parked() => {
                let gated = connection.into_parts()?.io.into_inner();
                gated.into_inner().map(Watched::into_inner).and_then(Prefixed::into_inner)
            }
            Ok(done) => {
                ended(done);
                None
            }
            Err(call) => {
                self.conclude(call, connection, desk, |it| it.graceful_shutdown()).await;
                None
            }
        }
    }

    /// Drives the parser to the end that it comes to, or is told to come to when it has nothing to do; an error is somebody
    /// who calls.
    async fn drive<C>(
        &self,
        connection: &mut C,
        desk: &Desk,
        brief: &Cell<bool>,
        shut: impl Fn(Pin<&mut C>),
    ) -> Result<hyper::Result<()>, Call>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        let mut idle = self.timeouts.idle.min(PARK_AFTER);
        loop {
            let mut called = pin!(self.called(Timeouts { idle, ..self.timeouts }));
            let next = std::future::poll_fn(|cx| {
                if let Poll::Ready(done) = Pin::new(&mut *connection).poll(cx) {
                    return Poll::Ready(Next::Done(done));
                }
                let at_once = brief.get() || self.worker.connections.get() > CROWDED;
                if at_once && self.has_nothing_to_do(desk) {
                    return Poll::Ready(Next::Park);
                }
                called.as_mut().poll(cx).map(Next::Call)
            });
            match next.await {
                Next::Done(done) => return Ok(done),
                Next::Call(Call::Expired(Phase::Idle)) if self.activity.age() < self.timeouts.idle => {}
                Next::Call(call) => return Err(call),
                Next::Park => {}
            }
            idle = look_again(self.activity.age(), self.timeouts.idle);
            if self.has_nothing_to_do(desk) {
                // On an idle connection this ends the parser without a byte written.
                desk.park();
                shut(Pin::new(&mut *connection));
            }
        }
    }

    /// Asked once: a parser that does not end when it is told to must not be told so for ever.
    fn has_nothing_to_do(&self, desk: &Desk) -> bool {
        self.activity.phase() == Phase::Idle && desk.is_quiet() && !desk.is_parked()
    }

    /// The last that a connection sees of us.
    async fn conclude<C>(&self, call: Call, mut connection: C, desk: Desk, shut: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
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
                shut(Pin::new(&mut connection));
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            // The request that runs is finished, a head that has begun is still awaited.
            Call::Drain => self.last_request(farewell(connection, desk, shut)).await,
        }
    }
}

/// An answer, and what the others of its connection have to know of it.
async fn told(
    answer: Answer,
    number: u64,
    desk: Desk,
    brief: Rc<Cell<bool>>,
    bell: Bell,
) -> Result<Response<Tracked>, Aborted> {
    let mut answer = answer.await;
    let switches = answer.as_ref().is_ok_and(|it| it.status() == StatusCode::SWITCHING_PROTOCOLS);
    desk.answered(number, if switches { After::Tunnel } else { After::Http });
    brief.set(answer.as_ref().is_ok_and(|it| it.body().is_shelved()));
    if let Some(answer) = answer.as_mut().ok().filter(|_| !switches && bell.is_announced()) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// How old an idle connection will be when it is looked at again. Not at once: one whose client has not taken its last answer
/// yet has still something to do, and would be looked at for ever.
fn look_again(age: Duration, idle: Duration) -> Duration {
    (age + PARK_AFTER).min(idle)
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::{
        super::{connection::Serving, lasting::Lasting},
        *,
    };
    use crate::tls::Carrier;

    /// Thousands of them wait at a time. A larger one is no mistake in itself, but should be meant.
    #[test]
    fn a_connection_between_requests_stays_small() {
        fn size<A, F>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let plain = size(|(connection, io): (Connection, TcpStream)| connection.http1(io));
        assert!(plain <= 416, "{plain} bytes");
        let secured = size(|(connection, io): (Connection, Box<Carrier>)| connection.http1(io));
        assert!(secured <= plain, "{secured} bytes");
        assert!(size_of::<Serving>() <= 24, "{} bytes", size_of::<Serving>());
        assert!(size_of::<Lasting>() <= 272, "{} bytes", size_of::<Lasting>());
    }

    #[test]
    fn an_idle_connection_is_looked_at_now_and_then_until_it_has_idled_enough() {
        let idle = Duration::from_secs(65);
        let mut age = Duration::ZERO;
        for looks in 1..=65 {
            let next = look_again(age, idle);
            assert!(next > age, "{age:?}");
            age = next;
            assert_eq!(age == idle, looks == 65, "{age:?} after {looks} looks");
        }
    }
}
