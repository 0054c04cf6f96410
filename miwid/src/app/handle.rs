//! The supervisor as others see it: commands in, status out.

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    AppStatus, Inheritance,
    launcher::{ByWarden, InProcess, Launcher},
    lifecycle::KILL_PATIENCE,
    preflight,
    releases::{Form, Upload},
    supervisor,
};
use crate::{
    link::Line,
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
        self.start_with(Arc::new(InProcess::default()))
    }

    /// The same, as an engine: the warden starts the processes, some of which run already.
    pub fn start_under(self, warden: Line, inheritance: Inheritance) -> Handle {
        self.start_all(Arc::new(ByWarden { line: warden }), inheritance)
    }

    /// The same, with processes started by `launcher`.
    pub fn start_with(self, launcher: Arc<dyn Launcher>) -> Handle {
        self.start_all(launcher, Inheritance::default())
    }

    fn start_all(self, launcher: Arc<dyn Launcher>, inheritance: Inheritance) -> Handle {
        let (commands, inbox) = mpsc::channel(64);
        let (publisher, status) = watch::channel(Arc::new(Vec::new()));
        let state_dir = self.state_dir.clone();
        supervisor::start(self, launcher, inheritance, inbox, publisher);
        Handle { commands, status, state_dir }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Vec<AppStatus>>>,
    state_dir: std::path::PathBuf,
}

/// What the supervisor is asked; each with where to answer.
pub enum Command {
    Do {
        name: String,
        verb: Verb,
        holder: String,
        progress: Progress,
        reply: Reply,
    },
    Converge {
        config: Arc<config::Config>,
        progress: Progress,
        reply: oneshot::Sender<Converged>,
    },
    Logs {
        name: String,
        lines: usize,
        reply: oneshot::Sender<Result<Logs, Refusal>>,
    },
    /// Another engine takes the apps over; and this one takes them back.
    LetGo {
        reply: oneshot::Sender<()>,
    },
    TakeBack,
    Shutdown {
        pace: Pace,
        reply: oneshot::Sender<()>,
    },
}

pub type Reply = oneshot::Sender<Result<Done, Refusal>>;

/// What is done to one app.
#[derive(Clone, Debug)]
pub enum Verb {
    Start,
    Stop(Pace),
    Restart(RestartOptions),
    Scale(u32),
    Pause,
    Resume,
    Reset,
    Deploy(Release),
    Rollback,
    Cancel,
}

/// A release that has been received.
#[derive(Clone, Debug)]
pub struct Release {
    pub name: String,
    pub on_failure: Option<config::OnFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Drain,
    Now,
}

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

impl Converged {
    /// Whether any app was touched.
    pub fn moved(&self) -> bool {
        self.changes.iter().any(|(_, change)| *change != "unchanged")
    }
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

// === impl Handle ===

impl Handle {
    /// Takes over the apps of `config`: unchanged ones (equal spec) are not touched, changed ones roll, new ones start,
    /// removed ones drain and stop. Resolves when all that has settled. `wait = false` would be a flag: drop the future
    /// instead, the work goes on.
    pub async fn converge(&self, config: Arc<config::Config>, progress: Progress) -> Converged {
        let (reply, answer) = oneshot::channel();
        // Refused only when the supervisor has gone, that is at the end of the daemon.
        let _ = self.commands.send(Command::Converge { config, progress, reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Preflight of every app of `config` without touching anything: what a start would stumble over.
    pub async fn preflight(config: Arc<config::Config>) -> Vec<config::Problem> {
        let look = move || {
            let user = config.server.user.as_deref();
            let apps = config.backends.values().filter(|backend| backend.process.is_some());
            apps.flat_map(|backend| {
                preflight::plan_as(backend, user).1.iter().map(preflight::to_problem).collect::<Vec<_>>()
            })
            .collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    pub fn statuses(&self) -> Arc<Vec<AppStatus>> {
        self.status.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Vec<AppStatus>>> {
        self.status.clone()
    }

    /// `holder` names who asks, for the message that a second operation gets.
    pub async fn start(&self, name: &str, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        self.ask(name, Verb::Start, holder, progress).await
    }

    /// `now`: no drain, kill at once.
    pub async fn stop(&self, name: &str, now: bool, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let pace = if now { Pace::Now } else { Pace::Drain };
        self.ask(name, Verb::Stop(pace), holder, progress).await
    }

    pub async fn restart(
        &self,
        name: &str,
        options: RestartOptions,
        holder: &str,
        progress: Progress,
    ) -> Result<Done, Refusal> {
        self.ask(name, Verb::Restart(options), holder, progress).await
    }

    pub async fn scale(&self, name: &str, instances: u32, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        self.ask(name, Verb::Scale(instances), holder, progress).await
    }

    /// Hold all new requests without stopping anything, and release them.
    pub async fn pause(&self, name: &str, holder: &str) -> Result<Done, Refusal> {
        self.ask(name, Verb::Pause, holder, nobody()).await
    }

    pub async fn resume(&self, name: &str, holder: &str) -> Result<Done, Refusal> {
        self.ask(name, Verb::Resume, holder, nobody()).await
    }

    /// Clears backoff and failure, tries now.
    pub async fn reset(&self, name: &str, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        self.ask(name, Verb::Reset, holder, progress).await
    }

    /// Begins to receive a release of the app. What it is depends on the app's type.
    pub fn upload(&self, name: &str) -> Result<(Form, Upload), Refusal> {
        let statuses = self.status.borrow();
        let known = statuses.iter().find(|status| status.name == name);
        let status = known.ok_or_else(|| Refusal::NotFound { name: name.into(), nearest: None })?;
        let form = Form::of(status.app_type);
        Ok((form, Upload::begin(&self.state_dir, name, form)))
    }

    /// Rolls a received release out; the old one serves until the new one has settled.
    pub async fn deploy(
        &self,
        name: &str,
        release: Release,
        holder: &str,
        progress: Progress,
    ) -> Result<Done, Refusal> {
        self.ask(name, Verb::Deploy(release), holder, progress).await
    }

    /// Goes back to the release before, or to what the configuration names.
    pub async fn rollback(&self, name: &str, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        self.ask(name, Verb::Rollback, holder, progress).await
    }

    /// Cancels what runs on the app (a restart keeps what already serves).
    pub async fn cancel(&self, name: &str) -> Result<Done, Refusal> {
        self.ask(name, Verb::Cancel, "", nobody()).await
    }

    /// The last `lines` lines of output and the live feed.
    pub async fn logs(&self, name: &str, lines: usize) -> Result<Logs, Refusal> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Logs { name: name.into(), lines, reply };
        self.commands.send(command).await.map_err(|_| Refusal::Cancelled)?;
        answer.await.unwrap_or(Err(Refusal::Cancelled))
    }

    /// Lets another engine have the apps; resolves when it knows all about them.
    pub async fn let_go(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::LetGo { reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// The other engine has failed.
    pub async fn take_back(&self) {
        let _ = self.commands.send(Command::TakeBack).await;
    }

    /// Drains and stops every app; after `deadline` kills what is left. Returns when all are gone.
    pub async fn shutdown(&self, deadline: Duration) {
        let (reply, gone) = oneshot::channel();
        if self.commands.send(Command::Shutdown { pace: Pace::Drain, reply }).await.is_err() {
            return;
        }
        if tokio::time::timeout(deadline, gone).await.is_ok() {
            return;
        }
        let (reply, gone) = oneshot::channel();
        let _ = self.commands.send(Command::Shutdown { pace: Pace::Now, reply }).await;
        // What cannot be killed must not keep the daemon.
        let _ = tokio::time::timeout(KILL_PATIENCE + Duration::from_secs(1), gone).await;
    }

    async fn ask(&self, name: &str, verb: Verb, holder: &str, progress: Progress) -> Result<Done, Refusal> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Do { name: name.into(), verb, holder: holder.into(), progress, reply };
        self.commands.send(command).await.map_err(|_| Refusal::Cancelled)?;
        answer.await.unwrap_or(Err(Refusal::Cancelled))
    }
}

/// Progress that nobody reads.
fn nobody() -> Progress {
    mpsc::unbounded_channel().0
}
