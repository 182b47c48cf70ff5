//! The kernel sensor on eBPF programs.
//!
//! Records rest for [`REST`] before they are used, so that the process sensor has told of the processes in them.

use std::path::Path;
use std::time::{Duration, Instant};

use picket_common::event::{ByteString, EventBody, KernelActivity, Origin, Timestamp};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::SocketOwners;
use crate::sensor::ebpf::RecordSource;
use crate::sensor::event_clock::EventClock;
use crate::sensor::kernel::NAME;
use crate::sensor::kernel::ebpf_record::{self, KernelRecord, RecordedProcess};
use crate::sensor::reporter::Reporter;
use crate::sensor::{
    ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor, priority, sensor_mode,
};

/// Most records taken before something else gets its turn.
const RECORDS_PER_TURN_MAX: usize = 512;
/// Most turns after the stop: more than a full ring buffer needs.
const LAST_TURNS_MAX: u32 = 4;
/// How long records rest before they are used.
const REST: Duration = Duration::from_millis(2);
/// How often losses are looked for.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// There where the kernel can load modules.
const MODULES: &str = "/proc/modules";

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    source: RecordSource,
    owners: SocketOwners,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let reason = missing(source.missing(), Path::new(MODULES).exists());
    let (stop, own_pid) = (environment.stop.clone(), environment.own_pid);
    environment.spawn(sensor_mode(NAME, Origin::AgentEbpf, &reason), NAME, move |reporter| {
        priority::raise();
        let mut sensor = KernelSensor { reporter, source, owners, own_pid, clock: EventClock::default() };
        let mut next_maintenance = Instant::now() + MAINTENANCE_INTERVAL;
        while !stop.is_cancelled() {
            sensor.source.wait(STOP_CHECK_INTERVAL)?;
            sensor.use_records();
            if Instant::now() >= next_maintenance {
                next_maintenance = Instant::now() + MAINTENANCE_INTERVAL;
                sensor.count_losses();
            }
        }
        // What was recorded before the stop is still told.
        for _ in 0..LAST_TURNS_MAX {
            if !sensor.use_records() {
                break;
            }
        }
        sensor.count_losses();
        Ok(())
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

impl<S: ObservationSink> KernelSensor<S> {
    /// Uses the records that are there; says whether there were any.
    fn use_records(&mut self) -> bool {
        let mut records = Vec::new();
        while records.len() < RECORDS_PER_TURN_MAX
            && let Some(record) = self.source.next().map(|bytes| ebpf_record::parse(&bytes))
        {
            match record {
                Some(record) => records.push(record),
                None => self.reporter.lost(1),
            }
        }
        if records.is_empty() {
            return false;
        }
        std::thread::sleep(REST);
        for record in records {
            if Some(record.process.pid) != self.own_pid {
                self.tell(record);
            }
        }
        true
    }

    fn tell(&mut self, record: KernelRecord) {
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
