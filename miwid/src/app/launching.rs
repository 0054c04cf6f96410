//! From a launch spec to a process: its address, its directory, its control group and the ears of its probes are made
//! first, so that the program finds all of it.

use std::time::{Instant, SystemTime};

use tokio::net::unix::pipe;

use super::{
    addresses, base,
    launcher::{LaunchError, Launched},
    lifecycle::Event,
    output::LastLines,
    questions::Senses,
    spec::{AddressPlan, Attempt, Launch},
    supervisor::{Core, News},
    tree,
};
use crate::upstream::Address;

impl Core {
    pub(super) fn launch(&mut self, id: u64) {
        match self.prepare(id) {
            Ok(mut launch) => {
                let (launcher, base) = (self.launcher.clone(), launch.base.take());
                let (cgroups, process) = (self.cgroups.clone(), self.process_of(id));
                self.spawn(id, async move {
                    if let (Some(at), Some(process)) = (&launch.group, process)
                        && let Err(error) = cgroups.create(at, &process)
                    {
                        tracing::warn!(%error, group = %at.display(), "an instance runs without its control group");
                        launch.group = None;
                    }
                    if let Some((at, base)) = base {
                        let user = launch.user.clone();
                        let build = move || base::make(&at, &base, user.as_ref());
                        if let Err(failed) = tokio::task::spawn_blocking(build).await.unwrap_or(Ok(())) {
                            return News::Launched(Err(failed));
                        }
                    }
                    News::Launched(launcher.launch(launch).await)
                });
            }
            Err(error) => {
                let failed =
                    LaunchError { step: format!("address: {error}"), errno: error.raw_os_error().unwrap_or(0) };
                self.spawn(id, async move { News::Launched(Err(failed)) });
            }
        }
    }

    fn process_of(&self, id: u64) -> Option<config::Process> {
        self.find(id).and_then(|(_, runner)| runner.generation.backend.process.clone())
    }

    /// Picks the attempt's address and fills the template.
    fn prepare(&mut self, id: u64) -> std::io::Result<Launch> {
        let gone = || std::io::Error::other("the slot has gone");
        let (app, runner) = self.find(id).ok_or_else(gone)?;
        let (app, spec) = (app.name.clone(), runner.spec.clone().ok_or_else(gone)?);
        let address = self.addresses.pick(&spec.address, Instant::now())?;
        if let Some(user) = &spec.user {
            addresses::hand_over(&address, user)?;
        }
        let state_dir = self.outside.state_dir.clone();
        let runner = self.find_mut(id).ok_or_else(gone)?;
        let base = base::place(&state_dir, &app, &runner.name);
        let attempt = Attempt {
            app: &app,
            slot: runner.slot,
            generation: runner.generation.number,
            address: &address,
            base: &base,
        };
        let mut launch = spec.instantiate(&attempt);
        launch.env.push((tree::MARK.into(), config::Secret::new(runner.name.clone())));
        runner.address = Some(address);
        self.open_senses(id, &mut launch)?;
        launch.group = self.find(id).and_then(|(_, runner)| self.cgroups.place(&runner.name));
        if let Some(runner) = self.find_mut(id) {
            runner.group.clone_from(&launch.group);
            runner.launch = Some(Launch { base: None, ..launch.clone() });
        }
        Ok(launch)
    }

    /// What the probes of the app listen to: must be there before it starts.
    pub(super) fn open_senses(&mut self, id: u64, launch: &mut Launch) -> std::io::Result<()> {
        let Some((_, runner)) = self.find(id) else { return Ok(()) };
        let Some(process) = runner.generation.backend.process.clone() else { return Ok(()) };
        // That of an attempt which another engine began.
        let mut room = runner.room.clone();
        let beside = match (&runner.address, runner.spec.as_ref().map(|spec| &spec.address)) {
            (Some(Address::Unix(path)), Some(AddressPlan::Unix)) => path.parent().map(|parent| parent.join("notify")),
            _ => None,
        };
        let user = launch.user.clone();
        let place = || match beside {
            Some(path) => Ok(path),
            None => {
                let directory = room.clone().map_or_else(|| self.addresses.directory(), Ok)?;
                let path = directory.join("notify");
                room = Some(directory);
                user.map_or(Ok(()), |user| addresses::hand_over(&Address::Unix(path.clone()), &user))?;
                Ok(path)
            }
        };
        let (senses, socket) = Senses::prepare(&process, launch, place)?;
        let hearing = senses
            .notices
            .clone()
            .zip(socket)
            .map(|(notices, socket)| tokio::spawn(async move { notices.hear(socket).await }).abort_handle());
        if let Some(runner) = self.find_mut(id) {
            runner.last_lines = LastLines::looking_for(senses.needle.clone());
            (runner.senses, runner.hearing, runner.room, runner.unwell) = (senses, hearing, room, false);
        }
        Ok(())
    }

    pub(super) fn launched(&mut self, id: u64, outcome: Result<Launched, LaunchError>) {
        let launched = match outcome {
            Ok(launched) => launched,
            Err(error) => {
                let class = error.class();
                self.feed(id, Event::SpawnFailed(error.to_string(), class));
                return;
            }
        };
        let Some(runner) = self.find_mut(id) else { return };
        runner.pid = Some(launched.pid);
        runner.started = Some(SystemTime::now());
        let program = runner.spec.as_ref().map(|spec| spec.argv.join(" ")).unwrap_or_default();
        runner.steps.push(("fork, exec", runner.began.elapsed(), program));
        self.listen_to(id, launched.stdout, launched.stderr);
        let exit = launched.exit;
        self.spawn(id, async move { News::Exited(exit.await) });
        self.feed(id, Event::Spawned);
    }
    /// Reads what it prints.
    pub(super) fn listen_to(&mut self, id: u64, stdout: pipe::Receiver, stderr: pipe::Receiver) {
        let ours = self.ours.subscribe();
        let Some(output) = self.app_of(id).map(|app| app.output.clone()) else { return };
        let Some(runner) = self.find(id).map(|(_, runner)| runner) else { return };
        let (slot, last, exited) = (runner.slot, runner.last_lines.clone(), runner.exited.clone());
        for (pipe, stream) in [(stdout, "stdout"), (stderr, "stderr")] {
            tokio::spawn(output.clone().read(pipe, slot, stream, last.clone(), exited.clone(), ours.clone()));
        }
    }
}
