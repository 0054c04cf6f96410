//! A histogram of latencies: 128 steps for every doubling, so that a percentile is right within one per cent.

use std::time::Duration;

const STEP_BITS: u32 = 7;
const STEPS: usize = 1 << STEP_BITS;

pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

// === impl Latencies ===

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; slot(u64::MAX) + 1], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The latency in microseconds that `share` of all requests stayed within.
    pub(crate) fn within(&self, share: f64) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let wanted = self.total as f64 * share;
        let mut seen = 0.0;
        for (slot, &count) in self.counts.iter().enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let here = count as f64;
            seen += here;
            if count > 0 && seen >= wanted {
                #[allow(clippy::cast_precision_loss)]
                return floor(slot) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Small values have a slot each; above, a doubling has `STEPS` of them.
fn slot(value: u64) -> usize {
    if value < STEPS as u64 {
        return usize::try_from(value).unwrap_or(0);
    }
    let exponent = value.ilog2();
    let step = (value >> (exponent - STEP_BITS)) & (STEPS as u64 - 1);
    (exponent - STEP_BITS + 1) as usize * STEPS + usize::try_from(step).unwrap_or(0)
}

/// The smallest value of a slot.
fn floor(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let shift = slot / STEPS - 1;
    ((STEPS + slot % STEPS) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_begins_within_one_per_cent_below_its_values() {
        for value in [0, 1, 127, 128, 129, 1000, 123_456, 10_000_000_000, u64::MAX] {
            let floor = floor(slot(value));
            assert!(floor <= value && value - floor <= value / 100, "{value} is counted as {floor}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|it| latencies.record(Duration::from_micros(it)));
        for (share, expected) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0)] {
            let got = latencies.within(share);
            assert!((got - expected).abs() <= expected / 50.0, "{share}: {got}");
        }
        assert!(Latencies::new().within(0.5) == 0.0, "nothing recorded is no latency");
    }
}
