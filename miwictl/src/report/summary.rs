//! What lines add up to, in bounded memory: names are counted exactly until there are too many, then the rarest half is
//! forgotten, so that what is frequent all along stays in the list.

use std::collections::{BTreeMap, HashMap};

use super::{Period, parse};

const NAMES_MAX: usize = 100_000;
/// Hours of more than ten years; what comes after is counted in the last row.
const PERIODS_MAX: usize = 100_000;
const NAME_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Summary {
    period: Period,
    pub(super) totals: Totals,
    pub(super) unreadable: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) periods: BTreeMap<String, Totals>,
    paths: Names,
    clients: Names,
    times: HashMap<String, Times>,
}

#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Totals {
    pub(super) requests: u64,
    /// Statuses from 400 on.
    pub(super) errors: u64,
    pub(super) bytes_sent: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) requests: u64,
    pub(super) sum_ms: f64,
    pub(super) max_ms: f64,
}

impl Summary {
    pub(super) fn new(period: Period) -> Self {
        Self { period, ..Self::default() }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(line) = parse::parse(line) else {
            self.unreadable += u64::from(!line.is_empty());
            return;
        };
        self.totals.add(&line);
        *self.statuses.entry(line.status).or_default() += 1;
        let row = match self.period {
            Period::Hourly => format!("{}:00", line.hour),
            Period::Daily => line.hour.chars().take(10).collect(),
        };
        if self.periods.len() < PERIODS_MAX || self.periods.contains_key(&row) {
            self.periods.entry(row).or_default().add(&line);
        } else if let Some(mut last) = self.periods.last_entry() {
            last.get_mut().add(&line);
        }
        let path: String = line.path.chars().take(NAME_BYTES_MAX / 4).collect();
        if let Some(millis) = line.millis {
            self.time(&path, millis);
        }
        self.paths.count(path);
        self.clients.count(line.client.chars().take(NAME_BYTES_MAX / 4).collect());
    }

    pub(super) fn top_paths(&self, n: usize) -> Vec<(&str, u64)> {
        self.paths.top(n)
    }

    pub(super) fn top_clients(&self, n: usize) -> Vec<(&str, u64)> {
        self.clients.top(n)
    }

    /// By the slowest request.
    pub(super) fn slowest(&self, n: usize) -> Vec<(&str, Times)> {
        let mut all: Vec<_> = self.times.iter().map(|(path, times)| (path.as_str(), *times)).collect();
        all.sort_by(|a, b| b.1.max_ms.total_cmp(&a.1.max_ms).then(a.0.cmp(b.0)));
        all.truncate(n);
        all
    }

    fn time(&mut self, path: &str, millis: f64) {
        if self.times.len() >= NAMES_MAX && !self.times.contains_key(path) {
            let mut slowest: Vec<f64> = self.times.values().map(|times| times.max_ms).collect();
            let middle = slowest.len() / 2;
            let median = *slowest.select_nth_unstable_by(middle, f64::total_cmp).1;
            let mut room = middle;
            self.times.retain(|_, times| {
                let stays = times.max_ms >= median && room > 0;
                room -= usize::from(stays);
                stays
            });
        }
        let times = self.times.entry(path.to_owned()).or_default();
        times.requests += 1;
        times.sum_ms += millis;
        times.max_ms = times.max_ms.max(millis);
    }
}

impl Totals {
    fn add(&mut self, line: &parse::Line) {
        self.requests += 1;
        self.errors += u64::from(line.status >= 400);
        self.bytes_sent = self.bytes_sent.saturating_add(line.bytes_sent);
    }
}

#[derive(Default)]
struct Names(HashMap<String, u64>);

impl Names {
    fn count(&mut self, name: String) {
        if self.0.len() >= NAMES_MAX && !self.0.contains_key(&name) {
            self.forget_half();
        }
        *self.0.entry(name).or_default() += 1;
    }

    fn forget_half(&mut self) {
        let mut counts: Vec<u64> = self.0.values().copied().collect();
        let middle = counts.len() / 2;
        let median = *counts.select_nth_unstable(middle).1;
        let mut room = middle.saturating_sub(counts.iter().filter(|count| **count > median).count());
        self.0.retain(|_, count| {
            let stays = *count > median || (*count == median && room > 0);
            room -= usize::from(stays && *count == median);
            stays
        });
    }

    fn top(&self, n: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_frequent_name_survives() {
        let mut names = Names::default();
        for n in 0..NAMES_MAX * 3 {
            names.count(n.to_string());
            names.count("often".to_owned());
            assert!(names.0.len() <= NAMES_MAX);
        }
        assert_eq!(names.top(1), [("often", NAMES_MAX as u64 * 3)]);
    }
}
