//! How often a client may ask: the generic cell rate algorithm, which is a token bucket kept in one number. Pure.
//!
//! That number says when the client's next request is due, had it kept the pace to the letter; a client may be early by its
//! burst. Once it is past, the bucket is full again and nothing need be remembered.

const MINUTE: u64 = 60_000_000_000;

/// Nanoseconds from one request to the next, and how early one may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval: u64,
    early: u64,
}

/// A request that came too early, and for how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooEarly {
    pub nanos: u64,
}

impl Pace {
    /// With a burst of a tenth, and of one at least.
    pub fn per_minute(requests: u32) -> Self {
        let requests = requests.max(1);
        // Rounded up: what is promised is that no more than so many pass.
        let interval = MINUTE.div_ceil(requests.into());
        Self { interval, early: interval * u64::from((requests / 10).max(1) - 1) }
    }

    /// When the request after this one is due.
    pub fn step(self, due: u64, now: u64) -> Result<u64, TooEarly> {
        let due = due.max(now);
        match due - now {
            ahead if ahead > self.early => Err(TooEarly { nanos: ahead - self.early }),
            _ => Ok(due + self.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the requests at these times pass.
    fn passed(pace: Pace, due: &mut u64, times: impl IntoIterator<Item = u64>) -> u64 {
        let mut count = 0;
        for now in times {
            if let Ok(next) = pace.step(*due, now) {
                *due = next;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_tenth_passes_at_once_and_then_one_for_each_interval() {
        for (rate, burst) in [(1000, 100), (600, 60), (60, 6), (19, 1), (10, 1), (5, 1), (1, 1)] {
            let (pace, mut due, at) = (Pace::per_minute(rate), 0, 77 * SECOND);
            assert_eq!(passed(pace, &mut due, std::iter::repeat_n(at, 1000)), burst, "{rate}");
            let wait = pace.step(due, at).expect_err("the bucket is empty").nanos;
            assert_eq!(wait, MINUTE.div_ceil(rate.into()), "{rate}");
            assert!(pace.step(due, at + wait - 1).is_err(), "{rate}");
            assert_eq!(passed(pace, &mut due, std::iter::repeat_n(at + wait, 10)), 1, "{rate}");
        }
    }

    #[test]
    fn a_client_that_keeps_the_pace_is_never_told_to_wait() {
        for rate in [1, 7, 60, 1000, 100_000] {
            let (pace, mut due) = (Pace::per_minute(rate), 0);
            let times = (0..5000).map(|it| it * MINUTE.div_ceil(rate.into()));
            assert_eq!(passed(pace, &mut due, times), 5000, "{rate}");
        }
    }

    #[test]
    fn never_more_pass_than_the_rate_and_the_burst_in_any_stretch_of_time() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let rate = random.u32(1..5000);
            let (pace, mut due, mut now) = (Pace::per_minute(rate), 0, random.u64(..SECOND));
            let mut passed = Vec::new();
            for _ in 0..600 {
                now += if random.u8(..10) == 0 { random.u64(..20 * SECOND) } else { random.u64(..SECOND / 50) };
                // Workers read their clocks one after the other, and the later reading may come first.
                let read = now.saturating_sub(random.u64(..1000));
                if let Ok(next) = pace.step(due, read) {
                    due = next;
                    passed.push(now);
                }
            }
            let burst = u64::from((rate / 10).max(1));
            for (from, first) in passed.iter().enumerate() {
                for (until, last) in passed.iter().enumerate().skip(from) {
                    let most = burst + (last - first + 1000) * u64::from(rate) / MINUTE + 1;
                    assert!(((until - from + 1) as u64) <= most, "{rate}: {} in {}", until - from + 1, last - first);
                }
            }
        }
    }

    #[test]
    fn a_changed_pace_goes_on_from_what_is_due_within_a_minute() {
        let (slow, fast, now) = (Pace::per_minute(1), Pace::per_minute(600), 5 * SECOND);
        let due = slow.step(0, now).expect("the first passes");
        assert_eq!(due, now + MINUTE);
        let wait = fast.step(due, now).expect_err("it is early").nanos;
        assert!(wait < MINUTE && fast.step(due, now + wait).is_ok());
        let due = fast.step(0, now).expect("the first passes");
        assert_eq!(slow.step(due, now).expect_err("it is early").nanos, MINUTE / 600);
    }
}
