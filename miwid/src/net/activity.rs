//! What a client connection is doing and since when, and the one timer that ends those that do nothing.
//!
//! A timer per connection, not per request: it is armed for the earliest moment at which the present phase could be too
//! old, and when it fires and the phase has moved on, it is armed again.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::Desk;
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
    /// Requests are being answered, and the client does not take what it asked for.
    Stalled,
}

/// A client that takes nothing for so long, while there is something for it, is cut.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// One that always takes a little must take this much on average, from then on that it first kept us waiting; a window of
/// a few bytes would hold an answer for ever.
const DRAIN_RATE: u64 = 240;

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
    running: AtomicU32,
    /// Since when writes have not all been taken; 0: they are. Milliseconds since `EPOCH`.
    owed_since: AtomicU64,
    /// When the client last took something, meanwhile.
    taken_at: AtomicU64,
    /// Bytes that it has taken since `owed_since`.
    taken: AtomicU64,
    /// Where informational answers go; `None` when the connection has no place for them.
    desk: Mutex<Option<Desk>>,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn millis() -> u64 {
    EPOCH.elapsed().as_millis() as u64
}

fn since_epoch(at: std::time::Instant) -> u64 {
    at.saturating_duration_since(EPOCH.into_std()).as_millis() as u64
}

impl Activity {
    /// A fresh connection owes us a head.
    pub fn new(shard: Arc<Shard>) -> Self {
        let inner = Inner {
            shard,
            phase: AtomicU8::new(0),
            since: AtomicU64::new(0),
            running: AtomicU32::new(0),
            owed_since: AtomicU64::new(0),
            taken_at: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            desk: Mutex::default(),
        };
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

    /// A head was complete at `started`, a moment ago: a request runs until the returned guard is dropped.
    pub fn request(&self, started: std::time::Instant) -> Running {
        if self.0.running.fetch_add(1, Relaxed) == 0 {
            self.leave_idle();
            self.0.phase.store(Phase::Busy as u8, Relaxed);
            self.0.since.store(since_epoch(started), Relaxed);
        }
        Running(self.clone())
    }

    /// Informational answers can be told here.
    pub fn set_desk(&self, desk: Option<Desk>) {
        *self.0.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    pub fn desk(&self) -> Option<Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request that began at `started` has been answered at once.
    pub fn answered(&self, started: std::time::Instant) {
        if self.phase() != Phase::Idle {
            self.0.shard.connection_idle();
            self.0.phase.store(Phase::Idle as u8, Relaxed);
        }
        self.0.since.store(since_epoch(started), Relaxed);
    }

    /// Part of a head has been read.
    pub fn begin(&self) {
        self.bytes_arrived();
    }

    /// How long the present phase has lasted.
    pub fn age(&self) -> Duration {
        Duration::from_millis(millis().saturating_sub(self.0.since.load(Relaxed)))
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
        self.0.since.store(millis(), Relaxed);
    }

    /// The client is not ready to take more.
    pub fn write_blocked(&self) {
        if self.0.owed_since.load(Relaxed) == 0 {
            let now = millis().max(1);
            self.0.owed_since.store(now, Relaxed);
            self.0.taken_at.store(now, Relaxed);
            self.0.taken.store(0, Relaxed);
        }
    }

    pub fn written(&self, bytes: usize) {
        if self.0.owed_since.load(Relaxed) != 0 {
            self.0.taken_at.store(millis(), Relaxed);
            self.0.taken.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// The client has taken everything there was.
    pub fn flushed(&self) {
        if self.0.owed_since.load(Relaxed) != 0 {
            self.0.owed_since.store(0, Relaxed);
            if self.phase() == Phase::Idle {
                self.0.since.store(millis(), Relaxed);
            }
        }
    }

    /// When a client that keeps us waiting has done so for too long.
    fn stalled_at(&self) -> Option<u64> {
        let since = self.0.owed_since.load(Relaxed);
        (since != 0).then(|| stall(since, self.0.taken_at.load(Relaxed), self.0.taken.load(Relaxed)))
    }

    /// When the present phase will be too old; `None`: it may last. Who has not taken all of an answer is not idle yet, though we
    /// have nothing left to do for it.
    fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        let stalled = self.stalled_at().map(|at| *EPOCH + Duration::from_millis(at));
        match self.phase() {
            Phase::Idle => stalled.or(Some(self.since() + timeouts.idle)),
            Phase::Head => Some(self.since() + timeouts.head),
            Phase::Busy | Phase::Stalled => stalled,
        }
    }

    fn since(&self) -> Instant {
        *EPOCH + Duration::from_millis(self.0.since.load(Relaxed))
    }

    /// Resolves with the phase that lasted too long.
    pub fn poll_expired(&self, timeouts: Timeouts, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Phase> {
        let shortest = timeouts.idle.min(timeouts.head);
        loop {
            let due = self.deadline(timeouts);
            if timer.as_mut().poll(cx).is_pending() {
                // Armed for some moment at or before the one that matters, or for a later one when the phase changed
                // meanwhile to one with a shorter limit: then it must come forward. Most often no clock is needed to see it.
                let armed = timer.deadline();
                let latest = match due {
                    Some(due) => due,
                    None if armed <= self.since() + shortest => armed,
                    None => Instant::now() + shortest,
                };
                if armed <= latest {
                    return Poll::Pending;
                }
                timer.as_mut().reset(latest);
                continue;
            }
            let now = Instant::now();
            let due = due.unwrap_or(now + shortest);
            if due <= now {
                return Poll::Ready(match self.phase() {
                    Phase::Busy => Phase::Stalled,
                    Phase::Idle if self.stalled_at().is_some() => Phase::Stalled,
                    phase => phase,
                });
            }
            timer.as_mut().reset(due);
        }
    }
}

/// How long a client may take for so many bytes that wait for it.
pub fn patience(bytes: usize) -> Duration {
    STALL_TIMEOUT + Duration::from_millis((bytes as u64).saturating_mul(1000) / DRAIN_RATE)
}

/// When it is too long: a while after the client last took anything, or when all that it took has not paid for the time.
fn stall(since: u64, taken_at: u64, taken: u64) -> u64 {
    let limit = STALL_TIMEOUT.as_millis() as u64;
    let paid = taken.saturating_mul(1000) / DRAIN_RATE;
    taken_at.saturating_add(limit).min(since.saturating_add(limit).saturating_add(paid))
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

/// A connection's io that reports to its `Activity` what moves and what does not.
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

impl<T> Watched<T> {
    fn noted(&self, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &write {
            Poll::Pending => self.activity.write_blocked(),
            Poll::Ready(Ok(bytes)) => self.activity.written(*bytes),
            Poll::Ready(Err(_)) => {}
        }
        write
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
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.noted(write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS holds records of its own, which only a flush shows to be stuck.
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        match &flush {
            Poll::Pending => self.activity.write_blocked(),
            Poll::Ready(_) => self.activity.flushed(),
        }
        flush
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.noted(write)
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
        drop(activity.request(std::time::Instant::now()));
        assert_eq!(expired(&activity).await, Phase::Idle);
    }

    #[tokio::test]
    async fn a_running_request_keeps_the_connection() {
        let activity = activity();
        let running = activity.request(std::time::Instant::now());
        let waited = tokio::time::timeout(TIMEOUTS.idle * 5, expired(&activity)).await;
        assert!(waited.is_err(), "a busy connection never expires");
        drop(running);
        assert_eq!(expired(&activity).await, Phase::Idle);
    }

    #[tokio::test]
    async fn a_second_head_has_its_own_deadline() {
        let activity = activity();
        drop(activity.request(std::time::Instant::now()));
        activity.bytes_arrived();
        assert_eq!(expired(&activity).await, Phase::Head);
    }

    #[test]
    fn a_client_may_take_long_but_not_for_ever() {
        let minute = STALL_TIMEOUT.as_millis() as u64;
        assert_eq!(stall(1000, 1000, 0), 1000 + minute, "it takes nothing");
        assert_eq!(stall(1000, 31_000, 1), 1000 + minute + 4, "a byte buys it four milliseconds");
        assert_eq!(stall(1000, 31_000, 1 << 20), 31_000 + minute, "what it has taken does not excuse a stop");
        assert_eq!(patience(0), STALL_TIMEOUT);
        assert_eq!(patience(2400), STALL_TIMEOUT + Duration::from_secs(10));
    }

    #[test]
    fn only_a_client_that_keeps_us_waiting_can_be_too_slow() {
        let activity = activity();
        let _running = activity.request(std::time::Instant::now());
        assert_eq!(activity.deadline(TIMEOUTS), None);
        activity.write_blocked();
        assert!(activity.deadline(TIMEOUTS).is_some());
        activity.written(10);
        assert!(activity.deadline(TIMEOUTS).is_some(), "there is more");
        activity.flushed();
        assert_eq!(activity.deadline(TIMEOUTS), None);
    }

    #[tokio::test]
    async fn who_has_not_taken_an_answer_is_not_idle() {
        let activity = activity();
        drop(activity.request(std::time::Instant::now()));
        activity.write_blocked();
        let idle_at = activity.deadline(TIMEOUTS).expect("a client that takes nothing is let go");
        assert!(idle_at > Instant::now() + STALL_TIMEOUT / 2, "by the rule for slow clients");
        let waited = tokio::time::timeout(TIMEOUTS.idle * 5, expired(&activity)).await;
        assert!(waited.is_err(), "it is not idle");
        activity.flushed();
        assert!(activity.age() < TIMEOUTS.idle, "idleness begins when it has all");
        assert_eq!(expired(&activity).await, Phase::Idle);
    }

    #[test]
    fn an_idle_connection_is_counted_until_it_closes() {
        let metrics = crate::telemetry::Metrics::default();
        let activity = Activity::new(metrics.shard());
        drop(activity.request(std::time::Instant::now()));
        assert_eq!(metrics.connections().1, 1);
        drop(activity);
        assert_eq!(metrics.connections().1, 0);
    }
}
