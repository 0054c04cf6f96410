//! What a client connection is doing and since when, and the one timer that ends those that do nothing.
//!
//! A timer per connection, not per request: it is armed for the earliest moment at which the present phase could be too
//! old, and when it fires and the phase has moved on, it is armed again.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::telemetry::Shard;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A request head has begun.
    Head,
    /// Requests are being answered.
    Busy,
}

#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub idle: Duration,
    pub head: Duration,
}

/// Shared by the connection's io, its service and its driver. All on one thread; atomics only because an upgraded
/// connection's io must be `Send`.
#[derive(Clone)]
pub struct Activity(Arc<Inner>);

struct Inner {
    shard: Arc<Shard>,
    phase: AtomicU8,
    /// Milliseconds since `EPOCH`.
    since: AtomicU64,
    running: AtomicUsize,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Activity {
    /// A fresh connection owes us a head.
    pub fn new(shard: Arc<Shard>) -> Self {
        let inner = Inner { shard, phase: AtomicU8::new(0), since: AtomicU64::new(0), running: AtomicUsize::new(0) };
        let activity = Self(Arc::new(inner));
        activity.enter(Phase::Head);
        activity
    }

    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    /// A head is complete: a request runs until the returned guard is dropped.
    pub fn request(&self) -> Running {
        if self.0.running.fetch_add(1, Relaxed) == 0 {
            self.leave_idle();
            self.enter(Phase::Busy);
        }
        Running(self.clone())
    }

    fn bytes_arrived(&self) {
        if self.phase() == Phase::Idle {
            self.leave_idle();
            self.enter(Phase::Head);
        }
    }

    fn leave_idle(&self) {
        if self.phase() == Phase::Idle {
            self.0.shard.connection_busy();
        }
    }

    fn enter(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Relaxed);
        self.0.since.store(EPOCH.elapsed().as_millis() as u64, Relaxed);
    }

    /// When the present phase will be too old; `None`: it may last.
    fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        let limit = match self.phase() {
            Phase::Idle => timeouts.idle,
            Phase::Head => timeouts.head,
            Phase::Busy => return None,
        };
        Some(*EPOCH + Duration::from_millis(self.0.since.load(Relaxed)) + limit)
    }

    /// Resolves with the phase that lasted too long.
    pub fn poll_expired(&self, timeouts: Timeouts, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Phase> {
        loop {
            let now = Instant::now();
            let shortest = timeouts.idle.min(timeouts.head);
            let due = self.deadline(timeouts).unwrap_or(now + shortest);
            if due <= now {
                return Poll::Ready(self.phase());
            }
            if timer.as_mut().poll(cx).is_pending() {
                // Armed for some moment at or before the one that matters, or for a later one when the phase changed
                // meanwhile to one with a shorter limit: then it must come forward.
                if timer.deadline() > due {
                    timer.as_mut().reset(due);
                    continue;
                }
                return Poll::Pending;
            }
            timer.as_mut().reset(due);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.phase.load(Relaxed) == Phase::Idle as u8 {
            self.shard.connection_busy();
        }
    }
}

/// One request being answered, its body included.
pub struct Running(Activity);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.0.running.fetch_sub(1, Relaxed) == 1 {
            self.0.enter(Phase::Idle);
            self.0.0.shard.connection_idle();
        }
    }
}

/// A connection's io that reports to its `Activity` and counts what it writes.
pub struct Watched<T> {
    io: T,
    activity: Activity,
}

impl<T> Watched<T> {
    pub fn new(io: T, activity: Activity) -> Self {
        Self { io, activity }
    }

    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_arrived();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { idle: Duration::from_millis(30), head: Duration::from_millis(20) };

    fn activity() -> Activity {
        Activity::new(Arc::default())
    }

    async fn expired(activity: &Activity) -> Phase {
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        std::future::poll_fn(|cx| activity.poll_expired(TIMEOUTS, timer.as_mut(), cx)).await
    }

    #[tokio::test]
    async fn a_connection_that_sends_nothing_owes_a_head() {
        assert_eq!(expired(&activity()).await, Phase::Head);
    }

    #[tokio::test]
    async fn an_answered_connection_idles_until_its_limit() {
        let activity = activity();
        drop(activity.request());
        assert_eq!(expired(&activity).await, Phase::Idle);
    }

    #[tokio::test]
    async fn a_running_request_keeps_the_connection() {
        let activity = activity();
        let running = activity.request();
        let waited = tokio::time::timeout(TIMEOUTS.idle * 5, expired(&activity)).await;
        assert!(waited.is_err(), "a busy connection never expires");
        drop(running);
        assert_eq!(expired(&activity).await, Phase::Idle);
    }

    #[tokio::test]
    async fn a_second_head_has_its_own_deadline() {
        let activity = activity();
        drop(activity.request());
        activity.bytes_arrived();
        assert_eq!(expired(&activity).await, Phase::Head);
    }

    #[test]
    fn an_idle_connection_is_counted_until_it_closes() {
        let metrics = crate::telemetry::Metrics::default();
        let activity = Activity::new(metrics.shard());
        drop(activity.request());
        assert_eq!(metrics.connections().1, 1);
        drop(activity);
        assert_eq!(metrics.connections().1, 0);
    }
}
