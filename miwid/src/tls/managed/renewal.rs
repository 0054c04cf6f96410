//! When a certificate is due, and how long to wait after a failure. Pure; time and chance come in as arguments.

use std::time::{Duration, SystemTime};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Many certificates that were made together must not be due together.
const JITTER_MAX: Duration = Duration::from_secs(600);
/// No wait is longer; one that seems to be was written down when the clock was wrong.
const WAIT_MAX: Duration = Duration::from_secs(8 * 3600);
/// Certificates that live shorter are renewed when half of their life is over.
const SHORT_LIVED: Duration = Duration::from_secs(10 * 86_400);

/// What is known about one certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Situation {
    pub(super) held: Option<Held>,
    pub(super) next_attempt: Option<SystemTime>,
    pub(super) blocked: Option<SystemTime>,
    /// The window in which the authority wants it replaced.
    pub(super) advised: Option<(SystemTime, SystemTime)>,
    /// Always the same for the same certificate, so that looking twice does not throw the dice twice.
    pub(super) seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// For all hosts that are wanted, from the issuer that is wanted, and not revoked.
    pub(super) is_as_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(SystemTime),
}

pub(super) fn due(now: SystemTime, situation: &Situation) -> Due {
    let wished = match situation.held {
        Some(held) if held.is_as_wanted => match situation.advised {
            Some(advised) => chosen(&held, advised, situation.seed),
            None => window(&held, situation.seed),
        },
        _ => now,
    };
    let is_credible = |it: &SystemTime| *it <= now + WAIT_MAX;
    let held_back = [situation.next_attempt, situation.blocked].into_iter().flatten().filter(is_credible);
    let at = held_back.fold(wished, SystemTime::max);
    if at <= now { Due::Now } else { Due::At(at) }
}

/// When a third of its life is left, or half of a short one, give or take a few minutes.
pub(super) fn window(held: &Held, seed: u64) -> SystemTime {
    let life = held.not_after.duration_since(held.not_before).unwrap_or_default();
    let left = if life < SHORT_LIVED { life / 2 } else { life / 3 };
    // A moment of a very short life is not ten minutes.
    let most = JITTER_MAX.min(life / 50);
    held.not_after - left + most.mul_f64(unit(seed))
}

/// A moment of the window that an authority asks for: the same whenever this window is looked at, another for another. It
/// knows more than we do, but not that a certificate may end.
fn chosen(held: &Held, (start, end): (SystemTime, SystemTime), seed: u64) -> SystemTime {
    let life = held.not_after.duration_since(held.not_before).unwrap_or_default();
    let begun = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let within = end.duration_since(start).unwrap_or_default().mul_f64(unit(seed ^ begun));
    (start + within).min(held.not_after - life / 20)
}

/// However an answer is: nobody is asked again at once. An issuer whose certificates are due as soon as they come, or a
/// clock that is wrong, must not use up what an account may have.
pub(super) fn rest(held: &Held) -> Duration {
    let life = held.not_after.duration_since(held.not_before).unwrap_or_default();
    HOUR.min(life / 20)
}

/// So little is left that nothing else matters.
pub(super) fn is_urgent(now: SystemTime, held: Option<&Held>) -> bool {
    let Some(held) = held else { return true };
    let life = held.not_after.duration_since(held.not_before).unwrap_or_default();
    held.not_after.duration_since(now).unwrap_or_default() < life / 20
}

/// How a failure is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may pass by itself.
    Usual,
    /// Somebody has to mend something: asking often does not help.
    Long,
}

/// The wait after so many failures in a row. It ends nowhere: a certificate is never given up.
pub(super) fn backoff(attempts: u32, patience: Patience, is_urgent: bool, seed: u64) -> Duration {
    let minutes = match (patience, attempts) {
        (Patience::Usual, 0 | 1) => 1,
        (Patience::Usual, 2 | 3) => 2,
        (Patience::Usual, 4) => 5,
        (Patience::Usual, 5..=7) => 10,
        (Patience::Usual, 8..=11) => 20,
        (Patience::Usual, 12..=17) => 30,
        (Patience::Usual, 18..=20) => 60,
        (Patience::Usual, 21 | 22) => 120,
        (Patience::Usual, 23 | 24) => 180,
        (Patience::Usual, _) => 360,
        (Patience::Long, 0 | 1) => 15,
        (Patience::Long, 2) => 30,
        (Patience::Long, 3) => 60,
        (Patience::Long, 4) => 120,
        (Patience::Long, _) => 360,
    };
    let wait = (MINUTE * minutes).min(if is_urgent { HOUR / 2 } else { WAIT_MAX });
    // A fifth more or less.
    wait.mul_f64(0.8 + 0.4 * unit(seed.wrapping_add(u64::from(attempts))))
}

/// 30, 7 or 1: the last of these days that have begun, if the certificate ends so soon.
pub(super) fn warning(now: SystemTime, not_after: SystemTime) -> Option<u64> {
    let left = not_after.duration_since(now).unwrap_or_default();
    [1, 7, 30].into_iter().find(|days| left <= DAY * u32::try_from(*days).unwrap_or(u32::MAX))
}

/// From 0 to 1, well mixed (splitmix64).
fn unit(seed: u64) -> f64 {
    let mut it = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let unit = ((it ^ (it >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + days)
    }

    fn held(days: u32) -> Held {
        Held { not_before: day(0), not_after: day(days), is_as_wanted: true }
    }

    fn of(held: Held) -> Situation {
        Situation { held: Some(held), ..Situation::default() }
    }

    #[test]
    fn a_third_of_the_life_is_left_when_it_is_due() {
        for (life, at) in [(90, 60), (365, 243), (9, 4), (15, 10)] {
            let window = window(&held(life), 7);
            assert!(window >= day(at) && window <= day(at + 1), "{life}");
        }
        assert_eq!(due(day(59), &of(held(90))), Due::At(window(&held(90), 0)));
        assert_eq!(due(day(61), &of(held(90))), Due::Now);
        assert_eq!(due(day(500), &of(held(90))), Due::Now, "a machine that slept");
    }

    #[test]
    fn the_authoritys_window_counts_for_more_than_our_own_judgement() {
        let advised =
            |start: u32, end: u32, seed: u64| Situation { advised: Some((day(start), day(end))), seed, ..of(held(90)) };
        let at = |situation: &Situation| match due(day(0), situation) {
            Due::At(at) => at,
            Due::Now => day(0),
        };
        let mut chosen: Vec<SystemTime> = (0..500).map(|seed| at(&advised(20, 22, seed))).collect();
        assert!(chosen.iter().all(|it| (day(20)..=day(22)).contains(it)));
        assert_eq!(at(&advised(20, 22, 7)), chosen[7], "looking twice throws the dice once");
        assert_ne!(at(&advised(21, 23, 7)) - DAY, chosen[7], "another window is another choice");
        chosen.sort();
        assert!(chosen[450].duration_since(chosen[50]).expect("sorted") > DAY, "all over the window");
        assert_eq!(due(day(30), &advised(20, 22, 7)), Due::Now, "a window that is over");
        assert!(at(&advised(80, 82, 7)) >= day(80), "later than we would");
        assert_eq!(at(&advised(400, 402, 7)), day(90) - DAY * 90 / 20, "but never so late that it ends");
    }

    #[test]
    fn what_is_not_there_or_not_as_wanted_is_due_at_once() {
        assert_eq!(due(day(0), &Situation::default()), Due::Now);
        assert_eq!(due(day(0), &of(Held { is_as_wanted: false, ..held(90) })), Due::Now);
    }

    #[test]
    fn back_off_and_a_block_hold_back_even_what_is_overdue() {
        let situation = |next: Option<SystemTime>, blocked: Option<SystemTime>| Situation {
            next_attempt: next,
            blocked,
            ..of(held(90))
        };
        let (soon, later) = (day(80) + HOUR, day(80) + HOUR * 2);
        assert_eq!(due(day(80), &situation(Some(soon), None)), Due::At(soon));
        assert_eq!(due(day(80), &situation(Some(soon), Some(later))), Due::At(later));
        assert_eq!(due(later, &situation(Some(soon), Some(later))), Due::Now);
    }

    #[test]
    fn a_wait_that_a_wrong_clock_wrote_down_counts_for_nothing() {
        let far = Situation { next_attempt: Some(day(80) + DAY), ..of(held(90)) };
        assert_eq!(due(day(80), &far), Due::Now);
    }

    #[test]
    fn five_hundred_that_were_made_together_are_not_due_together() {
        let mut at: Vec<SystemTime> = (0..500).map(|seed| window(&held(90), seed)).collect();
        at.sort();
        let spread = at[499].duration_since(at[0]).expect("sorted");
        assert!(spread > JITTER_MAX.mul_f64(0.9) && spread <= JITTER_MAX);
        at.dedup();
        assert!(at.len() > 490);
    }

    #[test]
    fn a_thousand_simulated_days_with_an_api_that_mostly_fails_never_let_it_expire() {
        for seed in 0..200_u64 {
            let (mut now, mut leaf, mut attempts, mut next) = (day(0), held(90), 0_u32, None);
            let (mut asked, mut dice) = (0, seed);
            while now < day(1000) {
                let situation = Situation { next_attempt: next, seed, ..of(leaf) };
                match due(now, &situation) {
                    Due::At(at) => now = at.min(now + HOUR),
                    Due::Now => {
                        asked += 1;
                        dice = dice.wrapping_add(1);
                        if unit(dice) < 0.05 {
                            (leaf, attempts, next) =
                                (Held { not_before: now, not_after: now + DAY * 90, is_as_wanted: true }, 0, None);
                        } else {
                            attempts += 1;
                            let urgent = is_urgent(now, Some(&leaf));
                            next = Some(now + backoff(attempts, Patience::Usual, urgent, seed));
                        }
                        now += MINUTE;
                    }
                }
                assert!(now < leaf.not_after, "seed {seed}: it ended after {asked} requests");
            }
            assert!(asked < 2000, "seed {seed}: {asked} requests in a thousand days");
        }
    }

    #[test]
    fn waits_grow_and_have_a_bound() {
        let wait = |attempts, patience, urgent| backoff(attempts, patience, urgent, 3);
        for patience in [Patience::Usual, Patience::Long] {
            let mut longest = Duration::ZERO;
            for attempts in 1..1000 {
                let this = wait(attempts, patience, false);
                assert!(this >= MINUTE.mul_f64(0.8) && this <= WAIT_MAX);
                longest = longest.max(this);
                assert!(wait(attempts, patience, true) <= HOUR.mul_f64(0.6));
            }
            assert!(longest > HOUR * 4);
        }
        assert!(wait(1, Patience::Long, false) > wait(1, Patience::Usual, false) * 5);
    }

    #[test]
    fn warnings_come_at_thirty_seven_and_one() {
        for (left, expected) in
            [(40, None), (30, Some(30)), (8, Some(30)), (7, Some(7)), (2, Some(7)), (1, Some(1)), (0, Some(1))]
        {
            assert_eq!(warning(day(100 - left), day(100)), expected, "{left}");
        }
    }
}
