//! Events for tests: any there can be, and plausible ones.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU64;

use picket_common::event::{
    AgentChange, AgentStart, Authentication, AuthenticationAction, ByteString, Connection, ConnectionClose,
    ConnectionOutcome, ConnectionSummary, Direction, DnsAction, DnsActivity, Event, EventBody, FileAction,
    FileActivity, FileId, KernelAction, KernelActivity, LossReason, LossStage, Origin, ProcessExit, ProcessId,
    ProcessStart, Protocol, SensorLoss, SensorMode, StreamKind, Timestamp,
};
use picket_common::id::{Epoch, EventKey, Sequence};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Any event, extremes included.
pub(in crate::lake) fn any_event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any::<u64>(), any_time(), select(Origin::ALL.to_vec()), any_body()).prop_map(
        |(epoch, sequence, time, origin, body)| Event {
            key: EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) },
            time,
            origin,
            body,
        },
    )
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

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(-1)].prop_map(Timestamp)
}

fn bytes() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        Just(ByteString::default()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| ByteString::truncated(&bytes)),
        select(vec!["/usr/bin/sh", "back\\slash \\x41", "new\nline\u{202e}", "ünïcode"]).prop_map(ByteString::from),
    ]
}

fn list(most: usize) -> impl Strategy<Value = Vec<ByteString>> {
    prop::collection::vec(bytes(), 0..most)
}

fn process() -> impl Strategy<Value = ProcessId> {
    (any::<u32>(), any_time()).prop_map(|(pid, start_time)| ProcessId { pid, start_time })
}

fn process_start() -> impl Strategy<Value = ProcessStart> {
    let strings = (bytes(), list(5), any::<bool>(), bytes(), bytes(), list(4));
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>()));
    let flags = (option::of(any::<bool>()), option::of(any::<bool>()), any::<bool>());
    let streams = prop::array::uniform3(select(StreamKind::ALL.to_vec()));
    let file = (any::<u64>(), any::<u64>()).prop_map(|(device, inode)| FileId { device, inode });
    let origin = (option::of(any::<NonZeroU64>()), cgroup(), option::of(file), bytes());
    (process(), option::of(process()), strings, numbers, flags, streams, origin).prop_map(
        |(process, parent, strings, numbers, flags, standard_streams, origin)| {
            let (executable, arguments, arguments_truncated, working_directory, user_name, ancestors) = strings;
            let (user_id, group_id, session_id) = numbers;
            let (has_terminal, executable_deleted, seeded) = flags;
            ProcessStart {
                process,
                parent,
                executable,
                arguments,
                arguments_truncated,
                working_directory,
                user_id,
                group_id,
                user_name,
                session_id,
                has_terminal,
                standard_streams,
                ancestors,
                executable_deleted,
                seeded,
                cgroup_id: origin.0,
                cgroup: origin.1,
                executable_file: origin.2,
                script: origin.3,
            }
        },
    )
}

/// Of a container, sometimes.
fn cgroup() -> impl Strategy<Value = ByteString> {
    let container = format!("/system.slice/docker-{}.scope", "0123456789abcdef".repeat(4));
    prop_oneof![bytes(), Just(ByteString::from(container.as_str()))]
}

fn process_exit() -> impl Strategy<Value = ProcessExit> {
    let end = (option::of(any::<i32>()), option::of(any::<u32>()), option::of(any::<u64>()), option::of(any::<u64>()));
    (process(), bytes(), end).prop_map(|(process, executable, end)| ProcessExit {
        process,
        executable,
        exit_code: end.0,
        signal: end.1,
        duration_ns: end.2,
        cpu_time_ns: end.3,
    })
}

fn socket_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>(), prop_oneof![Just((0, 0)), any::<(u32, u32)>()]).prop_map(
        |(ip, port, (flow_information, scope))| match ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow_information, scope).into(),
        },
    )
}

fn connection() -> impl Strategy<Value = Connection> {
    let kind = (any::<u64>(), select(Protocol::ALL.to_vec()), select(Direction::ALL.to_vec()));
    let owner = (option::of(process()), bytes(), option::of(any::<u32>()), option::of(any::<NonZeroU64>()));
    (kind, socket_address(), socket_address(), owner).prop_map(|(kind, local, remote, owner)| Connection {
        cookie: kind.0,
        protocol: kind.1,
        direction: kind.2,
        local,
        remote,
        process: owner.0,
        executable: owner.1,
        user_id: owner.2,
        cgroup_id: owner.3,
    })
}

fn connection_close() -> impl Strategy<Value = ConnectionClose> {
    let bytes = (option::of(any::<u64>()), option::of(any::<u64>()));
    let segments = (option::of(any::<u32>()), option::of(any::<u32>()));
    let outcome = select(ConnectionOutcome::ALL.to_vec());
    (connection(), bytes, segments, option::of(any::<u64>()), outcome).prop_map(
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
    let account = (bytes(), option::of(any::<u32>()), option::of(any::<bool>()), bytes());
    let way = (select(AuthenticationAction::ALL.to_vec()), any::<bool>(), bytes(), bytes());
    let place = (bytes(), bytes(), option::of(any::<IpAddr>()), option::of(any::<u16>()));
    (account, way, place, option::of(process())).prop_map(|(account, way, place, process)| Authentication {
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
    (option::of(process()), bytes(), option::of(any::<u32>()))
}

fn file_activity() -> impl Strategy<Value = FileActivity> {
    let numbers = (option::of(any::<bool>()), option::of(any::<u32>()), option::of(any::<u32>()));
    (select(FileAction::ALL.to_vec()), bytes(), bytes(), numbers, actor()).prop_map(
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
    let question = (select(DnsAction::ALL.to_vec()), bytes(), any::<u16>(), any::<u16>());
    let answer = (option::of(any::<u16>()), list(5), any::<bool>(), option::of(any::<u64>()));
    (question, answer, option::of(socket_address()), select(Protocol::ALL.to_vec()), actor()).prop_map(
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
    let what = (select(KernelAction::ALL.to_vec()), bytes(), option::of(any::<u64>()));
    (what, option::of(process()), option::of(any::<bool>()), actor()).prop_map(|(what, target, success, actor)| {
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
    (bytes(), bytes(), bytes(), bytes()).prop_map(|(subject, before, after, reason)| AgentChange {
        subject,
        before,
        after,
        reason,
    })
}

fn sensor_loss() -> impl Strategy<Value = SensorLoss> {
    (select(LossStage::ALL.to_vec()), select(LossReason::ALL.to_vec()), any::<u64>(), any::<u64>())
        .prop_map(|(stage, reason, count, epoch)| SensorLoss { stage, reason, count, epoch: Epoch(epoch) })
}

fn agent_start() -> impl Strategy<Value = AgentStart> {
    let sensor = (bytes(), select(Origin::ALL.to_vec()), bytes()).prop_map(|(name, origin, reason)| SensorMode {
        name,
        origin,
        reason,
    });
    (bytes(), bytes(), prop::collection::vec(sensor, 0..4)).prop_map(|(agent_version, boot_id, sensors)| AgentStart {
        agent_version,
        boot_id,
        sensors,
    })
}

/// A time of the tests' events: 2026-11-22.
pub(in crate::lake) const TIME: i64 = 1_795_305_600_000_000_000;

/// One event as a host might have it; the same for the same numbers, every class in turn.
pub(in crate::lake) fn plausible(epoch: u64, sequence: u64) -> Event {
    let time = Timestamp(TIME + (sequence as i64) * 1_234_567);
    let pid = 1000 + (sequence % 5000) as u32;
    let process = ProcessId { pid, start_time: Timestamp(time.0 - 1_000_000) };
    let body = match sequence % 20 {
        0 if sequence == 0 => EventBody::AgentStart(Box::new(AgentStart {
            agent_version: "0.1.0".into(),
            boot_id: "6f1c".into(),
            sensors: vec![SensorMode {
                name: "process".into(),
                origin: Origin::AgentPolling,
                reason: "not permitted".into(),
            }],
        })),
        0 => EventBody::SensorLoss(SensorLoss {
            stage: LossStage::Sensor,
            reason: LossReason::QueueFull,
            count: sequence,
            epoch: Epoch(epoch),
        }),
        1 => EventBody::Authentication(Box::new(Authentication {
            user_name: "root".into(),
            success: sequence.is_multiple_of(3),
            service: "sshd".into(),
            source: Some(IpAddr::from([10, 0, (sequence % 7) as u8, 9])),
            process: Some(process),
            action: AuthenticationAction::Logon,
            user_id: None,
            user_exists: None,
            method: ByteString::default(),
            acting_user_name: ByteString::default(),
            terminal: ByteString::default(),
            command: ByteString::default(),
            source_port: None,
        })),
        2..9 => EventBody::ProcessStart(Box::new(plausible_start(process, sequence))),
        9..14 => EventBody::ProcessExit(ProcessExit {
            process,
            executable: "/usr/bin/ls".into(),
            exit_code: Some((sequence % 2) as i32),
            signal: None,
            duration_ns: Some(sequence * 1000),
            cpu_time_ns: None,
        }),
        14 | 15 => EventBody::ConnectionOpen(Box::new(plausible_connection(process, sequence))),
        _ => EventBody::ConnectionClose(Box::new(ConnectionClose {
            connection: plausible_connection(process, sequence),
            bytes_sent: Some(sequence * 37),
            bytes_received: Some(sequence * 101),
            segments_sent: Some(12),
            segments_received: Some(15),
            duration_ns: Some(55_000_000),
            outcome: ConnectionOutcome::Closed,
        })),
    };
    Event {
        key: EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) },
        time,
        origin: Origin::AgentNetlink,
        body,
    }
}

fn plausible_start(process: ProcessId, sequence: u64) -> ProcessStart {
    let programs = ["/usr/bin/ls", "/usr/bin/grep", "/bin/sh", "/usr/bin/python3.11"];
    ProcessStart {
        process,
        parent: Some(ProcessId { pid: 1, start_time: Timestamp(TIME - 1_000_000_000) }),
        executable: programs[(sequence % 4) as usize].into(),
        arguments: vec!["ls".into(), "-l".into(), format!("/home/user/project/{}", sequence % 97).as_str().into()],
        arguments_truncated: false,
        working_directory: "/home/user".into(),
        user_id: Some(1000),
        group_id: Some(1000),
        user_name: "user".into(),
        session_id: Some(4242),
        has_terminal: Some(true),
        standard_streams: [StreamKind::Terminal; 3],
        ancestors: vec!["/bin/bash".into(), "/usr/sbin/sshd".into()],
        executable_deleted: Some(false),
        seeded: false,
        cgroup_id: None,
        cgroup: ByteString::default(),
        executable_file: None,
        script: ByteString::default(),
    }
}

fn plausible_connection(process: ProcessId, sequence: u64) -> Connection {
    Connection {
        cookie: sequence,
        protocol: Protocol::Tcp,
        direction: Direction::Outbound,
        local: SocketAddr::from(([192, 168, 1, 5], 40_000 + (sequence % 20_000) as u16)),
        remote: SocketAddr::from(([93, 184, (sequence % 9) as u8, 34], 443)),
        process: Some(process),
        executable: "/usr/bin/curl".into(),
        user_id: Some(1000),
        cgroup_id: None,
    }
}
