//! Taking over a configuration: look at every app off the loop, then start, roll, rescale and stop what differs.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    Converged, Done, Progress, Refusal,
    changes::Files,
    idle::Activity,
    managed::{App, Generation, app_proxy},
    operation::{Kind, Operation},
    output::{Output, Sink},
    preflight, releases,
    spec::LaunchSpec,
    supervisor::{Core, Message},
};

pub(super) const HOLDER: &str = "the configuration";

/// A configuration with what preflight found of each of its apps.
pub(super) struct Looked {
    config: Arc<config::Config>,
    seen: Vec<Seen>,
    progress: Progress,
    reply: oneshot::Sender<Converged>,
}

/// One app as the file says it, and as it would run with its release.
struct Seen {
    configured: Arc<config::Backend>,
    release: Option<String>,
    backend: Arc<config::Backend>,
    spec: Option<LaunchSpec>,
}

type Answers = Vec<(String, &'static str, oneshot::Receiver<Result<Done, Refusal>>)>;

impl Core {
    /// First half: reads disks, off the loop.
    pub(super) fn look(&mut self, config: Arc<config::Config>, progress: Progress, reply: oneshot::Sender<Converged>) {
        let (news, overrides, state_dir) = (self.news.clone(), self.overrides.clone(), self.outside.state_dir.clone());
        tokio::spawn(async move {
            let backends = config.clone();
            let look = move || -> Vec<_> {
                let apps = backends.backends.values().filter(|backend| backend.process.is_some());
                let user = backends.server.user.as_deref();
                apps.map(|backend| see(backend, overrides.of(&backend.name).release, &state_dir, user)).collect()
            };
            let seen = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            let looked = Looked { config, seen, progress, reply };
            let _ = news.send(Message::Converge(Box::new(looked))).await;
        });
    }

    /// Second half: decides and begins; a task of its own gathers the outcomes.
    pub(super) fn converge(&mut self, looked: Looked) {
        let Looked { config, seen, progress, reply } = looked;
        if self.closing {
            return;
        }
        if seen.iter().any(|it| it.release != self.overrides.of(&it.backend.name).release) {
            // A release came while we looked.
            self.look(config, progress, reply);
            return;
        }
        self.default_user.clone_from(&config.server.user);
        let mut unchanged = Vec::new();
        let mut answers: Answers = Vec::new();
        let wanted: Vec<String> = seen.iter().map(|it| it.backend.name.clone()).collect();
        for name in self.apps.keys().filter(|name| !wanted.contains(name)).cloned().collect::<Vec<_>>() {
            self.enqueue(&name, "stopped", Kind::Remove, None, &progress, &mut answers);
        }
        for it in seen {
            let name = it.backend.name.clone();
            let known = self.apps.contains_key(&name);
            let changed = self.take_over(&config, it);
            match changed {
                Some(Change::Nothing) => unchanged.push((name, "unchanged")),
                Some(Change::Count) => self.enqueue(&name, "rescaled", Kind::Start, None, &progress, &mut answers),
                Some(Change::Spec(new)) => {
                    self.enqueue(&name, "rolled", Kind::Reload, Some(new), &progress, &mut answers);
                }
                None if known => {}
                None => self.enqueue(&name, "started", Kind::Start, None, &progress, &mut answers),
            }
        }
        self.inheritance.sweep(&*self.launcher);
        tokio::spawn(gather(unchanged, answers, reply));
    }

    fn enqueue(
        &mut self,
        name: &str,
        change: &'static str,
        kind: Kind,
        new: Option<Arc<Generation>>,
        progress: &Progress,
        answers: &mut Answers,
    ) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let (reply, answer) = oneshot::channel();
        let mut operation = Operation::new(kind, HOLDER.into(), progress.clone(), reply);
        operation.new = new;
        // A newer configuration makes an older one that still waits pointless.
        app.next.retain(|waiting| waiting.kind != Kind::Reload);
        app.next.push_back(operation);
        answers.push((name.into(), change, answer));
    }

    /// Registers the app's configuration. `None`: the app is new.
    fn take_over(&mut self, config: &config::Config, seen: Seen) -> Option<Change> {
        let Seen { configured, backend, spec, .. } = seen;
        let name = backend.name.clone();
        let proxy = app_proxy(&backend)?;
        let hold = backend.process.as_ref().map(|process| &process.hold);
        let set = self.outside.directory.set(&name, proxy, hold);
        let sink = sink(config, &backend);
        let Some(app) = self.apps.get_mut(&name) else {
            return self.register(configured, backend, spec, set, sink);
        };
        app.set = set;
        app.leaving = false;
        let before = app.desired();
        app.configured = configured;
        app.loaded = backend.clone();
        app.loaded_spec = spec.clone();
        // What does not run begins with the new configuration when it runs again.
        if app.stopped || app.idle {
            app.generation = Generation::new(app.generation.number, backend, spec)?;
            return Some(Change::Nothing);
        }
        if *app.output.sink() != sink {
            // Running attempts go on writing to the old file until they end.
            app.output = Output::start(sink, self.outside.logs.clone(), self.outside.events.clone());
        }
        if !app.generation.equals(&backend, spec.as_ref()) {
            return Generation::new(0, backend, spec).map(Change::Spec);
        }
        app.outdated = None;
        Some(if app.desired() == before { Change::Nothing } else { Change::Count })
    }

    fn register(
        &mut self,
        configured: Arc<config::Backend>,
        backend: Arc<config::Backend>,
        spec: Option<LaunchSpec>,
        set: Arc<crate::upstream::Set>,
        sink: Sink,
    ) -> Option<Change> {
        let name = backend.name.clone();
        let kept = self.overrides.of(&name);
        let generation = Generation::new(1, backend.clone(), spec)?;
        let app = App {
            name: name.clone(),
            configured,
            loaded: backend,
            loaded_spec: generation.spec.clone(),
            generation,
            last_number: 1,
            set,
            runners: Vec::new(),
            stopped: kept.stopped,
            paused: false,
            idle: false,
            waiting: None,
            activity: Activity::new(Instant::now()),
            files: Files::default(),
            checked_minute: None,
            lightened: None,
            scale: kept.instances,
            release: kept.release.clone(),
            previous: kept.previous.clone(),
            condemned: BTreeSet::new(),
            operation: None,
            next: VecDeque::new(),
            output: Output::start(sink, self.outside.logs.clone(), self.outside.events.clone()),
            restarts: 0,
            reason: String::new(),
            report: String::new(),
            outdated: None,
            farewell: None,
            leaving: false,
            told: None,
        };
        let known: BTreeSet<String> = app.previous.iter().flatten().chain(&app.release).cloned().collect();
        let place = releases::place(&self.outside.state_dir, &name);
        tokio::task::spawn_blocking(move || releases::prune(&place, &known));
        for notice in app.generation.spec.iter().flat_map(|spec| &spec.notices) {
            tracing::warn!(app = name, "{notice}");
        }
        self.apps.insert(name.clone(), app);
        // An operator's stop outlives the daemon.
        if kept.stopped {
            return Some(Change::Nothing);
        }
        match self.adopt(&name) {
            Some(new) => Some(Change::Spec(new)),
            None if self.apps.get(&name).is_some_and(|app| app.idle) => Some(Change::Nothing),
            None => None,
        }
    }
}

/// Blocking.
fn see(configured: &config::Backend, release: Option<String>, state_dir: &Path, user: Option<&str>) -> Seen {
    let place = releases::place(state_dir, &configured.name);
    let backend = match &release {
        Some(release) => releases::overlay(configured, &place.join(release)),
        None => configured.clone(),
    };
    let spec = preflight::plan_as(&backend, user).0;
    Seen { configured: Arc::new(configured.clone()), release, backend: Arc::new(backend), spec }
}

enum Change {
    Nothing,
    Count,
    Spec(Arc<Generation>),
}

fn sink(config: &config::Config, backend: &config::Backend) -> Sink {
    let process = backend.process.as_ref();
    let logs = process.map(|process| process.logs.clone()).unwrap_or_default();
    let beside = config.logging.access_log.path.parent().map(PathBuf::from).unwrap_or_default();
    let path = logs.path.unwrap_or_else(|| beside.join(format!("{}.log", backend.name)));
    let mut rotation = config.logging.rotation.clone();
    rotation.max_size = logs.max_size.unwrap_or(rotation.max_size);
    rotation.max_backups = logs.max_backups.unwrap_or(rotation.max_backups);
    Sink { app: backend.name.clone(), path, rotation, rate: logs.rate_limit, format: logs.format }
}

async fn gather(unchanged: Vec<(String, &'static str)>, answers: Answers, reply: oneshot::Sender<Converged>) {
    let mut converged = Converged { changes: unchanged, outdated: Vec::new() };
    for (name, change, answer) in answers {
        match answer.await {
            Ok(Ok(_)) => converged.changes.push((name, change)),
            Ok(Err(Refusal::Failed { reason, .. })) => converged.outdated.push((name, reason)),
            Ok(Err(Refusal::Conflict(why))) => converged.outdated.push((name, why)),
            Ok(Err(Refusal::NotFound { .. } | Refusal::Cancelled)) | Err(_) => {
                converged.outdated.push((name, "cancelled".into()));
            }
        }
    }
    // The caller may have left.
    let _ = reply.send(converged);
}
