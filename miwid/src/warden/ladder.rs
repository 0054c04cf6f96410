//! What there is to fall back to when engines end one after the other, as a pure machine.
//!
//! ```text
//! the program and the files --loop--> the same program, the configuration that proved itself
//!                           --loop--> the program before, with the configuration that proved itself with it
//! ```
//! A step that changes nothing is left out. The files come back with a reload or an upgrade.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// So many ends within so long are a loop.
const LOOP: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// What a configuration says, short.
pub(super) type Digest = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Configuration,
    Program,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::Configuration => "the configuration that worked before is served, not the one on disk",
            Self::Program => "the program before the last upgrade serves, with the configuration of then",
        }
    }
}

/// What a loop leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fall {
    pub(super) step: Option<Step>,
    /// For whoever looks after the daemon.
    pub(super) why: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ladder {
    #[serde(skip)]
    ends: VecDeque<Instant>,
    /// Proved itself with the program that engines are started from.
    good: Option<Digest>,
    /// Of the program before, if there is one.
    before: Option<Before>,
    /// How deep, if at all.
    fallen: Option<Step>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before {
    /// Proved itself with it, if anything has.
    good: Option<Digest>,
}

// === impl Ladder ===

impl Ladder {
    /// The next engine is to serve what proved itself, not what the files say.
    pub(super) fn is_fallen(&self) -> bool {
        self.fallen.is_some()
    }

    /// An engine that served `digest` has ended, and nobody wanted it to. `None`: it happens.
    pub(super) fn ended(&mut self, digest: Option<Digest>, how: &str, now: Instant) -> Option<Fall> {
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|at| now >= *at + WINDOW) {
            self.ends.pop_front();
        }
        let count = self.ends.len();
        if count < LOOP {
            return None;
        }
        let step = self.lower(digest);
        let then = match (step, self.fallen) {
            (Some(step), _) => step.words().to_owned(),
            (None, Some(fallen)) => format!("{}, and there is nothing older to go back to", fallen.words()),
            (None, None) => "there is nothing older to go back to".to_owned(),
        };
        let window = WINDOW.as_secs();
        Some(Fall { step, why: format!("{count} engines ended within {window} s, the last {how}: {then}") })
    }

    fn lower(&mut self, digest: Option<Digest>) -> Option<Step> {
        let step = if self.fallen.is_none() && self.good.is_some() && self.good != digest {
            Step::Configuration
        } else {
            self.good = self.before.take()?.good;
            Step::Program
        };
        self.fallen = Some(step);
        self.ends.clear();
        Some(step)
    }

    /// True: something else than what was known to be good has proved itself.
    pub(super) fn proved(&mut self, digest: Digest) -> bool {
        let is_new = self.good != Some(digest);
        self.good = Some(digest);
        is_new
    }

    /// The files are served again.
    pub(super) fn renewed(&mut self) {
        self.fallen = None;
        self.ends.clear();
    }

    /// Another program is what engines are started from.
    pub(super) fn replaced(&mut self) {
        self.before = Some(Before { good: self.good.take() });
        self.renewed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: &str = "was ended by signal 9";

    /// Ends `count` engines, a second apart, and what the last one led to.
    fn ends(ladder: &mut Ladder, digest: Option<Digest>, count: usize, now: &mut Instant) -> Option<Fall> {
        let mut last = None;
        for _ in 0..count {
            *now += Duration::from_secs(1);
            last = ladder.ended(digest, KILLED, *now);
        }
        last
    }

    fn steps(fall: Option<Fall>) -> Option<Step> {
        fall.expect("a loop").step
    }

    #[test]
    fn three_within_a_minute_are_a_loop_and_three_in_an_hour_are_not() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        assert_eq!(ends(&mut ladder, Some(1), 2, &mut now), None);
        now += WINDOW;
        assert_eq!(ends(&mut ladder, Some(1), 2, &mut now), None);
        let why = "3 engines ended within 60 s, the last was ended by signal 9: there is nothing older to go back to";
        assert_eq!(ends(&mut ladder, Some(1), 1, &mut now), Some(Fall { step: None, why: why.to_owned() }));
        assert!(!ladder.is_fallen());
    }

    #[test]
    fn what_proved_itself_comes_first_and_then_the_program_before() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        assert!(ladder.proved(1) && !ladder.proved(1));
        ladder.replaced();
        assert!(ladder.proved(2), "with the new program");
        assert_eq!(steps(ends(&mut ladder, Some(3), 3, &mut now)), Some(Step::Configuration));
        assert!(ladder.is_fallen());
        assert_eq!(ends(&mut ladder, Some(2), 2, &mut now), None, "it gets a chance");
        assert_eq!(steps(ends(&mut ladder, Some(2), 1, &mut now)), Some(Step::Program));
        let last = ends(&mut ladder, Some(1), 3, &mut now).expect("a loop");
        assert_eq!(last.step, None, "that was all");
        assert!(
            last.why.contains("the program before the last upgrade serves")
                && last.why.ends_with("nothing older to go back to")
        );
        assert!(ladder.is_fallen());
    }

    #[test]
    fn a_step_that_changes_nothing_is_left_out() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        ladder.proved(1);
        ladder.replaced();
        ladder.proved(1);
        assert_eq!(steps(ends(&mut ladder, Some(1), 3, &mut now)), Some(Step::Program));
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        ladder.proved(1);
        assert_eq!(steps(ends(&mut ladder, None, 3, &mut now)), Some(Step::Configuration), "it could not even say");
    }

    #[test]
    fn it_is_the_same_when_it_was_written_and_read() {
        let mut ladder = Ladder::default();
        ladder.replaced();
        let text = serde_json::to_string(&ladder).expect("a text");
        let (mut read, mut now) = (serde_json::from_str::<Ladder>(&text).expect("a ladder"), Instant::now());
        assert_eq!(
            steps(ends(&mut read, Some(1), 3, &mut now)),
            Some(Step::Program),
            "although nothing proved itself with it"
        );
    }

    #[test]
    fn the_files_are_tried_again_after_a_reload_and_may_fail_again() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        ladder.proved(1);
        ends(&mut ladder, Some(2), 3, &mut now);
        ladder.renewed();
        assert!(!ladder.is_fallen());
        assert_eq!(steps(ends(&mut ladder, Some(3), 3, &mut now)), Some(Step::Configuration));
    }
}
