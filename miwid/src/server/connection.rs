//! One client connection: which protocol it speaks, and when it has been silent for too long.

use std::{
    future, io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    finish::Tracked,
    listeners::Kind,
    service::{self, TakenUp},
    worker::Worker,
};
use crate::{
    exchange::{Peer, Scheme, Source},
    net::{
        Activity, Bell, Phase, Prefixed, Timeouts, Watched,
        proxy_protocol::{self, Header},
    },
    snapshot::Snapshot,
    telemetry::{Handshake, Metrics},
    tls::{Carrier, HANDSHAKE_MAX, Refusal, kind},
};

/// A client that has been told to go gets this long to take what it is owed.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// Cloudflare uses a connection again within 900 s; one that we close just then is a failed request to it (520).
const EDGE_KEEPALIVE: Duration = Duration::from_secs(905);

/// A balancer writes its header before anything else: it takes no longer than this.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// From here on a file goes to a plaintext socket without passing through our memory.
const SENDFILE_FROM: u64 = 16 << 10;
/// From here on it is worth it to give the kernel the keys: that takes three system calls, once for a connection.
const KERNEL_FROM: u64 = 256 << 10;

/// What carries HTTP: a TCP connection, or the TLS over it.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The socket itself, where nothing lies between.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// Tells a client that has all that it is owed that nothing follows, where there is more to say than that the socket ends;
    /// whether it hears that is its own affair.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.socket().is_some() { Poll::Ready(()) } else { Pin::new(self).poll_shutdown(cx).map(drop) }
    }

    /// Whether a file so long goes to the client past our memory. What has to be done for it is done.
    fn takes_file(&mut self, _length: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// What a file is sent to, if one is taken.
    fn poll_file_socket(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<&TcpStream>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// So many bytes went there at once.
    fn has_sent(&mut self, _bytes: usize) {}
}

impl Io for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn takes_file(&mut self, length: u64) -> io::Result<bool> {
        Ok(length >= SENDFILE_FROM)
    }

    fn poll_file_socket(&mut self, _: &mut Context<'_>) -> Poll<io::Result<&TcpStream>> {
        Poll::Ready(Ok(self))
    }
}

/// Boxed: it is large, and moves from hand to hand.
impl Io for Box<Carrier> {
    fn takes_file(&mut self, length: u64) -> io::Result<bool> {
        if length < KERNEL_FROM { Ok(false) } else { self.hand_over() }
    }

    fn poll_file_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&TcpStream>> {
        self.poll_socket(cx)
    }

    fn has_sent(&mut self, bytes: usize) {
        Carrier::has_sent(self, bytes);
    }
}

impl<T: Io> Io for Prefixed<T> {}

/// A connection before it is known what it speaks.
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    /// `None`: the listener has all of the machine's addresses, and the stream knows which.
    pub(super) local: Option<SocketAddr>,
    pub(super) kind: Kind,
    pub(super) bell: Bell,
}

/// Boxed, so that a connection that is known does not carry the room its handshake needed.
pub(super) fn serve(worker: &Rc<Worker>, arrival: Arrival) -> Serving {
    let (worker, rung) = (worker.clone(), arrival.bell.rung());
    Serving::Opening(Box::pin(async move {
        tokio::select! {
            opened = open(worker, arrival) => opened,
            // A connection that has not said what it speaks is owed nothing when the daemon stops.
            () = rung => None,
        }
    }))
}

/// Written out, because what awaits one future after the other has room for both, and for each of them twice.
pub(super) enum Serving {
    Opening(Pin<Box<dyn Future<Output = Option<Speaking>>>>),
    Speaking(Speaking),
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Opening(opened) = &mut *self {
            let Some(speaking) = ready!(opened.as_mut().poll(cx)) else { return Poll::Ready(()) };
            *self = Self::Speaking(speaking);
        }
        match &mut *self {
            Self::Speaking(speaking) => speaking.as_mut().poll(cx),
            Self::Opening(_) => Poll::Pending,
        }
    }
}

async fn open(worker: Rc<Worker>, arrival: Arrival) -> Option<Speaking> {
    let Arrival { mut stream, remote, local, kind, bell } = arrival;
    let local = local.or_else(|| stream.local_addr().ok())?;
    let snapshot = worker.snapshot();
    let mut peer = Peer { remote, local, scheme: Scheme::Http, secured: None };
    if snapshot.settings.expects_proxy_header(remote.ip()) {
        introduced(&mut stream, &mut peer).await?;
    }
    if snapshot.settings.hangs_up_on(peer.remote.ip()) {
        worker.metrics.connection_cut("only-cloudflare");
        return None;
    }
    let opening = Opening { worker, snapshot, peer, bell };
    if kind == Kind::Http { Some(opening.cleartext(stream)) } else { opening.secured(stream).await }
}

/// Lets a trusted balancer say whose connection this is. One that says nothing, or nonsense, is not served.
async fn introduced(stream: &mut TcpStream, peer: &mut Peer) -> Option<()> {
    match tokio::time::timeout(INTRODUCTION, proxy_protocol::read(stream)).await {
        Ok(Ok(Header::Proxied { source, destination })) => {
            peer.remote = source;
            peer.local = destination;
        }
        Ok(Ok(Header::Local)) => {}
        Ok(Err(error)) => {
            tracing::debug!(remote = %peer.remote, %error, "no PROXY protocol header");
            return None;
        }
        Err(_) => {
            tracing::debug!(remote = %peer.remote, "the PROXY protocol header came too slowly");
            return None;
        }
    }
    Some(())
}

/// A connection that knows what it speaks and goes on by itself.
pub(super) type Speaking = Pin<Box<dyn Future<Output = ()>>>;

/// A connection that is finding out what it speaks.
struct Opening {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    peer: Peer,
    bell: Bell,
}

impl Opening {
    /// What it speaks, its first bytes will say.
    fn cleartext(self, stream: TcpStream) -> Speaking {
        let connection = self.connection();
        Box::pin(connection.http1(stream))
    }

    async fn secured(mut self, stream: TcpStream) -> Option<Speaking> {
        let terminator = self.snapshot.tls.clone()?;
        let deadline = self.snapshot.settings.request_timeout.min(HANDSHAKE_MAX);
        let (io, settled) = match tokio::time::timeout(deadline, terminator.accept(stream)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(refusal)) => {
                refused(&self.worker, &self.peer, &refusal);
                return None;
            }
            Err(_) => {
                self.worker.shard.handshake(Handshake::Timeout);
                tracing::debug!(target: "tls", remote = %self.peer.remote, "handshake not finished in time");
                return None;
            }
        };
        self.worker.shard.handshake(match kind(io.settled()) {
            HandshakeKind::Full => Handshake::Full,
            HandshakeKind::FullWithHelloRetryRequest => Handshake::FullRetry,
            HandshakeKind::Resumed => Handshake::Resumed,
        });
        let is_http2 = io.settled().alpn_protocol() == Some(b"h2");
        let io = Box::new(Carrier::new(io, terminator.kernel()));
        (self.peer.scheme, self.peer.secured) = (Scheme::Https, Some(settled));
        let connection = self.connection();
        Some(if is_http2 { Box::pin(connection.http2(io)) } else { Box::pin(connection.http1(io)) })
    }

    fn connection(self) -> Connection {
        let Self { worker, snapshot, peer, bell } = self;
        let settings = &snapshot.settings;
        let idle = match settings.is_edge(peer.remote.ip()) {
            true => settings.keepalive_timeout.max(EDGE_KEEPALIVE),
            false => settings.keepalive_timeout,
        };
        let timeouts = Timeouts { idle, head: settings.request_timeout };
        let activity = Activity::new(worker.shard.clone());
        Connection { worker, peer, activity, timeouts, bell }
    }
}

fn refused(worker: &Worker, peer: &Peer, refusal: &Refusal) {
    worker.shard.handshake(match refusal {
        Refusal::UnknownName(_) => Handshake::UnknownName,
        Refusal::Challenge => Handshake::Full,
        Refusal::Handshake(_) => Handshake::Failed,
    });
    tracing::debug!(target: "tls", remote = %peer.remote, ?refusal, "handshake refused");
}

/// A connection whose protocol is known. `http1` and `http2` drive it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Peer,
    pub(super) activity: Activity,
    pub(super) timeouts: Timeouts,
    pub(super) bell: Bell,
}

/// What the driver of a connection hears beside the connection itself.
pub(super) enum Call {
    Expired(Phase),
    Drain,
}

impl Connection {
    pub(super) fn watched<T: Io>(&self, io: T) -> Watched<T> {
        Watched::new(io, self.activity.clone())
    }

    /// After `graceful_shutdown` the connection ends by itself; only a head that never comes must be cut.
    pub(super) async fn last_request(&self, connection: impl Future<Output = hyper::Result<()>>) {
        let expiry = pin!(self.expired(self.timeouts));
        let connection = pin!(connection);
        if let futures_util::future::Either::Left((done, _)) = futures_util::future::select(connection, expiry).await {
            ended(done);
        }
    }

    pub(super) fn ask(&self, request: Request<Source>, taken_up: Option<TakenUp>) -> Answer {
        answer(&self.worker, &self.peer, &self.activity, request, taken_up)
    }

    /// Whether it speaks for its own client alone, and like all others: a trusted peer speaks for others, a certificate may
    /// open more, and who has to go is told so.
    pub(super) fn is_ordinary(&self, snapshot: &Snapshot) -> bool {
        let remote = self.peer.remote.ip();
        self.peer.secured.as_ref().is_none_or(|it| it.is_open_to_all())
            && !snapshot.settings.trusts(remote.to_canonical())
            && !snapshot.settings.stands_apart(remote)
            && !self.bell.is_announced()
    }

    pub(super) async fn called(&self, timeouts: Timeouts) -> Call {
        tokio::select! {
            phase = self.expired(timeouts) => Call::Expired(phase),
            () = self.bell.rung() => Call::Drain,
        }
    }

    async fn expired(&self, timeouts: Timeouts) -> Phase {
        let mut timer = pin!(tokio::time::sleep(timeouts.head.min(timeouts.idle)));
        future::poll_fn(|cx| self.activity.poll_expired(timeouts, timer.as_mut(), cx)).await
    }
}

/// A panic in `serving` ends it and nothing else; whoever counts what is open still gets to count it down.
pub(super) fn contained<F: Future<Output = ()>>(metrics: &Metrics, serving: F) -> impl Future<Output = ()> + use<F> {
    let metrics = metrics.clone();
    AssertUnwindSafe(serving).catch_unwind().map(move |ended| {
        if ended.is_err() {
            metrics.panicked();
        }
    })
}

/// An answer that is being made. A panic ends it, and nothing else.
pub(super) struct Answer {
    worker: Rc<Worker>,
    /// `None`: it never began.
    making: Option<Pin<Box<dyn Future<Output = Response<Tracked>>>>>,
}

impl Future for Answer {
    type Output = Result<Response<Tracked>, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let making = self.making.as_mut().map(|it| catch_unwind(AssertUnwindSafe(|| it.as_mut().poll(cx))));
        match making {
            Some(Ok(made)) => made.map(Ok),
            Some(Err(_)) | None => {
                self.worker.metrics.panicked();
                Poll::Ready(Err(Aborted))
            }
        }
    }
}

/// A panic in one request: its connection is cut, the daemon goes on.
#[derive(Debug)]
pub(super) struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request panicked")
    }
}

impl std::error::Error for Aborted {}

/// Answers the requests of one connection, whatever version they came in.
pub(super) fn service<B: Into<Source> + 'static>(connection: &Connection) -> impl Fn(Request<B>) -> Answer + use<B> {
    let (worker, peer, activity) = (connection.worker.clone(), connection.peer.clone(), connection.activity.clone());
    move |request| answer(&worker, &peer, &activity, request, None)
}

fn answer<B: Into<Source> + 'static>(
    worker: &Rc<Worker>,
    peer: &Peer,
    activity: &Activity,
    request: Request<B>,
    taken_up: Option<TakenUp>,
) -> Answer {
    // In its box at once: it is large.
    let begin = || -> Pin<Box<dyn Future<Output = Response<Tracked>>>> {
        Box::pin(service::serve(worker.clone(), peer.clone(), activity, request, taken_up))
    };
    Answer { worker: worker.clone(), making: catch_unwind(AssertUnwindSafe(begin)).ok() }
}

pub(super) fn ended(done: hyper::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "connection ended early");
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_what_comes_after_it_happens() {
        let metrics = Metrics::default();
        let (mut well, mut ill) =
            (pin!(contained(&metrics, async {})), pin!(contained(&metrics, async { panic!("on purpose") })));
        let count = || metrics.exposition().lines().find(|it| it.starts_with("miwid_panics_total ")).map(str::to_owned);
        assert!(well.as_mut().now_or_never().is_some());
        assert_eq!(count().as_deref(), Some("miwid_panics_total 0"));
        assert!(ill.as_mut().now_or_never().is_some(), "who waits for the end hears of it");
        assert_eq!(count().as_deref(), Some("miwid_panics_total 1"));
    }
}
