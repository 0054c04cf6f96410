//! What time it is, for everything about certificates and the tokens that they are asked for with. Time is compared, never slept through: a clock may jump, a machine may
//! sleep.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// How long a change of the clock may go unnoticed.
const TICK: Duration = Duration::from_secs(60);
const TICK_OF_TESTS: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Seconds that are added to the system's, read from this file each time. Only in builds for tests.
    offset: Option<PathBuf>,
}

impl Clock {
    pub fn new() -> Self {
        let offset =
            if cfg!(debug_assertions) { std::env::var_os("MIWID_TEST_CLOCK").map(PathBuf::from) } else { None };
        Self { offset }
    }

    pub fn now(&self) -> SystemTime {
        let read = |it: &PathBuf| std::fs::read_to_string(it).ok()?.trim().parse::<i64>().ok();
        match self.offset.as_ref().and_then(read) {
            None => SystemTime::now(),
            Some(ahead @ 0..) => SystemTime::now() + Duration::from_secs(ahead.unsigned_abs()),
            Some(behind) => SystemTime::now() - Duration::from_secs(behind.unsigned_abs()),
        }
    }

    pub fn tick(&self) -> Duration {
        if self.offset.is_some() { TICK_OF_TESTS } else { TICK }
    }
}
