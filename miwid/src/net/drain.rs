//! The word that it is time to finish: given once, heard by every connection, and waited for until the last has ended.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// The giver's end.
pub struct Drain {
    /// How long the hearers have; `None`: it is not yet time.
    signal: watch::Sender<Option<Duration>>,
}

/// A hearer's end. As long as one exists, the giver waits.
#[derive(Clone)]
pub struct DrainSignal {
    signal: watch::Receiver<Option<Duration>>,
}

impl Drain {
    pub fn new() -> (Arc<Self>, DrainSignal) {
        let (sender, receiver) = watch::channel(None);
        (Arc::new(Self { signal: sender }), DrainSignal { signal: receiver })
    }

    /// Whoever is not done after `deadline` will be cut.
    pub fn start(&self, deadline: Duration) {
        self.signal.send_replace(Some(deadline));
    }

    /// Resolves when every hearer is gone.
    pub async fn finished(&self) {
        self.signal.closed().await;
    }
}

impl DrainSignal {
    /// Resolves when draining has begun (also when the giver is gone).
    pub async fn started(&mut self) {
        let _ = self.signal.wait_for(Option::is_some).await;
    }

    pub fn has_started(&self) -> bool {
        self.signal.borrow().is_some()
    }

    /// How long there is from when draining began; nothing before that.
    pub fn deadline(&self) -> Duration {
        self.signal.borrow().unwrap_or_default()
    }
}
