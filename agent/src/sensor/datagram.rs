//! The datagram sensor: UDP flows, and DNS queries and responses (Linux, eBPF only).
//!
//! A flow is what one socket exchanges with one other end: a `ConnectionOpen` when its first packet passes, a
//! `ConnectionClose` with what was counted once nothing has passed for [`DatagramSensorConfig::flow_idle_ms`]. Both ends of
//! a flow within this host are reported, each with its own id. Its process is the one that sent first; a socket that
//! only receives has none.
//!
//! DNS messages are those exchanged with port 53 of another end, over UDP, or over TCP when they are one segment.

#[cfg(target_os = "linux")]
use picket_common::event::Origin;

use crate::sensor::config::{DatagramSensorConfig, EbpfChoice};
#[cfg(target_os = "linux")]
use crate::sensor::sensor_mode;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor};

#[cfg(target_os = "linux")]
mod dns_exchanges;
#[cfg(target_os = "linux")]
mod dns_message;
#[cfg(target_os = "linux")]
mod ebpf;
#[cfg(target_os = "linux")]
mod ebpf_record;
#[cfg(target_os = "linux")]
mod flow_table;
#[cfg(all(test, target_os = "linux"))]
mod tests;

#[cfg(target_os = "linux")]
const NAME: &str = "datagram";

/// Starts the sensor where `config` and the host permit.
#[cfg(target_os = "linux")]
pub(super) fn start<S: ObservationSink>(
    config: &DatagramSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    use crate::enrich::socket_owner::SocketOwners;

    if config.mode == EbpfChoice::Off {
        return Ok(None);
    }
    let source = environment.ebpf.lock().take(&crate::sensor::ebpf::object::DATAGRAM);
    let parts = source.and_then(|source| {
        let owners = SocketOwners::new(environment.processes.clone(), environment.boot_clock);
        Ok((source, owners.map_err(|error| format!("/proc cannot be read: {error}"))?))
    });
    match parts {
        Ok((source, owners)) => ebpf::start(config, source, owners, environment).map(Some),
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
    config: &DatagramSensorConfig,
    _environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    match config.mode {
        EbpfChoice::Ebpf => Err(SensorError::ModeUnavailable {
            sensor: "datagram",
            reason: "datagrams can be seen only on Linux".to_owned(),
        }),
        EbpfChoice::Auto | EbpfChoice::Off => Ok(None),
    }
}
