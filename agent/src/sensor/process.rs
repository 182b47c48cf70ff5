//! The process sensor: program starts and ends.
//!
//! A `ProcessStart` is an `execve`; a process that only forks is known to the table (as parent and ancestor) but not
//! reported, and a `ProcessExit` is sent for exactly those processes of which a start was sent.
//!
//! What a start alone shows is told as a `KernelActivity`, too: a program without a file (`memfd_exec`), and one that is
//! root where its process was not (`become_root`; eBPF only, `/proc` does not always show the effective user).

use picket_common::event::{
    ByteString, EventBody, KernelAction, KernelActivity, Origin, ProcessExit, ProcessStart, SensorMode, Timestamp,
};

use crate::enrich::process_details::ProcessDetails;
use crate::enrich::process_table::{EndedProcess, Lineage};
use crate::enrich::user_names::UserNames;
use crate::sensor::config::{ModeChoice, ProcessSensorConfig};
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, join_reasons, sensor_mode};

#[cfg(target_os = "linux")]
mod ebpf;
#[cfg(target_os = "linux")]
mod ebpf_record;
#[cfg(target_os = "linux")]
mod netlink;
mod polling;
#[cfg(target_os = "linux")]
mod proc_event;
#[cfg(target_os = "linux")]
mod program_trace;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
mod tracker;

const NAME: &str = "process";
/// Most processes reported of those that run already when the agent starts.
const SEEDED_PROCESSES_MAX: usize = 8192;

/// Starts the sensor in the best way that `config` and the host permit.
pub(super) fn start<S: ObservationSink>(
    config: &ProcessSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    let mut reasons = String::new();
    for way in [ModeChoice::Ebpf, ModeChoice::Netlink] {
        let started = match way {
            ModeChoice::Ebpf if config.mode.wants_ebpf() => start_ebpf(config, environment),
            ModeChoice::Netlink if config.mode.wants_netlink() => start_netlink(environment, &reasons),
            _ => continue,
        };
        match started? {
            Ok(started) => return Ok(Some(started)),
            Err(reason) if config.mode == way => return Err(SensorError::ModeUnavailable { sensor: NAME, reason }),
            Err(reason) => reasons = join_reasons(&reasons, &reason),
        }
    }
    match config.mode {
        ModeChoice::Off => Ok(None),
        ModeChoice::Polling => polling::start(config, environment, "asked for by sensor.process.mode").map(Some),
        _ => polling::start(config, environment, &reasons).map(Some),
    }
}

/// The inner error says why this host does not permit it.
type Started = Result<Result<StartedSensor, String>, SensorError>;

#[cfg(target_os = "linux")]
fn start_ebpf<S: ObservationSink>(config: &ProcessSensorConfig, environment: &SensorEnvironment<S>) -> Started {
    use crate::sensor::ebpf::object::{PROCESS, PROCESS_LIMIT};

    let source = environment.ebpf.lock().take(&PROCESS);
    let limited = source.and_then(|mut source| {
        source.set_limit(PROCESS_LIMIT, config.starts_per_second_max)?;
        Ok(source)
    });
    match limited {
        Ok(source) => ebpf::start(source, environment),
        Err(reason) => Ok(Err(reason)),
    }
}

#[cfg(target_os = "linux")]
fn start_netlink<S: ObservationSink>(environment: &SensorEnvironment<S>, better: &str) -> Started {
    match netlink::Subscription::open(environment.boot_clock) {
        Ok(subscription) => netlink::start(subscription, better, environment).map(Ok),
        Err(error) => Ok(Err(error.to_string())),
    }
}

#[cfg(not(target_os = "linux"))]
fn start_ebpf<S: ObservationSink>(_config: &ProcessSensorConfig, _environment: &SensorEnvironment<S>) -> Started {
    Ok(Err("eBPF exists only on Linux".to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn start_netlink<S: ObservationSink>(_environment: &SensorEnvironment<S>, _better: &str) -> Started {
    Ok(Err("the netlink process connector exists only on Linux".to_owned()))
}

fn mode(origin: Origin, reason: &str) -> SensorMode {
    sensor_mode(NAME, origin, reason)
}

/// The event of a program start.
fn start_event(details: ProcessDetails, lineage: Lineage, user_names: &mut UserNames, seeded: bool) -> EventBody {
    EventBody::ProcessStart(Box::new(ProcessStart {
        process: lineage.id,
        parent: lineage.parent,
        executable: details.executable.as_slice().into(),
        arguments: details.arguments.values,
        arguments_truncated: details.arguments.truncated,
        working_directory: details.working_directory,
        user_id: lineage.user_id,
        group_id: lineage.group_id,
        user_name: lineage.user_id.map(|user_id| user_names.name(user_id)).unwrap_or_default(),
        session_id: lineage.session_id,
        has_terminal: details.has_terminal,
        standard_streams: details.standard_streams,
        ancestors: lineage.ancestors,
        executable_deleted: details.executable_deleted,
        seeded,
        cgroup_id: details.cgroup_id,
        cgroup: details.cgroup,
        executable_file: details.executable_file,
        script: details.script,
    }))
}

/// What the kernel calls the executables that programs make in memory (`memfd_create`).
const MEMFD_PREFIX: &[u8] = b"/memfd:";

/// The event of a program that was started from memory, if it was.
fn memfd_event(details: &ProcessDetails, lineage: &Lineage) -> Option<EventBody> {
    let name = details.executable.strip_prefix(MEMFD_PREFIX)?;
    // A file may really be called so.
    let is_memory = details.executable_deleted == Some(true);
    is_memory.then(|| kernel_event(KernelAction::MemfdExec, name.into(), None, details, lineage))
}

/// The event of a program that its start made root, from the user id that the process had.
#[cfg(target_os = "linux")]
fn root_event(user_before: u32, details: &ProcessDetails, lineage: &Lineage) -> Option<EventBody> {
    let has_become = user_before != 0 && details.user_id == Some(0);
    let value = Some(u64::from(user_before));
    has_become.then(|| kernel_event(KernelAction::BecomeRoot, ByteString::default(), value, details, lineage))
}

fn kernel_event(
    action: KernelAction,
    object: ByteString,
    value: Option<u64>,
    details: &ProcessDetails,
    lineage: &Lineage,
) -> EventBody {
    EventBody::KernelActivity(Box::new(KernelActivity {
        action,
        object,
        value,
        target: None,
        success: Some(true),
        process: Some(lineage.id),
        executable: details.executable.as_slice().into(),
        user_id: lineage.user_id,
    }))
}

/// The event of a process's end, without the time it had on a processor.
fn exit_event(ended: &EndedProcess, time: Timestamp, exit_code: Option<i32>, signal: Option<u32>) -> ProcessExit {
    ProcessExit {
        process: ended.id,
        executable: ended.executable[..].into(),
        exit_code,
        signal,
        duration_ns: u64::try_from(time.0.saturating_sub(ended.created.0)).ok(),
        cpu_time_ns: None,
    }
}
