//! Start times out of `/proc` as wall-clock times.
//!
//! `/proc/PID/stat` counts clock ticks since boot. [`BootClock`] knows the wall-clock time of boot on the same grid of
//! ticks, so that one process gets the same start time from every sensor and, unless somebody set the clock, in every
//! life of the agent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_common::event::Timestamp;

/// Unit of start times in `/proc` (`USER_HZ` is 100 on every architecture Linux has today).
pub const TICK_NS: i64 = 10_000_000;
/// How long the flank of the uptime's last digit is waited for.
const FLANK_WAIT_MAX: Duration = Duration::from_millis(15);

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
    /// Measures it, which takes up to [`FLANK_WAIT_MAX`]: `/proc/uptime` has a resolution of one tick, but the moment
    /// it changes is known to the microsecond. Where there is no `/proc/uptime`, boot is 1970: start times are then
    /// relative, yet still the same for the same process.
    pub fn measure() -> Self {
        let boot = |uptime: i64| Timestamp((now().0 - uptime).div_euclid(TICK_NS) * TICK_NS);
        let Some(first) = uptime_ns() else { return Self { boot: Timestamp(0) } };
        let begin = Instant::now();
        while begin.elapsed() < FLANK_WAIT_MAX {
            match uptime_ns() {
                Some(uptime) if uptime != first => return Self { boot: boot(uptime) },
                _ => {}
            }
        }
        Self { boot: boot(first) }
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
        assert_eq!(clock.start_time(u64::MAX), Timestamp(i64::MAX));
    }
}
