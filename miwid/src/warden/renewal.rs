//! The warden goes on as another program, with the same pid, children and descriptors: after an upgrade to a program that is not its own,
//! as soon as nothing is under way. If the other one cannot go on with what it finds, it becomes this one again.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    children::Instance,
    engine::{Engine, Program},
    manager::Manager,
    parcel::Parcel,
    run::Warden,
    store::Store,
    succession::{self, Succession},
    voice,
};
use crate::link::{self, Exit, Identity, Kept};

/// What descriptors there are, in this order; before all of them the program to go back to.
#[derive(Serialize, Deserialize)]
struct Parked {
    age_ms: u64,
    succession: succession::Parked,
    trouble: Option<String>,
    /// A warden before this was known has none.
    #[serde(default)]
    identity: Option<Identity>,
    /// What the service manager has.
    stored: BTreeMap<String, u64>,
    /// Beside the program of the engines, which is always there: that of before, and whether something proved itself with it.
    before: Option<bool>,
    good: bool,
    state: bool,
    secrets: bool,
    configured: Vec<succession::Engine>,
    engines: Vec<ParkedEngine>,
    /// Two descriptors for each.
    instances: Vec<ParkedInstance>,
    kept: Vec<(String, usize)>,
}

#[derive(Serialize, Deserialize)]
struct ParkedEngine {
    number: succession::Engine,
    pid: u32,
    went: bool,
}

#[derive(Serialize, Deserialize)]
struct ParkedInstance {
    pid: u32,
    name: String,
    launched_by: succession::Engine,
    exit: Option<Exit>,
}

impl Parked {
    fn descriptors(&self) -> usize {
        let single = [self.before.is_some(), self.before == Some(true), self.good, self.state, self.secrets];
        2 + single.into_iter().filter(|it| *it).count()
            + self.configured.len()
            + self.engines.len()
            + 2 * self.instances.len()
            + self.kept.iter().map(|(_, count)| count).sum::<usize>()
    }
}

/// Goes on as the warden that executed this program.
pub fn resume(arguments: Vec<OsString>) -> ExitCode {
    let _ = rustix::thread::set_name(c"miwid");
    let mut parcel = match link::begin().and_then(|parked| Parcel::unpark(&parked)) {
        Ok(parcel) => parcel,
        Err(error) => {
            voice::warn(&format!("this program cannot go on as the warden: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match Warden::resumed(&mut parcel, arguments.clone()) {
        Ok(warden) => {
            voice::info(if parcel.returned {
                "this program is the warden again"
            } else {
                "this program is the warden now"
            });
            drop(parcel);
            warden.run()
        }
        Err(error) => {
            voice::warn(&format!("this program cannot go on as the warden: {error}"));
            go_back(parcel, &arguments)
        }
    }
}

fn go_back(mut parcel: Parcel, arguments: &[OsString]) -> ExitCode {
    let before = parcel.descriptors.first().and_then(|it| it.try_clone().ok());
    if let Some(before) = before.filter(|_| !parcel.returned) {
        parcel.returned = true;
        let error = parcel.execute(&Program::from(before), arguments);
        voice::warn(&format!("nor can the one before: {error}"));
    }
    ExitCode::FAILURE
}

impl Warden {
    /// Returns when there is no reason, no peace, or no way.
    pub(super) fn renew(&mut self) {
        if !self.succession.may_renew() || self.engines.values().any(Engine::is_behind) || self.manager.is_behind() {
            return;
        }
        self.succession.renewed();
        let own = match Program::open(Path::new("/proc/self/exe")) {
            Ok(own) if own.is_same(&self.program) => return,
            Ok(own) => own,
            Err(error) => return voice::warn(&format!("the warden stays the program that it is: {error}")),
        };
        let executed = self.parcel(own).map(|parcel| parcel.execute(&self.program, &self.arguments));
        let error = executed.unwrap_or_else(|error| error);
        voice::warn(&format!("the warden stays the program that it is: {error}"));
    }

    fn parcel(&self, own: Program) -> io::Result<Parcel> {
        let parked = Parked {
            age_ms: millis(self.begun.elapsed()),
            succession: self.succession.park(Instant::now()),
            trouble: self.trouble.why().map(str::to_owned),
            identity: self.identity.clone(),
            stored: self.store.names().clone(),
            before: self.before.as_ref().map(|(_, good)| good.is_some()),
            good: self.good.is_some(),
            state: self.state.is_some(),
            secrets: self.secrets.is_some(),
            configured: self.configured.keys().copied().collect(),
            engines: self
                .engines
                .iter()
                .map(|(number, it)| ParkedEngine { number: *number, pid: it.pid, went: it.went })
                .collect(),
            instances: self.children.instances.iter().map(|(pid, it)| ParkedInstance::of(*pid, it)).collect(),
            kept: self.kept.iter().map(|(key, sockets)| (key.clone(), sockets.len())).collect(),
        };
        let before =
            self.before.iter().flat_map(|(program, good)| [Some(program.descriptor()), good.as_ref()]).flatten();
        let single = [&self.good, &self.state, &self.secrets].into_iter().flatten();
        let pipes = self.children.instances.values().flat_map(|it| &it.pipes);
        let all = before
            .chain(single)
            .chain(self.configured.values())
            .chain(self.engines.values().map(Engine::link))
            .chain(pipes)
            .chain(self.kept.values().flatten());
        let mut descriptors = vec![own.into(), self.program.descriptor().try_clone()?];
        for descriptor in all {
            descriptors.push(descriptor.try_clone()?);
        }
        Ok(Parcel { text: serde_json::to_vec(&parked)?, descriptors, returned: false })
    }

    /// Takes what is in the parcel, or leaves all of it there.
    fn resumed(parcel: &mut Parcel, arguments: Vec<OsString>) -> io::Result<Self> {
        if !parcel.returned && cfg!(debug_assertions) && std::env::var_os("MIWID_TEST_RESUME_FAILS").is_some() {
            return Err(io::Error::other("a test wants it so"));
        }
        let parked: Parked = serde_json::from_slice(&parcel.text)?;
        if parked.descriptors() != parcel.descriptors.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there are other descriptors than were told"));
        }
        let mut warden =
            Self::new(arguments, Manager::of_environment(), Store::resumed(parked.stored.clone()), Kept::new())?;
        warden.take(parked, std::mem::take(&mut parcel.descriptors));
        Ok(warden)
    }

    /// As many descriptors as were told, in the order in which they were put in.
    fn take(&mut self, parked: Parked, descriptors: Vec<OwnedFd>) {
        let now = Instant::now();
        let mut descriptors = descriptors.into_iter().skip(1);
        let mut next = |there: bool| if there { descriptors.next() } else { None };
        self.begun = now.checked_sub(Duration::from_millis(parked.age_ms)).unwrap_or(now);
        self.succession = Succession::unpark(parked.succession, now);
        if let Some(program) = next(true) {
            self.program = Program::from(program);
        }
        self.before =
            next(parked.before.is_some()).map(Program::from).map(|it| (it, next(parked.before == Some(true))));
        self.good = next(parked.good);
        self.state = next(parked.state);
        self.secrets = next(parked.secrets);
        self.configured = parked.configured.into_iter().filter_map(|it| Some((it, next(true)?))).collect();
        for ParkedEngine { number, pid, went } in parked.engines {
            self.engines.extend(next(true).map(|link| (number, Engine::resumed(pid, link, went))));
        }
        self.alive.extend(self.succession.current().map(|it| (it, now)));
        for ParkedInstance { pid, name, launched_by, exit } in parked.instances {
            let (Some(stdout), Some(stderr)) = (next(true), next(true)) else { continue };
            self.children.instances.insert(pid, Instance { name, launched_by, pipes: [stdout, stderr], exit });
        }
        for (key, count) in parked.kept {
            self.kept.insert(key, (0..count).filter_map(|_| next(true)).collect());
        }
        self.identity = parked.identity;
        self.trouble.resume(parked.trouble, &self.kept);
    }
}

impl ParkedInstance {
    fn of(pid: u32, instance: &Instance) -> Self {
        Self { pid, name: instance.name.clone(), launched_by: instance.launched_by, exit: instance.exit }
    }
}

pub(super) fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}
