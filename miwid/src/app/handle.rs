//! The supervisor as others see it: commands in, status out.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, watch};

use super::AppStatus;
use crate::{
    telemetry::{Events, Logs as LogFiles, Metrics, Readiness},
    upstream::Directory,
};

/// Everything the supervisor needs from below.
#[derive(Clone)]
pub struct Supervisor {
    pub directory: Directory,
    pub events: Events,
    pub logs: LogFiles,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Where sockets and operator overrides live.
    pub state_dir: std::path::PathBuf,
    pub run_dir: std::path::PathBuf,
}

impl Supervisor {
    /// Starts the one task that owns all apps (on the current runtime).
    pub fn start(self) -> Handle {
        let (commands, _) = mpsc::channel(64);
        let (_, status) = watch::channel(Arc::new(Vec::new()));
        Handle { commands, status }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Vec<AppStatus>>>,
}

/// What the supervisor is asked; each with where to answer.
#[derive(Debug)]
pub enum Command {}

/// One line of progress of an operation: `slot 0  ready in 0.4 s  GET /health 200`.
pub type Progress = mpsc::UnboundedSender<String>;

#[derive(Clone, Debug, Default)]
pub struct RestartOptions {
    /// Recreate: stop first, no hold.
    pub hard: bool,
    pub instance: Option<u32>,
    pub on_failure: Option<config::OnFailure>,
}

/// A command that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub message: String,
}

/// A command that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// With the nearest known name.
    NotFound {
        name: String,
        nearest: Option<String>,
    },
    /// Another operation holds the app, or it is in the wrong state: exit 8.
    Conflict(String),
    /// Health gate, preflight, start: exit 6. `report` is the start report.
    Failed {
        reason: String,
        report: String,
        last_lines: Vec<String>,
    },
    Cancelled,
}

/// What a reload made of the apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converged {
    /// App and `started`, `rolled`, `stopped`, `unchanged`, `rescaled`.
    pub changes: Vec<(String, &'static str)>,
    /// Apps that keep their old generation, with the reason.
    pub outdated: Vec<(String, String)>,
}

/// One line of an app's output.
#[derive(Clone, Debug)]
pub struct Tail {
    pub app: String,
    pub slot: u32,
    pub at: std::time::SystemTime,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    pub line: bytes::Bytes,
}

/// Recent lines, then what follows; `Lagged(n)` is a gap.
pub struct Logs {
    pub recent: Vec<Tail>,
    pub follow: broadcast::Receiver<Tail>,
}

impl Handle {
    /// Takes over the apps of `config`: unchanged ones (equal spec) are not touched, changed ones roll, new ones start,
    /// removed ones drain and stop. Resolves when all that has settled. `wait = false` would be a flag: drop the future
    /// instead, the work goes on.
    pub async fn converge(&self, config: Arc<config::Config>, progress: Progress) -> Converged {
        let _ = (config, progress, &self.commands);
        Converged::default()
    }

    /// Preflight of every app of `config` without touching anything: what a start would stumble over.
    pub async fn preflight(config: Arc<config::Config>) -> Vec<config::Problem> {
        let _ = config;
        Vec::new()
    }

    pub fn statuses(&self) -> Arc<Vec<AppStatus>> {
        self.status.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Vec<AppStatus>>> {
        self.status.clone()
    }

    /// `holder` names who asks, for the message that a second operation gets.
    pub async fn start(&self, name: &str, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let _ = (name, holder, progress);
        Err(Refusal::Cancelled)
    }

    /// `now`: no drain, kill at once.
    pub async fn stop(&self, name: &str, now: bool, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let _ = (name, now, holder, progress);
        Err(Refusal::Cancelled)
    }

    pub async fn restart(
        &self,
        name: &str,
        options: RestartOptions,
        holder: &str,
        progress: Progress,
    ) -> Result<Done, Refusal> {
        let _ = (name, options, holder, progress);
        Err(Refusal::Cancelled)
    }

    pub async fn scale(&self, name: &str, instances: u32, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let _ = (name, instances, holder, progress);
        Err(Refusal::Cancelled)
    }

    /// Hold all new requests without stopping anything, and release them.
    pub async fn pause(&self, name: &str, holder: &str) -> Result<Done, Refusal> {
        let _ = (name, holder);
        Err(Refusal::Cancelled)
    }

    pub async fn resume(&self, name: &str, holder: &str) -> Result<Done, Refusal> {
        let _ = (name, holder);
        Err(Refusal::Cancelled)
    }

    /// Clears backoff and failure, tries now.
    pub async fn reset(&self, name: &str, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let _ = (name, holder, progress);
        Err(Refusal::Cancelled)
    }

    /// Cancels what runs on the app (a restart keeps what already serves).
    pub async fn cancel(&self, name: &str) -> Result<Done, Refusal> {
        let _ = name;
        Err(Refusal::Cancelled)
    }

    /// The last `lines` lines of output and the live feed.
    pub async fn logs(&self, name: &str, lines: usize) -> Result<Logs, Refusal> {
        let _ = (name, lines);
        Err(Refusal::Cancelled)
    }

    /// Drains and stops every app; after `deadline` kills what is left. Returns when all are gone.
    pub async fn shutdown(&self, deadline: Duration) {
        let _ = deadline;
    }
}
