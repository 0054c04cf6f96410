//! One app as the supervisor keeps it: its generations, its runners (a slot's machine with what the current attempt
//! owns), and what an operator sees of it, which is derived and never stored.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use config::{Backend, Process, Proxy, RestartStrategy, Target};
use tokio_util::sync::CancellationToken;

use super::{
    AppState, AppStatus, Exit, InstanceState, InstanceStatus,
    cgroup::Cgroups,
    changes::Files,
    converge::HOLDER,
    fingerprint::fingerprint,
    idle::Activity,
    lifecycle::{ExitStatus, Goal, Lane, Rules},
    operation::{Kind, Operation},
    output::{LastLines, Output},
    questions::Senses,
    rollout::Side,
    spec::{AddressPlan, Launch, LaunchSpec},
    watch::Watch,
};
use crate::upstream::{Address, Availability, Endpoint, Set};

/// A next attempt this near is worth waiting for.
const NEAR: Duration = Duration::from_secs(2);
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// A new version of the app is watched for longer than a restart of the same.
pub(super) const SETTLE_DEPLOY: Duration = Duration::from_secs(10);

/// Immutable: the configuration that a runner was made from.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) backend: Arc<Backend>,
    /// As preflight found it when the generation was made; each attempt looks again.
    pub(super) spec: Option<LaunchSpec>,
    pub(super) rules: Arc<Rules>,
    /// Of all that needs a restart to change.
    pub(super) fingerprint: u64,
}

pub(super) struct Runner {
    pub(super) id: u64,
    pub(super) slot: u32,
    pub(super) generation: Arc<Generation>,
    pub(super) lane: Lane,
    pub(super) attempt: u64,
    /// `shop-0-3f9a`, also the mark of its processes.
    pub(super) name: String,
    pub(super) spec: Option<LaunchSpec>,
    pub(super) address: Option<Address>,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) pid: Option<u32>,
    pub(super) probing: Option<tokio::task::AbortHandle>,
    /// As it was started: what is run beside it runs in the same surroundings.
    pub(super) launch: Option<Launch>,
    pub(super) group: Option<PathBuf>,
    pub(super) senses: Senses,
    pub(super) hearing: Option<tokio::task::AbortHandle>,
    /// A directory for its sockets, when its address is elsewhere.
    pub(super) room: Option<PathBuf>,
    /// Its liveness probe has failed.
    pub(super) unwell: bool,
    /// Samples in a row in which it used too much memory.
    pub(super) heavy_samples: u32,
    /// It was refused a process, and that was told.
    pub(super) forks_refused: bool,
    /// 0.9 to 1.1: by how much this attempt's age and requests may differ.
    pub(super) tolerance: f64,
    pub(super) exited: CancellationToken,
    pub(super) exit_status: Option<ExitStatus>,
    pub(super) last_lines: LastLines,
    pub(super) steps: Vec<(&'static str, Duration, String)>,
    pub(super) began: Instant,
    pub(super) started: Option<SystemTime>,
    pub(super) last_exit: Option<Exit>,
    pub(super) restarts: u64,
    pub(super) listening: Vec<Address>,
    /// The files of the current attempt, kept when it failed for a reason that only a change can mend.
    pub(super) watch: Option<Arc<Watch>>,
    pub(super) memory_bytes: u64,
    pub(super) cpu_percent: f64,
    pub(super) cpu_ticks: u64,
}

pub(super) struct App {
    pub(super) name: String,
    /// As last loaded.
    pub(super) configured: Arc<Backend>,
    /// The same with the release in its place; a restart makes its generation from this.
    pub(super) loaded: Arc<Backend>,
    pub(super) loaded_spec: Option<LaunchSpec>,
    pub(super) generation: Arc<Generation>,
    pub(super) last_number: u64,
    pub(super) set: Arc<Set>,
    pub(super) runners: Vec<Runner>,
    pub(super) stopped: bool,
    pub(super) paused: bool,
    /// Asleep: no instance runs until a request asks for one.
    pub(super) idle: bool,
    pub(super) waiting: Option<tokio::task::AbortHandle>,
    pub(super) activity: Activity,
    pub(super) files: Files,
    /// The latest minute for which its schedule was looked at.
    pub(super) checked_minute: Option<jiff::civil::DateTime>,
    /// When an instance was last replaced for its memory.
    pub(super) lightened: Option<Instant>,
    pub(super) scale: Option<u32>,
    /// What `deploy` brought, and what a rollback goes back to (the latest at the end).
    pub(super) release: Option<String>,
    pub(super) previous: Vec<Option<String>>,
    /// Releases to be removed as soon as nothing runs from them.
    pub(super) condemned: BTreeSet<String>,
    pub(super) operation: Option<Operation>,
    /// Begun when the current one is over.
    pub(super) next: std::collections::VecDeque<Operation>,
    pub(super) output: Arc<Output>,
    pub(super) restarts: u64,
    pub(super) reason: String,
    pub(super) report: String,
    pub(super) outdated: Option<String>,
    /// How the last stop went, when it was not a quiet one.
    pub(super) farewell: Option<String>,
    pub(super) leaving: bool,
    /// What requests were told last.
    pub(super) told: Option<Availability>,
}

// === impl Generation ===

impl Generation {
    pub(super) fn new(number: u64, backend: Arc<Backend>, spec: Option<LaunchSpec>) -> Option<Arc<Self>> {
        Self::settling(number, backend, spec, SETTLE)
    }

    /// `settle` counts when the configuration does not say how long.
    pub(super) fn settling(
        number: u64,
        backend: Arc<Backend>,
        spec: Option<LaunchSpec>,
        settle: Duration,
    ) -> Option<Arc<Self>> {
        let rules = Arc::new(rules(backend.process.as_ref()?, spec.as_ref(), settle));
        let fingerprint = fingerprint(spec.as_ref(), &backend);
        Some(Arc::new(Self { number, backend, spec, rules, fingerprint }))
    }

    /// Equal in all that needs a restart to change.
    pub(super) fn equals(&self, backend: &Backend, spec: Option<&LaunchSpec>) -> bool {
        let same_process = match (&self.backend.process, &backend.process) {
            (Some(ours), Some(theirs)) => placeless(ours) == placeless(theirs),
            _ => false,
        };
        self.spec.as_ref() == spec && same_process && place(&self.backend) == place(backend)
    }

    pub(super) fn strategy(&self) -> RestartStrategy {
        let wanted = self.backend.process.as_ref().map(|process| process.restart_strategy).unwrap_or_default();
        let fixed = matches!(self.spec.as_ref().map(|spec| &spec.address), Some(AddressPlan::Fixed(_)));
        match wanted {
            // Two instances cannot share a fixed address.
            RestartStrategy::Auto | RestartStrategy::Rolling if fixed => RestartStrategy::Hold,
            RestartStrategy::Auto => RestartStrategy::Rolling,
            other => other,
        }
    }
}

/// Where requests and probes find it. How requests are spread over its instances may change while they run.
pub(super) fn place(backend: &Backend) -> Option<(&[config::UpstreamUrl], &config::Health)> {
    app_proxy(backend).map(|proxy| (proxy.urls.as_slice(), &proxy.health))
}

/// Without what may change while it runs: where it was written, how many, and what wakes it.
pub(super) fn placeless(process: &Process) -> Process {
    Process {
        origin: config::Origin::default(),
        working_dir_origin: config::Origin::default(),
        instances: 0,
        wake_on: config::WakeOn::default(),
        ..process.clone()
    }
}

fn rules(process: &Process, spec: Option<&LaunchSpec>, settle: Duration) -> Rules {
    let probe = process.probes.readiness.as_ref();
    Rules {
        start_timeout: spec.map_or(process.start_timeout, |spec| spec.start_timeout),
        settle_time: process.settle_time.unwrap_or(settle),
        drain_timeout: process.drain_timeout,
        stop_timeout: process.stop_timeout,
        stop_signal: spec.map_or(process.stop_signal, |spec| spec.stop_signal),
        auto_restart: process.auto_restart,
        success_codes: process.success_codes.clone(),
        fatal_exit_codes: process.fatal_exit_codes.clone(),
        failures: probe.map_or(3, |probe| probe.failures.max(1)),
        successes: probe.map_or(1, |probe| probe.successes.max(1)),
    }
}

/// How requests reach the app of this backend.
pub(super) fn app_proxy(backend: &Backend) -> Option<&Proxy> {
    let targets = std::iter::once(&backend.target).chain(backend.routes.iter().map(|route| &route.target));
    targets.into_iter().find_map(|target| match target {
        Target::App(proxy) => Some(proxy),
        _ => None,
    })
}

// === impl App ===

impl App {
    /// Which side of the rollout that runs now `runner` is on.
    pub(super) fn side_of(&self, runner: &Runner) -> Side {
        let new = self.operation.as_ref().and_then(|operation| operation.new.as_ref()).map(|new| new.number);
        if new == Some(runner.generation.number) { Side::New } else { Side::Old }
    }

    /// What runs is the first start, which the configuration asked for: an operator who wants something else knows more,
    /// and nothing that served before is at stake.
    pub(super) fn yields(&self) -> bool {
        self.operation.as_ref().is_some_and(|it| it.kind == Kind::Start && it.holder == HOLDER)
    }

    pub(super) fn desired(&self) -> u32 {
        let configured = self.loaded.process.as_ref().map_or(0, |process| process.instances);
        self.scale.unwrap_or(configured).max(1)
    }

    pub(super) fn ready(&self) -> u32 {
        let slots: BTreeSet<u32> = self
            .runners
            .iter()
            .filter(|runner| runner.lane.state == InstanceState::Ready)
            .map(|runner| runner.slot)
            .collect();
        u32::try_from(slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn tell(&mut self, availability: Availability) {
        if self.told.as_ref() != Some(&availability) {
            self.told = Some(availability.clone());
            self.set.set_availability(availability);
        }
    }

    fn retry(&self) -> Option<Instant> {
        self.runners.iter().filter_map(|runner| runner.lane.retries_at()).min()
    }

    fn is_holding(&self) -> bool {
        self.operation.as_ref().and_then(|operation| operation.rollout.as_ref()).is_some_and(|plan| plan.is_holding())
    }

    /// What requests are told.
    pub(super) fn availability(&self, now: Instant) -> Availability {
        use InstanceState::{
            Draining, Exited, Killing, Preflight, Queued, Ready, Spawning, Starting, Stopping, Unready,
        };
        let any = |states: &[InstanceState]| self.runners.iter().any(|runner| states.contains(&runner.lane.state));
        let completed = self.runners.is_empty() && self.operation.is_none() && !self.idle;
        if self.stopped || self.leaving || completed {
            return Availability::Stopped;
        }
        if self.idle {
            return Availability::Idle;
        }
        if self.paused {
            return Availability::Paused;
        }
        if self.is_holding() {
            return Availability::Holding;
        }
        if any(&[Ready, Unready]) {
            return Availability::Serving;
        }
        // On its way out, to come back at once: after a crash, or when it was woken while it went to sleep.
        let returns = |runner: &Runner| {
            runner.lane.goal == Goal::Run && matches!(runner.lane.state, Draining | Stopping | Killing | Exited)
        };
        let coming = any(&[Queued, Preflight, Spawning, Starting]) || self.runners.iter().any(returns);
        let hold_on_start = self.generation.backend.process.as_ref().is_some_and(|process| process.hold.on_start);
        if hold_on_start && coming && self.is_hopeful() {
            return Availability::Holding;
        }
        match self.retry().map(|at| at.saturating_duration_since(now)) {
            Some(wait) if wait <= NEAR && self.is_hopeful() => Availability::Holding,
            Some(wait) => Availability::Failed { retry_after: wait.max(Duration::from_secs(1)) },
            None => Availability::Failed { retry_after: NEAR },
        }
    }

    /// False once it failed so often that waiting for the next attempt is a waste.
    fn is_hopeful(&self) -> bool {
        self.runners.iter().any(|runner| runner.lane.backoff.failures() < 3)
    }

    fn state(&self, ready: u32) -> AppState {
        let any = |state: InstanceState| self.runners.iter().any(|runner| runner.lane.state == state);
        let rollout = self.operation.as_ref().and_then(|operation| operation.rollout.as_ref());
        match rollout {
            _ if self.paused => AppState::Paused,
            _ if self.stopped => AppState::Stopped,
            _ if self.idle => AppState::Idle,
            Some(plan) if plan.is_holding() => AppState::Holding,
            Some(_) => AppState::Rolling,
            None if ready >= self.desired() => AppState::Running,
            None if ready > 0 => AppState::Degraded,
            None if any(InstanceState::Failed) => AppState::Failed,
            None if self.runners.iter().any(|runner| runner.lane.backoff.failures() > 1) => AppState::CrashLoop,
            None if self.runners.is_empty() => AppState::Stopped,
            None => AppState::Starting,
        }
    }

    pub(super) fn status(&self, now: Instant, cgroups: &Cgroups) -> AppStatus {
        let ready = self.ready();
        AppStatus {
            name: self.name.clone(),
            site: self.loaded.host.clone(),
            app_type: self.loaded.app_type,
            state: self.state(ready),
            ready,
            desired: if self.stopped || self.idle { 0 } else { self.desired() },
            generation: self.generation.number,
            release: self.release.clone(),
            restarts: self.restarts,
            strategy: self.generation.strategy(),
            reason: self.reason_line(ready),
            report: self.report.clone(),
            instances: self.runners.iter().map(|runner| runner.status(now)).collect(),
            notices: self.notices(cgroups),
            operation: self.operation.as_ref().map(|operation| operation.described(now)),
            yields: self.yields(),
        }
    }

    fn notices(&self, cgroups: &Cgroups) -> Vec<String> {
        let own = self.generation.spec.iter().flat_map(|spec| spec.notices.iter().cloned());
        own.chain(self.generation.backend.process.as_ref().and_then(|it| cgroups.unenforced(it))).collect()
    }

    fn reason_line(&self, ready: u32) -> String {
        if self.stopped {
            let farewell = self.farewell.as_ref().map(|it| format!("; {it}")).unwrap_or_default();
            return format!("stopped by the operator{farewell}");
        }
        if let Some(why) = self.outdated.as_ref().filter(|_| ready > 0) {
            return format!("outdated: keeps generation {}: {why}", self.generation.number);
        }
        if ready >= self.desired() {
            return self.scale.map(|count| format!("scaled to {count} by the operator")).unwrap_or_default();
        }
        let starting = self.runners.iter().find(|runner| runner.lane.state == InstanceState::Starting);
        match starting {
            Some(runner) if self.reason.is_empty() => runner.starting_line(),
            _ => self.reason.clone(),
        }
    }
}

// === impl Runner ===

impl Runner {
    fn starting_line(&self) -> String {
        let probe = self.lane.last_probe.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("starting {} s{probe}", self.began.elapsed().as_secs())
    }

    fn status(&self, now: Instant) -> InstanceStatus {
        let _ = now;
        InstanceStatus {
            id: self.name.clone(),
            slot: self.slot,
            pid: self.pid,
            state: self.lane.state,
            address: self.address.as_ref().map(ToString::to_string).unwrap_or_default(),
            started: self.started,
            restarts: self.restarts,
            memory_bytes: self.memory_bytes,
            cpu_percent: self.cpu_percent,
            in_flight: self.endpoint.as_ref().map_or(0, |endpoint| endpoint.in_flight()),
            last_exit: self.last_exit.clone(),
        }
    }
}
