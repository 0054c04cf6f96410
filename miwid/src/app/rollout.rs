//! The plan of a restart over an app's slots, pure: what to start, stop, hold and release next. The old side of a slot is
//! touched only after its new side has settled (*rolling*), or while requests are held (*hold*).
//!
//! ```text
//! rolling:        per slot: start new -> settled -> stop old -> next;   failure -> roll back or halt
//! hold, recreate: [hold] stop every old -> start every new -> ready [release] -> settled;   failure -> start the old again
//! ```

use std::collections::{BTreeSet, VecDeque};

use config::{OnFailure, RestartStrategy};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Old,
    New,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Begin,
    /// Each of the next three says which side of the slot it is about: an old instance may still be starting.
    Ready(u32, Side),
    Settled(u32, Side),
    Failed(u32, Side, String),
    /// That side of the slot has no process any more.
    Stopped(u32, Side),
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start(u32, Side),
    Stop(u32, Side),
    Hold,
    Release,
    Finished,
    /// Over, without success.
    GaveUp(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// rolling
    Replacing(u32),
    Retiring(u32),
    Undoing(u32),
    UndoRetiring(u32),
    /// hold and recreate
    Clearing(BTreeSet<u32>),
    Filling(BTreeSet<u32>, BTreeSet<u32>),
    Emptying(BTreeSet<u32>),
    Refilling(BTreeSet<u32>),
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Rollout {
    strategy: RestartStrategy,
    on_failure: OnFailure,
    slots: Vec<u32>,
    left: VecDeque<u32>,
    replaced: Vec<u32>,
    phase: Phase,
    failure: String,
    holding: bool,
}

// === impl Rollout ===

impl Rollout {
    pub(super) fn new(strategy: RestartStrategy, on_failure: OnFailure, slots: Vec<u32>) -> Self {
        Self {
            strategy,
            on_failure,
            left: slots.iter().copied().collect(),
            slots,
            replaced: Vec::new(),
            phase: Phase::Over,
            failure: String::new(),
            holding: false,
        }
    }

    #[cfg(test)]
    fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Action> {
        match (std::mem::replace(&mut self.phase, Phase::Over), input) {
            (_, Input::Begin) => self.begin(),
            (Phase::Replacing(slot), Input::Cancel) => {
                self.failure = "cancelled".into();
                let mut actions = vec![Action::Stop(slot, Side::New)];
                actions.extend(self.failed());
                actions
            }
            (Phase::Filling(..), Input::Cancel) => self.give_back("cancelled".into()),
            (phase, Input::Cancel) => self.stay(phase),
            (Phase::Replacing(slot), Input::Settled(at, Side::New)) if at == slot => {
                self.phase = Phase::Retiring(slot);
                vec![Action::Stop(slot, Side::Old)]
            }
            (Phase::Replacing(slot), Input::Failed(at, Side::New, why)) if at == slot => {
                self.failure = why;
                let mut actions = vec![Action::Stop(slot, Side::New)];
                actions.extend(self.failed());
                actions
            }
            (Phase::Retiring(slot), Input::Stopped(at, Side::Old)) if at == slot => {
                self.replaced.push(slot);
                self.next_slot()
            }
            (Phase::Undoing(slot), Input::Settled(at, Side::Old)) if at == slot => {
                self.phase = Phase::UndoRetiring(slot);
                vec![Action::Stop(slot, Side::New)]
            }
            // The old side does not start either: leave what serves.
            (Phase::Undoing(slot), Input::Failed(at, Side::Old, _)) if at == slot => {
                let mut actions = vec![Action::Stop(slot, Side::Old)];
                actions.extend(self.give_up());
                actions
            }
            (Phase::UndoRetiring(slot), Input::Stopped(at, Side::New)) if at == slot => self.undo_next(),
            (phase, input) => self.step_together(phase, input),
        }
    }

    fn stay(&mut self, phase: Phase) -> Vec<Action> {
        self.phase = phase;
        Vec::new()
    }

    fn begin(&mut self) -> Vec<Action> {
        if self.strategy == RestartStrategy::Rolling {
            return self.next_slot();
        }
        let mut actions = Vec::new();
        if self.strategy == RestartStrategy::Hold {
            self.holding = true;
            actions.push(Action::Hold);
        }
        self.phase = Phase::Clearing(self.slots.iter().copied().collect());
        actions.extend(self.slots.iter().map(|&slot| Action::Stop(slot, Side::Old)));
        actions
    }

    fn next_slot(&mut self) -> Vec<Action> {
        match self.left.pop_front() {
            Some(slot) => {
                self.phase = Phase::Replacing(slot);
                vec![Action::Start(slot, Side::New)]
            }
            None => {
                self.phase = Phase::Over;
                vec![Action::Finished]
            }
        }
    }

    fn failed(&mut self) -> Vec<Action> {
        match self.on_failure {
            OnFailure::Rollback => self.undo_next(),
            OnFailure::Halt => self.give_up(),
        }
    }

    fn undo_next(&mut self) -> Vec<Action> {
        match self.replaced.pop() {
            Some(slot) => {
                self.phase = Phase::Undoing(slot);
                vec![Action::Start(slot, Side::Old)]
            }
            None => self.give_up(),
        }
    }

    fn give_up(&mut self) -> Vec<Action> {
        self.phase = Phase::Over;
        let (done, all) = (self.replaced.len(), self.slots.len());
        let what = if self.strategy == RestartStrategy::Rolling { "rolling" } else { "restart" };
        let mut actions = self.release();
        actions.push(Action::GaveUp(format!("{what} halted at {done}/{all}: {}", self.failure)));
        actions
    }

    fn release(&mut self) -> Vec<Action> {
        if std::mem::take(&mut self.holding) { vec![Action::Release] } else { Vec::new() }
    }

    /// Hold and recreate: all slots together.
    fn step_together(&mut self, phase: Phase, input: Input) -> Vec<Action> {
        match (phase, input) {
            (Phase::Clearing(mut waiting), Input::Stopped(slot, Side::Old)) => {
                waiting.remove(&slot);
                if !waiting.is_empty() {
                    return self.stay(Phase::Clearing(waiting));
                }
                let all: BTreeSet<u32> = self.slots.iter().copied().collect();
                self.phase = Phase::Filling(all.clone(), all);
                self.slots.iter().map(|&slot| Action::Start(slot, Side::New)).collect()
            }
            (Phase::Filling(mut unready, unsettled), Input::Ready(slot, Side::New)) => {
                unready.remove(&slot);
                let actions = if unready.is_empty() { self.release() } else { Vec::new() };
                self.phase = Phase::Filling(unready, unsettled);
                actions
            }
            (Phase::Filling(unready, mut unsettled), Input::Settled(slot, Side::New)) => {
                unsettled.remove(&slot);
                if !unsettled.is_empty() {
                    return self.stay(Phase::Filling(unready, unsettled));
                }
                let mut actions = self.release();
                actions.push(Action::Finished);
                actions
            }
            (Phase::Filling(..), Input::Failed(_, Side::New, why)) => self.give_back(why),
            (Phase::Emptying(mut waiting), Input::Stopped(slot, Side::New)) => {
                waiting.remove(&slot);
                if !waiting.is_empty() {
                    return self.stay(Phase::Emptying(waiting));
                }
                self.phase = Phase::Refilling(self.slots.iter().copied().collect());
                self.slots.iter().map(|&slot| Action::Start(slot, Side::Old)).collect()
            }
            (Phase::Refilling(mut waiting), Input::Ready(slot, Side::Old) | Input::Failed(slot, Side::Old, _)) => {
                waiting.remove(&slot);
                if waiting.is_empty() { self.give_up() } else { self.stay(Phase::Refilling(waiting)) }
            }
            (phase, _) => self.stay(phase),
        }
    }

    fn give_back(&mut self, why: String) -> Vec<Action> {
        self.failure = why;
        self.phase = Phase::Emptying(self.slots.iter().copied().collect());
        self.slots.iter().map(|&slot| Action::Stop(slot, Side::New)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Action::*, Side::*, *};

    #[test]
    fn rolling_stops_the_old_only_after_the_new_has_settled() {
        let mut plan = Rollout::new(RestartStrategy::Rolling, OnFailure::Rollback, vec![0, 1]);
        assert_eq!(plan.step(Input::Begin), [Start(0, New)]);
        assert_eq!(plan.step(Input::Ready(0, New)), []);
        assert_eq!(plan.step(Input::Settled(0, New)), [Stop(0, Old)]);
        assert_eq!(plan.step(Input::Stopped(0, Old)), [Start(1, New)]);
        assert_eq!(plan.step(Input::Settled(1, New)), [Stop(1, Old)]);
        assert_eq!(plan.step(Input::Stopped(1, Old)), [Finished]);
        assert!(plan.is_over());
    }

    #[test]
    fn a_failure_at_the_second_slot_rolls_the_first_back() {
        let mut plan = Rollout::new(RestartStrategy::Rolling, OnFailure::Rollback, vec![0, 1]);
        plan.step(Input::Begin);
        plan.step(Input::Settled(0, New));
        plan.step(Input::Stopped(0, Old));
        assert_eq!(plan.step(Input::Failed(1, New, "no".into())), [Stop(1, New), Start(0, Old)]);
        assert_eq!(plan.step(Input::Settled(0, Old)), [Stop(0, New)]);
        assert_eq!(plan.step(Input::Stopped(0, New)), [GaveUp("rolling halted at 0/2: no".into())]);
    }

    #[test]
    fn a_failure_with_halt_keeps_what_was_replaced() {
        let mut plan = Rollout::new(RestartStrategy::Rolling, OnFailure::Halt, vec![0, 1]);
        plan.step(Input::Begin);
        plan.step(Input::Settled(0, New));
        plan.step(Input::Stopped(0, Old));
        let actions = plan.step(Input::Failed(1, New, "no".into()));
        assert_eq!(actions, [Stop(1, New), GaveUp("rolling halted at 1/2: no".into())]);
    }

    #[test]
    fn hold_releases_when_the_new_is_ready_and_ends_when_it_has_settled() {
        let mut plan = Rollout::new(RestartStrategy::Hold, OnFailure::Rollback, vec![0]);
        assert_eq!(plan.step(Input::Begin), [Hold, Stop(0, Old)]);
        assert_eq!(plan.step(Input::Stopped(0, Old)), [Start(0, New)]);
        assert!(plan.is_holding());
        assert_eq!(plan.step(Input::Ready(0, New)), [Release]);
        assert_eq!(plan.step(Input::Settled(0, New)), [Finished]);
    }

    #[test]
    fn hold_starts_the_old_again_when_the_new_fails_and_keeps_holding_meanwhile() {
        let mut plan = Rollout::new(RestartStrategy::Hold, OnFailure::Rollback, vec![0]);
        plan.step(Input::Begin);
        plan.step(Input::Stopped(0, Old));
        assert_eq!(plan.step(Input::Failed(0, New, "no".into())), [Stop(0, New)]);
        assert_eq!(plan.step(Input::Stopped(0, New)), [Start(0, Old)]);
        assert!(plan.is_holding());
        assert_eq!(plan.step(Input::Ready(0, Old)), [Release, GaveUp("restart halted at 0/1: no".into())]);
    }

    #[test]
    fn an_old_instance_that_becomes_ready_meanwhile_is_not_taken_for_the_new_one() {
        let mut plan = Rollout::new(RestartStrategy::Rolling, OnFailure::Rollback, vec![0]);
        plan.step(Input::Begin);
        assert_eq!(plan.step(Input::Ready(0, Old)), []);
        assert_eq!(plan.step(Input::Settled(0, Old)), []);
        assert_eq!(plan.step(Input::Failed(0, Old, "no".into())), []);
        assert_eq!(plan.step(Input::Settled(0, New)), [Stop(0, Old)]);
    }

    #[test]
    fn recreate_does_not_hold() {
        let mut plan = Rollout::new(RestartStrategy::Recreate, OnFailure::Rollback, vec![0]);
        assert_eq!(plan.step(Input::Begin), [Stop(0, Old)]);
        assert_eq!(plan.step(Input::Stopped(0, Old)), [Start(0, New)]);
    }
}
