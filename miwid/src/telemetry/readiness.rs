//! Whether the daemon can serve: `starting`, `ready`, `degraded`, `draining`, with the reasons; and whether every worker
//! is alive (heartbeats).
//!
//! A degraded daemon serves: `degraded` is for people to read, not for a balancer to take it out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A worker that was silent for longer is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    Degraded,
    Draining,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    phase: Phase,
    reasons: BTreeMap<String, String>,
    heartbeats: BTreeMap<usize, Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Serving,
    Draining,
}

impl Readiness {
    pub fn state(&self) -> State {
        let inner = self.lock();
        match inner.phase {
            Phase::Starting => State::Starting,
            Phase::Draining => State::Draining,
            Phase::Serving if inner.reasons.is_empty() => State::Ready,
            Phase::Serving => State::Degraded,
        }
    }

    /// Sets or clears one reason for being degraded; `source` names who says so (`app shop`, `certificate x`).
    pub fn degrade(&self, source: &str, reason: Option<String>) {
        let mut inner = self.lock();
        match reason {
            Some(reason) => inner.reasons.insert(source.to_owned(), reason),
            None => inner.reasons.remove(source),
        };
    }

    /// `source: reason`, ordered by source.
    pub fn reasons(&self) -> Vec<String> {
        self.lock().reasons.iter().map(|(source, reason)| format!("{source}: {reason}")).collect()
    }

    pub fn started(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Starting {
            inner.phase = Phase::Serving;
        }
    }

    /// There is no way back.
    pub fn draining(&self) {
        self.lock().phase = Phase::Draining;
    }

    /// A worker's sign of life; call it about every second.
    pub fn heartbeat(&self, worker: usize) {
        self.heartbeat_at(worker, Instant::now());
    }

    /// Workers whose last heartbeat is too old.
    pub fn stuck_workers(&self) -> Vec<usize> {
        self.stuck_workers_at(Instant::now())
    }

    fn heartbeat_at(&self, worker: usize, now: Instant) {
        self.lock().heartbeats.insert(worker, now);
    }

    fn stuck_workers_at(&self, now: Instant) -> Vec<usize> {
        let is_stuck = |beat: &Instant| now.saturating_duration_since(*beat) > SILENCE_MAX;
        self.lock().heartbeats.iter().filter(|(_, beat)| is_stuck(beat)).map(|(worker, _)| *worker).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_degrade_and_draining_is_final() {
        let readiness = Readiness::default();
        readiness.degrade("app shop", Some("crashing".into()));
        assert_eq!(readiness.state(), State::Starting);
        readiness.started();
        assert_eq!(readiness.state(), State::Degraded);
        assert_eq!(readiness.reasons(), ["app shop: crashing"]);
        readiness.degrade("app shop", None);
        assert_eq!(readiness.state(), State::Ready);
        readiness.draining();
        readiness.started();
        assert_eq!(readiness.state(), State::Draining);
    }

    #[test]
    fn a_worker_is_stuck_after_ten_silent_seconds() {
        let (readiness, start) = (Readiness::default(), Instant::now());
        readiness.heartbeat_at(0, start);
        readiness.heartbeat_at(1, start + Duration::from_secs(5));
        assert!(readiness.stuck_workers_at(start + Duration::from_secs(10)).is_empty());
        assert_eq!(readiness.stuck_workers_at(start + Duration::from_secs(11)), [0]);
    }
}
