//! The kernel sensor on eBPF programs.

use std::path::Path;

use picket_common::event::{ByteString, EventBody, KernelActivity, Origin, Timestamp};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::SocketOwners;
use crate::sensor::ebpf::RecordSource;
use crate::sensor::ebpf::turns::{self, Turns};
use crate::sensor::event_clock::EventClock;
use crate::sensor::kernel::NAME;
use crate::sensor::kernel::ebpf_record::{self, KernelRecord, RecordedProcess};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, sensor_mode};

/// There where the kernel can load modules.
const MODULES: &str = "/proc/modules";

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    source: RecordSource,
    owners: SocketOwners,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let reason = missing(source.missing(), Path::new(MODULES).exists());
    let SensorEnvironment { stop, own_pid, process_progress: progress, .. } = environment.clone();
    environment.spawn(sensor_mode(NAME, Origin::AgentEbpf, &reason), NAME, move |reporter| {
        let mut sensor = KernelSensor { reporter, source, owners, own_pid, clock: EventClock::default() };
        turns::run(&mut sensor, &stop, &progress)
    })
}

/// What is not seen for want of a program; on a kernel without modules none of them can be missed.
fn missing(programs: &[(String, String)], has_modules: bool) -> String {
    let missed = programs.iter().filter(|(name, _)| has_modules || !name.starts_with("kernel_module"));
    missed.map(|(name, reason)| format!("no {name}: {reason}")).collect::<Vec<_>>().join("; ")
}

struct KernelSensor<S> {
    reporter: Reporter<S>,
    source: RecordSource,
    owners: SocketOwners,
    /// The agent's own process, which is not reported.
    own_pid: Option<u32>,
    clock: EventClock,
}

impl<S: ObservationSink> Turns for KernelSensor<S> {
    type Record = KernelRecord;
    const RECORDS_PER_TURN_MAX: usize = 512;
    const LAST_TURNS_MAX: u32 = 4;

    fn source(&mut self) -> &mut RecordSource {
        &mut self.source
    }

    fn parse(bytes: &[u8]) -> Option<KernelRecord> {
        ebpf_record::parse(bytes)
    }

    fn malformed(&mut self) {
        self.reporter.lost(1);
    }

    fn tell(&mut self, record: KernelRecord) {
        if Some(record.process.pid) == self.own_pid {
            return;
        }
        let time: Timestamp = self.clock.wall_clock(record.monotonic_ns, boot_clock::now());
        let owner = |owners: &mut SocketOwners, process: RecordedProcess| {
            owners.owner_created_at(process.pid, process.created_ns)
        };
        let process = owner(&mut self.owners, record.process);
        let target = record.target.map(|target| owner(&mut self.owners, target).process);
        let activity = KernelActivity {
            action: record.action,
            object: record.object,
            value: record.value,
            target,
            success: record.success,
            process: Some(process.process),
            executable: ByteString::from(&process.executable[..]),
            user_id: Some(record.process.user_id),
        };
        self.reporter.send(time, EventBody::KernelActivity(Box::new(activity)));
    }

    fn count_losses(&mut self) {
        let losses = self.source.new_losses();
        self.reporter.throttled(losses.throttled);
        self.reporter.lost(losses.full.iter().sum::<u64>() + losses.missed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_said() {
        let programs = [("kernel_module_load", "no such tracepoint"), ("kernel_program", "no helper")]
            .map(|(name, reason)| (name.to_owned(), reason.to_owned()));
        assert_eq!(missing(&programs, false), "no kernel_program: no helper");
        assert_eq!(missing(&programs, true), "no kernel_module_load: no such tracepoint; no kernel_program: no helper");
        assert_eq!(missing(&[], true), "");
    }
}
