//! What follows a 101: bytes both ways until one side has enough, nothing moves for too long, the endpoint is
//! withdrawn, or the daemon stops. The tunnel outlives its exchange, so it holds nothing of it but the endpoint's count.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::{
    boundary::{CLOSE_1012, Course},
    pump,
};
use crate::{
    exchange::{Ending, TunnelEnd},
    net::DrainSignal,
    upstream::{Endpoint, InFlight},
};

/// A stop does not send everybody away in the same moment: they would all come back in the same moment.
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// The part of the time that a stop has which is spent on that; the rest is for the farewells themselves.
const SPREAD_PART: u32 = 4;

/// All tunnels of one worker. They hear when it drains, and it waits for them.
#[derive(Clone)]
pub struct Tunnels {
    tracker: TaskTracker,
    drain: DrainSignal,
}

impl Tunnels {
    pub fn new(drain: DrainSignal) -> Self {
        Self { tracker: TaskTracker::new(), drain }
    }

    /// Resolves when no tunnel is open and none will be opened.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Resolves when it is one tunnel's turn to end, because the worker drains.
    async fn stopping(&self) {
        let mut drain = self.drain.clone();
        drain.started().await;
        let spread = spread(self.tracker.len(), drain.deadline());
        Box::pin(tokio::time::sleep(spread.mul_f64(fastrand::f64()))).await;
    }
}

/// A millisecond for each tunnel of the worker, as far as the time of the stop allows.
fn spread(tunnels: usize, deadline: Duration) -> Duration {
    Duration::from_millis(tunnels as u64).min(SPREAD_MAX).min(deadline / SPREAD_PART)
}

/// The client's side must hand over its connection within this after the 101.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame that is under way when its tunnel has to end may take so long to be whole, and so may our Close.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Tunnel<U> {
    pub client: OnUpgrade,
    pub upstream: U,
    pub in_flight: InFlight,
    pub idle_timeout: Duration,
    /// It gets a Close before it is cut; what else may have been agreed on is just cut.
    pub websocket: bool,
    pub drain: config::StreamDrain,
}

impl<U: AsyncRead + AsyncWrite + Unpin + 'static> Tunnel<U> {
    /// Starts the tunnel on this worker; what it gives hears of the end.
    pub(super) fn start(self, tunnels: &Tunnels) -> Ending {
        let ending = Ending::default();
        let (ended, all, handover) = (ending.clone(), tunnels.clone(), Box::pin(self.handover()));
        tunnels.tracker.spawn_local(async move {
            ended.end(match handover.await {
                Some(open) => open.run(&all).await,
                None => TunnelEnd::default(),
            });
        });
        ending
    }

    async fn handover(self) -> Option<Box<Open<U>>> {
        let Self { client, upstream, in_flight, idle_timeout, websocket, drain } = self;
        let client = tokio::time::timeout(HANDOVER_TIMEOUT, client).await.ok()?.ok()?;
        let moved = Rc::new(Cell::new(Instant::now()));
        let course = Rc::new(RefCell::new(Course::default()));
        let mut client = Counted::new(TokioIo::new(client), moved.clone());
        let mut upstream = Counted::new(upstream, moved.clone());
        if websocket {
            client.writes = Some(course.clone());
            upstream.reads = Some(course.clone());
        }
        Some(Box::new(Open { client, upstream, in_flight, moved, course, idle_timeout, websocket, drain }))
    }
}

/// A tunnel that both sides have.
struct Open<U> {
    client: Counted<TokioIo<Upgraded>>,
    upstream: Counted<U>,
    in_flight: InFlight,
    moved: Rc<Cell<Instant>>,
    course: Rc<RefCell<Course>>,
    idle_timeout: Duration,
    websocket: bool,
    drain: config::StreamDrain,
}

impl<U: AsyncRead + AsyncWrite + Unpin + 'static> Open<U> {
    /// Thousands of tunnels spend their lives here: what is needed at the end only is made then, and boxed.
    async fn run(mut self: Box<Self>, tunnels: &Tunnels) -> TunnelEnd {
        let Self { client, upstream, in_flight, moved, course, idle_timeout, websocket, drain } = &mut *self;
        let withdrawn = {
            let mut both = pin!(pump::both(client, upstream));
            let withdrawn = tokio::select! {
                _ = &mut both => false,
                () = closing(in_flight.endpoint(), *drain) => true,
                () = tunnels.stopping() => true,
                () = quiet(moved, *idle_timeout) => false,
            };
            if withdrawn && *websocket {
                let _ = Box::pin(tokio::time::timeout(FAREWELL, last_frames(both, course))).await;
            }
            withdrawn
        };
        if withdrawn && *websocket && course.borrow().is_clear() {
            let _ = Box::pin(tokio::time::timeout(FAREWELL, farewell(&mut client.stream))).await;
        }
        TunnelEnd { from_client: client.read, to_client: upstream.read }
    }
}

/// The tunnel goes on until all frames that it has begun to read are written.
async fn last_frames(mut both: Pin<&mut impl Future>, course: &RefCell<Course>) {
    course.borrow_mut().end();
    let is_over = || course.borrow().is_clear() && course.borrow().room().is_none();
    poll_fn(|cx| {
        let ended = is_over() || both.as_mut().poll(cx).is_ready() || is_over();
        if ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn farewell(client: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    client.write_all(&CLOSE_1012).await?;
    client.shutdown().await
}

/// Resolves when a stream to this endpoint has to end, because it was withdrawn.
pub(super) fn closing(endpoint: &Endpoint, drain: config::StreamDrain) -> impl Future<Output = ()> + use<> {
    endpoint.retired().then(async move |()| match drain {
        config::StreamDrain::Now => {}
        config::StreamDrain::CloseAfter(grace) => tokio::time::sleep(grace).await,
        config::StreamDrain::Wait => std::future::pending().await,
    })
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
    /// What is read or written here, where that is a WebSocket's on its way to the client.
    reads: Option<Rc<RefCell<Course>>>,
    writes: Option<Rc<RefCell<Course>>>,
}

impl<S> Counted<S> {
    fn new(stream: S, moved: Rc<Cell<Instant>>) -> Self {
        Self { stream, read: 0, moved, reads: None, writes: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Without room, nobody waits for what comes: the tunnel ends.
        let Some(room) = self.reads.as_ref().map_or(Some(usize::MAX), |it| it.borrow().room()) else {
            return Poll::Pending;
        };
        let before = buffer.filled().len();
        if room >= buffer.remaining() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
            let filled = part.filled().len();
            buffer.advance(filled);
        }
        let read = &buffer.filled()[before..];
        if let Some(course) = &self.reads {
            course.borrow_mut().read(read);
        }
        self.read += read.len() as u64;
        self.moved.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if let Some(course) = &self.writes {
            course.borrow_mut().written(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A text frame of a server.
    fn frame(text: &str) -> Vec<u8> {
        [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    #[tokio::test]
    async fn what_was_read_is_written_before_a_tunnel_ends_and_no_frame_is_cut() {
        let (mut client, near) = duplex(4);
        let (mut server, far) = duplex(1 << 10);
        let course = Rc::new(RefCell::new(Course::default()));
        let moved = Rc::new(Cell::new(Instant::now()));
        let mut near = Counted { writes: Some(course.clone()), ..Counted::new(near, moved.clone()) };
        let mut far = Counted { reads: Some(course.clone()), ..Counted::new(far, moved) };
        let third = frame("the third");
        server.write_all(&[frame("first"), frame("second"), third[..3].to_vec()].concat()).await.unwrap();
        {
            let mut both = pin!(pump::both(&mut near, &mut far));
            // It reads all that there is, and the client takes four bytes of it.
            assert!(futures_util::poll!(both.as_mut()).is_pending());
            server.write_all(&[third[3..].to_vec(), frame("too late")].concat()).await.unwrap();
            let mut got = vec![0; frame("first").len() + frame("second").len() + third.len()];
            let (_, read) = tokio::join!(last_frames(both, &course), client.read_exact(&mut got));
            read.unwrap();
            assert_eq!(got, [frame("first"), frame("second"), third].concat());
        }
        assert!(course.borrow().is_clear());
        let mut close = [0; 4];
        let (_, read) = tokio::join!(farewell(&mut near.stream), client.read_exact(&mut close));
        read.unwrap();
        assert_eq!(close, CLOSE_1012);
    }

    #[test]
    fn farewells_are_spread_within_the_time_of_the_stop() {
        let seconds = Duration::from_secs;
        assert_eq!(spread(1, seconds(75)), Duration::from_millis(1));
        assert_eq!(spread(4500, seconds(75)), Duration::from_millis(4500));
        assert_eq!(spread(100_000, seconds(75)), SPREAD_MAX);
        assert_eq!(spread(4500, seconds(2)), Duration::from_millis(500));
        assert_eq!(spread(4500, Duration::ZERO), Duration::ZERO);
    }
}
