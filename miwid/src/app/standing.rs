//! What the next engine must know of the apps: which processes run, where they listen, how well they are, and from which plan they
//! were made. It is said to the warden after every change, and is all that is left of an engine that died.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use config::KillMode;
use serde::{Deserialize, Serialize};

use super::{
    InstanceState,
    launcher::Launcher,
    managed::{App, Runner},
    spec::{AddressPlan, Autopsy, Base, LaunchSpec},
};
use crate::{
    link::{Heir, Takeover},
    upstream::Address,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    pub(super) instances: Vec<Instance>,
    pub(super) paused: BTreeSet<String>,
    /// Asleep until a request comes.
    pub(super) idle: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) app: String,
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) state: State,
    address: Place,
    plan: Plan,
    /// Of the plan it was made from: another one asks for a replacement.
    pub(super) fingerprint: u64,
    pub(super) started: Option<SystemTime>,
    pub(super) restarts: u64,
    pub(super) group: Option<PathBuf>,
    pub(super) room: Option<PathBuf>,
    argv: Vec<String>,
    working_dir: PathBuf,
    kill_mode: Kill,
    stop_signal: i32,
    upstream_idle: Duration,
    has_base: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Starting,
    Ready,
    Unready,
    /// On its way out.
    Leaving,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Plan {
    Tcp,
    Unix,
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kill {
    Mixed,
    Group,
    Process,
}

/// What an engine finds of the apps: instances that it can go on with, by app, and processes that nobody knows.
#[derive(Debug, Default)]
pub struct Inheritance {
    pub(super) instances: BTreeMap<String, Vec<(Instance, Heir)>>,
    pub(super) strays: Vec<Heir>,
    pub(super) paused: BTreeSet<String>,
    pub(super) idle: BTreeSet<String>,
}

// === impl Standing ===

impl Standing {
    pub(super) fn of<'a>(apps: impl Iterator<Item = &'a App>) -> Self {
        let mut standing = Self::default();
        for app in apps {
            if app.paused {
                standing.paused.insert(app.name.clone());
            }
            if app.idle {
                standing.idle.insert(app.name.clone());
            }
            standing.instances.extend(app.runners.iter().filter_map(|it| Instance::of(&app.name, it)));
        }
        standing
    }
}

// === impl Instance ===

impl Instance {
    /// `None`: there is no process.
    fn of(app: &str, runner: &Runner) -> Option<Self> {
        let (spec, address) = (runner.spec.as_ref()?, runner.address.as_ref()?);
        Some(Self {
            app: app.to_owned(),
            slot: runner.slot,
            generation: runner.generation.number,
            name: runner.name.clone(),
            pid: runner.pid.filter(|_| runner.exit_status.is_none())?,
            state: match runner.lane.state {
                InstanceState::Ready => State::Ready,
                InstanceState::Unready => State::Unready,
                InstanceState::Starting => State::Starting,
                _ => State::Leaving,
            },
            address: match address {
                Address::Tcp(address) => Place::Tcp(*address),
                Address::Unix(path) => Place::Unix(path.clone()),
            },
            plan: match spec.address {
                AddressPlan::Tcp => Plan::Tcp,
                AddressPlan::Unix => Plan::Unix,
                AddressPlan::Fixed(_) => Plan::Fixed,
            },
            fingerprint: runner.generation.fingerprint,
            started: runner.started,
            restarts: runner.restarts,
            group: runner.group.clone(),
            room: runner.room.clone(),
            argv: spec.argv.clone(),
            working_dir: spec.working_dir.clone(),
            kill_mode: match spec.kill_mode {
                KillMode::Mixed => Kill::Mixed,
                KillMode::Group => Kill::Group,
                KillMode::Process => Kill::Process,
            },
            stop_signal: spec.stop_signal,
            upstream_idle: spec.upstream_idle,
            has_base: spec.base.is_some(),
        })
    }

    pub(super) fn address(&self) -> Address {
        match &self.address {
            Place::Tcp(address) => Address::Tcp(*address),
            Place::Unix(path) => Address::Unix(path.clone()),
        }
    }

    /// As much of its plan as it takes to serve from it and to end it.
    pub(super) fn spec(&self) -> LaunchSpec {
        LaunchSpec {
            argv: self.argv.clone(),
            env: Vec::new(),
            working_dir: self.working_dir.clone(),
            user: None,
            address: match self.plan {
                Plan::Tcp => AddressPlan::Tcp,
                Plan::Unix => AddressPlan::Unix,
                Plan::Fixed => AddressPlan::Fixed(self.address()),
            },
            kill_mode: match self.kill_mode {
                Kill::Mixed => KillMode::Mixed,
                Kill::Group => KillMode::Group,
                Kill::Process => KillMode::Process,
            },
            stop_signal: self.stop_signal,
            start_timeout: Duration::from_secs(60),
            upstream_idle: self.upstream_idle,
            base: self.has_base.then(Base::default),
            gates: Vec::new(),
            autopsy: Autopsy::Nothing,
            notices: Vec::new(),
        }
    }
}

// === impl Inheritance ===

impl Inheritance {
    /// Pairs what the engine before said with the processes that the warden has.
    pub fn of(takeover: Takeover) -> Self {
        let standing: Standing = match takeover.state.as_slice() {
            [] => Standing::default(),
            text => serde_json::from_slice(text).unwrap_or_else(|error| {
                tracing::error!(%error, "what the engine before said of the apps is not understood: they start anew");
                Standing::default()
            }),
        };
        let mut known: BTreeMap<u32, Instance> = standing.instances.into_iter().map(|it| (it.pid, it)).collect();
        let mut inheritance = Self { paused: standing.paused, idle: standing.idle, ..Self::default() };
        for heir in takeover.instances {
            match known.remove(&heir.pid).filter(|it| it.name == heir.name) {
                Some(instance) => {
                    inheritance.instances.entry(instance.app.clone()).or_default().push((instance, heir));
                }
                None => inheritance.strays.push(heir),
            }
        }
        inheritance
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.instances.is_empty() || !self.strays.is_empty()
    }

    pub(super) fn names(&self) -> HashSet<String> {
        self.instances.values().flatten().map(|(instance, _)| instance.name.clone()).collect()
    }

    /// What no app of the configuration has taken: it must not stay.
    pub(super) fn sweep(&mut self, launcher: &dyn Launcher) {
        let orphans = std::mem::take(&mut self.instances).into_values().flatten();
        let named = orphans.map(|(instance, heir)| (heir, instance.group));
        let strays = std::mem::take(&mut self.strays).into_iter().map(|heir| (heir, None));
        for (heir, group) in named.chain(strays) {
            tracing::warn!(pid = heir.pid, name = heir.name, "a process that nobody needs any more is ended");
            tokio::spawn(launcher.kill_tree(heir.pid, heir.name, group));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn instance(name: &str, pid: u32) -> Instance {
        Instance {
            app: "shop".into(),
            slot: 0,
            generation: 3,
            name: name.into(),
            pid,
            state: State::Ready,
            address: Place::Unix("/run/x.sock".into()),
            plan: Plan::Unix,
            fingerprint: 7,
            started: None,
            restarts: 2,
            group: None,
            room: None,
            argv: vec!["/bin/x".into()],
            working_dir: "/".into(),
            kill_mode: Kill::Group,
            stop_signal: 15,
            upstream_idle: Duration::from_secs(4),
            has_base: false,
        }
    }

    fn heir(name: &str, pid: u32) -> Heir {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("there is one"));
        Heir { name: name.into(), pid, stdout: null(), stderr: null(), exit: tokio::sync::oneshot::channel().1 }
    }

    #[test]
    fn an_instance_is_the_same_after_it_was_said_and_read() {
        let standing = Standing { instances: vec![instance("shop-0-1", 5)], ..Standing::default() };
        let text = serde_json::to_vec(&standing).expect("a text");
        assert_eq!(serde_json::from_slice::<Standing>(&text).expect("a standing"), standing);
        let spec = standing.instances[0].spec();
        assert_eq!((spec.kill_mode, spec.stop_signal, spec.address), (KillMode::Group, 15, AddressPlan::Unix));
    }

    #[test]
    fn only_a_process_of_the_same_pid_and_name_is_gone_on_with() {
        let instances = vec![instance("shop-0-1", 5), instance("shop-1-1", 6), instance("gone", 7)];
        let standing = Standing { instances, ..Standing::default() };
        let takeover = Takeover {
            state: serde_json::to_vec(&standing).expect("a text"),
            instances: vec![heir("shop-0-1", 5), heir("another", 6), heir("probe-3", 9)],
            ..Takeover::default()
        };
        let inheritance = Inheritance::of(takeover);
        assert_eq!(inheritance.names(), HashSet::from(["shop-0-1".to_owned()]));
        let strays: Vec<u32> = inheritance.strays.iter().map(|it| it.pid).collect();
        assert_eq!(strays, [6, 9]);
    }
}
