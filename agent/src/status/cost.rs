//! What the agent itself costs.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Reads the agent's own use of processor, memory and disk.
pub(crate) struct OwnCost {
    system: Option<System>,
    pid: Pid,
    peak_bytes: u64,
}

/// Processor time, memory, and bytes written to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_bytes_peak: u64,
    pub(crate) disk_written_bytes: u64,
}

impl OwnCost {
    pub(crate) fn new() -> Self {
        Self {
            system: System::new_with_specifics(RefreshKind::nothing()).ok(),
            pid: Pid::from_u32(std::process::id()),
            peak_bytes: 0,
        }
    }

    pub(crate) fn read(&mut self) -> Cost {
        let Some(system) = &mut self.system else { return Cost::default() };
        let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().with_disk_usage().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, kind);
        let Some(process) = system.process(self.pid) else { return Cost::default() };
        let resident_bytes = process.memory();
        // The kernel's own high-water mark where there is one: it also sees what happened between two looks.
        self.peak_bytes = self.peak_bytes.max(resident_bytes).max(high_water_mark().unwrap_or(0));
        Cost {
            cpu_seconds: process.accumulated_cpu_time() as f64 / 1_000.0,
            resident_bytes,
            resident_bytes_peak: self.peak_bytes,
            disk_written_bytes: process.disk_usage().total_written_bytes,
        }
    }
}

/// Linux: `VmHWM` of `/proc/self/status`, in bytes.
fn high_water_mark() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}
