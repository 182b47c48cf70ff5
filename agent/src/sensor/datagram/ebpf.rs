//! The datagram sensor on eBPF programs.

use std::collections::HashMap;
use std::time::Duration;

use picket_common::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, DnsAction, DnsActivity, EventBody, Origin,
    Protocol, Timestamp,
};

use crate::enrich::boot_clock;
use crate::enrich::socket_owner::{Owner, SocketOwners};
use crate::sensor::config::DatagramSensorConfig;
use crate::sensor::datagram::NAME;
use crate::sensor::datagram::dns_exchanges::DnsExchanges;
use crate::sensor::datagram::dns_message::DnsMessage;
use crate::sensor::datagram::ebpf_record::{self, DatagramRecord, Ends, Flow, RecordedOwner};
use crate::sensor::datagram::flow_table::FlowTable;
use crate::sensor::ebpf::RecordSource;
use crate::sensor::ebpf::object::DATAGRAM_FLOWS;
use crate::sensor::ebpf::turns::{self, Turns};
use crate::sensor::event_clock::EventClock;
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, sensor_mode};

/// No user has this id; the kernel uses it for "none".
const UNKNOWN_USER: u32 = u32::MAX;

/// Starts the sensor.
pub(super) fn start<S: ObservationSink>(
    config: &DatagramSensorConfig,
    mut source: RecordSource,
    owners: SocketOwners,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let unusable = |reason: String| SensorError::ModeUnavailable { sensor: NAME, reason };
    let flows = source.take_map(DATAGRAM_FLOWS).and_then(FlowTable::new).map_err(unusable)?;
    let idle = Duration::from_millis(config.flow_idle_ms);
    let SensorEnvironment { stop, own_pid, process_progress: progress, .. } = environment.clone();
    environment.spawn(sensor_mode(NAME, Origin::AgentEbpf, ""), NAME, move |reporter| {
        let mut sensor = DatagramSensor {
            reporter,
            source,
            owners,
            flows,
            idle,
            own_pid,
            clock: EventClock::default(),
            exchanges: DnsExchanges::default(),
            begun: HashMap::new(),
        };
        turns::run(&mut sensor, &stop, &progress)
    })
}

struct DatagramSensor<S> {
    reporter: Reporter<S>,
    source: RecordSource,
    owners: SocketOwners,
    flows: FlowTable,
    idle: Duration,
    /// The agent's own process, which is not reported.
    own_pid: Option<u32>,
    clock: EventClock,
    exchanges: DnsExchanges,
    /// The owners of flows that began, by id: theirs at the end may be unknown by then. No more than the kernel counts.
    begun: HashMap<u64, Option<Owner>>,
}

impl<S: ObservationSink> Turns for DatagramSensor<S> {
    type Record = DatagramRecord;
    const RECORDS_PER_TURN_MAX: usize = 1024;
    const LAST_TURNS_MAX: u32 = 8;

    fn source(&mut self) -> &mut RecordSource {
        &mut self.source
    }

    fn parse(bytes: &[u8]) -> Option<DatagramRecord> {
        DatagramRecord::parse(bytes)
    }

    fn malformed(&mut self) {
        self.reporter.lost(1);
    }

    fn tell(&mut self, record: DatagramRecord) {
        match record {
            DatagramRecord::FlowBegun { ends, flow } => self.flow_began(ends, &flow),
            DatagramRecord::DnsMessage { ends, flow, direction, bytes } => {
                self.message_passed(ends, &flow, direction, &bytes);
            }
        }
    }

    fn maintain(&mut self) -> bool {
        self.end_idle_flows();
        !self.begun.is_empty()
    }

    fn count_losses(&mut self) {
        let losses = self.source.new_losses();
        let lost = |kind: u32| losses.full.get(kind as usize).copied().unwrap_or(0);
        let uncounted = losses.full.get(ebpf_record::UNCOUNTED).copied().unwrap_or(0);
        let told = lost(ebpf_record::FLOW_BEGUN) + lost(ebpf_record::DNS_MESSAGE);
        self.reporter.lost(told + uncounted + losses.missed);
    }
}

impl<S: ObservationSink> DatagramSensor<S> {
    fn time(&mut self, monotonic_ns: u64) -> Timestamp {
        self.clock.wall_clock(monotonic_ns, boot_clock::now())
    }

    fn owner(&mut self, owner: Option<RecordedOwner>) -> Option<Owner> {
        owner.map(|owner| self.owners.owner_created_at(owner.pid, owner.created_ns))
    }

    fn is_own(&self, owner: Option<&Owner>) -> bool {
        owner.is_some_and(|owner| Some(owner.process.pid) == self.own_pid)
    }

    fn flow_began(&mut self, ends: Ends, flow: &Flow) {
        let time = self.time(flow.begun_ns);
        let owner = self.owner(flow.owner);
        let (id, is_own) = (ends.flow_id(flow.begun_ns), self.is_own(owner.as_ref()));
        if !is_own {
            let connection = connection(ends, flow, owner.clone());
            self.reporter.send(time, EventBody::ConnectionOpen(Box::new(connection)));
        }
        self.begun.insert(id, owner);
    }

    fn end_idle_flows(&mut self) {
        let idle_ns = u64::try_from(self.idle.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = self.clock.monotonic_ns(boot_clock::now());
        let Some(since) = now_ns.and_then(|now| now.checked_sub(idle_ns)) else { return };
        for (ends, flow) in self.flows.take_idle_since(since) {
            let known = self.begun.remove(&ends.flow_id(flow.begun_ns)).flatten();
            let owner = known.or_else(|| self.owner(flow.owner));
            if self.is_own(owner.as_ref()) {
                continue;
            }
            let time = self.time(flow.last_ns);
            let close = ConnectionClose {
                connection: connection(ends, &flow, owner),
                bytes_sent: Some(flow.bytes_sent),
                bytes_received: Some(flow.bytes_received),
                segments_sent: Some(flow.packets_sent),
                segments_received: Some(flow.packets_received),
                duration_ns: Some(flow.last_ns.saturating_sub(flow.begun_ns)),
                outcome: ConnectionOutcome::Closed,
            };
            self.reporter.send(time, EventBody::ConnectionClose(Box::new(close)));
        }
    }

    fn message_passed(&mut self, ends: Ends, flow: &Flow, direction: Direction, bytes: &[u8]) {
        // Not everything at that port is DNS.
        let Some(message) = DnsMessage::parse(bytes) else { return };
        // A response comes in and a query goes out; the other way round would be a forgery.
        if message.is_response != (direction == Direction::Inbound) {
            return;
        }
        let time = self.time(flow.last_ns);
        let (owner, duration_ns) = if message.is_response {
            match self.exchanges.answered(ends, &message) {
                Some(query) => (query.owner, Some(flow.last_ns.saturating_sub(query.monotonic_ns))),
                None => (self.owner(flow.owner), None),
            }
        } else {
            let owner = self.owner(flow.owner);
            self.exchanges.sent(ends, &message, flow.last_ns, owner.clone());
            (owner, None)
        };
        if !self.is_own(owner.as_ref()) {
            let activity = activity(ends, flow, message, owner, duration_ns);
            self.reporter.send(time, EventBody::DnsActivity(Box::new(activity)));
        }
    }
}

fn connection(ends: Ends, flow: &Flow, owner: Option<Owner>) -> Connection {
    Connection {
        cookie: ends.flow_id(flow.begun_ns),
        protocol: Protocol::Udp,
        direction: flow.direction,
        local: ends.local,
        remote: ends.remote,
        process: owner.as_ref().map(|owner| owner.process),
        executable: owner.map(|owner| ByteString::from(&owner.executable[..])).unwrap_or_default(),
        user_id: (flow.user_id != UNKNOWN_USER).then_some(flow.user_id),
        cgroup_id: flow.cgroup_id,
    }
}

fn activity(
    ends: Ends,
    flow: &Flow,
    message: DnsMessage,
    owner: Option<Owner>,
    duration_ns: Option<u64>,
) -> DnsActivity {
    DnsActivity {
        action: if message.is_response { DnsAction::Response } else { DnsAction::Query },
        name: message.name,
        query_type: message.query_type,
        response_code: message.is_response.then_some(message.response_code),
        answers: message.answers,
        answers_truncated: message.answers_truncated,
        server: Some(ends.remote),
        protocol: ends.protocol,
        transaction_id: message.transaction_id,
        process: owner.as_ref().map(|owner| owner.process),
        executable: owner.map(|owner| ByteString::from(&owner.executable[..])).unwrap_or_default(),
        user_id: (flow.user_id != UNKNOWN_USER).then_some(flow.user_id),
        duration_ns,
    }
}
