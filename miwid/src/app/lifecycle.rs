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

pub(super) use super::attempt::{Cause, Effect, Event, Goal, Rules};
pub use super::attempt::{Class, ExitStatus};
use super::{
    InstanceState as State,
    backoff::{Backoff, STABLE},
    standing::State as Standing,
};

mod ending;
#[cfg(test)]
mod tests;

/// SIGKILL has worked within so long, or the process cannot be killed.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Withdrawing must answer within the drain timeout; so much more is granted before we go on without it.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// A failed preflight is looked at again this often, so that an app starts by itself soon after its cause went away.
pub(super) const PREFLIGHT_POLL: Duration = Duration::from_secs(1);

/// Going unready twice within this is a flap: then one good answer is not enough to come back.
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// A slow start gives its permit back after so long: its busy part is over, and others wait.
const PERMIT_TERM: Duration = Duration::from_secs(5);

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
    went_unready: Option<Instant>,
    flapping: bool,
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
            went_unready: None,
            flapping: false,
        }
    }

    /// One whose process was started by another engine, which had found it well, ill or on its way.
    pub(super) fn adopted(
        rules: Arc<Rules>,
        jitter: fastrand::Rng,
        goal: Goal,
        standing: Standing,
        now: Instant,
    ) -> Self {
        let state = match standing {
            Standing::Ready => State::Ready,
            Standing::Unready => State::Unready,
            Standing::Starting | Standing::Leaving => State::Starting,
        };
        let was_ready = matches!(state, State::Ready | State::Unready);
        Self {
            state,
            goal,
            was_ready,
            settled: was_ready,
            started: Some(now),
            ready_since: was_ready.then_some(now),
            deadline: (state == State::Starting).then(|| now + rules.start_timeout),
            ..Self::new(rules, jitter)
        }
    }

    /// When `Timer` should come next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let since = self.ready_since;
        // A doubt must be cleared first, by the next check.
        let settle = since
            .filter(|_| !self.settled && self.bad == 0 && self.state == State::Ready)
            .map(|at| at + self.rules.settle_time);
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

    pub(super) fn is_flapping(&self) -> bool {
        self.flapping
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
        (self.bad, self.good, self.went_unready, self.flapping) = (0, 0, None, false);
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
            (State::Starting, Event::Hopeless(why)) => {
                self.cause = Some(Cause::Hopeless(why));
                self.signal(now, effects);
            }
            (State::Ready | State::Unready, Event::ProbeGood) => self.checked_good(now, effects),
            (State::Ready | State::Unready, Event::ProbeBad(why) | Event::Hopeless(why)) => {
                self.checked_bad(why, now, effects)
            }
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

    fn checked_good(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        let needed = if self.flapping { self.rules.successes.max(2) } else { self.rules.successes };
        if self.state == State::Unready && self.good >= needed {
            self.state = State::Ready;
            self.last_probe = None;
            effects.push(Effect::Healthy(true));
        }
        self.settle(now, effects);
    }

    fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_due = self.ready_since.is_some_and(|since| now >= since + self.rules.settle_time);
        if is_due && !self.settled && self.bad == 0 && self.state == State::Ready {
            self.settled = true;
            effects.push(Effect::Settled);
        }
    }

    fn checked_bad(&mut self, why: String, now: Instant, effects: &mut Vec<Effect>) {
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        self.last_probe = Some(why.clone());
        if self.state == State::Ready && self.bad >= self.rules.failures {
            if self.goal == Goal::Trial && !self.settled {
                self.cause = Some(Cause::Hopeless(format!("became ill before it had settled: {why}")));
                self.drain(now, effects);
                return;
            }
            self.state = State::Unready;
            self.flapping = self.went_unready.is_some_and(|before| now < before + FLAP_WINDOW);
            self.went_unready = Some(now);
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
            self.settle(now, effects);
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
}
