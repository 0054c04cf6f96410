//! Whether the daemon can serve: `starting`, `ready`, `degraded`, `draining`, with the reasons; and whether every worker
//! is alive (heartbeats).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    Degraded,
    Draining,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {}

impl Readiness {
    pub fn state(&self) -> State {
        State::Starting
    }

    /// Sets or clears one reason for being degraded; `source` names who says so (`app shop`, `certificate x`).
    pub fn degrade(&self, source: &str, reason: Option<String>) {
        let _ = (source, reason);
    }

    pub fn reasons(&self) -> Vec<String> {
        Vec::new()
    }

    pub fn started(&self) {}
    pub fn draining(&self) {}

    /// A worker's sign of life; call it about every second.
    pub fn heartbeat(&self, worker: usize) {
        let _ = worker;
    }

    /// Workers whose last heartbeat is too old.
    pub fn stuck_workers(&self) -> Vec<usize> {
        Vec::new()
    }
}
