//! One worker's view of the time of day: anchored once a second, and carried on by the monotonic clock in between. Answers
//! carry a date, and making one costs more than all the rest of a small answer's head.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(super) const DATE_BYTES: usize = 29;

pub(super) struct Clock(Cell<Second>);

/// What holds until the second is over.
#[derive(Clone, Copy)]
struct Second {
    begun: Instant,
    ends: Instant,
    time: SystemTime,
    date: [u8; DATE_BYTES],
}

impl Second {
    fn now() -> Self {
        let (begun, time) = (Instant::now(), SystemTime::now());
        let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |it| it.subsec_nanos());
        let mut date = [b' '; DATE_BYTES];
        date.copy_from_slice(httpdate::fmt_http_date(time).as_bytes());
        Self { begun, ends: begun + Duration::from_secs(1) - Duration::from_nanos(nanos.into()), time, date }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self(Cell::new(Second::now()))
    }
}

impl Clock {
    fn second(&self, now: Instant) -> Second {
        if now >= self.0.get().ends {
            self.0.set(Second::now());
        }
        self.0.get()
    }

    /// The time of day at `now`, which is now or a moment ago.
    pub(super) fn time(&self, now: Instant) -> SystemTime {
        let second = self.second(now);
        second.time + now.saturating_duration_since(second.begun)
    }

    /// As the `Date` header wants it (RFC 9110, 5.6.7).
    pub(super) fn date(&self, now: Instant) -> [u8; DATE_BYTES] {
        self.second(now).date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_its_second_and_moves_on_with_it() {
        let clock = Clock::default();
        let now = Instant::now();
        let date = String::from_utf8(clock.date(now).to_vec()).expect("a date is ASCII");
        let parsed = httpdate::parse_http_date(&date).expect("it is a date");
        let apart = clock.time(now).duration_since(parsed).expect("a date is in whole seconds");
        assert!(apart < Duration::from_secs(1), "{apart:?}");
        let ends = clock.0.get().ends;
        clock.date(ends);
        assert!(clock.0.get().begun >= now, "anchored anew");
    }
}
