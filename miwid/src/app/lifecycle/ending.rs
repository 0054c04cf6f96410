//! How an attempt ends, and what the slot makes of it.

use std::time::{Duration, Instant};

use super::super::backoff::{LONGEST, Reached};
use super::{Cause, Class, Effect, ExitStatus, Goal, KILL_PATIENCE, Lane, PREFLIGHT_POLL, State};

impl Lane {
    pub(super) fn exited(&mut self, status: ExitStatus, now: Instant, effects: &mut Vec<Effect>) {
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

    pub(super) fn tree_empty(&mut self, leftovers: usize, now: Instant, effects: &mut Vec<Effect>) {
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

    pub(super) fn unlaunched(&mut self, cause: Cause, class: Class, now: Instant, effects: &mut Vec<Effect>) {
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

    pub(super) fn rest(&mut self, effects: &mut Vec<Effect>) {
        self.return_permit(effects);
        self.state = State::Stopped;
        self.goal = Goal::Stop;
        self.deadline = None;
        effects.push(Effect::Rest);
    }

    pub(super) fn return_permit(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.permit) {
            effects.push(Effect::ReturnPermit);
        }
    }
}
