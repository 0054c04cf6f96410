//! Carrying out what a slot's machine asks for. Everything slow becomes a task that reports back as news of its attempt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    InstanceState,
    lifecycle::{Effect, Event, Lane},
    managed::{App, Generation, Runner},
    output::LastLines,
    preflight,
    questions::Senses,
    rollout::Input,
    sockets,
    spec::{AddressPlan, Autopsy, Finding, LaunchSpec},
    supervisor::{Core, Message, News},
    tree,
    watch::Watch,
};
use crate::upstream::Availability;

/// A program that is told to abort prints its stacks within so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn find(&self, id: u64) -> Option<(&App, &Runner)> {
        self.apps.values().find_map(|app| app.runners.iter().find(|runner| runner.id == id).map(|runner| (app, runner)))
    }

    pub(super) fn find_mut(&mut self, id: u64) -> Option<&mut Runner> {
        self.apps.values_mut().flat_map(|app| &mut app.runners).find(|runner| runner.id == id)
    }

    pub(super) fn app_of(&mut self, id: u64) -> Option<&mut App> {
        self.apps.values_mut().find(|app| app.runners.iter().any(|runner| runner.id == id))
    }

    /// A new runner in `slot`, not started yet.
    pub(super) fn add_runner(&mut self, app: &str, slot: u32, generation: &Arc<Generation>) -> Option<u64> {
        self.last_runner += 1;
        let id = self.last_runner;
        let jitter = fastrand::Rng::with_seed(self.random.u64(..));
        let app = self.apps.get_mut(app)?;
        app.runners.push(Runner {
            id,
            slot,
            generation: generation.clone(),
            lane: Lane::new(generation.rules.clone(), jitter),
            attempt: 0,
            name: String::new(),
            spec: None,
            address: None,
            endpoint: None,
            pid: None,
            probing: None,
            launch: None,
            group: None,
            senses: Senses::default(),
            hearing: None,
            room: None,
            unwell: false,
            heavy_samples: 0,
            forks_refused: false,
            tolerance: 1.0,
            exited: CancellationToken::new(),
            exit_status: None,
            last_lines: LastLines::default(),
            steps: Vec::new(),
            began: Instant::now(),
            started: None,
            last_exit: None,
            watch: None,
            restarts: 0,
            listening: Vec::new(),
            memory_bytes: 0,
            cpu_percent: 0.0,
            cpu_ticks: 0,
        });
        Some(id)
    }

    pub(super) fn feed(&mut self, id: u64, event: Event) {
        let Some(runner) = self.find_mut(id) else { return };
        for effect in runner.lane.step(event, Instant::now()) {
            self.perform(id, effect);
        }
    }

    fn perform(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::AskPermit => self.waiting.push_back(id),
            Effect::ReturnPermit => self.permits += 1,
            Effect::Preflight => self.preflight(id),
            Effect::Launch => self.launch(id),
            Effect::Probe => self.probe(id),
            Effect::Publish => self.publish_endpoint(id),
            Effect::Healthy(healthy) => self.health_changed(id, healthy),
            Effect::Withdraw(drain) => self.withdraw(id, drain),
            Effect::Signal => self.signal(id),
            Effect::KillTree => self.kill_tree(id),
            Effect::Record(cause) => self.record(id, &cause),
            Effect::Settled => self.report_up(id, Input::Settled),
            Effect::Rest => self.rested(id),
        }
    }

    fn health_changed(&mut self, id: u64, healthy: bool) {
        let Some(runner) = self.find_mut(id) else { return };
        if let Some(endpoint) = &runner.endpoint {
            endpoint.set_healthy(healthy);
        }
        let why = runner.lane.last_probe.clone().unwrap_or_default();
        let (slot, flapping) = (runner.slot, runner.lane.is_flapping());
        let Some(name) = self.app_of(id).map(|app| app.name.clone()) else { return };
        let (event, line) = match (healthy, flapping) {
            (true, _) => ("app.ready", format!("slot {slot} answers again")),
            (false, false) => ("app.unready", format!("slot {slot}: {why}")),
            (false, true) => ("app.flapping", format!("slot {slot}: {why}; it must answer twice in a row from now on")),
        };
        self.outside.events.emit(event, name, line);
    }

    /// Runs `job` beside the loop; what it finds comes back as news of the current attempt.
    pub(super) fn spawn(&self, id: u64, job: impl Future<Output = News> + Send + 'static) {
        let Some((_, runner)) = self.find(id) else { return };
        let (attempt, news) = (runner.attempt, self.news.clone());
        tokio::spawn(async move {
            let message = Message::Attempt { runner: id, attempt, news: Box::new(job.await) };
            // Refused only when the supervisor has gone.
            let _ = news.send(message).await;
        });
    }

    fn preflight(&mut self, id: u64) {
        let (mark, tolerance) = (format!("{:04x}", self.random.u16(..)), 0.9 + 0.2 * self.random.f64());
        let Some(app) = self.app_of(id).map(|app| app.name.clone()) else { return };
        let Some(runner) = self.find_mut(id) else { return };
        runner.attempt += 1;
        runner.name = format!("{app}-{}-{mark}{:x}", runner.slot, runner.attempt);
        runner.began = Instant::now();
        runner.steps.clear();
        (runner.heavy_samples, runner.forks_refused, runner.tolerance) = (0, false, tolerance);
        runner.listening.clear();
        runner.exit_status = None;
        runner.last_lines = LastLines::default();
        runner.exited = CancellationToken::new();
        let backend = runner.generation.backend.clone();
        let user = self.default_user.clone();
        self.spawn(id, async move {
            let looked = tokio::task::spawn_blocking(move || {
                let (spec, mut findings) = preflight::plan_as(&backend, user.as_deref());
                findings.extend(spec.as_ref().and_then(|spec| taken(&spec.address, &backend)));
                // Before the program reads them: a change while it starts must not be missed.
                let watched = spec.map(|spec| {
                    let watch = Arc::new(Watch::new(&spec, backend.process.as_ref()));
                    (Box::new(spec), watch)
                });
                (watched, findings)
            });
            let (spec, findings) = looked.await.unwrap_or_default();
            News::Planned(spec, findings)
        });
    }

    pub(super) fn attempt_news(&mut self, id: u64, attempt: u64, news: News) {
        let stale = self.find(id).is_none_or(|(_, runner)| runner.attempt != attempt);
        if stale {
            return;
        }
        match news {
            News::Planned(spec, findings) => self.planned(id, spec, findings),
            News::Launched(outcome) => self.launched(id, outcome),
            News::Exited(status) => {
                if let Some(runner) = self.find_mut(id) {
                    runner.exit_status = Some(status);
                    runner.exited.cancel();
                    runner.probing.take().inspect(tokio::task::AbortHandle::abort);
                }
                self.feed(id, Event::Exited(status));
            }
            News::Swept(Some(leftovers)) => self.feed(id, Event::TreeEmpty { leftovers }),
            // The machine's own deadline makes it stuck.
            News::Swept(None) => {}
            News::Listening(addresses) => {
                if let Some(runner) = self.find_mut(id) {
                    runner.listening = addresses;
                }
            }
            News::Lane(event) => self.feed(id, event),
            News::Unwell(why) => self.unwell(id, why),
        }
    }

    fn planned(&mut self, id: u64, spec: Option<(Box<LaunchSpec>, Arc<Watch>)>, findings: Vec<Finding>) {
        let broken = findings.iter().find(|finding| finding.severity == config::Severity::Error);
        let Some(runner) = self.find_mut(id) else { return };
        let took = runner.began.elapsed();
        runner.steps.push(("preflight", took, String::new()));
        match (broken, spec) {
            (None, Some((spec, watch))) => {
                let fingerprint = watch.fingerprint;
                runner.watch = Some(watch);
                runner.spec = Some((*spec).clone());
                self.learn(id, *spec);
                if let Some(app) = self.app_of(id).filter(|_| fingerprint.is_some()) {
                    app.files.started(fingerprint);
                }
                self.feed(id, Event::PreflightGood);
            }
            (Some(finding), _) => {
                let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                self.feed(id, Event::PreflightBad(format!("{}: {}{hint}", finding.code, finding.message)));
            }
            (None, None) => self.feed(id, Event::PreflightBad("app-plan: nothing to start".into())),
        }
    }

    /// The first good preflight of a generation that was made from a broken one.
    fn learn(&mut self, id: u64, spec: LaunchSpec) {
        let Some(number) = self.find(id).map(|(_, runner)| runner.generation.number) else { return };
        let Some(app) = self.app_of(id) else { return };
        if app.generation.number == number && app.generation.spec.is_none() {
            app.loaded_spec.get_or_insert_with(|| spec.clone());
            if let Some(learned) = Generation::new(number, app.generation.backend.clone(), Some(spec)) {
                app.generation = learned;
            }
        }
    }

    fn publish_endpoint(&mut self, id: u64) {
        let Some(app) = self.app_of(id) else { return };
        let name = app.name.clone();
        (app.reason, app.report) = (String::new(), String::new());
        self.offer(id, true);
        let Some(runner) = self.find_mut(id) else { return };
        let line = format!("slot {}  ready in {:.1} s", runner.slot, runner.began.elapsed().as_secs_f64());
        let pid = runner.pid.unwrap_or_default();
        self.outside.events.emit("app.ready", name.clone(), format!("{line} (pid {pid})"));
        self.say(&name, line);
        self.report_up(id, Input::Ready);
    }

    /// Requests may go to it.
    pub(super) fn offer(&mut self, id: u64, healthy: bool) {
        let Some(set) = self.app_of(id).map(|app| app.set.clone()) else { return };
        let Some(runner) = self.find_mut(id) else { return };
        let Some(address) = runner.address.clone() else { return };
        // A connection must not be reused at the very moment at which the app closes it.
        if let Some(spec) = &runner.spec {
            set.set_idle_timeout(spec.upstream_idle);
        }
        if let Some(process) = &runner.generation.backend.process {
            set.set_on_all_unready(process.on_all_unready);
        }
        runner.endpoint = Some(set.publish(address, runner.name.clone(), healthy));
    }

    pub(super) fn say(&self, app: &str, line: String) {
        if let Some(operation) = self.apps.get(app).and_then(|app| app.operation.as_ref()) {
            operation.say(line);
        }
    }

    fn withdraw(&mut self, id: u64, drain: Duration) {
        let Some(app) = self.app_of(id) else { return };
        let set = app.set.clone();
        let others = app.runners.iter().any(|runner| runner.id != id && runner.endpoint.is_some());
        if !others {
            // Said first, so that no request finds neither an endpoint nor a reason; the loop makes it exact.
            let gone = app.stopped || app.leaving;
            app.tell(if gone { Availability::Stopped } else { Availability::Holding });
        }
        let Some(runner) = self.find_mut(id) else { return };
        runner.probing.take().inspect(tokio::task::AbortHandle::abort);
        let endpoint = runner.endpoint.take();
        self.spawn(id, async move {
            if let Some(endpoint) = endpoint {
                set.withdraw(&endpoint, drain).await;
            }
            News::Lane(Event::Drained)
        });
    }

    fn signal(&mut self, id: u64) {
        let Some(runner) = self.find_mut(id) else { return };
        runner.probing.take().inspect(tokio::task::AbortHandle::abort);
        let (Some(pid), Some(spec)) = (runner.pid, runner.spec.as_ref()) else { return };
        let (mark, signo, mode) = (runner.name.clone(), spec.stop_signal, spec.kill_mode);
        let launcher = self.launcher.clone();
        // Where it listens must be read before it is told to go.
        self.spawn(id, async move {
            let look = move || sockets::listeners_of(&tree::pids(pid, &mark));
            let listening = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            launcher.signal(pid, signo, mode);
            News::Listening(listening)
        });
    }

    fn kill_tree(&mut self, id: u64) {
        let Some(runner) = self.find_mut(id) else { return };
        runner.probing.take().inspect(tokio::task::AbortHandle::abort);
        let (Some(pid), mark) = (runner.pid, runner.name.clone()) else { return };
        let aborts = runner.spec.as_ref().is_some_and(|spec| spec.autopsy == Autopsy::Abort);
        let last_words = (aborts && runner.unwell && runner.exit_status.is_none()).then(|| mark.clone());
        let group = runner.group.clone();
        let sweep = self.launcher.kill_tree(pid, mark, group);
        self.spawn(id, async move {
            if let Some(mark) = last_words {
                let abort = move || tree::signal_all(pid, &mark, nix::sys::signal::Signal::SIGABRT);
                let _ = tokio::task::spawn_blocking(abort).await;
                tokio::time::sleep(LAST_WORDS).await;
            }
            News::Swept(sweep.await)
        });
    }

    pub(super) fn retry_stuck(&mut self) {
        let stuck = |runner: &&Runner| runner.lane.state == InstanceState::Stuck;
        let ids: Vec<u64> =
            self.apps.values().flat_map(|app| &app.runners).filter(stuck).map(|runner| runner.id).collect();
        for id in ids {
            self.kill_tree(id);
        }
    }
}

/// A fixed address that somebody else already serves. Our own instances have left it before a new one comes here.
fn taken(plan: &AddressPlan, backend: &config::Backend) -> Option<Finding> {
    let AddressPlan::Fixed(address) = plan else { return None };
    let origin = backend.process.as_ref().map(|process| process.origin.clone()).unwrap_or_default();
    preflight::port_conflict(address, &[]).map(|conflict| Finding { key: "url".into(), origin, ..conflict })
}
