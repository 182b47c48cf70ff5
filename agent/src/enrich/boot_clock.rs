//! Start times out of `/proc` as wall-clock times.
//!
//! `/proc/PID/stat` counts clock ticks since boot. [`BootClock`] knows the wall-clock time of boot on the same grid of
//! ticks, so that one process gets the same start time from every sensor and, unless somebody set the clock, in every
//! life of the agent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_common::event::Timestamp;

/// Unit of start times in `/proc` (`USER_HZ` is 100 on every architecture Linux has today).
pub const TICK_NS: i64 = 10_000_000;
/// How exactly the moment is to be known at which the uptime's last digit changes.
const FLANK_WIDTH_NS: i64 = 50_000;
/// How long that is tried, on a machine that lets this thread run too rarely.
const MEASUREMENT_MAX: Duration = Duration::from_millis(100);

/// The wall-clock time of boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootClock {
    boot: Timestamp,
}

/// The time now.
pub fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

impl BootClock {
    /// Measures it, which takes some 5 to 15 milliseconds: `/proc/uptime` has a resolution of one tick, but the moment it
    /// changes can be told to some microseconds. Where there is no `/proc/uptime`, boot is 1970: start times are then
    /// relative, yet still the same for the same process.
    pub fn measure() -> Self {
        let mut before_last = now();
        let Some(mut uptime) = uptime_ns() else { return Self { boot: Timestamp(0) } };
        let begin = Instant::now();
        let mut best = (i64::MAX, before_last.0 - uptime);
        while best.0 > FLANK_WIDTH_NS && begin.elapsed() < MEASUREMENT_MAX {
            let before = now();
            let Some(seen) = uptime_ns() else { break };
            if seen != uptime {
                // The flank was after the reading before this one was begun, and before this one was done.
                uptime = seen;
                best = best.min((now().0 - before_last.0, before_last.0 - seen));
            }
            before_last = before;
        }
        Self::booted_at(Timestamp(best.1))
    }

    /// A clock whose boot was at the given time.
    pub fn booted_at(boot: Timestamp) -> Self {
        Self { boot: Timestamp(boot.0.div_euclid(TICK_NS) * TICK_NS) }
    }

    /// The wall-clock time of `ticks` after boot.
    pub fn start_time(&self, ticks: u64) -> Timestamp {
        let since_boot = i64::try_from(ticks).unwrap_or(i64::MAX).saturating_mul(TICK_NS);
        Timestamp(self.boot.0.saturating_add(since_boot))
    }

    /// The start time that `/proc` shows for a process created so many nanoseconds after boot (`CLOCK_BOOTTIME`).
    pub fn created_at(&self, since_boot_ns: u64) -> Timestamp {
        self.start_time(since_boot_ns / TICK_NS.unsigned_abs())
    }

    /// The start time that `/proc` will show for a process created at `created`, or one tick beside it.
    pub fn on_grid(&self, created: Timestamp) -> Timestamp {
        Timestamp(created.0.div_euclid(TICK_NS).saturating_mul(TICK_NS))
    }
}

fn uptime_ns() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let hundredths: i64 = hundredths.parse().ok().filter(|value| (0..100).contains(value))?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(hundredths * TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_agree() {
        let first = BootClock::measure();
        let second = BootClock::measure();
        assert!((first.boot.0 - second.boot.0).abs() <= TICK_NS, "{first:?} {second:?}");
        assert!(first.boot < now());
    }

    #[test]
    fn times_are_on_the_grid_of_proc() {
        let clock = BootClock::booted_at(Timestamp(1_000_000_003));
        assert_eq!(clock.start_time(3), Timestamp(1_030_000_000));
        assert_eq!(clock.on_grid(Timestamp(1_039_999_999)), Timestamp(1_030_000_000));
        assert_eq!(clock.created_at(39_999_999), clock.start_time(3));
        assert_eq!(clock.start_time(u64::MAX), Timestamp(i64::MAX));
    }
}
