//! One client connection: which protocol it speaks, and when it has been silent for too long.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{finish::Tracked, listeners::Kind, service, worker::Worker};
use crate::{
    exchange::{Peer, Scheme, Source},
    net::{
        Activity, DrainSignal, Phase, Preface, Timeouts, Watched,
        proxy_protocol::{self, Header},
        sniff,
    },
    snapshot::Snapshot,
    telemetry::Handshake,
    tls::{HANDSHAKE_MAX, Refusal, kind},
};

/// A client that has been told to go gets this long to take what it is owed.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// A balancer writes its header before anything else: it takes no longer than this.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// What carries HTTP: a TCP connection, or the TLS over it.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// A connection before it is known what it speaks.
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) kind: Kind,
    pub(super) drain: DrainSignal,
}

pub(super) async fn serve(worker: &Rc<Worker>, arrival: Arrival) {
    let Arrival { mut stream, remote, kind, mut drain } = arrival;
    let Ok(local) = stream.local_addr() else { return };
    let mut opening = Opening {
        worker: worker.clone(),
        snapshot: worker.snapshot(),
        peer: Peer { remote, local, scheme: Scheme::Http, secured: None },
        drain: drain.clone(),
    };
    let opened = async {
        if opening.snapshot.settings.expects_proxy_header(remote.ip()) {
            introduced(&mut stream, &mut opening.peer).await?;
        }
        if kind == Kind::Http { opening.cleartext(stream).await } else { opening.secured(stream).await }
    };
    // A connection that has not said what it speaks is owed nothing when the daemon stops.
    let opened = tokio::select! {
        opened = opened => opened,
        () = drain.started() => return,
    };
    if let Some(speaking) = opened {
        speaking.await;
    }
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
type Speaking = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A connection that is finding out what it speaks.
struct Opening {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    peer: Peer,
    drain: DrainSignal,
}

impl Opening {
    async fn cleartext(self, stream: TcpStream) -> Option<Speaking> {
        let settings = &self.snapshot.settings;
        let (preface, io) = tokio::time::timeout(settings.request_timeout, sniff(stream)).await.ok()?.ok()?;
        let version = match preface {
            Preface::Closed => return None,
            Preface::Http2 if settings.http2_cleartext => Version::Http2,
            Preface::Http1 | Preface::Http2 => Version::Http1,
        };
        Some(self.speaking(io, version))
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
        self.worker.shard.handshake(match kind(io.get_ref().1) {
            HandshakeKind::Full => Handshake::Full,
            HandshakeKind::FullWithHelloRetryRequest => Handshake::FullRetry,
            HandshakeKind::Resumed => Handshake::Resumed,
        });
        let version = if io.get_ref().1.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
        (self.peer.scheme, self.peer.secured) = (Scheme::Https, Some(settled));
        Some(self.speaking(io, version))
    }

    fn speaking(self, io: impl Io, version: Version) -> Speaking {
        let Self { worker, snapshot, peer, drain } = self;
        let connection = Connection::new(&worker, &snapshot, peer, drain);
        match version {
            Version::Http1 => Box::pin(async move { connection.http1(io, &snapshot).await }),
            Version::Http2 => Box::pin(async move { connection.http2(io, &snapshot).await }),
        }
    }
}

fn refused(worker: &Worker, peer: &Peer, refusal: &Refusal) {
    worker.shard.handshake(match refusal {
        Refusal::UnknownName(_) => Handshake::UnknownName,
        Refusal::Handshake(_) => Handshake::Failed,
    });
    tracing::debug!(target: "tls", remote = %peer.remote, ?refusal, "handshake refused");
}

/// A connection whose protocol is known. `http1` and `http2` drive it.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Peer,
    pub(super) activity: Activity,
    pub(super) timeouts: Timeouts,
    pub(super) drain: DrainSignal,
}

/// What the driver of a connection hears beside the connection itself.
pub(super) enum Call {
    Expired(Phase),
    Drain,
}

impl Connection {
    fn new(worker: &Rc<Worker>, snapshot: &Snapshot, peer: Peer, drain: DrainSignal) -> Self {
        let settings = &snapshot.settings;
        let timeouts = Timeouts { idle: settings.keepalive_timeout, head: settings.request_timeout };
        let activity = Activity::new(worker.shard.clone());
        Self { worker: worker.clone(), peer, activity, timeouts, drain }
    }

    pub(super) fn watched<T: Io>(&self, io: T) -> Watched<T> {
        Watched::new(io, self.activity.clone())
    }

    /// After `graceful_shutdown` the connection ends by itself; only a head that never comes must be cut.
    pub(super) async fn last_request(self, connection: impl Future<Output = hyper::Result<()>>) {
        let expiry = pin!(self.expired());
        let connection = pin!(connection);
        if let futures_util::future::Either::Left((done, _)) = futures_util::future::select(connection, expiry).await {
            ended(done);
        }
    }

    pub(super) async fn called(&mut self) -> Call {
        let mut drain = self.drain.clone();
        tokio::select! {
            phase = self.expired() => Call::Expired(phase),
            () = drain.started() => Call::Drain,
        }
    }

    async fn expired(&self) -> Phase {
        let mut timer = pin!(tokio::time::sleep(self.timeouts.head.min(self.timeouts.idle)));
        std::future::poll_fn(|cx| self.activity.poll_expired(self.timeouts, timer.as_mut(), cx)).await
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Tracked>, Aborted>>>>;

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
    move |request| {
        let answer = service::serve(worker.clone(), peer.clone(), activity.clone(), request);
        let metrics = worker.metrics.clone();
        Box::pin(async move {
            AssertUnwindSafe(answer).catch_unwind().await.map_err(|_| {
                metrics.panicked();
                Aborted
            })
        })
    }
}

pub(super) fn ended(done: hyper::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "connection ended early");
    }
}
