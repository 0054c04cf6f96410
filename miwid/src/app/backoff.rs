//! How long a slot waits before its next attempt. It never gives up: an hour of database outage must not become a night
//! of it. The first crash after having been ready costs nothing; only what follows waits.

use std::time::Duration;

/// The longest wait, and the cadence of failures that will not mend by themselves.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Ready for so long forgives everything before.
pub(super) const STABLE: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(super) struct Backoff {
    failures: u32,
    waits: u32,
    jitter: fastrand::Rng,
}

/// How far the attempt that failed had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    Nothing,
    Ready,
}

impl Backoff {
    pub(super) fn new(jitter: fastrand::Rng) -> Self {
        Self { failures: 0, waits: 0, jitter }
    }

    /// Counts a failure and says how long to wait: 0 once, then 0.5 s doubling to 60 s, each +-20 %.
    pub(super) fn after_failure(&mut self, reached: Reached) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 && reached == Reached::Ready {
            return Duration::ZERO;
        }
        let plain = FIRST.saturating_mul(1 << self.waits.min(7)).min(LONGEST);
        self.waits = self.waits.saturating_add(1);
        plain.mul_f64(0.8 + 0.4 * self.jitter.f64())
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn forgive(&mut self) {
        self.failures = 0;
        self.waits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(wait: Duration, plain_seconds: f64) -> bool {
        (wait.as_secs_f64() / plain_seconds - 1.0).abs() <= 0.2001
    }

    #[test]
    fn waits_double_from_half_a_second_to_a_minute() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        assert_eq!(backoff.after_failure(Reached::Ready), Duration::ZERO);
        for plain in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] {
            let wait = backoff.after_failure(Reached::Ready);
            assert!(within(wait, plain), "{wait:?} is not about {plain} s");
        }
    }

    #[test]
    fn a_failure_before_ready_waits_at_once_and_forgiving_starts_over() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        assert!(within(backoff.after_failure(Reached::Nothing), 0.5));
        assert!(within(backoff.after_failure(Reached::Ready), 1.0));
        backoff.forgive();
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.after_failure(Reached::Ready), Duration::ZERO);
    }
}
