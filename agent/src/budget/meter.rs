//! Use over a sliding window, from counters that only grow.

use std::collections::VecDeque;

use crate::budget::ladder::Measured;

/// Most readings kept; the oldest go first. A window is a few hundred readings at most.
const READINGS_MAX: usize = 1_024;

/// What the agent has used so far, and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, milliseconds on a clock that never goes back.
    pub at_ms: u64,
    /// Processor time since the start, milliseconds.
    pub cpu_ms: u64,
    /// Memory now, bytes.
    pub resident_bytes: u64,
    /// Bytes written to disk since the start.
    pub disk_written_bytes: u64,
}

/// The readings of the last window.
#[derive(Debug, Default)]
pub struct Meter {
    readings: VecDeque<Reading>,
}

impl Meter {
    /// Takes a reading; gives the use since the oldest one that the window needs.
    pub fn measure(&mut self, reading: Reading, window_ms: u64) -> Measured {
        self.readings.push_back(reading);
        // The window reaches back to a reading that is at least as old as it is long.
        while self.readings.len() > READINGS_MAX
            || self.readings.get(1).is_some_and(|second| reading.at_ms.saturating_sub(second.at_ms) >= window_ms)
        {
            self.readings.pop_front();
        }
        let first = self.readings.front().copied().unwrap_or(reading);
        let elapsed_ms = reading.at_ms.saturating_sub(first.at_ms);
        let per_second = |now: u64, then: u64| match elapsed_ms {
            0 => 0,
            elapsed_ms => {
                let rate = u128::from(now.saturating_sub(then)) * 1_000 / u128::from(elapsed_ms);
                u64::try_from(rate).unwrap_or(u64::MAX)
            }
        };
        Measured {
            is_whole: elapsed_ms >= window_ms,
            cpu_milliseconds_per_second: per_second(reading.cpu_ms, first.cpu_ms),
            resident_bytes: reading.resident_bytes,
            disk_write_bytes_per_second: per_second(reading.disk_written_bytes, first.disk_written_bytes),
        }
    }

    /// Begins the window anew, with the last reading.
    pub fn restart(&mut self) {
        let last = self.readings.pop_back();
        self.readings.clear();
        self.readings.extend(last);
    }
}
