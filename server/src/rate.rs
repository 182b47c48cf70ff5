//! Token buckets.

use std::time::{Duration, Instant};

/// Lets through so much a second for long, and so much at once after a pause.
///
/// Time is passed in; it may stand still, and is taken to if it runs backwards.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u64, capacity: u64, now: Instant) -> Self {
        let capacity = capacity as f64;
        Self { per_second: (per_second as f64).max(f64::MIN_POSITIVE), capacity, level: capacity, updated: now }
    }

    /// Takes the amount if it is there.
    pub fn try_take(&mut self, amount: u64, now: Instant) -> bool {
        self.refill(now);
        if self.level < amount as f64 {
            return false;
        }
        self.level -= amount as f64;
        true
    }

    /// Takes the amount in any case and says how long to wait until it is paid for; `None`, with nothing taken, when
    /// that is longer than `wait_max`.
    pub fn take_within(&mut self, amount: u64, wait_max: Duration, now: Instant) -> Option<Duration> {
        self.refill(now);
        let level = self.level - amount as f64;
        let wait = Duration::try_from_secs_f64((-level).max(0.0) / self.per_second).unwrap_or(Duration::MAX);
        if wait > wait_max {
            return None;
        }
        self.level = level;
        Some(wait)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        self.level = (self.level + elapsed.as_secs_f64() * self.per_second).min(self.capacity);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 20, start);
        assert!((0..20).all(|_| bucket.try_take(1, start)));
        assert!(!bucket.try_take(1, start));
        assert!(bucket.try_take(10, start + Duration::from_secs(1)));
        assert!(!bucket.try_take(1, start), "time does not run backwards");
        assert!(!bucket.try_take(21, start + Duration::from_secs(100)), "never more than it holds");
    }

    #[test]
    fn what_is_taken_early_is_waited_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 20, start);
        let limit = Duration::from_secs(2);
        assert_eq!(bucket.take_within(20, limit, start), Some(Duration::ZERO));
        assert_eq!(bucket.take_within(10, limit, start), Some(Duration::from_secs(1)));
        assert_eq!(bucket.take_within(10, limit, start), Some(Duration::from_secs(2)));
        assert_eq!(bucket.take_within(1, limit, start), None);
        assert_eq!(bucket.take_within(1, limit, start + Duration::from_secs(2)), Some(Duration::from_millis(100)));
    }
}
