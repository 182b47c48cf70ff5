//! What the lake has of a time span, as far as labelling needs it.

use std::net::{IpAddr, SocketAddr};

use picket_common::id::{Epoch, EventKey, Sequence};
use serde_json::{Map, Value};

use crate::admin::{AdminClient, AdminError};
use crate::range::label::{ObservedConnection, ObservedProcess, ProcessKey};
use crate::range::truth::GroundTruth;

type Row = Map<String, Value>;

/// The subjects of a time span, in the order of their keys.
#[derive(Debug, Default)]
pub struct Observed {
    /// Programs started; those that were running already when the agent started are left out.
    pub processes: Vec<ObservedProcess>,
    /// Connections that ended.
    pub connections: Vec<ObservedConnection>,
}

impl Observed {
    /// Reads what `host_id` saw in `epoch`.
    ///
    /// # Errors
    /// The query failed, or a row lacks what it must have.
    pub fn read(admin: &mut AdminClient, host_id: &str, epoch: u64) -> Result<Self, AdminError> {
        let which = format!("host_id = '{host_id}' AND epoch = {epoch}");
        let processes = admin.query(&format!(
            "SELECT sequence, pid, process_start_ns, parent_pid, parent_start_ns FROM process_activity \
             WHERE {which} AND activity = 'start' AND NOT seeded ORDER BY sequence"
        ))?;
        let connections = admin.query(&format!(
            "SELECT sequence, CAST(time AS BIGINT) AS time_us, local_address, local_port, remote_address, remote_port, \
             pid, process_start_ns FROM network_activity WHERE {which} AND activity = 'close' ORDER BY sequence"
        ))?;
        let bad = |row: &Row| AdminError::Answer { call: "query events", problem: format!("unexpected row {row:?}") };
        Ok(Self {
            processes: processes
                .iter()
                .map(|row| process(row, epoch).ok_or_else(|| bad(row)))
                .collect::<Result<_, _>>()?,
            connections: connections
                .iter()
                .map(|row| connection(row, epoch).ok_or_else(|| bad(row)))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Observed {
    /// What belongs to the time of a round.
    #[must_use]
    pub fn between(mut self, truth: &GroundTruth) -> Self {
        let time = truth.observed_time();
        self.processes.retain(|seen| time.contains(&seen.process.1));
        self.connections.retain(|seen| time.contains(&seen.time_unix_ns));
        self
    }
}

fn process(row: &Row, epoch: u64) -> Option<ObservedProcess> {
    Some(ObservedProcess {
        event: event_key(row, epoch)?,
        process: process_key(row, "pid", "process_start_ns")?,
        parent: process_key(row, "parent_pid", "parent_start_ns"),
    })
}

fn connection(row: &Row, epoch: u64) -> Option<ObservedConnection> {
    let time_unix_us = row.get("time_us")?.as_i64()?;
    Some(ObservedConnection {
        event: event_key(row, epoch)?,
        time_unix_ns: time_unix_us.checked_mul(1000)?,
        local: address(row, "local_address", "local_port")?,
        remote: address(row, "remote_address", "remote_port")?,
        process: process_key(row, "pid", "process_start_ns"),
    })
}

fn event_key(row: &Row, epoch: u64) -> Option<EventKey> {
    Some(EventKey { epoch: Epoch(epoch), sequence: Sequence(row.get("sequence")?.as_u64()?) })
}

fn process_key(row: &Row, pid: &str, start: &str) -> Option<ProcessKey> {
    Some((u32::try_from(row.get(pid)?.as_u64()?).ok()?, row.get(start)?.as_i64()?))
}

fn address(row: &Row, address: &str, port: &str) -> Option<SocketAddr> {
    let text = row.get(address)?.as_str()?;
    let ip: IpAddr = text.split('%').next()?.parse().ok()?;
    // An IPv4 connection of an IPv6 socket is an IPv4 connection.
    Some(SocketAddr::new(ip.to_canonical(), u16::try_from(row.get(port)?.as_u64()?).ok()?))
}
