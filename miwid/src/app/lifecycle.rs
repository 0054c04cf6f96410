//! One slot's run of attempts as a pure state machine: events in, effects out, time as an argument. An attempt is over
//! only when its main process has been reaped *and* nothing of its tree is left; an exit alone decides nothing.
//!
//! ```text
//! stopped --start--> queued --permit--> preflight --ok--> spawning --exec--> starting --probe good--> ready <--> unready
//!                      ^                    |failed           |failed            |exit, timeout        |exit     |stop
//!                      |                    v                 v                  v                     v         v
//!                      +--- backoff/failed <---- tree empty ---- exited / stopping --> killing   exited    draining
//!                           (or stopped)                             (5 s) killing --> stuck              --> stopping
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    InstanceState as State,
    backoff::{Backoff, LONGEST, Reached, STABLE},
};

/// SIGKILL has worked within so long, or the process cannot be killed.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Withdrawing must answer within the drain timeout; so much more is granted before we go on without it.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// A failed preflight is looked at again this often, so that an app starts by itself soon after its cause went away.
pub(super) const PREFLIGHT_POLL: Duration = Duration::from_secs(1);

/// A slow start gives its permit back after so long: its busy part is over, and others wait.
const PERMIT_TERM: Duration = Duration::from_secs(5);

/// What the configuration says about one app's life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rules {
    pub(super) start_timeout: Duration,
    pub(super) settle_time: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) stop_timeout: Duration,
    pub(super) stop_signal: i32,
    pub(super) auto_restart: config::AutoRestart,
    pub(super) success_codes: Vec<i32>,
    pub(super) fatal_exit_codes: Vec<i32>,
    /// Bad checks in a row that make it unready, good ones that make it ready again.
    pub(super) failures: u32,
    pub(super) successes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Run, and run again after every failure.
    Run,
    /// One attempt that must settle; a failure is the end (the new side of a rollout).
    Trial,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub core_dumped: bool,
}

/// A failure that time alone may mend, or one that needs somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Passing,
    Permanent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Start(Goal),
    /// A trial has proved itself: from now on it restarts.
    Promote,
    Stop,
    StopNow,
    /// Forget backoff and failure, try now.
    Reset,
    Permit,
    PreflightGood,
    PreflightBad(String),
    Spawned,
    SpawnFailed(String, Class),
    ProbeGood,
    ProbeBad(String),
    /// Another process answers on the address.
    NotOurs(String),
    Drained,
    Exited(ExitStatus),
    /// Nothing of the tree is left; `leftovers` were found when the sweep began.
    TreeEmpty {
        leftovers: usize,
    },
    Timer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    AskPermit,
    ReturnPermit,
    Preflight,
    Launch,
    /// Begin probing (startup cadence until the first good answer, then the health interval).
    Probe,
    Publish,
    Healthy(bool),
    /// Withdraw the endpoint and report `Drained`.
    Withdraw(Duration),
    Signal,
    KillTree,
    /// The attempt is over: write it down, free its address.
    Record(Cause),
    Settled,
    /// At rest: `stopped`, or a trial that failed.
    Rest,
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Preflight(String),
    Spawn(String),
    BeforeReady(ExitStatus),
    Daemonised,
    StartTimeout {
        after: Duration,
        probe: Option<String>,
    },
    NotOurs(String),
    Crashed(ExitStatus),
    /// Ended by itself and that is fine.
    Completed(ExitStatus),
    Stopped(ExitStatus),
    Ignored {
        signal: i32,
        after: Duration,
    },
    KilledNow,
}

/// One slot's machine.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    pub(super) goal: Goal,
    pub(super) rules: Arc<Rules>,
    pub(super) backoff: Backoff,
    pub(super) last_probe: Option<String>,
    pub(super) settled: bool,
    deadline: Option<Instant>,
    started: Option<Instant>,
    ready_since: Option<Instant>,
    was_ready: bool,
    exit: Option<ExitStatus>,
    /// How many processes outlived the main one; `Some` = the tree is empty now.
    swept: Option<usize>,
    cause: Option<Cause>,
    permit: bool,
    forgiven: bool,
    bad: u32,
    good: u32,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(rules: Arc<Rules>, jitter: fastrand::Rng) -> Self {
        Self {
            state: State::Stopped,
            goal: Goal::Stop,
            rules,
            backoff: Backoff::new(jitter),
            last_probe: None,
            settled: false,
            deadline: None,
            started: None,
            ready_since: None,
            was_ready: false,
            exit: None,
            swept: None,
            cause: None,
            permit: false,
            forgiven: false,
            bad: 0,
            good: 0,
        }
    }

    /// When `Timer` should come next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let since = self.ready_since;
        let settle = since.filter(|_| !self.settled).map(|at| at + self.rules.settle_time);
        let stable = since.filter(|_| !self.forgiven).map(|at| at + STABLE);
        let permit = self.started.filter(|_| self.permit).map(|at| at + PERMIT_TERM);
        [self.deadline, settle, stable, permit].into_iter().flatten().min()
    }

    /// When the next attempt begins, if it waits for one.
    pub(super) fn retries_at(&self) -> Option<Instant> {
        self.deadline.filter(|_| matches!(self.state, State::Backoff | State::Failed))
    }

    #[cfg(test)]
    fn at_rest(&self) -> bool {
        self.state == State::Stopped || (self.state == State::Failed && self.goal == Goal::Trial)
    }

    pub(super) fn has_process(&self) -> bool {
        use State::{Draining, Exited, Killing, Ready, Spawning, Starting, Stopping, Stuck, Unready};
        matches!(self.state, Spawning | Starting | Ready | Unready | Draining | Stopping | Killing | Stuck | Exited)
    }

    /// The one place where a slot changes its mind.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Start(goal) => self.start(goal, &mut effects),
            Event::Promote => {
                if self.goal == Goal::Trial {
                    self.goal = Goal::Run;
                }
            }
            Event::Stop => self.stop(now, &mut effects),
            Event::StopNow => self.stop_now(now, &mut effects),
            Event::Reset => self.reset(&mut effects),
            Event::Timer => self.timer(now, &mut effects),
            Event::Exited(status) => self.exited(status, now, &mut effects),
            Event::TreeEmpty { leftovers } => self.tree_empty(leftovers, now, &mut effects),
            other => self.progress(other, now, &mut effects),
        }
        effects
    }

    fn start(&mut self, goal: Goal, effects: &mut Vec<Effect>) {
        if self.has_process() || matches!(self.state, State::Queued | State::Preflight) {
            // A stop that has begun runs to its end; the goal decides what comes after.
            self.goal = goal;
            return;
        }
        self.goal = goal;
        self.queue(effects);
    }

    fn queue(&mut self, effects: &mut Vec<Effect>) {
        self.state = State::Queued;
        self.deadline = None;
        self.started = None;
        self.ready_since = None;
        (self.was_ready, self.settled, self.forgiven) = (false, false, false);
        (self.exit, self.swept, self.cause, self.last_probe) = (None, None, None, None);
        (self.bad, self.good) = (0, 0);
        effects.push(Effect::AskPermit);
    }

    /// The way up: each event counts only in the state that waits for it.
    fn progress(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        match (self.state, event) {
            (State::Queued, Event::Permit) => {
                self.permit = true;
                self.state = State::Preflight;
                effects.push(Effect::Preflight);
            }
            (_, Event::Permit) => effects.push(Effect::ReturnPermit),
            (State::Preflight, Event::PreflightGood) => {
                self.state = State::Spawning;
                effects.push(Effect::Launch);
            }
            (State::Preflight, Event::PreflightBad(why)) => {
                self.unlaunched(Cause::Preflight(why), Class::Permanent, now, effects);
            }
            (State::Spawning, Event::Spawned) => self.spawned(now, effects),
            (State::Spawning, Event::SpawnFailed(why, class)) => {
                self.unlaunched(Cause::Spawn(why), class, now, effects);
            }
            (State::Starting, Event::ProbeGood) => self.became_ready(now, effects),
            (State::Starting, Event::ProbeBad(why)) => self.last_probe = Some(why),
            (State::Starting | State::Ready | State::Unready, Event::NotOurs(why)) => {
                self.cause = Some(Cause::NotOurs(why));
                self.drain_or_signal(now, effects);
            }
            (State::Ready | State::Unready, Event::ProbeGood) => self.checked_good(effects),
            (State::Ready | State::Unready, Event::ProbeBad(why)) => self.checked_bad(why, effects),
            (State::Draining, Event::Drained) => self.signal(now, effects),
            _ => {}
        }
    }

    fn spawned(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.started = Some(now);
        if self.goal == Goal::Stop {
            self.signal(now, effects);
            return;
        }
        self.state = State::Starting;
        self.deadline = Some(now + self.rules.start_timeout);
        effects.push(Effect::Probe);
    }

    fn became_ready(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.state = State::Ready;
        self.deadline = None;
        self.ready_since = Some(now);
        self.was_ready = true;
        self.last_probe = None;
        self.return_permit(effects);
        effects.push(Effect::Publish);
    }

    fn checked_good(&mut self, effects: &mut Vec<Effect>) {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        if self.state == State::Unready && self.good >= self.rules.successes {
            self.state = State::Ready;
            self.last_probe = None;
            effects.push(Effect::Healthy(true));
        }
    }

    fn checked_bad(&mut self, why: String, effects: &mut Vec<Effect>) {
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        self.last_probe = Some(why);
        if self.state == State::Ready && self.bad >= self.rules.failures {
            self.state = State::Unready;
            effects.push(Effect::Healthy(false));
        }
    }

    fn stop(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.goal = Goal::Stop;
        match self.state {
            State::Ready | State::Unready => self.drain(now, effects),
            State::Starting => self.signal(now, effects),
            State::Queued | State::Preflight | State::Backoff | State::Failed => self.rest(effects),
            // Spawning finds the goal changed; the others are on their way out.
            _ => {}
        }
    }

    fn stop_now(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let was_out = self.published();
        self.goal = Goal::Stop;
        match self.state {
            State::Starting | State::Ready | State::Unready | State::Draining | State::Stopping => {
                if was_out {
                    effects.push(Effect::Withdraw(Duration::ZERO));
                }
                self.cause.get_or_insert(Cause::KilledNow);
                self.kill(now, effects);
            }
            _ => self.stop(now, effects),
        }
    }

    fn reset(&mut self, effects: &mut Vec<Effect>) {
        self.backoff.forgive();
        if matches!(self.state, State::Backoff | State::Failed) && self.goal == Goal::Run {
            self.queue(effects);
        }
    }

    fn published(&self) -> bool {
        matches!(self.state, State::Ready | State::Unready)
    }

    fn drain_or_signal(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.published() { self.drain(now, effects) } else { self.signal(now, effects) }
    }

    fn drain(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.state = State::Draining;
        self.ready_since = None;
        self.deadline = Some(now + self.rules.drain_timeout + DRAIN_GRACE);
        effects.push(Effect::Withdraw(self.rules.drain_timeout));
    }

    fn signal(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.state = State::Stopping;
        self.deadline = Some(now + self.rules.stop_timeout);
        effects.push(Effect::Signal);
    }

    fn kill(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.state = State::Killing;
        self.ready_since = None;
        self.deadline = Some(now + KILL_PATIENCE);
        effects.push(Effect::KillTree);
    }

    fn timer(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(since) = self.ready_since {
            if !self.settled && now >= since + self.rules.settle_time {
                self.settled = true;
                effects.push(Effect::Settled);
            }
            if !self.forgiven && now >= since + STABLE {
                self.forgiven = true;
                self.backoff.forgive();
            }
        }
        if self.started.is_some_and(|at| now >= at + PERMIT_TERM) {
            self.return_permit(effects);
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Starting => {
                let probe = self.last_probe.clone();
                self.cause = Some(Cause::StartTimeout { after: self.rules.start_timeout, probe });
                self.signal(now, effects);
            }
            State::Draining => self.signal(now, effects),
            State::Stopping => {
                let ignored = Cause::Ignored { signal: self.rules.stop_signal, after: self.rules.stop_timeout };
                self.cause.get_or_insert(ignored);
                self.kill(now, effects);
            }
            State::Killing | State::Exited => {
                self.state = State::Stuck;
                self.deadline = None;
            }
            State::Backoff | State::Failed => self.queue(effects),
            _ => self.deadline = None,
        }
    }

    fn exited(&mut self, status: ExitStatus, now: Instant, effects: &mut Vec<Effect>) {
        self.exit = Some(status);
        match self.state {
            State::Starting => self.cause = Some(Cause::BeforeReady(status)),
            State::Ready | State::Unready => {
                let fine = self.rules.success_codes.contains(&status.code.unwrap_or(-1));
                let cause = if fine { Cause::Completed(status) } else { Cause::Crashed(status) };
                self.cause = Some(cause);
                effects.push(Effect::Withdraw(Duration::ZERO));
            }
            State::Draining | State::Stopping => {
                self.cause.get_or_insert(Cause::Stopped(status));
            }
            State::Killing | State::Stuck => {
                self.finish_when_gone(now, effects);
                return;
            }
            _ => return,
        }
        self.state = State::Exited;
        self.ready_since = None;
        self.deadline = Some(now + KILL_PATIENCE);
        effects.push(Effect::KillTree);
    }

    fn tree_empty(&mut self, leftovers: usize, now: Instant, effects: &mut Vec<Effect>) {
        if !matches!(self.state, State::Exited | State::Killing | State::Stuck) {
            return;
        }
        self.swept = Some(leftovers);
        let quiet_exit = matches!(&self.cause, Some(Cause::BeforeReady(exit)) if exit.code == Some(0));
        if quiet_exit && leftovers > 0 {
            self.cause = Some(Cause::Daemonised);
        }
        self.finish_when_gone(now, effects);
    }

    fn finish_when_gone(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Some(status), Some(_)) = (self.exit, self.swept) else { return };
        let cause = self.cause.take().unwrap_or(Cause::Stopped(status));
        self.decide(cause, Class::Passing, now, effects);
    }

    fn unlaunched(&mut self, cause: Cause, class: Class, now: Instant, effects: &mut Vec<Effect>) {
        self.decide(cause, class, now, effects);
    }

    /// The attempt is over: what now?
    fn decide(&mut self, cause: Cause, class: Class, now: Instant, effects: &mut Vec<Effect>) {
        self.return_permit(effects);
        self.ready_since = None;
        self.deadline = None;
        effects.push(Effect::Record(cause.clone()));
        if self.goal == Goal::Stop || self.stays_down(&cause) {
            self.rest(effects);
            return;
        }
        if self.goal == Goal::Trial {
            self.state = State::Failed;
            effects.push(Effect::Rest);
            return;
        }
        if matches!(cause, Cause::Stopped(_) | Cause::Ignored { .. } | Cause::KilledNow) {
            // We stopped it, and meanwhile somebody wants it back: not a failure.
            self.queue(effects);
            return;
        }
        let reached = if self.was_ready { Reached::Ready } else { Reached::Nothing };
        let wait = self.backoff.after_failure(reached);
        match self.permanence(&cause, class) {
            Some(cadence) => {
                self.state = State::Failed;
                self.deadline = Some(now + cadence);
            }
            None if wait.is_zero() => self.queue(effects),
            None => {
                self.state = State::Backoff;
                self.deadline = Some(now + wait);
            }
        }
    }

    /// Whether the policy leaves it down; only an exit after ready may.
    fn stays_down(&self, cause: &Cause) -> bool {
        match (self.rules.auto_restart, cause) {
            // A trial that ends is a failed trial, whatever the policy.
            _ if self.goal == Goal::Trial => false,
            (config::AutoRestart::Always, _) => false,
            (config::AutoRestart::OnFailure, cause) => matches!(cause, Cause::Completed(_)),
            (config::AutoRestart::Never, cause) => matches!(cause, Cause::Completed(_) | Cause::Crashed(_)),
        }
    }

    /// The cadence of a failure that will not mend by waiting.
    fn permanence(&self, cause: &Cause, class: Class) -> Option<Duration> {
        let (Cause::BeforeReady(exit) | Cause::Crashed(exit) | Cause::Completed(exit)) = cause else {
            let looked_at_often = matches!(cause, Cause::Preflight(_));
            let cadence = if looked_at_often { PREFLIGHT_POLL } else { LONGEST };
            return (class == Class::Permanent).then_some(cadence);
        };
        let code = exit.code?;
        let fatal = matches!(code, 126 | 127) || self.rules.fatal_exit_codes.contains(&code);
        fatal.then_some(LONGEST)
    }

    fn rest(&mut self, effects: &mut Vec<Effect>) {
        self.return_permit(effects);
        self.state = State::Stopped;
        self.goal = Goal::Stop;
        self.deadline = None;
        effects.push(Effect::Rest);
    }

    fn return_permit(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.permit) {
            effects.push(Effect::ReturnPermit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Arc<Rules> {
        Arc::new(Rules {
            start_timeout: Duration::from_secs(60),
            settle_time: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            stop_signal: 15,
            auto_restart: config::AutoRestart::Always,
            success_codes: vec![0],
            fatal_exit_codes: vec![78],
            failures: 3,
            successes: 1,
        })
    }

    fn code(code: i32) -> Event {
        Event::Exited(ExitStatus { code: Some(code), signal: None, core_dumped: false })
    }

    fn lane() -> Lane {
        Lane::new(rules(), fastrand::Rng::with_seed(3))
    }

    fn started(now: Instant) -> Lane {
        let mut lane = lane();
        for event in [Event::Start(Goal::Run), Event::Permit, Event::PreflightGood, Event::Spawned] {
            lane.step(event, now);
        }
        assert_eq!(lane.state, State::Starting);
        lane
    }

    fn ready(now: Instant) -> Lane {
        let mut lane = started(now);
        assert!(lane.step(Event::ProbeGood, now).contains(&Effect::Publish));
        lane
    }

    #[test]
    fn an_exit_before_ready_is_a_failure_whatever_the_code() {
        let now = Instant::now();
        let mut lane = started(now);
        assert_eq!(lane.step(code(0), now), [Effect::KillTree]);
        let effects = lane.step(Event::TreeEmpty { leftovers: 0 }, now);
        assert!(matches!(effects[1], Effect::Record(Cause::BeforeReady(_))), "{effects:?}");
        assert_eq!(lane.state, State::Backoff);
    }

    #[test]
    fn children_left_by_a_quiet_exit_mean_that_it_daemonises() {
        let now = Instant::now();
        let mut lane = started(now);
        lane.step(code(0), now);
        let effects = lane.step(Event::TreeEmpty { leftovers: 1 }, now);
        assert!(effects.contains(&Effect::Record(Cause::Daemonised)));
    }

    #[test]
    fn a_crash_withdraws_the_endpoint_first_and_restarts_without_delay_once() {
        let now = Instant::now();
        let mut lane = ready(now);
        assert_eq!(lane.step(code(1), now), [Effect::Withdraw(Duration::ZERO), Effect::KillTree]);
        lane.step(Event::TreeEmpty { leftovers: 0 }, now);
        assert_eq!(lane.state, State::Queued);
    }

    #[test]
    fn a_process_that_ignores_its_signal_is_killed_and_one_that_cannot_be_killed_is_stuck() {
        let mut now = Instant::now();
        let mut lane = ready(now);
        assert_eq!(lane.step(Event::Stop, now), [Effect::Withdraw(Duration::from_secs(30))]);
        assert_eq!(lane.step(Event::Drained, now), [Effect::Signal]);
        now += Duration::from_secs(10);
        assert_eq!(lane.step(Event::Timer, now), [Effect::KillTree]);
        now += KILL_PATIENCE;
        lane.step(Event::Timer, now);
        assert_eq!(lane.state, State::Stuck);
        let killed = ExitStatus { code: None, signal: Some(9), core_dumped: false };
        lane.step(Event::Exited(killed), now);
        let effects = lane.step(Event::TreeEmpty { leftovers: 1 }, now);
        let ignored = Cause::Ignored { signal: 15, after: Duration::from_secs(10) };
        assert_eq!(effects, [Effect::Record(ignored), Effect::Rest]);
    }

    #[test]
    fn a_slow_start_is_signalled_at_its_timeout_with_the_last_probe_reason() {
        let now = Instant::now();
        let mut lane = started(now);
        lane.step(Event::ProbeBad("connection refused".into()), now);
        let late = now + Duration::from_secs(60);
        let effects = lane.step(Event::Timer, late);
        assert!(effects.contains(&Effect::Signal), "{effects:?}");
        lane.step(code(143), late);
        let effects = lane.step(Event::TreeEmpty { leftovers: 0 }, late);
        let named = |effect: &Effect| matches!(effect, Effect::Record(Cause::StartTimeout { probe: Some(why), .. }) if why == "connection refused");
        assert!(effects.iter().any(named), "{effects:?}");
    }

    #[test]
    fn a_stop_in_backoff_is_immediate_and_a_fatal_code_waits_a_minute() {
        let now = Instant::now();
        let mut lane = started(now);
        lane.step(code(78), now);
        lane.step(Event::TreeEmpty { leftovers: 0 }, now);
        assert_eq!(lane.state, State::Failed);
        assert_eq!(lane.retries_at(), Some(now + LONGEST));
        assert_eq!(lane.step(Event::Stop, now), [Effect::Rest]);
        assert_eq!(lane.wakes_at(), None);
    }

    #[test]
    fn three_bad_checks_make_it_unready_and_one_good_ready_again() {
        let now = Instant::now();
        let mut lane = ready(now);
        for _ in 0..2 {
            assert_eq!(lane.step(Event::ProbeBad("500".into()), now), []);
        }
        assert_eq!(lane.step(Event::ProbeBad("500".into()), now), [Effect::Healthy(false)]);
        assert_eq!(lane.step(Event::ProbeGood, now), [Effect::Healthy(true)]);
    }

    /// What the world around a lane looks like to a test that answers its effects at random.
    #[derive(Default)]
    struct World {
        launches: u32,
        records: u32,
        unlaunched: u32,
        permits: i32,
        published: bool,
        alive: bool,
    }

    impl World {
        fn see(&mut self, effects: &[Effect]) {
            for effect in effects {
                match effect {
                    Effect::Launch => {
                        assert!(!self.alive, "two living instances in one lane");
                        self.launches += 1;
                        self.alive = true;
                    }
                    Effect::Record(cause) => {
                        self.records += 1;
                        self.unlaunched += u32::from(matches!(cause, Cause::Preflight(_)));
                        assert!(!self.published, "an attempt ended while it was published");
                        self.alive = false;
                    }
                    Effect::ReturnPermit => self.permits -= 1,
                    Effect::Publish => {
                        assert!(!self.published && self.alive);
                        self.published = true;
                    }
                    Effect::Withdraw(_) => self.published = false,
                    Effect::Signal => assert!(!self.published, "signalled while it was published"),
                    _ => {}
                }
            }
            assert!(self.permits >= 0, "a permit was returned twice");
        }
    }

    fn any_event(random: &mut fastrand::Rng) -> Event {
        let status = ExitStatus { code: Some(random.i32(0..3)), signal: None, core_dumped: false };
        match random.u8(0..17) {
            0 => Event::Start(if random.bool() { Goal::Run } else { Goal::Trial }),
            1 => Event::Promote,
            2 => Event::Stop,
            3 => Event::StopNow,
            4 => Event::Reset,
            5 | 6 => Event::PreflightGood,
            7 => Event::PreflightBad("missing".into()),
            8 | 9 => Event::Spawned,
            10 => Event::SpawnFailed("fork".into(), Class::Passing),
            11 | 12 => Event::ProbeGood,
            13 => Event::ProbeBad("refused".into()),
            14 => Event::Drained,
            15 => Event::Exited(status),
            _ => Event::TreeEmpty { leftovers: random.usize(0..2) },
        }
    }

    /// Events that only a process can cause come only while there is one.
    fn is_possible(event: &Event, lane: &Lane) -> bool {
        match event {
            Event::Exited(_) => lane.has_process() && lane.state != State::Spawning && lane.exit.is_none(),
            Event::TreeEmpty { .. } => matches!(lane.state, State::Exited | State::Killing | State::Stuck),
            _ => true,
        }
    }

    #[test]
    fn no_sequence_of_events_breaks_the_invariants_and_every_stop_ends_in_time() {
        let mut random = fastrand::Rng::with_seed(20_260_101);
        for _ in 0..100_000 {
            let mut now = Instant::now();
            let (mut lane, mut world) = (lane(), World::default());
            for _ in 0..30 {
                now += Duration::from_millis(random.u64(0..20_000));
                let event = any_event(&mut random);
                if is_possible(&event, &lane) {
                    world.see(&lane.step(event, now));
                }
                world.see(&lane.step(Event::Timer, now));
                if lane.state == State::Queued && random.bool() {
                    world.permits += 1;
                    world.see(&lane.step(Event::Permit, now));
                }
            }
            ends_after_a_stop(&mut lane, &mut world, now);
        }
    }

    fn ends_after_a_stop(lane: &mut Lane, world: &mut World, mut now: Instant) {
        world.see(&lane.step(Event::Stop, now));
        if lane.state == State::Spawning {
            world.see(&lane.step(Event::Spawned, now));
        }
        let latest = now + lane.rules.drain_timeout + lane.rules.stop_timeout + KILL_PATIENCE + DRAIN_GRACE;
        while !lane.at_rest() && lane.state != State::Stuck {
            now = lane.wakes_at().expect("a lane that is not at rest has a deadline").max(now);
            assert!(now <= latest, "{:?} lasts too long after a stop", lane.state);
            world.see(&lane.step(Event::Timer, now));
        }
        if lane.state == State::Stuck {
            let killed = ExitStatus { code: None, signal: Some(9), core_dumped: false };
            world.see(&lane.step(Event::Exited(killed), now));
            world.see(&lane.step(Event::TreeEmpty { leftovers: 0 }, now));
        }
        assert!(lane.at_rest(), "{:?}", lane.state);
        assert_eq!(world.records - world.unlaunched, world.launches, "a launch without a record");
        assert_eq!(world.permits, 0, "a permit was kept");
    }
}
