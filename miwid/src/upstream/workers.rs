//! The line to each worker, so that a withdrawal reaches every pool. Pools belong to their worker's thread: nobody
//! else may touch them, so closing idle connections is a message and an acknowledgement.

use std::{
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::Pools;

/// A worker that does not answer within this is stuck; the withdrawal goes on without it.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a worker looks for connections that have been idle too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Workers {
    lines: Mutex<Vec<mpsc::Sender<Close>>>,
    ids: AtomicU64,
    suspicion: Notify,
}

struct Close {
    endpoint: u64,
    /// Dropped unanswered when the worker ends: that counts as closed too.
    done: oneshot::Sender<()>,
}

impl Workers {
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Relaxed) + 1
    }

    pub(super) fn suspected(&self) {
        self.suspicion.notify_one();
    }

    pub(super) async fn suspicion(&self) {
        self.suspicion.notified().await;
    }

    pub(super) fn register(&self) -> Feed {
        let (line, closes) = mpsc::channel(256);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|it| !it.is_closed());
        lines.push(line);
        Feed { closes }
    }

    /// The same without waiting, for endpoints whose drain nobody awaits. A line that is full loses the message; the
    /// connections then close when they have been idle too long.
    pub(super) fn forget(&self, endpoint: u64) {
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = line.try_send(Close { endpoint, done: oneshot::channel().0 });
        }
    }

    /// Tells all workers first and then waits for all, so that one slow worker delays no other.
    pub(super) async fn close(&self, endpoint: u64) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tell = async {
            let mut answers = Vec::with_capacity(lines.len());
            for line in lines {
                let (done, answer) = oneshot::channel();
                if line.send(Close { endpoint, done }).await.is_ok() {
                    answers.push(answer);
                }
            }
            for answer in answers {
                let _ = answer.await;
            }
        };
        if tokio::time::timeout(ACK_TIMEOUT, tell).await.is_err() {
            tracing::warn!(endpoint, "a worker did not confirm that it closed its idle connections");
        }
    }
}

/// What a worker hears from the directory.
pub struct Feed {
    closes: mpsc::Receiver<Close>,
}

impl Feed {
    /// Closes idle connections to withdrawn endpoints and acknowledges. Runs on the worker's own thread.
    pub async fn run(mut self, pools: Rc<Pools>) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                close = self.closes.recv() => {
                    let Some(Close { endpoint, done }) = close else { return };
                    pools.close(endpoint);
                    let _ = done.send(());
                }
                _ = sweep.tick() => pools.sweep(),
            }
        }
    }
}
