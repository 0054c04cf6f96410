//! What follows a 101: bytes both ways until one side has enough, nothing moves for too long, or the endpoint is
//! withdrawn. The tunnel outlives its exchange, so it holds nothing of it but the endpoint's count.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::pump;
use crate::{
    exchange::TunnelEnd,
    upstream::{Endpoint, InFlight},
};

/// Each side must hand over its connection within this after the 101.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Tunnel {
    pub client: OnUpgrade,
    pub upstream: OnUpgrade,
    pub in_flight: InFlight,
    pub idle_timeout: Duration,
    pub drain: config::StreamDrain,
}

impl Tunnel {
    /// Starts the tunnel on this worker; the receiver hears of its end.
    pub(super) fn start(self) -> oneshot::Receiver<TunnelEnd> {
        let (end, ended) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let _ = end.send(self.run().await);
        });
        ended
    }

    async fn run(self) -> TunnelEnd {
        let Self { client, upstream, in_flight, idle_timeout, drain } = self;
        let both = async { tokio::try_join!(client, upstream) };
        let Ok(Ok((client, upstream))) = tokio::time::timeout(HANDOVER_TIMEOUT, both).await else {
            return TunnelEnd::default();
        };
        let moved = Rc::new(Cell::new(Instant::now()));
        let mut client = Counted::new(TokioIo::new(client), moved.clone());
        let mut upstream = Counted::new(TokioIo::new(upstream), moved.clone());
        let closing = closing(in_flight.endpoint(), drain);
        tokio::select! {
            _ = pump::both(&mut client, &mut upstream) => {}
            () = closing => {}
            () = quiet(&moved, idle_timeout) => {}
        }
        TunnelEnd { from_client: client.read, to_client: upstream.read }
    }
}

/// Resolves when a stream to this endpoint has to end, because it was withdrawn.
pub(super) fn closing(endpoint: &Endpoint, drain: config::StreamDrain) -> impl Future<Output = ()> + use<> {
    let retired = endpoint.retired();
    async move {
        retired.await;
        match drain {
            config::StreamDrain::Now => {}
            config::StreamDrain::CloseAfter(grace) => tokio::time::sleep(grace).await,
            config::StreamDrain::Wait => std::future::pending().await,
        }
    }
}

/// Resolves when nothing has moved for `timeout`.
async fn quiet(moved: &Cell<Instant>, timeout: Duration) {
    loop {
        let until = moved.get() + timeout;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// Counts what is read from one side.
struct Counted<S> {
    stream: S,
    read: u64,
    moved: Rc<Cell<Instant>>,
}

impl<S> Counted<S> {
    fn new(stream: S, moved: Rc<Cell<Instant>>) -> Self {
        Self { stream, read: 0, moved }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.read += (buffer.filled().len() - before) as u64;
        self.moved.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
