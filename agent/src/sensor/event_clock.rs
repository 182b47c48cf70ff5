//! Wall-clock times of the kernel's monotonic ones.
//!
//! The distance between the two clocks cannot be read, but an event can only be seen after it happened: the smallest
//! distance seen in a while is the right one up to the time a wake-up takes. A clock that somebody sets is followed
//! within two windows.

use picket_common::event::Timestamp;

/// How long a smallest distance stays in force after it was seen, at most twice.
const WINDOW_NS: i64 = 10_000_000_000;

/// Turns monotonic times into wall-clock times.
#[derive(Debug, Default)]
pub(crate) struct EventClock {
    distance: Option<i64>,
    window_distance: i64,
    window_end: i64,
}

impl EventClock {
    /// The wall-clock time of something that happened at `monotonic_ns` and is seen `now`.
    pub(crate) fn wall_clock(&mut self, monotonic_ns: u64, now: Timestamp) -> Timestamp {
        let monotonic = i64::try_from(monotonic_ns).unwrap_or(i64::MAX);
        let distance = now.0.saturating_sub(monotonic);
        let best = match self.distance {
            None => {
                self.window_distance = distance;
                self.window_end = monotonic.saturating_add(WINDOW_NS);
                distance
            }
            Some(best) => {
                self.window_distance = self.window_distance.min(distance);
                if monotonic >= self.window_end {
                    let seen = std::mem::replace(&mut self.window_distance, distance);
                    self.window_end = monotonic.saturating_add(WINDOW_NS);
                    seen
                } else {
                    best.min(distance)
                }
            }
        };
        self.distance = Some(best);
        Timestamp(monotonic.saturating_add(best))
    }

    /// The monotonic time `now`; `None` before anything was seen.
    pub(crate) fn monotonic_ns(&self, now: Timestamp) -> Option<u64> {
        self.distance.and_then(|distance| u64::try_from(now.0.saturating_sub(distance)).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn wall(clock: &mut EventClock, monotonic: i64, now: i64) -> i64 {
        clock.wall_clock(u64::try_from(monotonic).unwrap_or(0), Timestamp(now)).0
    }

    #[test]
    fn delays_do_not_move_the_time() {
        let mut clock = EventClock::default();
        assert_eq!(clock.monotonic_ns(Timestamp(1100)), None);
        assert_eq!(wall(&mut clock, 100, 1100), 1100);
        assert_eq!(clock.monotonic_ns(Timestamp(1200)), Some(200));
        assert_eq!(wall(&mut clock, 200, 1150), 1150, "a shorter delay shows a smaller distance");
        assert_eq!(wall(&mut clock, 300, 99_999), 1250);
    }

    #[test]
    fn a_clock_that_is_set_is_followed() {
        let mut clock = EventClock::default();
        assert_eq!(wall(&mut clock, 0, SECOND), SECOND);
        assert_eq!(wall(&mut clock, SECOND, SECOND), SECOND, "backwards at once");
        let forward = 3600 * SECOND;
        for second in 2..40 {
            wall(&mut clock, second * SECOND, forward + second * SECOND);
        }
        assert_eq!(wall(&mut clock, 40 * SECOND, forward + 40 * SECOND), forward + 40 * SECOND);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut clock = EventClock::default();
        clock.wall_clock(u64::MAX, Timestamp(i64::MIN));
        clock.wall_clock(0, Timestamp(i64::MAX));
        clock.wall_clock(u64::MAX, Timestamp(i64::MAX));
    }
}
