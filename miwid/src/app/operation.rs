//! What runs on an app now: one at a time, named for whoever comes second. It goes on when its caller has left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Done, Progress, Refusal, handle::Reply, managed::Generation, rollout::Rollout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    Stop,
    Restart,
    Scale,
    /// A restart from a release that a client brought, or from an earlier one.
    Deploy,
    Rollback,
    /// One instance that still runs, by miwid itself.
    Replace,
    /// A restart that a changed configuration asks for.
    Reload,
    Remove,
}

pub(super) struct Operation {
    /// No two are the same.
    pub(super) serial: u64,
    pub(super) kind: Kind,
    pub(super) holder: String,
    pub(super) since: Instant,
    pub(super) progress: Progress,
    pub(super) reply: Option<Reply>,
    pub(super) rollout: Option<Rollout>,
    /// The two sides of a rollout.
    pub(super) old: Option<Arc<Generation>>,
    pub(super) new: Option<Arc<Generation>>,
    /// What runs once it has ended well; the inner `None` is what the configuration names.
    pub(super) release: Option<Option<String>>,
    pub(super) on_failure: Option<config::OnFailure>,
    /// Tells the work beside the loop that nobody wants it any more.
    cancel: DropGuard,
    /// The last failure of an attempt while it ran.
    pub(super) failure: Option<String>,
}

// === impl Operation ===

impl Operation {
    pub(super) fn new(kind: Kind, holder: String, progress: Progress, reply: Reply) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            serial: LAST.fetch_add(1, Relaxed),
            kind,
            holder,
            since: Instant::now(),
            progress,
            reply: Some(reply),
            rollout: None,
            old: None,
            new: None,
            release: None,
            on_failure: None,
            cancel: CancellationToken::new().drop_guard(),
            failure: None,
        }
    }

    pub(super) fn described(&self, now: Instant) -> String {
        let verb = match self.kind {
            Kind::Start => "start",
            Kind::Stop => "stop",
            Kind::Restart => "restart",
            Kind::Scale => "scale",
            Kind::Deploy => "deploy",
            Kind::Rollback => "rollback",
            Kind::Replace => "replacement",
            Kind::Reload => "reload",
            Kind::Remove => "remove",
        };
        format!("{verb} by {}, {} s ago", self.holder, now.saturating_duration_since(self.since).as_secs())
    }

    /// Resolves when the operation is over, however it ended.
    pub(super) fn cancelled(&self) -> CancellationToken {
        self.cancel.token().clone()
    }

    pub(super) fn say(&self, line: String) {
        // The caller may have left.
        let _ = self.progress.send(line);
    }

    pub(super) fn answer(mut self, outcome: Result<Done, Refusal>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outcome);
        }
    }
}
