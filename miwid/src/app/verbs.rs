//! What operators ask for, and how far it has come. One operation at a time holds an app; a second one is told by whom,
//! except that a stop supersedes whatever runs.

use std::{sync::Arc, time::Instant};

use super::{
    Command, Done, InstanceState, LogStream, Progress, Refusal, RestartOptions,
    handle::{Pace, Reply, Verb},
    lifecycle::{Event, Goal},
    managed::{App, Generation},
    operation::{Kind, Operation},
    overrides::Override,
    rollout::{Action, Input, Rollout, Side},
    supervisor::Core,
};
use crate::upstream::Availability;

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
            Verb::Pause | Verb::Resume => {}
            Verb::Cancel => self.cancel(name, operation(Kind::Stop)),
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

    fn keep_override(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        if !self.overrides.put(name, Override { stopped: app.stopped, instances: app.scale }) {
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
        (app.stopped, app.outdated, app.farewell) = (false, None, None);
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
        app.stopped = true;
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
        app.scale = Some(instances);
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

    /// Makes the next generation from `backend` and rolls it out.
    pub(super) fn begin_rollout(
        &mut self,
        name: &str,
        options: &RestartOptions,
        mut operation: Operation,
        backend: Arc<config::Backend>,
        spec: Option<super::spec::LaunchSpec>,
    ) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.last_number += 1;
        let on_failure = options.on_failure.or(backend.process.as_ref().map(|process| process.on_failure));
        let Some(new) = Generation::new(app.last_number, backend, spec) else { return };
        let slots = match options.instance {
            Some(slot) => vec![slot],
            None => (0..app.desired()).collect(),
        };
        let strategy = if options.hard { config::RestartStrategy::Recreate } else { new.strategy() };
        app.stopped = false;
        operation.old = Some(app.generation.clone());
        operation.new = Some(new);
        operation.rollout = Some(Rollout::new(strategy, on_failure.unwrap_or_default(), slots));
        app.operation = Some(operation);
        self.keep_override(name);
        self.roll(name, Input::Begin);
    }

    /// Tells the plan what happened and does what it says.
    pub(super) fn roll(&mut self, name: &str, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let operation = self.apps.get_mut(name).and_then(|app| app.operation.as_mut());
            let Some(plan) = operation.and_then(|operation| operation.rollout.as_mut()) else { return };
            for action in plan.step(input) {
                inputs.extend(self.roll_action(name, action));
            }
        }
    }

    fn side(&self, name: &str, side: Side) -> Option<Arc<Generation>> {
        let operation = self.apps.get(name)?.operation.as_ref()?;
        if side == Side::New { operation.new.clone() } else { operation.old.clone() }
    }

    fn roll_action(&mut self, name: &str, action: Action) -> Option<Input> {
        match action {
            Action::Start(slot, side) => {
                let generation = self.side(name, side)?;
                let id = self.add_runner(name, slot, &generation)?;
                self.feed(id, Event::Start(Goal::Trial));
                None
            }
            Action::Stop(slot, side) => {
                let new = self.side(name, Side::New)?.number;
                let of_side = |number: u64| (number == new) == (side == Side::New);
                let app = self.apps.get(name)?;
                let ids: Vec<u64> = app
                    .runners
                    .iter()
                    .filter(|runner| runner.slot == slot && of_side(runner.generation.number))
                    .map(|runner| runner.id)
                    .collect();
                ids.iter().for_each(|&id| self.feed(id, Event::Stop));
                // A side without a process is stopped already; `rested` tells of the others.
                ids.is_empty().then_some(Input::Stopped(slot, side))
            }
            Action::Hold => {
                // Before anything is withdrawn, so that no request finds neither an endpoint nor a reason to wait.
                self.apps.get_mut(name)?.tell(Availability::Holding);
                self.say(name, "holding requests".into());
                None
            }
            Action::Release => {
                self.say(name, "releasing requests".into());
                None
            }
            Action::Finished => {
                self.rolled(name);
                None
            }
            Action::GaveUp(why) => {
                self.gave_up(name, why);
                None
            }
        }
    }

    fn rolled(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if let Some(new) = app.operation.as_ref().and_then(|operation| operation.new.clone()) {
            app.generation = new;
        }
        app.outdated = None;
        let message = format!("{name} restarted, generation {}", app.generation.number);
        self.end_operation(name, Ok(Done { message }));
        self.fill(name);
    }

    fn gave_up(&mut self, name: &str, why: String) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.outdated = Some(why.clone());
        let refusal = failure(app, why);
        self.outside.events.emit("app.rollout_failed", name, app.outdated.clone().unwrap_or_default());
        self.end_operation(name, Err(refusal));
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
            Kind::Restart | Kind::Reload => None,
            Kind::Stop | Kind::Remove => {
                app.runners.is_empty().then(|| Ok(Done { message: format!("{name} stopped") }))
            }
            Kind::Start | Kind::Scale => {
                if let Some(why) = &operation.failure {
                    return Some(Err(failure(app, why.clone())));
                }
                let up = |slot: u32| app.runners.iter().any(|runner| runner.slot == slot && runner.lane.settled);
                let wanted = if app.stopped { 0 } else { app.desired() };
                let surplus = app.runners.iter().any(|runner| runner.slot >= wanted);
                if (0..wanted).all(up) && !surplus { done(format!("{name} runs {wanted}/{wanted}")) } else { None }
            }
        }
    }

    pub(super) fn end_operation(&mut self, name: &str, outcome: Result<Done, Refusal>) {
        if let Some(operation) = self.apps.get_mut(name).and_then(|app| app.operation.take()) {
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
                let Some(new) = next.new.take() else { return };
                let options = RestartOptions::default();
                self.begin_rollout(name, &options, next, new.backend.clone(), new.spec.clone());
            }
            _ => self.begin_start(name, next),
        }
    }
}

fn failure(app: &App, reason: String) -> Refusal {
    let last = app.runners.iter().filter_map(|runner| runner.last_exit.as_ref()).next_back();
    let last_lines = last.map(|exit| exit.last_lines.clone()).unwrap_or_default();
    Refusal::Failed { reason, report: app.report.clone(), last_lines }
}
