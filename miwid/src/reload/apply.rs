//! The only writer of the current snapshot.
//!
//! ```text
//! load, validate, preflight ── problems? ──> rejected, nothing changed
//!        │
//!     prepare: build the snapshot, bind what is new
//!        │
//!     commit: one swap
//!        │
//!     converge: apps (the old ones serve until their roll settles)
//!        │
//!     dispose: listeners and upstreams that nobody uses any more
//! ```

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use config::{Config, Loaded, Problem, Severity};
use tokio::sync::mpsc;

use super::{Source, certificates};
use crate::{
    app,
    link::Line,
    server::{Listeners, addresses},
    snapshot::{Current, Lasting, build, capabilities},
    telemetry::{self, AccessLog, Events, Logs, Metrics, Readiness},
    tls::{self, Terminator, Tls},
};

pub use config::Change;

/// What is asked of a reload.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    /// Another file from now on.
    pub path: Option<PathBuf>,
    pub dry_run: bool,
    pub allow_failing_apps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Unchanged,
    Rejected,
    Partial,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::Partial => "partial",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Report {
    pub outcome: Outcome,
    pub config_generation: u64,
    pub changes: Vec<Change>,
    pub problems: Vec<Problem>,
}

/// HTTPS as a configuration asks for it, or why not.
type Made = Result<Option<Arc<Terminator>>, Vec<Problem>>;
type MakeTerminator = fn(&Tls, &Config) -> Made;

/// Everything that a reload moves.
pub struct Parts {
    pub source: Source,
    pub config: Arc<Config>,
    pub current: Current,
    pub lasting: Lasting,
    pub tls: Tls,
    pub certificates: tls::Handle,
    pub listeners: Listeners,
    pub apps: app::Handle,
    pub readiness: Readiness,
    pub access: AccessLog,
    pub events: Events,
    pub logs: Logs,
    pub metrics: Metrics,
    /// Who remembers what is served, in case that a later configuration does not last.
    pub warden: Option<Line>,
}

/// Cheap to clone; reloads queue behind one another.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    parts: Parts,
    /// What runs now.
    running: Mutex<Running>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Running {
    source: Source,
    config: Arc<Config>,
    generation: u64,
}

impl Reloader {
    /// For the configuration that has just been started as generation 1.
    pub fn new(parts: Parts) -> Self {
        let running = Running { source: parts.source.clone(), config: parts.config.clone(), generation: 1 };
        Self(Arc::new(Inner { parts, running: Mutex::new(running), turn: tokio::sync::Mutex::default() }))
    }

    pub fn config(&self) -> Arc<Config> {
        self.running().config.clone()
    }

    pub fn generation(&self) -> u64 {
        self.running().generation
    }

    /// Goes on to its end even when whoever asked goes away.
    pub async fn reload(&self, what: Reload) -> Report {
        let this = self.clone();
        let task = tokio::spawn(async move { this.run(what).await });
        match task.await {
            Ok(report) => report,
            Err(error) => self.rejected(vec![whole(format!("the reload was lost: {error}"))]),
        }
    }

    async fn run(&self, what: Reload) -> Report {
        let _turn = self.0.turn.lock().await;
        let dry_run = what.dry_run;
        let report = match self.load(&what).await {
            Ok((source, loaded)) => self.apply(what, source, loaded).await,
            Err(problems) => self.rejected(problems),
        };
        if !dry_run {
            self.announce(&report);
        }
        report
    }

    async fn load(&self, what: &Reload) -> Result<(Source, Loaded), Vec<Problem>> {
        let mut source = self.running().source.clone();
        if let Some(path) = &what.path {
            source.path = Some(path.clone());
        }
        let loading = source.clone();
        let loaded = tokio::task::spawn_blocking(move || loading.load(&capabilities())).await;
        let loaded = loaded.map_err(|error| vec![whole(format!("loading failed: {error}"))])??;
        Ok((source, loaded))
    }

    async fn apply(&self, what: Reload, source: Source, loaded: Loaded) -> Report {
        let Loaded { config, warnings: mut problems, texts } = loaded;
        let (config, old) = (Arc::new(config), self.config());
        let mut changes = config::diff(&old, &config);
        let make = if what.dry_run { Tls::rehearsed } else { Tls::terminator };
        let terminator = match self.terminator(&config, make).await {
            Ok(made) => {
                let old = self.0.parts.current.load().tls.clone();
                changes.extend(certificates::changes(old.as_deref(), made.as_deref()));
                problems.extend(made.iter().flat_map(|it| it.warnings()).cloned());
                Some(made)
            }
            Err(more) => {
                problems.extend(more);
                None
            }
        };
        problems.extend(self.preflight(&config, &changes).await);
        let is_blocking = |it: &Problem| it.severity == Severity::Error && !what.allow_failing_apps;
        let is_blocked = problems.iter().any(is_blocking);
        // Without its certificates a configuration is not the one that was asked for, whatever may fail.
        let Some(terminator) = terminator.filter(|_| !is_blocked) else { return self.rejected(problems) };
        if what.dry_run {
            let outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Applied };
            return Report { outcome, config_generation: self.generation(), changes, problems };
        }
        // Apps converge all the same: an env file may have changed.
        let is_new = !changes.is_empty() || self.is_elsewhere(&source);
        if is_new && let Err(more) = self.commit(&config, source, terminator) {
            problems.extend(more);
            return self.rejected(problems);
        }
        if let Some(warden) = self.0.parts.warden.as_ref().filter(|_| config.path.is_some()) {
            warden.configured(&texts.0, true);
        }
        // Nobody waits for an issuer.
        self.0.parts.certificates.converge(config.clone()).await;
        let (progress, _) = mpsc::unbounded_channel();
        let converged = self.0.parts.apps.converge(config.clone(), progress).await;
        self.dispose(&config);
        self.report(changes, problems, converged)
    }

    /// From what the certificate files say now: a renewed one counts although the configuration names the same file.
    async fn terminator(&self, config: &Arc<Config>, make: MakeTerminator) -> Made {
        let (tls, config) = (self.0.parts.tls.clone(), config.clone());
        let made = tokio::task::spawn_blocking(move || make(&tls, &config)).await;
        made.map_err(|error| vec![whole(format!("the certificates could not be read: {error}"))])?
    }

    /// What a start of the changed apps would stumble over. Apps that stay as they are have been asked when they came.
    async fn preflight(&self, config: &Arc<Config>, changes: &[Change]) -> Vec<Problem> {
        let touched =
            |name: &str| changes.iter().any(|it| it.kind == "app" && it.name == name && it.action != "removed");
        let names: Vec<&str> = config.backends.values().map(|it| it.name.as_str()).filter(|it| touched(it)).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let mut asked = Config::clone(config);
        asked.backends.retain(|_, it| touched(&it.name));
        app::Handle::preflight(Arc::new(asked)).await
    }

    /// Another file than before, even if it says the same.
    fn is_elsewhere(&self, source: &Source) -> bool {
        self.running().source.path != source.path
    }

    /// Prepare, then the one swap. An error leaves everything as it was.
    fn commit(
        &self,
        config: &Arc<Config>,
        source: Source,
        terminator: Option<Arc<Terminator>>,
    ) -> Result<(), Vec<Problem>> {
        let parts = &self.0.parts;
        let wanted = addresses(config);
        let prepared = parts
            .listeners
            .prepare(&wanted)
            .map_err(|errors| errors.into_iter().map(|it| whole(format!("{it}: {}", it.source))).collect::<Vec<_>>())?;
        let generation = self.generation() + 1;
        let snapshot = build(config, generation, &parts.lasting, Ok(terminator))?;
        self.logging(&config.logging).map_err(|error| vec![whole(format!("cannot open a log: {error}"))])?;
        certificates::tell_stand_ins(&snapshot, &parts.readiness);
        parts.current.swap(snapshot);
        *self.running() = Running { source, config: config.clone(), generation };
        parts.listeners.commit(prepared);
        Ok(())
    }

    fn logging(&self, logging: &config::Logging) -> std::io::Result<()> {
        let parts = &self.0.parts;
        parts.access.reconfigure(logging)?;
        if *logging == self.config().logging {
            return Ok(());
        }
        match telemetry::init(Some(logging))? {
            Some(file) => parts.logs.register("error", file),
            None => parts.logs.unregister("error"),
        }
        Ok(())
    }

    fn dispose(&self, config: &Config) {
        let parts = &self.0.parts;
        parts.listeners.dispose(&addresses(config));
        let keep = parts.current.load().upstreams.clone();
        parts.lasting.directory.retain(&|name| keep.iter().any(|it| it == name));
    }

    fn report(&self, changes: Vec<Change>, mut problems: Vec<Problem>, converged: app::Converged) -> Report {
        problems.extend(converged.outdated.iter().map(|(name, why)| {
            let mut problem = whole(format!("app `{name}` keeps its old version: {why}"));
            problem.severity = Severity::Warning;
            problem
        }));
        let outcome = match (converged.outdated.is_empty(), changes.is_empty() && !converged.moved()) {
            (false, _) => Outcome::Partial,
            (true, true) => Outcome::Unchanged,
            (true, false) => Outcome::Applied,
        };
        Report { outcome, config_generation: self.generation(), changes, problems }
    }

    fn rejected(&self, problems: Vec<Problem>) -> Report {
        Report { outcome: Outcome::Rejected, config_generation: self.generation(), changes: Vec::new(), problems }
    }

    fn announce(&self, report: &Report) {
        let parts = &self.0.parts;
        parts.metrics.reload(report.outcome.as_str());
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let said = match report.outcome {
            Outcome::Rejected => count(report.problems.len(), "problem"),
            _ => count(report.changes.len(), "change"),
        };
        let kind = match report.outcome {
            Outcome::Applied => "reload.applied",
            Outcome::Unchanged => "reload.unchanged",
            Outcome::Rejected => "reload.rejected",
            Outcome::Partial => "reload.partial",
        };
        parts.events.emit(kind, "", said);
        for problem in &report.problems {
            tracing::warn!("{}", problem.render(None, false).trim_end());
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A problem of the configuration as a whole.
fn whole(message: String) -> Problem {
    Problem {
        severity: Severity::Error,
        file: PathBuf::new(),
        line: 0,
        column: 0,
        key: String::new(),
        message,
        hint: None,
    }
}
