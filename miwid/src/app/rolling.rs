//! Carrying out the plan of a rollout: what it says becomes events for the machines of the slots, and their news its inputs.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Done, RestartOptions,
    lifecycle::{Event, Goal},
    managed::{Generation, SETTLE, SETTLE_DEPLOY},
    operation::{Kind, Operation},
    rollout::{Action, Input, Rollout, Side},
    spec::LaunchSpec,
    supervisor::Core,
    verbs::failure,
};
use crate::upstream::Availability;

impl Core {
    /// Makes the next generation from `backend` and rolls it out.
    pub(super) fn begin_rollout(
        &mut self,
        name: &str,
        options: &RestartOptions,
        mut operation: Operation,
        backend: Arc<config::Backend>,
        spec: Option<LaunchSpec>,
    ) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.last_number += 1;
        let on_failure = options.on_failure.or(backend.process.as_ref().map(|process| process.on_failure));
        let settle = if operation.kind == Kind::Deploy { SETTLE_DEPLOY } else { SETTLE };
        let Some(new) = Generation::settling(app.last_number, backend, spec, settle) else { return };
        let slots = match options.instance {
            Some(slot) => vec![slot],
            None => (0..app.desired()).collect(),
        };
        let strategy = if options.hard { config::RestartStrategy::Recreate } else { new.strategy() };
        (app.stopped, app.idle) = (false, false);
        operation.old = Some(app.generation.clone());
        operation.new = Some(new);
        operation.rollout = Some(Rollout::new(strategy, on_failure.unwrap_or_default(), slots));
        app.operation = Some(operation);
        self.keep_override(name);
        self.roll(name, Input::Begin);
    }

    /// Tells the plan what happened and does what it says.
    pub(super) fn roll(&mut self, name: &str, input: Input) {
        let mut inputs = VecDeque::from([input]);
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
        let Some(operation) = &mut app.operation else { return };
        let (kind, release, new) = (operation.kind, operation.release.take(), operation.new.clone());
        if let Some(new) = new.clone() {
            app.generation = new;
        }
        app.outdated = None;
        let number = app.generation.number;
        let message = match &release {
            Some(Some(release)) => format!("{name} runs release {release}, generation {number}"),
            Some(None) => format!("{name} runs what is configured, generation {number}"),
            None => format!("{name} restarted, generation {number}"),
        };
        if let (Some(release), Some(new)) = (release, &new) {
            self.released(name, release, kind, new);
        }
        self.end_operation(name, Ok(Done { message }));
        self.fill(name);
    }

    fn gave_up(&mut self, name: &str, why: String) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let is_release = app.operation.as_ref().is_some_and(|operation| operation.release.is_some());
        let is_replacement = app.operation.as_ref().is_some_and(|operation| operation.kind == Kind::Replace);
        // A release that failed says nothing about the configuration, nor does a replacement.
        if !is_release && !is_replacement {
            app.outdated = Some(why.clone());
        }
        let refusal = failure(app, why.clone());
        self.outside.events.emit(if is_release { "app.deploy_failed" } else { "app.rollout_failed" }, name, why);
        self.end_operation(name, Err(refusal));
    }
}
