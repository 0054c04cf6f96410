//! Going on with what another engine began: instances that run are taken as they are, served from at once, probed and watched.
//! What was made from another plan is replaced as after a change of the configuration.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    launcher::{exit_told, received},
    lifecycle::{Event, Goal, Lane},
    managed::{Generation, SETTLE},
    spec::{Attempt, LaunchSpec},
    standing::{Instance, State},
    supervisor::{Core, News},
    tree,
};
use crate::link::Heir;

impl Core {
    /// What runs of this app; the new generation if some of it must be replaced.
    pub(super) fn adopt(&mut self, name: &str) -> Option<Arc<Generation>> {
        if self.inheritance.idle.contains(name) {
            self.doze(name);
        }
        let heirs = self.inheritance.instances.remove(name)?;
        let app = self.apps.get_mut(name)?;
        app.paused = self.inheritance.paused.contains(name);
        let wanted = app.generation.clone();
        let rank = |it: &Instance| (it.state == State::Ready, it.fingerprint == wanted.fingerprint, it.generation);
        // One for each slot; a second one is what a rollout left half done.
        let mut best: BTreeMap<u32, (bool, bool, u64)> = BTreeMap::new();
        for (instance, _) in heirs.iter().filter(|(it, _)| it.state != State::Leaving) {
            let known = best.entry(instance.slot).or_insert_with(|| rank(instance));
            *known = (*known).max(rank(instance));
        }
        let stays = |it: &Instance| it.state != State::Leaving && best.get(&it.slot) == Some(&rank(it));
        let kept = heirs.iter().map(|(it, _)| it).filter(|it| stays(it));
        let oldest = kept.min_by_key(|it| (it.fingerprint == wanted.fingerprint, it.generation));
        let differs = oldest.is_some_and(|it| it.fingerprint != wanted.fingerprint);
        if let Some(instance) = oldest {
            let spec = if differs { Some(instance.spec()) } else { wanted.spec.clone() };
            app.generation = Generation::settling(instance.generation, wanted.backend.clone(), spec, SETTLE)?;
        }
        app.last_number = heirs.iter().map(|(it, _)| it.generation).max().unwrap_or(1);
        let count = heirs.len();
        for (instance, heir) in heirs {
            let stays = stays(&instance);
            self.adopt_one(name, instance, heir, stays);
        }
        self.outside.events.emit("app.adopted", name, format!("{count} running instances were taken over"));
        let wanted = wanted.backend.clone();
        differs.then(|| Generation::new(0, wanted, self.apps.get(name)?.loaded_spec.clone())).flatten()
    }

    fn adopt_one(&mut self, name: &str, instance: Instance, heir: Heir, stays: bool) -> Option<()> {
        let generation = self.generation_of(name, &instance)?;
        let spec = generation.spec.clone()?;
        let id = self.add_runner(name, instance.slot, &generation)?;
        let address = instance.address();
        self.addresses.adopt(&spec.address, &address);
        let launch = self.launch_of(name, &instance, &spec);
        let goal = if stays { Goal::Run } else { Goal::Stop };
        let state = if stays { instance.state } else { State::Leaving };
        let (rules, now) = (generation.rules.clone(), Instant::now());
        let jitter = fastrand::Rng::with_seed(self.random.u64(..));
        let runner = self.find_mut(id)?;
        runner.lane = Lane::adopted(rules, jitter, goal, state, now);
        (runner.attempt, runner.name, runner.spec) = (1, instance.name.clone(), Some(spec));
        (runner.address, runner.pid, runner.started) = (Some(address), Some(heir.pid), instance.started);
        (runner.group, runner.room, runner.restarts) = (instance.group, instance.room, instance.restarts);
        let mut launch = launch;
        if let Err(error) = self.open_senses(id, &mut launch) {
            tracing::warn!(%error, app = name, "an instance that was taken over cannot be heard: its notify probes fail");
        }
        self.find_mut(id)?.launch = Some(launch);
        let (stdout, stderr) = (received(heir.stdout).ok()?, received(heir.stderr).ok()?);
        self.listen_to(id, stdout, stderr);
        let exit = exit_told(heir.pid, heir.exit);
        self.spawn(id, async move { News::Exited(exit.await) });
        match state {
            State::Ready | State::Unready => {
                self.find_mut(id)?.senses.recall();
                self.offer(id, state == State::Ready);
                self.probe(id);
            }
            State::Starting => self.probe(id),
            State::Leaving => self.feed(id, Event::Stop),
        }
        Some(())
    }

    fn generation_of(&self, name: &str, instance: &Instance) -> Option<Arc<Generation>> {
        let app = self.apps.get(name)?;
        if instance.generation == app.generation.number {
            return Some(app.generation.clone());
        }
        Generation::new(instance.generation, app.generation.backend.clone(), Some(instance.spec()))
    }

    /// As it was started, for what is run beside it.
    fn launch_of(&self, name: &str, instance: &Instance, spec: &LaunchSpec) -> super::spec::Launch {
        let base = super::base::place(&self.outside.state_dir, name, &instance.name);
        let attempt = Attempt {
            app: name,
            slot: instance.slot,
            generation: instance.generation,
            address: &instance.address(),
            base: &base,
        };
        let mut launch = spec.instantiate(&attempt);
        launch.env.push((tree::MARK.into(), config::Secret::new(instance.name.clone())));
        launch.base = None;
        launch
    }
}
