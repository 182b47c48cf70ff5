//! Arbitrary events for property tests: every class, every value present and absent, within the limits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU64;

use picket_common::event::json::from_json;
use picket_common::event::{
    AgentChange, AgentStart, Authentication, AuthenticationAction, ByteString, Connection, ConnectionClose,
    ConnectionOutcome, ConnectionSummary, Direction, DnsAction, DnsActivity, Event, EventBody, FileAction,
    FileActivity, FileId, KernelAction, KernelActivity, LossReason, LossStage, Origin, ProcessExit, ProcessId,
    ProcessStart, Protocol, SensorLoss, SensorMode, StreamKind, Timestamp,
};
use picket_common::id::{Epoch, EventKey, Sequence};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Events `(epoch, first)`, `(epoch, first + 1)` …
pub(crate) fn contiguous_events(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Event>> {
    (any::<u64>(), 0..u64::MAX / 2, vec(any_event(), count)).prop_map(|(epoch, first, mut events)| {
        for (sequence, event) in (first..).zip(&mut events) {
            event.key = EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) };
        }
        events
    })
}

/// Any event within the limits.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let key = (any::<u64>(), any::<u64>())
        .prop_map(|(epoch, sequence)| EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) });
    (key, timestamp(), select(&Origin::ALL), any_body()).prop_map(|(key, time, origin, body)| Event {
        key,
        time,
        origin,
        body,
    })
}

fn any_body() -> impl Strategy<Value = EventBody> {
    prop_oneof![
        process_start().prop_map(|start| EventBody::ProcessStart(Box::new(start))),
        process_exit().prop_map(EventBody::ProcessExit),
        connection().prop_map(|connection| EventBody::ConnectionOpen(Box::new(connection))),
        connection_close().prop_map(|close| EventBody::ConnectionClose(Box::new(close))),
        authentication().prop_map(|authentication| EventBody::Authentication(Box::new(authentication))),
        sensor_loss().prop_map(EventBody::SensorLoss),
        agent_start().prop_map(|start| EventBody::AgentStart(Box::new(start))),
        connection().prop_map(|connection| EventBody::ConnectionListen(Box::new(connection))),
        file_activity().prop_map(|file| EventBody::FileActivity(Box::new(file))),
        dns_activity().prop_map(|dns| EventBody::DnsActivity(Box::new(dns))),
        kernel_activity().prop_map(|kernel| EventBody::KernelActivity(Box::new(kernel))),
        agent_change().prop_map(|change| EventBody::AgentChange(Box::new(change))),
        (connection_close(), any::<u64>())
            .prop_map(|(close, count)| EventBody::ConnectionSummary(Box::new(ConnectionSummary { close, count }))),
    ]
}

/// Times near each other mostly, and the ends of the range.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        8 => (1_763_850_000_000_000_000..1_763_850_100_000_000_000_i64).prop_map(Timestamp),
        1 => any::<i64>().prop_map(Timestamp),
        1 => select(vec![Timestamp(i64::MIN), Timestamp(0), Timestamp(i64::MAX)]),
    ]
}

/// Few strings that repeat, arbitrary text with controls and marks, arbitrary bytes.
fn byte_string() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        6 => select(vec!["", "/bin/sh", "/usr/bin/ls", "-la", "root", "/", "\\", "\\x41"]).prop_map(ByteString::from),
        2 => any::<String>().prop_map(|text| ByteString::from(text.as_str())),
        2 => vec(any::<u8>(), 0..40).prop_map(|bytes| ByteString::truncated(&bytes)),
    ]
}

/// Few processes that repeat, and arbitrary ones.
fn process_id() -> impl Strategy<Value = ProcessId> {
    let repeated = (1_u32..5, 0_i64..5).prop_map(|(pid, ticks)| ProcessId {
        pid,
        start_time: Timestamp(1_763_850_000_000_000_000 + ticks * 10_000_000),
    });
    let arbitrary = (any::<u32>(), timestamp()).prop_map(|(pid, start_time)| ProcessId { pid, start_time });
    prop_oneof![3 => repeated, 1 => arbitrary]
}

fn process_start() -> impl Strategy<Value = ProcessStart> {
    let identity = (process_id(), option::of(process_id()), byte_string(), vec(byte_string(), 0..5), any::<bool>());
    let owner = (byte_string(), option::of(any::<u32>()), option::of(any::<u32>()), byte_string());
    let session = (option::of(any::<u32>()), option::of(any::<bool>()), [(); 3].map(|()| select(&StreamKind::ALL)));
    let rest = (vec(byte_string(), 0..4), option::of(any::<bool>()), any::<bool>());
    let file = (any::<u64>(), any::<u64>()).prop_map(|(device, inode)| FileId { device, inode });
    let origin = (option::of(any::<NonZeroU64>()), byte_string(), option::of(file), byte_string());
    (identity, owner, session, rest, origin).prop_map(|(identity, owner, session, rest, origin)| ProcessStart {
        process: identity.0,
        parent: identity.1,
        executable: identity.2,
        arguments: identity.3,
        arguments_truncated: identity.4,
        working_directory: owner.0,
        user_id: owner.1,
        group_id: owner.2,
        user_name: owner.3,
        session_id: session.0,
        has_terminal: session.1,
        standard_streams: session.2,
        ancestors: rest.0,
        executable_deleted: rest.1,
        seeded: rest.2,
        cgroup_id: origin.0,
        cgroup: origin.1,
        executable_file: origin.2,
        script: origin.3,
    })
}

fn process_exit() -> impl Strategy<Value = ProcessExit> {
    let cpu_time_ns = prop_oneof![any::<u64>(), (0..u64::MAX / 1000).prop_map(|time| time * 1000)];
    let end = (option::of(any::<i32>()), option::of(any::<u32>()), option::of(any::<u64>()), option::of(cpu_time_ns));
    (process_id(), byte_string(), end).prop_map(|(process, executable, end)| ProcessExit {
        process,
        executable,
        exit_code: end.0,
        signal: end.1,
        duration_ns: end.2,
        cpu_time_ns: end.3,
    })
}

fn ip_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
    ]
}

fn socket_address() -> impl Strategy<Value = SocketAddr> {
    let scoped = (any::<u128>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(ip, port, flow, scope)| {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_bits(ip), port, flow, scope))
    });
    prop_oneof![
        3 => (ip_address(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port)),
        1 => scoped,
    ]
}

fn connection() -> impl Strategy<Value = Connection> {
    let ends = (socket_address(), socket_address());
    let kind = (select(&Protocol::ALL), select(&Direction::ALL));
    let cgroup_id = option::of(any::<NonZeroU64>());
    (any::<u64>(), kind, ends, option::of(process_id()), byte_string(), option::of(any::<u32>()), cgroup_id).prop_map(
        |(cookie, kind, ends, process, executable, user_id, cgroup_id)| Connection {
            cookie,
            protocol: kind.0,
            direction: kind.1,
            local: ends.0,
            remote: ends.1,
            process,
            executable,
            user_id,
            cgroup_id,
        },
    )
}

fn connection_close() -> impl Strategy<Value = ConnectionClose> {
    let bytes = (option::of(any::<u64>()), option::of(any::<u64>()));
    let segments = (option::of(any::<u32>()), option::of(any::<u32>()));
    (connection(), bytes, segments, option::of(any::<u64>()), select(&ConnectionOutcome::ALL)).prop_map(
        |(connection, bytes, segments, duration_ns, outcome)| ConnectionClose {
            connection,
            bytes_sent: bytes.0,
            bytes_received: bytes.1,
            segments_sent: segments.0,
            segments_received: segments.1,
            duration_ns,
            outcome,
        },
    )
}

fn authentication() -> impl Strategy<Value = Authentication> {
    let account = (byte_string(), option::of(any::<u32>()), option::of(any::<bool>()), byte_string());
    let way = (select(&AuthenticationAction::ALL), any::<bool>(), byte_string(), byte_string());
    let place = (byte_string(), byte_string(), option::of(ip_address()), option::of(any::<u16>()));
    (account, way, place, option::of(process_id())).prop_map(|(account, way, place, process)| Authentication {
        action: way.0,
        user_name: account.0,
        user_id: account.1,
        user_exists: account.2,
        success: way.1,
        service: way.2,
        method: way.3,
        acting_user_name: account.3,
        terminal: place.0,
        command: place.1,
        source: place.2,
        source_port: place.3,
        process,
    })
}

/// A process that did something, its executable and user.
fn actor() -> impl Strategy<Value = (Option<ProcessId>, ByteString, Option<u32>)> {
    (option::of(process_id()), byte_string(), option::of(any::<u32>()))
}

fn file_activity() -> impl Strategy<Value = FileActivity> {
    let numbers = (option::of(any::<bool>()), option::of(any::<u32>()), option::of(any::<u32>()));
    (select(&FileAction::ALL), byte_string(), byte_string(), numbers, actor()).prop_map(
        |(action, path, new_path, numbers, actor)| FileActivity {
            action,
            path,
            new_path,
            is_directory: numbers.0,
            mode: numbers.1,
            owner_id: numbers.2,
            process: actor.0,
            executable: actor.1,
            user_id: actor.2,
        },
    )
}

fn dns_activity() -> impl Strategy<Value = DnsActivity> {
    let question = (select(&DnsAction::ALL), byte_string(), any::<u16>(), any::<u16>());
    let answer = (option::of(any::<u16>()), vec(byte_string(), 0..5), any::<bool>(), option::of(any::<u64>()));
    (question, answer, option::of(socket_address()), select(&Protocol::ALL), actor()).prop_map(
        |(question, answer, server, protocol, actor)| DnsActivity {
            action: question.0,
            name: question.1,
            query_type: question.2,
            response_code: answer.0,
            answers: answer.1,
            answers_truncated: answer.2,
            server,
            protocol,
            transaction_id: question.3,
            process: actor.0,
            executable: actor.1,
            user_id: actor.2,
            duration_ns: answer.3,
        },
    )
}

fn kernel_activity() -> impl Strategy<Value = KernelActivity> {
    let what = (select(&KernelAction::ALL), byte_string(), option::of(any::<u64>()));
    (what, option::of(process_id()), option::of(any::<bool>()), actor()).prop_map(|(what, target, success, actor)| {
        KernelActivity {
            action: what.0,
            object: what.1,
            value: what.2,
            target,
            success,
            process: actor.0,
            executable: actor.1,
            user_id: actor.2,
        }
    })
}

fn agent_change() -> impl Strategy<Value = AgentChange> {
    (byte_string(), byte_string(), byte_string(), byte_string())
        .prop_map(|(subject, before, after, reason)| AgentChange { subject, before, after, reason })
}

fn sensor_loss() -> impl Strategy<Value = SensorLoss> {
    (select(&LossStage::ALL), select(&LossReason::ALL), any::<u64>(), any::<u64>())
        .prop_map(|(stage, reason, count, epoch)| SensorLoss { stage, reason, count, epoch: Epoch(epoch) })
}

fn agent_start() -> impl Strategy<Value = AgentStart> {
    let sensor = (byte_string(), select(&Origin::ALL), byte_string()).prop_map(|(name, origin, reason)| SensorMode {
        name,
        origin,
        reason,
    });
    (byte_string(), byte_string(), vec(sensor, 0..4)).prop_map(|(agent_version, boot_id, sensors)| AgentStart {
        agent_version,
        boot_id,
        sensors,
    })
}

/// The events of a golden file.
pub(crate) fn golden_events(lines: &str) -> Vec<Event> {
    let event = |line| from_json(&serde_json::from_str(line).unwrap()).unwrap();
    lines.lines().map(event).collect()
}
