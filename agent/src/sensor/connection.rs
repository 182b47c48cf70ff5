//! The connection sensor: TCP connections opened, closed and failed.
//!
//! Both ends of a connection within this host are reported, each with its own cookie. A `ConnectionOpen` is sent when a
//! connection is first seen established, a `ConnectionClose` once for each, also when its opening was never seen (then
//! without what only the living socket told). Sockets are those of the agent's own network namespace; with eBPF those of
//! all.

#[cfg(target_os = "linux")]
use crate::enrich::socket_owner::SocketOwners;
use crate::sensor::config::{ConnectionSensorConfig, ModeChoice};
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, join_reasons, sensor_mode};
use picket_common::event::{Origin, SensorMode};

#[cfg(target_os = "linux")]
mod attempts;
#[cfg(target_os = "linux")]
mod ebpf;
#[cfg(target_os = "linux")]
mod ebpf_record;
#[cfg(target_os = "linux")]
mod listeners;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod owner_search;
#[cfg(target_os = "linux")]
mod sock_diag;
#[cfg(target_os = "linux")]
mod state_trace;
#[cfg(target_os = "linux")]
mod summary;
#[cfg(target_os = "linux")]
mod table;
#[cfg(all(test, target_os = "linux"))]
mod tests;

const NAME: &str = "connection";

/// Starts the sensor in the best way that `config` and the host permit.
pub(super) fn start<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    if config.mode == ModeChoice::Off {
        return Ok(None);
    }
    start_here(config, environment).map(Some)
}

#[cfg(target_os = "linux")]
fn start_here<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let parts = sock_diag::DiagClient::open().and_then(|mut client| {
        // Whether it answers, and for TCP.
        client.dump(false, |_| {})?;
        Ok((client, SocketOwners::new(environment.processes.clone(), environment.boot_clock)?))
    });
    let (client, owners) = match parts {
        Ok(parts) => parts,
        Err(error) => return absent(config, &format!("netlink sock_diag: {error}; it needs CONFIG_INET_TCP_DIAG")),
    };
    let better = if config.mode.wants_ebpf() {
        let source = environment.ebpf.lock().take(&crate::sensor::ebpf::object::CONNECTION);
        let limited = source.and_then(|mut source| {
            source.set_limit(crate::sensor::ebpf::object::CONNECTION_LIMIT, config.events_per_second_max)?;
            Ok(source)
        });
        match limited {
            Ok(source) => return ebpf::start(source, client, owners, environment),
            Err(reason) if config.mode == ModeChoice::Ebpf => {
                return Err(SensorError::ModeUnavailable { sensor: NAME, reason });
            }
            Err(reason) => reason,
        }
    } else {
        String::new()
    };
    start_netlink(config, environment, netlink::Parts { client, owners, destroyed: None, states: None }, &better)
}

/// As [`start_here`], without eBPF; `better` says why without, if it was tried.
#[cfg(target_os = "linux")]
fn start_netlink<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    environment: &SensorEnvironment<S>,
    parts: netlink::Parts,
    better: &str,
) -> Result<StartedSensor, SensorError> {
    if config.mode == ModeChoice::Polling {
        let mode = mode(Origin::AgentPolling, "asked for by sensor.connection.mode");
        return netlink::start(config, environment, mode, parts);
    }
    match sock_diag::DestroySubscription::open() {
        Ok(destroyed) => {
            let (states, reason) = start_trace(environment.trace);
            let parts = netlink::Parts { destroyed: Some(destroyed), states, ..parts };
            let reason = join_reasons(better, &reason);
            netlink::start(config, environment, mode(Origin::AgentNetlink, &reason), parts)
        }
        Err(error) => {
            let reason = format!("netlink sock_diag notifications: {error}; run as root or with CAP_NET_ADMIN");
            if config.mode == ModeChoice::Netlink {
                return Err(SensorError::ModeUnavailable { sensor: NAME, reason });
            }
            let reason = join_reasons(better, &reason);
            netlink::start(config, environment, mode(Origin::AgentPolling, &reason), parts)
        }
    }
}

/// Starts the recording of state changes, or says what is missed without.
#[cfg(target_os = "linux")]
fn start_trace(permitted: bool) -> (Option<state_trace::StateTrace>, String) {
    let reason = if permitted {
        match state_trace::StateTrace::start() {
            Ok(states) => return (Some(states), String::new()),
            Err(error) => format!("no trace events: {error}"),
        }
    } else {
        "no trace events: switched off by sensor.trace".to_owned()
    };
    (None, format!("{reason}; who owns a connection is found only if it lasts, and as root"))
}

#[cfg(not(target_os = "linux"))]
fn start_here<S: ObservationSink>(
    config: &ConnectionSensorConfig,
    _environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    absent(config, "sockets can be seen only on Linux")
}

/// There is no such sensor here: an error only when it was asked for by name.
fn absent(config: &ConnectionSensorConfig, reason: &str) -> Result<StartedSensor, SensorError> {
    match config.mode {
        ModeChoice::Ebpf | ModeChoice::Netlink | ModeChoice::Polling => {
            Err(SensorError::ModeUnavailable { sensor: NAME, reason: reason.to_owned() })
        }
        ModeChoice::Auto | ModeChoice::Off => {
            Ok(StartedSensor { mode: mode(Origin::Agent, &format!("not running: {reason}")), running: None })
        }
    }
}

fn mode(origin: Origin, reason: &str) -> SensorMode {
    sensor_mode(NAME, origin, reason)
}
