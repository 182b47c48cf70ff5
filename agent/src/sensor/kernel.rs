//! The kernel sensor: what few programs have reason to do to the kernel, to other processes, and to their own rights
//! (Linux, eBPF only).
//!
//! | activity | seen when | by |
//! |---|---|---|
//! | module loaded, removed | at once | `module_load`, `module_free` |
//! | `ptrace` attach | at once; by `PTRACE_SEIZE` when the target first stops | `signal_generate` |
//! | eBPF program loaded, or tried to | at once, before it is verified | `percpu_alloc_percpu` |
//! | namespaces made by `clone` | at once | `task_newtask` |
//! | namespaces left (`unshare`, `setns`); became root; gained capabilities | when the process next forks, starts a program or ends | `task_newtask`, `sched_process_exec`, `sched_process_exit` |
//!
//! A program without a file (`memfd_exec`) is told by the process sensor, which sees its start anyway.
//!
//! **Why so indirectly.** To see the calls themselves means one of three. Functions of the kernel (`fentry`, LSM hooks,
//! kprobes) are not open to programs on every kernel: on that of this project's machines they are refused. Tracepoints of
//! system calls, even those of one call only, take all calls of all processes through a slower way: 150 to 170 ns each here,
//! where the cheapest call takes 250. What is used instead costs nothing while nothing of the kind happens, and 2.5 µs for
//! each process from fork to end (of 500 µs that the smallest takes): what it had at its start is compared with what it has
//! then.
//!
//! **What is not seen.** A process that changes its namespaces or rights and changes them back, or does neither fork nor
//! start a program nor end; threads apart from their process; capabilities within another user namespace; attempts that
//! the kernel refused (but for eBPF programs); a process that lets its parent trace it (`PTRACE_TRACEME`), and what is
//! traced because its parent is; memory written through `/proc/PID/mem` or `process_vm_writev`.

#[cfg(target_os = "linux")]
use picket_common::event::Origin;

use crate::sensor::config::{EbpfChoice, KernelSensorConfig};
#[cfg(target_os = "linux")]
use crate::sensor::sensor_mode;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor};

#[cfg(target_os = "linux")]
mod ebpf;
#[cfg(target_os = "linux")]
mod ebpf_record;
#[cfg(all(test, target_os = "linux"))]
mod tests;

const NAME: &str = "kernel";

/// Starts the sensor where `config` and the host permit.
#[cfg(target_os = "linux")]
pub(super) fn start<S: ObservationSink>(
    config: &KernelSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    use crate::enrich::socket_owner::SocketOwners;
    use crate::sensor::ebpf::object::{KERNEL, KERNEL_LIMIT};

    if config.mode == EbpfChoice::Off {
        return Ok(None);
    }
    let source = environment.ebpf.lock().take(&KERNEL);
    let parts = source.and_then(|mut source| {
        source.set_limit(KERNEL_LIMIT, config.events_per_second_max)?;
        let owners = SocketOwners::new(environment.processes.clone(), environment.boot_clock);
        Ok((source, owners.map_err(|error| format!("/proc cannot be read: {error}"))?))
    });
    match parts {
        Ok((source, owners)) => ebpf::start(source, owners, environment).map(Some),
        Err(reason) if config.mode == EbpfChoice::Ebpf => Err(SensorError::ModeUnavailable { sensor: NAME, reason }),
        Err(reason) => {
            let mode = sensor_mode(NAME, Origin::Agent, &format!("not running: {reason}"));
            Ok(Some(StartedSensor { mode, running: None }))
        }
    }
}

/// There is no such sensor here: an error only when it was asked for by name.
#[cfg(not(target_os = "linux"))]
pub(super) fn start<S: ObservationSink>(
    config: &KernelSensorConfig,
    _environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    match config.mode {
        EbpfChoice::Ebpf => {
            Err(SensorError::ModeUnavailable { sensor: NAME, reason: "this can be seen only on Linux".to_owned() })
        }
        EbpfChoice::Auto | EbpfChoice::Off => Ok(None),
    }
}
