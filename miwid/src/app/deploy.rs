//! Deploy and rollback: a release takes the place of what is configured and goes through the same rollout as a restart.
//! Everything that may fail beforehand (preflight, ownership, `pre_deploy`) happens before any instance is touched.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use config::Backend;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, RestartOptions,
    handle::Release,
    launcher::Launcher,
    managed::Generation,
    operation::{Kind, Operation},
    output::{LastLines, Output},
    preflight, releases,
    spec::{Launch, LaunchSpec},
    supervisor::{Core, Message},
    tree,
};

/// Releases that are kept besides the one that runs.
const KEPT: usize = 2;
/// A migration may take its time, but not for ever.
const PRE_DEPLOY_PATIENCE: Duration = Duration::from_secs(600);
/// What an attempt would fill in stands for nothing here.
const PLACEHOLDERS: [&str; 5] = ["{port}", "{socket}", "{host}", "{instance}", "{base}"];

/// What came of the preparation of one operation.
pub(super) struct Prepared {
    app: String,
    operation: u64,
    outcome: Result<(Arc<Backend>, LaunchSpec), Broken>,
}

struct Broken {
    reason: String,
    last_lines: Vec<String>,
}

/// Everything that a preparation needs; it runs beside the loop.
struct Preparation {
    app: String,
    configured: Arc<Backend>,
    at: Option<std::path::PathBuf>,
    /// A new release, which gets its owner and its `pre_deploy`; an old one has had both.
    is_new: bool,
    default_user: Option<String>,
    launcher: Arc<dyn Launcher>,
    ours: watch::Receiver<bool>,
    output: Arc<Output>,
    cancelled: CancellationToken,
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self { reason, last_lines: Vec::new() }
    }
}

// === impl Core ===

impl Core {
    pub(super) fn begin_deploy(&mut self, name: &str, release: Release, operation: Operation) {
        self.prepare_release(name, Some(release.name), release.on_failure, operation);
    }

    pub(super) fn begin_rollback(&mut self, name: &str, operation: Operation) {
        let Some(earlier) = self.apps.get(name).map(|app| app.previous.last().cloned()) else { return };
        match earlier {
            Some(release) => self.prepare_release(name, release, None, operation),
            None => {
                operation.answer(Err(Refusal::Conflict(format!("app \"{name}\" has no earlier release to go back to"))))
            }
        }
    }

    fn prepare_release(
        &mut self,
        name: &str,
        release: Option<String>,
        on_failure: Option<config::OnFailure>,
        mut operation: Operation,
    ) {
        let place = releases::place(&self.outside.state_dir, name);
        let Some(app) = self.apps.get_mut(name) else { return };
        let preparation = Preparation {
            app: name.to_owned(),
            configured: app.configured.clone(),
            at: release.as_ref().map(|release| place.join(release)),
            is_new: operation.kind == Kind::Deploy,
            default_user: self.default_user.clone(),
            launcher: self.launcher.clone(),
            ours: self.ours.subscribe(),
            output: app.output.clone(),
            cancelled: operation.cancelled(),
        };
        operation.release = Some(release);
        operation.on_failure = on_failure;
        let (serial, progress, news) = (operation.serial, operation.progress.clone(), self.news.clone());
        app.operation = Some(operation);
        tokio::spawn(async move {
            let app = preparation.app.clone();
            let outcome = preparation.run(&progress).await;
            let prepared = Prepared { app, operation: serial, outcome };
            // Refused only when the supervisor has gone.
            let _ = news.send(Message::Prepared(Box::new(prepared))).await;
        });
    }

    pub(super) fn prepared(&mut self, prepared: Prepared) {
        let Prepared { app: name, operation, outcome } = prepared;
        let Some(app) = self.apps.get_mut(&name) else { return };
        // Cancelled or superseded meanwhile: `end_operation` has seen to the release.
        let Some(operation) = app.operation.take_if(|running| running.serial == operation) else { return };
        match outcome {
            Ok((backend, spec)) => {
                let options = RestartOptions { on_failure: operation.on_failure, ..RestartOptions::default() };
                self.begin_rollout(&name, &options, operation, backend, Some(spec));
            }
            Err(broken) => {
                let Broken { reason, last_lines } = broken;
                app.operation = Some(operation);
                self.outside.events.emit("app.deploy_failed", &name, reason.clone());
                self.end_operation(&name, Err(Refusal::Failed { reason, report: String::new(), last_lines }));
            }
        }
    }

    /// The rollout of a release has ended well: from now on it is what runs.
    pub(super) fn released(&mut self, name: &str, release: Option<String>, kind: Kind, new: &Generation) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let before = std::mem::replace(&mut app.release, release);
        if kind == Kind::Deploy {
            app.previous.push(before);
            let surplus = app.previous.len().saturating_sub(KEPT);
            app.condemned.extend(app.previous.drain(..surplus).flatten());
        } else {
            app.previous.pop();
            app.condemned.extend(before);
        }
        app.loaded = new.backend.clone();
        app.loaded_spec.clone_from(&new.spec);
        self.keep_override(name);
    }

    /// Removes what nobody runs or may go back to.
    pub(super) fn remove_condemned(&mut self) {
        for app in self.apps.values_mut().filter(|app| !app.condemned.is_empty() && app.operation.is_none()) {
            let place = releases::place(&self.outside.state_dir, &app.name);
            let in_use: BTreeSet<&str> = app
                .runners
                .iter()
                .filter_map(|runner| releases::release_of(&runner.generation.backend, &place))
                .chain(app.release.as_deref())
                .chain(app.previous.iter().flatten().map(String::as_str))
                .collect();
            let gone: Vec<String> = app.condemned.iter().filter(|it| !in_use.contains(it.as_str())).cloned().collect();
            app.condemned.retain(|it| !gone.contains(it));
            tokio::task::spawn_blocking(move || {
                gone.iter().for_each(|name| drop(std::fs::remove_dir_all(place.join(name))))
            });
        }
    }
}

// === impl Preparation ===

impl Preparation {
    async fn run(self, progress: &super::Progress) -> Result<(Arc<Backend>, LaunchSpec), Broken> {
        let (configured, at, user, is_new) =
            (self.configured.clone(), self.at.clone(), self.default_user.clone(), self.is_new);
        let look = move || -> Result<Arc<Backend>, Broken> {
            let backend = match &at {
                Some(at) => releases::overlay(&configured, at),
                None => (*configured).clone(),
            };
            let owner = preflight::owner(&backend, user.as_deref());
            if let (Some(at), Some(owner), true) = (&at, &owner, is_new) {
                releases::give(at, releases::Form::of(backend.app_type), owner)
                    .map_err(|error| format!("the release cannot be given to {}: {error}", owner.name))?;
            }
            Ok(Arc::new(backend))
        };
        let lost = |_| Broken::from("the preparation broke off".to_owned());
        let backend = tokio::task::spawn_blocking(look).await.map_err(lost)??;
        // `pre_deploy` may bring what the preflight looks for (`npm ci`), so it comes first.
        if let Some(line) = backend.process.as_ref().and_then(|it| it.pre_deploy.clone()).filter(|_| self.is_new) {
            let _ = progress.send(format!("pre_deploy: {line}"));
            self.pre_deploy(&backend, line).await?;
        }
        let (planned, user) = (backend.clone(), self.default_user.clone());
        let plan = move || preflight::plan_as(&planned, user.as_deref());
        let (spec, findings) = tokio::task::spawn_blocking(plan).await.map_err(lost)?;
        let broken = findings.iter().find(|finding| finding.severity == config::Severity::Error);
        match (broken, spec) {
            (None, Some(spec)) => Ok((backend, spec)),
            (Some(finding), _) => {
                let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                Err(format!("{}: {}{hint}", finding.code, finding.message).into())
            }
            (None, None) => Err("app-plan: nothing to start".to_owned().into()),
        }
    }

    /// Once for a deploy, in the new release, as the app's user and with its environment.
    async fn pre_deploy(&self, backend: &Arc<Backend>, line: String) -> Result<(), Broken> {
        let (planned, user) = (backend.clone(), self.default_user.clone());
        let surroundings = move || preflight::surroundings(&planned, user.as_deref());
        let found = tokio::task::spawn_blocking(surroundings).await;
        let Ok(Some(preflight::Surroundings { user, mut env })) = found else {
            return Err("pre_deploy: no environment".to_owned().into());
        };
        env.retain(|(_, value)| !PLACEHOLDERS.iter().any(|it| value.expose().contains(it)));
        let mark = format!("{}-deploy-{:08x}", self.app, fastrand::u32(..));
        for (key, value) in [("MIWI_APP", self.app.clone()), (tree::MARK, mark.clone())] {
            env.push((key.to_owned(), config::Secret::new(value)));
        }
        let launch = Launch {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            env,
            working_dir: backend.process.as_ref().map(|it| it.working_dir.clone()).unwrap_or_default(),
            user,
            base: None,
            group: None,
        };
        let started = self.launcher.launch(launch).await.map_err(|error| format!("pre_deploy: {error}"))?;
        let (last, exited) = (LastLines::default(), CancellationToken::new());
        let mut readers = Vec::new();
        for (pipe, stream) in [(started.stdout, "stdout"), (started.stderr, "stderr")] {
            readers.push(tokio::spawn(self.output.clone().read(
                pipe,
                0,
                stream,
                last.clone(),
                exited.clone(),
                self.ours.clone(),
            )));
        }
        let until = Instant::now() + PRE_DEPLOY_PATIENCE;
        let ended = tokio::select! {
            status = started.exit => Ok(status),
            () = self.cancelled.cancelled() => Err("pre_deploy was cancelled".to_owned()),
            () = tokio::time::sleep_until(until.into()) => Err(format!("pre_deploy took longer than {} s", PRE_DEPLOY_PATIENCE.as_secs())),
        };
        self.launcher.kill_tree(started.pid, mark, None).await;
        exited.cancel();
        for reader in readers {
            let _ = reader.await;
        }
        let reason = match ended {
            Ok(status) if status.code == Some(0) => return Ok(()),
            Ok(status) => format!("pre_deploy failed ({})", super::report::status_words(status)),
            Err(why) => why,
        };
        Err(Broken { reason, last_lines: last.texts() })
    }
}
