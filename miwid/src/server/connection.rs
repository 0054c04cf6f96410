//! One client connection: which protocol it speaks, and when it has been silent for too long.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{finish::Tracked, service, worker::Worker};
use crate::{
    exchange::{Peer, Scheme},
    net::{Activity, DrainSignal, Phase, Preface, Prefixed, Timeouts, Watched, sniff},
    snapshot::Snapshot,
};

/// A client that has been told to go gets this long to take what it is owed.
const FAREWELL: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\nmiwi-reason: head-timeout\r\ncontent-length: 0\r\n\r\n";
/// Uploads and downloads over many streams share one connection: room for a fast path's bandwidth times its delay.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const STREAMS_MAX: u32 = 128;

type Io = TokioIo<Watched<Prefixed<TcpStream>>>;

pub(super) async fn serve(worker: &Rc<Worker>, stream: TcpStream, remote: SocketAddr, mut drain: DrainSignal) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = Peer { remote, local, scheme: Scheme::Http };
    let snapshot = worker.snapshot();
    let timeouts = Timeouts { idle: snapshot.settings.keepalive_timeout, head: snapshot.settings.request_timeout };
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(timeouts.head, sniff(stream)) => sniffed,
        () = drain.started() => return,
    };
    let Ok(Ok((preface, io))) = sniffed else { return };
    let activity = Activity::new(worker.shard.clone());
    let io = TokioIo::new(Watched::new(io, activity.clone()));
    let connection = Connection { worker: worker.clone(), peer, activity, timeouts, drain };
    match preface {
        Preface::Closed => {}
        Preface::Http2 if snapshot.settings.http2_cleartext => connection.http2(io, &snapshot).await,
        Preface::Http1 | Preface::Http2 => connection.http1(io, &snapshot).await,
    }
}

struct Connection {
    worker: Rc<Worker>,
    peer: Peer,
    activity: Activity,
    timeouts: Timeouts,
    drain: DrainSignal,
}

/// What the driver of a connection hears beside the connection itself.
enum Call {
    Expired(Phase),
    Drain,
}

impl Connection {
    async fn http1(mut self, io: Io, snapshot: &Snapshot) {
        let mut builder = conn::http1::Builder::new();
        // hyper's own timer would cost a boxed sleep per request; `Activity` watches heads and idleness instead.
        builder.header_read_timeout(None).max_header_size(snapshot.settings.header_bytes_max).writev(true);
        let service = service_fn(service(self.worker.clone(), self.peer, self.activity.clone()));
        let mut connection = builder.serve_connection(io, service).with_upgrades();
        let call = tokio::select! {
            done = &mut connection => return ended(done),
            call = self.called() => call,
        };
        match call {
            Call::Expired(Phase::Head) => {
                if let Some(parts) = connection.into_parts() {
                    refuse_slow_head(parts.io.into_inner().into_inner().into_inner()).await;
                }
            }
            Call::Expired(_) => {
                Pin::new(&mut connection).graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            // The request that runs is finished, a head that has begun is still awaited.
            Call::Drain => {
                Pin::new(&mut connection).graceful_shutdown();
                self.last_request(connection).await;
            }
        }
    }

    /// After `graceful_shutdown` the connection ends by itself; only a head that never comes must be cut.
    async fn last_request(self, connection: impl Future<Output = hyper::Result<()>>) {
        let expiry = pin!(self.expired());
        let connection = pin!(connection);
        if let futures_util::future::Either::Left((done, _)) = futures_util::future::select(connection, expiry).await {
            ended(done);
        }
    }

    async fn http2(mut self, io: Io, snapshot: &Snapshot) {
        let mut builder = conn::http2::Builder::new(LocalExecutor);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(snapshot.settings.header_bytes_max).unwrap_or(u32::MAX));
        let service = service_fn(service(self.worker.clone(), self.peer, self.activity.clone()));
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            done = &mut connection => return ended(done),
            _ = self.called() => connection.as_mut().graceful_shutdown(),
        }
        self.last_request(connection).await;
    }

    async fn called(&mut self) -> Call {
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
struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request panicked")
    }
}

impl std::error::Error for Aborted {}

fn service(worker: Rc<Worker>, peer: Peer, activity: Activity) -> impl Fn(Request<Incoming>) -> Answer {
    move |request| {
        let answer = service::serve(worker.clone(), peer, activity.clone(), request);
        let metrics = worker.metrics.clone();
        Box::pin(async move {
            AssertUnwindSafe(answer).catch_unwind().await.map_err(|_| {
                metrics.panicked();
                Aborted
            })
        })
    }
}

fn ended(done: hyper::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn refuse_slow_head(mut stream: TcpStream) {
    let farewell = async {
        stream.write_all(REQUEST_TIMEOUT).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// HTTP/2 streams are tasks of the worker that owns the connection.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
