//! What operators ask for, and how far it has come. One operation at a time holds an app; a second one is told by whom,
//! except that a stop supersedes whatever runs.

use std::{sync::Arc, time::Instant};

use super::{
    Command, Done, InstanceState, LogStream, Progress, Refusal, RestartOptions,
    handle::{Pace, Reply, Verb},
    lifecycle::{Event, Goal},
    managed::{App, Generation, Runner},
    operation::{Kind, Operation},
    overrides::Override,
    releases,
    rollout::{Input, Side},
    supervisor::Core,
};

/// As many as the configuration takes.
const INSTANCES_MAX: u32 = 1_024;

impl Core {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Do { name, verb, holder, progress, reply } => self.act(&name, verb, holder, progress, reply),
            Command::Converge { config, progress, reply } => self.look(config, progress, reply),
            Command::Logs { name, lines, reply } => {
                let answer = self.known(&name).map(|app| {
                    let (recent, follow) = app.output.follow(lines);
                    LogStream { recent, follow }
                });
                let _ = reply.send(answer);
            }
            Command::LetGo { reply } => {
                self.let_go();
                let _ = reply.send(());
            }
            Command::TakeBack => {}
            Command::Shutdown { pace, reply } => {
                self.closing = true;
                self.leaving.push(reply);
                let names: Vec<String> = self.apps.keys().cloned().collect();
                for name in names {
                    self.end_operation(&name, Err(Refusal::Cancelled));
                    if let Some(app) = self.apps.get_mut(&name) {
                        app.leaving = true;
                    }
                    self.stop_runners(&name, pace);
                }
            }
        }
    }

    /// While another engine has the apps.
    pub(super) fn command_elsewhere(&mut self, command: Command) {
        match command {
            Command::Do { reply, .. } => {
                drop(reply.send(Err(Refusal::Conflict("the daemon is being upgraded: ask again".into()))));
            }
            // Answered as if nothing had changed: the other engine reads the configuration itself.
            Command::Converge { .. } => {}
            Command::TakeBack => self.take_back(),
            // They run on.
            Command::Shutdown { reply, .. } | Command::LetGo { reply } => drop(reply.send(())),
            logs @ Command::Logs { .. } => self.command(logs),
        }
    }

    fn known(&self, name: &str) -> Result<&App, Refusal> {
        self.apps.get(name).ok_or_else(|| {
            let close = |known: &&String| {
                known.contains(name) || name.contains(known.as_str()) || known.get(..2) == name.get(..2)
            };
            Refusal::NotFound { name: name.into(), nearest: self.apps.keys().find(close).cloned() }
        })
    }

    fn act(&mut self, name: &str, verb: Verb, holder: String, progress: Progress, reply: Reply) {
        let (held, yields) = match self.known(name) {
            Ok(app) => {
                let held = app.operation.as_ref().map(|operation| operation.described(Instant::now()));
                (held, app.yields())
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        if yields {
            self.end_operation(name, Err(Refusal::Conflict(format!("superseded by {holder}"))));
        }
        let held = held.filter(|_| !yields);
        let supersedes = matches!(verb, Verb::Stop(_) | Verb::Cancel | Verb::Pause | Verb::Resume);
        if let Some(held) = held.filter(|_| !supersedes) {
            self.condemn(name, &verb);
            let _ = reply.send(Err(Refusal::Conflict(format!("app \"{name}\" is held by {held}"))));
            return;
        }
        if self.closing {
            let _ = reply.send(Err(Refusal::Conflict("the daemon is stopping".into())));
            return;
        }
        if let Verb::Pause | Verb::Resume = verb {
            self.pause(name, &verb, reply);
            return;
        }
        let operation = |kind| Operation::new(kind, holder, progress, reply);
        match verb {
            Verb::Start => self.begin_start(name, operation(Kind::Start)),
            Verb::Stop(pace) => self.begin_stop(name, pace, operation(Kind::Stop)),
            Verb::Restart(options) => self.begin_restart(name, &options, operation(Kind::Restart)),
            Verb::Scale(instances) if !(1..=INSTANCES_MAX).contains(&instances) => {
                let why = format!("an app runs 1 to {INSTANCES_MAX} instances; to run none, stop it");
                operation(Kind::Scale).answer(Err(Refusal::Conflict(why)));
            }
            Verb::Scale(instances) => self.begin_scale(name, instances, operation(Kind::Scale)),
            Verb::Reset => {
                let ids = self.runner_ids(name);
                ids.into_iter().for_each(|id| self.feed(id, Event::Reset));
                self.begin_start(name, operation(Kind::Start));
            }
            Verb::Deploy(release) => self.begin_deploy(name, release, operation(Kind::Deploy)),
            Verb::Rollback => self.begin_rollback(name, operation(Kind::Rollback)),
            Verb::Pause | Verb::Resume => {}
            Verb::Cancel => self.cancel(name, operation(Kind::Stop)),
        }
    }

    /// A release whose deploy is refused will not be asked for again.
    fn condemn(&mut self, name: &str, verb: &Verb) {
        if let (Verb::Deploy(release), Some(app)) = (verb, self.apps.get_mut(name)) {
            app.condemned.insert(release.name.clone());
        }
    }

    fn pause(&mut self, name: &str, verb: &Verb, reply: Reply) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.paused = matches!(verb, Verb::Pause);
        let message = format!("{name} {}", if app.paused { "paused" } else { "resumed" });
        let _ = reply.send(Ok(Done { message }));
    }

    fn cancel(&mut self, name: &str, caller: Operation) {
        let running = self.apps.get(name).and_then(|app| app.operation.as_ref());
        let Some(running) = running else {
            caller.answer(Err(Refusal::Conflict(format!("nothing runs on app \"{name}\""))));
            return;
        };
        if running.rollout.is_some() {
            self.roll(name, Input::Cancel);
        } else {
            self.end_operation(name, Err(Refusal::Cancelled));
        }
        caller.answer(Ok(Done { message: format!("{name}: cancelled") }));
    }

    pub(super) fn runner_ids(&self, name: &str) -> Vec<u64> {
        self.apps.get(name).map(|app| app.runners.iter().map(|runner| runner.id).collect()).unwrap_or_default()
    }

    pub(super) fn keep_override(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let wanted = Override {
            stopped: app.stopped,
            instances: app.scale,
            release: app.release.clone(),
            previous: app.previous.clone(),
        };
        if !self.overrides.put(name, wanted) {
            return;
        }
        let overrides = self.overrides.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = overrides.save() {
                tracing::error!(%error, "operator overrides could not be written: they are lost with the daemon");
            }
        });
    }

    pub(super) fn begin_start(&mut self, name: &str, operation: Operation) {
        let Some(app) = self.apps.get_mut(name) else { return };
        (app.stopped, app.idle, app.outdated, app.farewell) = (false, false, None, None);
        app.operation = Some(operation);
        self.keep_override(name);
        self.fill(name);
    }

    /// Starts what is missing up to the wanted count, stops what is too much.
    pub(super) fn fill(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let (desired, generation) = (app.desired(), app.generation.clone());
        let surplus: Vec<u64> =
            app.runners.iter().filter(|runner| runner.slot >= desired).map(|runner| runner.id).collect();
        surplus.into_iter().for_each(|id| self.feed(id, Event::Stop));
        for slot in 0..desired {
            let present = self.apps.get(name).and_then(|app| app.runners.iter().find(|runner| runner.slot == slot));
            let id = match present.map(|runner| runner.id) {
                Some(id) => Some(id),
                None => self.add_runner(name, slot, &generation),
            };
            if let Some(id) = id {
                self.feed(id, Event::Start(Goal::Run));
            }
        }
    }

    fn begin_stop(&mut self, name: &str, pace: Pace, operation: Operation) {
        self.end_operation(name, Err(Refusal::Conflict(format!("superseded by a stop by {}", operation.holder))));
        let Some(app) = self.apps.get_mut(name) else { return };
        (app.stopped, app.idle) = (true, false);
        app.operation = Some(operation);
        self.keep_override(name);
        self.stop_runners(name, pace);
    }

    pub(super) fn stop_runners(&mut self, name: &str, pace: Pace) {
        for id in self.runner_ids(name) {
            let event = if pace == Pace::Now { Event::StopNow } else { Event::Stop };
            self.feed(id, event);
        }
    }

    fn begin_scale(&mut self, name: &str, instances: u32, operation: Operation) {
        let Some(app) = self.apps.get_mut(name) else { return };
        (app.scale, app.idle) = (Some(instances), false);
        app.operation = Some(operation);
        self.keep_override(name);
        if self.apps.get(name).is_some_and(|app| !app.stopped) {
            self.fill(name);
        }
    }

    fn begin_restart(&mut self, name: &str, options: &RestartOptions, operation: Operation) {
        let Some(app) = self.apps.get(name) else { return };
        let spec = app.loaded_spec.clone();
        let loaded = app.loaded.clone();
        self.begin_rollout(name, options, operation, loaded, spec);
    }

    /// What a slot's machine has to say to the plan.
    pub(super) fn report_up(&mut self, id: u64, input: fn(u32, Side) -> Input) {
        let Some((app, runner)) = self.find(id) else { return };
        let name = app.name.clone();
        let input = input(runner.slot, app.side_of(runner));
        if matches!(input, Input::Settled(..)) {
            self.feed(id, Event::Promote);
        }
        self.roll(&name, input);
    }

    /// A machine is at rest: the runner goes.
    pub(super) fn rested(&mut self, id: u64) {
        let Some((app, runner)) = self.find(id) else { return };
        let (name, slot, state) = (app.name.clone(), runner.slot, runner.lane.state);
        let side = app.side_of(runner);
        let why = app.reason.clone();
        if let Some(app) = self.apps.get_mut(&name) {
            app.runners.retain(|runner| runner.id != id);
        }
        let input =
            if state == InstanceState::Failed { Input::Failed(slot, side, why) } else { Input::Stopped(slot, side) };
        self.roll(&name, input);
    }

    /// Ends operations that have reached what they wanted; begins those that wait.
    pub(super) fn advance_all(&mut self) {
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names {
            if let Some(outcome) = self.outcome(&name) {
                self.end_operation(&name, outcome);
            }
            self.begin_next(&name);
            let Some(app) = self.apps.get(&name) else { continue };
            if app.leaving && app.runners.is_empty() && app.operation.is_none() && !self.closing {
                app.output.close();
                self.outside.readiness.degrade(&format!("app {name}"), None);
                self.apps.remove(&name);
            }
        }
    }

    fn outcome(&self, name: &str) -> Option<Result<Done, Refusal>> {
        let app = self.apps.get(name)?;
        let operation = app.operation.as_ref()?;
        let done = |message: String| Some(Ok(Done { message }));
        match operation.kind {
            Kind::Restart | Kind::Reload | Kind::Deploy | Kind::Rollback | Kind::Replace => None,
            Kind::Stop | Kind::Remove => {
                app.runners.is_empty().then(|| Ok(Done { message: format!("{name} stopped") }))
            }
            Kind::Start | Kind::Scale => {
                if let Some(why) = &operation.failure {
                    return Some(Err(failure(app, why.clone())));
                }
                // One that is on its way out had settled, too.
                let is_up = |runner: &Runner| {
                    let serves = matches!(runner.lane.state, InstanceState::Ready | InstanceState::Unready);
                    serves && runner.lane.settled
                };
                let up = |slot: u32| app.runners.iter().any(|runner| runner.slot == slot && is_up(runner));
                let wanted = if app.stopped { 0 } else { app.desired() };
                let surplus = app.runners.iter().any(|runner| runner.slot >= wanted);
                if (0..wanted).all(up) && !surplus { done(format!("{name} runs {wanted}/{wanted}")) } else { None }
            }
        }
    }

    pub(super) fn end_operation(&mut self, name: &str, outcome: Result<Done, Refusal>) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if let Some(operation) = app.operation.take() {
            if operation.kind == Kind::Deploy {
                // Still named: it did not come to run.
                app.condemned.extend(operation.release.clone().flatten());
            }
            self.ended.push((operation, outcome));
        }
    }

    fn begin_next(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if app.operation.is_some() {
            return;
        }
        let Some(mut next) = app.next.pop_front() else { return };
        match next.kind {
            Kind::Remove => {
                app.leaving = true;
                app.operation = Some(next);
                self.stop_runners(name, Pace::Drain);
            }
            Kind::Reload => {
                let Some(mut new) = next.new.take() else { return };
                let place = releases::place(&self.outside.state_dir, name);
                // A release that came while it waited takes its place in the new configuration, too.
                if releases::release_of(&new.backend, &place) != app.release.as_deref() {
                    app.loaded = Arc::new(app.released_over(&app.configured, &place));
                    match Generation::new(0, app.loaded.clone(), None) {
                        Some(renewed) => new = renewed,
                        None => return,
                    }
                }
                let options = RestartOptions::default();
                self.begin_rollout(name, &options, next, new.backend.clone(), new.spec.clone());
            }
            _ => self.begin_start(name, next),
        }
    }
}

impl App {
    /// `backend` with the app's release in its place.
    pub(super) fn released_over(&self, backend: &config::Backend, place: &std::path::Path) -> config::Backend {
        self.release
            .as_ref()
            .map_or_else(|| backend.clone(), |release| releases::overlay(backend, &place.join(release)))
    }
}

pub(super) fn failure(app: &App, reason: String) -> Refusal {
    let last = app.runners.iter().filter_map(|runner| runner.last_exit.as_ref()).next_back();
    let last_lines = last.map(|exit| exit.last_lines.clone()).unwrap_or_default();
    Refusal::Failed { reason, report: app.report.clone(), last_lines }
}
