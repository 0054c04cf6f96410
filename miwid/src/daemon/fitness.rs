//! Whether an engine answers as well as the one before: as long as an upgrade can be taken back, one that gives more errors of
//! its own is no good. What upstreams answer is theirs.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    link::{Answers, Line, ToWarden},
    telemetry::Metrics,
};

/// What counts as of now.
const WINDOW: usize = 60;
const EACH: Duration = Duration::from_secs(1);
/// How often one that has to prove itself is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Fewer may be chance.
const FAULTS_MIN: u64 = 20;
/// A share that is this much larger than twice that of before is worse.
const TOLERANCE: f64 = 0.1;

/// The last minute of this engine.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<Answers>>>);

impl Recent {
    /// Notes how things stand, for ever.
    pub(super) async fn follow(self, metrics: Metrics) {
        loop {
            self.note(answers(&metrics));
            tokio::time::sleep(EACH).await;
        }
    }

    fn note(&self, total: Answers) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.push_back(total);
        if window.len() > WINDOW {
            window.pop_front();
        }
    }

    pub(super) fn until(&self, total: Answers) -> Answers {
        let window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = window.front().copied().unwrap_or_default();
        Answers { all: total.all.saturating_sub(from.all), faults: total.faults.saturating_sub(from.faults) }
    }
}

pub(super) fn answers(metrics: &Metrics) -> Answers {
    let (all, faults) = metrics.answers();
    Answers { all, faults }
}

/// Tells the warden when this engine is worse than the one `before`; gives up when that is no reason to go back any more.
pub(super) async fn prove(metrics: Metrics, before: Answers, line: Line, confirm: Duration) {
    let proving = async {
        loop {
            if let Some(why) = worse(before, answers(&metrics)) {
                tracing::error!("{why}: the engine before is to go on");
                return line.say(ToWarden::Unfit { why });
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(confirm, proving).await;
}

fn worse(before: Answers, now: Answers) -> Option<String> {
    let share = |it: Answers| it.faults as f64 / it.all.max(1) as f64;
    let is_worse = now.faults >= FAULTS_MIN && share(now) > 2.0 * share(before) + TOLERANCE;
    is_worse.then(|| {
        format!(
            "{} of its {} answers were errors of its own, of the {} before it was {}",
            now.faults, now.all, before.all, before.faults
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clearly_more_errors_of_its_own_are_worse() {
        let of = |faults, all| Answers { all, faults };
        for (before, now, expected) in [
            (of(0, 0), of(0, 0), false),
            (of(0, 1000), of(19, 19), false),
            (of(0, 1000), of(20, 20), true),
            (of(0, 1000), of(20, 200), false),
            (of(0, 1000), of(30, 200), true),
            // An upstream that is down was down before, too.
            (of(500, 1000), of(200, 200), false),
            (of(900, 1000), of(400, 400), false),
            (of(100, 1000), of(60, 200), false),
            (of(100, 1000), of(80, 200), true),
        ] {
            assert_eq!(worse(before, now).is_some(), expected, "{before:?} {now:?}");
        }
        let why = worse(of(1, 50), of(40, 41)).expect("it is worse");
        assert_eq!(why, "40 of its 41 answers were errors of its own, of the 50 before it was 1");
    }

    #[test]
    fn what_is_longer_ago_than_a_minute_does_not_count() {
        let recent = Recent::default();
        assert_eq!(recent.until(Answers { all: 5, faults: 1 }), Answers { all: 5, faults: 1 });
        for second in 0..100 {
            recent.note(Answers { all: 10 * second, faults: second });
        }
        assert_eq!(recent.until(Answers { all: 1000, faults: 100 }), Answers { all: 600, faults: 60 });
    }
}
