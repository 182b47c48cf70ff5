//! What the agent itself costs.

/// Processor time, memory, and bytes written to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_bytes_peak: u64,
    pub(crate) disk_written_bytes: u64,
}

#[cfg(not(target_os = "linux"))]
pub(crate) use any::OwnCost;
#[cfg(target_os = "linux")]
pub(crate) use linux::OwnCost;

/// Once a second, for ever: of `/proc`, three files are enough, read at once into the same memory.
#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::Read;

    use super::Cost;
    use crate::enrich::boot_clock::TICK_NS;

    /// Longer than any of the files.
    const FILE_BYTES_MAX: usize = 8 * 1024;
    /// Fields of `/proc/self/stat` behind the name, counted from 0: ticks in user mode and in the kernel.
    const TICKS: [usize; 2] = [11, 12];

    /// Reads the agent's own use of processor, memory and disk.
    pub(crate) struct OwnCost {
        buffer: Vec<u8>,
        last: Cost,
    }

    impl OwnCost {
        pub(crate) fn new() -> Self {
            Self { buffer: vec![0; FILE_BYTES_MAX], last: Cost::default() }
        }

        /// What cannot be read is as it was.
        pub(crate) fn read(&mut self) -> Cost {
            let mut cost = self.last;
            if let Some(ticks) = self.file("/proc/self/stat").and_then(ticks) {
                cost.cpu_seconds = ticks as f64 * TICK_NS as f64 / 1e9;
            }
            if let Some(status) = self.file("/proc/self/status") {
                let bytes = |key| number_after(status, key).map(|kibibytes| kibibytes * 1_024);
                cost.resident_bytes = bytes("VmRSS:").unwrap_or(cost.resident_bytes);
                cost.resident_bytes_peak = bytes("VmHWM:").unwrap_or(cost.resident_bytes_peak);
            }
            if let Some(written) = self.file("/proc/self/io").and_then(|io| number_after(io, "\nwrite_bytes:")) {
                cost.disk_written_bytes = written;
            }
            self.last = cost;
            cost
        }

        fn file(&mut self, path: &str) -> Option<&str> {
            let length = File::open(path).ok()?.read(&mut self.buffer).ok()?;
            std::str::from_utf8(&self.buffer[..length]).ok()
        }
    }

    fn ticks(stat: &str) -> Option<u64> {
        // The name may contain anything, but nothing behind it contains a parenthesis.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        TICKS.iter().map(|&at| fields.get(at)?.parse::<u64>().ok()).sum()
    }

    fn number_after(text: &str, key: &str) -> Option<u64> {
        let (_, rest) = text.split_once(key)?;
        rest.trim_start().split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_hostile_name_does_not_shift_the_fields() {
            let stat = "7 (a) 1 (b) S 1 2 3 4 5 6 7 8 9 10 21 34 0 0 20 0 19 0";
            assert_eq!(ticks(stat), Some(55));
            assert_eq!(ticks("7 (cut"), None);
        }

        #[test]
        fn written_bytes_are_not_cancelled_ones() {
            let io = "syscw: 5\nread_bytes: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
            assert_eq!(number_after(io, "\nwrite_bytes:"), Some(4096));
            assert_eq!(number_after("VmHWM:\t  23552 kB\n", "VmHWM:"), Some(23_552));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod any {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

    use super::Cost;

    /// Reads the agent's own use of processor, memory and disk.
    pub(crate) struct OwnCost {
        system: Option<System>,
        pid: Pid,
        peak_bytes: u64,
    }

    impl OwnCost {
        pub(crate) fn new() -> Self {
            let system = System::new_with_specifics(RefreshKind::nothing()).ok();
            Self { system, pid: Pid::from_u32(std::process::id()), peak_bytes: 0 }
        }

        pub(crate) fn read(&mut self) -> Cost {
            let Some(system) = &mut self.system else { return Cost::default() };
            let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().with_disk_usage().without_tasks();
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, kind);
            let Some(process) = system.process(self.pid) else { return Cost::default() };
            let resident_bytes = process.memory();
            self.peak_bytes = self.peak_bytes.max(resident_bytes);
            Cost {
                cpu_seconds: process.accumulated_cpu_time() as f64 / 1_000.0,
                resident_bytes,
                resident_bytes_peak: self.peak_bytes,
                disk_written_bytes: process.disk_usage().total_written_bytes,
            }
        }
    }
}
