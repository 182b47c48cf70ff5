//! Pauses between attempts: exponential, capped, with full jitter, so that a fleet does not come back all at once.

use std::time::Duration;

/// Upper bound of the first pause.
const FIRST: Duration = Duration::from_millis(500);

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// With pauses of at most `ceiling`.
    pub(crate) fn new(ceiling: Duration) -> Self {
        Self::with_first(FIRST, ceiling)
    }

    /// With pauses from at most `first` to at most `ceiling`.
    pub(crate) fn with_first(first: Duration, ceiling: Duration) -> Self {
        let first = first.min(ceiling);
        Self { first, ceiling, next: first }
    }

    /// The next pause: `random` of 2³² of its bound, and at least a tenth of the first one, so that nothing spins.
    pub(crate) fn next_pause(&mut self, random: u32) -> Duration {
        let bound = self.next;
        self.next = (self.next * 2).min(self.ceiling);
        bound.mul_f64(f64::from(random) / f64::from(u32::MAX)).max(self.first / 10)
    }

    /// Starts small again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_ceiling_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(3));
        let bounds: Vec<u128> = (0..5).map(|_| backoff.next_pause(u32::MAX).as_millis()).collect();
        assert_eq!(bounds, [500, 1_000, 2_000, 3_000, 3_000]);
        backoff.reset();
        assert_eq!(backoff.next_pause(u32::MAX / 2).as_millis(), 250);
        assert_eq!(backoff.next_pause(0).as_millis(), 50);
        assert_eq!(Backoff::new(Duration::from_millis(20)).next_pause(u32::MAX).as_millis(), 20);
    }
}
