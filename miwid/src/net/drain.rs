//! The word that it is time to finish: given once, heard by every connection, and waited for until the last has ended.

use std::sync::Arc;

use tokio::sync::watch;

/// The giver's end.
pub struct Drain {
    signal: watch::Sender<bool>,
}

/// A hearer's end. As long as one exists, the giver waits.
#[derive(Clone)]
pub struct DrainSignal {
    signal: watch::Receiver<bool>,
}

impl Drain {
    pub fn new() -> (Arc<Self>, DrainSignal) {
        let (sender, receiver) = watch::channel(false);
        (Arc::new(Self { signal: sender }), DrainSignal { signal: receiver })
    }

    pub fn start(&self) {
        self.signal.send_replace(true);
    }

    /// Resolves when every hearer is gone.
    pub async fn finished(&self) {
        self.signal.closed().await;
    }
}

impl DrainSignal {
    /// Resolves when draining has begun (also when the giver is gone).
    pub async fn started(&mut self) {
        while !*self.signal.borrow_and_update() {
            if self.signal.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn has_started(&self) -> bool {
        *self.signal.borrow()
    }
}
