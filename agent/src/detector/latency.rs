//! How long it takes from an event to its score or alert.

use picket_common::event::Timestamp;
use serde::{Deserialize, Serialize};

/// Eight buckets per doubling, from 1 µs: percentiles are at most 9 % too high.
const BUCKETS_PER_DOUBLING: usize = 8;
const BUCKETS: usize = 36 * BUCKETS_PER_DOUBLING;

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max_us: u64,
}

/// What a histogram says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Durations recorded.
    pub count: u64,
    /// Half of them were shorter, milliseconds.
    pub p50_ms: f64,
    /// 95 % of them were shorter.
    pub p95_ms: f64,
    /// 99 % of them were shorter.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, max_us: 0 }
    }
}

impl Latency {
    /// Records the time from `begin` to `end`; a negative one (a clock was set) counts as zero.
    pub fn record(&mut self, begin: Timestamp, end: Timestamp) {
        let us = u64::try_from(end.0.saturating_sub(begin.0)).unwrap_or(0) / 1_000;
        self.buckets[bucket_of(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The percentiles.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.count,
            p50_ms: self.percentile_ms(0.50),
            p95_ms: self.percentile_ms(0.95),
            p99_ms: self.percentile_ms(0.99),
            max_ms: self.max_us as f64 / 1_000.0,
        }
    }

    fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return upper_bound_us(bucket).min(self.max_us as f64) / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket_of(us: u64) -> usize {
    let place = (us.max(1) as f64).log2() * BUCKETS_PER_DOUBLING as f64;
    (place as usize).min(BUCKETS - 1)
}

fn upper_bound_us(bucket: usize) -> f64 {
    ((bucket + 1) as f64 / BUCKETS_PER_DOUBLING as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_the_truth() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), LatencySummary::default());
        for us in 1..=10_000_i64 {
            latency.record(Timestamp(5), Timestamp(5 + us * 1_000));
        }
        latency.record(Timestamp(9), Timestamp(5));
        let summary = latency.summary();
        assert_eq!((summary.count, summary.max_ms), (10_001, 10.0));
        for (found, truth) in [(summary.p50_ms, 5.0), (summary.p95_ms, 9.5), (summary.p99_ms, 9.9)] {
            assert!((truth * 0.99..=truth * 1.1).contains(&found), "{found} {truth}");
        }
    }
}
