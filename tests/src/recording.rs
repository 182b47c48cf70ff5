//! Recordings: events for the replay sensor, without a machine that makes them happen.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use picket_common::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, Event, EventBody, Origin, ProcessExit,
    ProcessId, ProcessStart, Protocol, StreamKind, Timestamp, json,
};
use picket_common::id::{Epoch, EventKey, Sequence};

/// Time between two events of a recording.
const STEP_NS: i64 = 500_000;

/// When a recording begins: a fixed moment, so that the same recording is the same file.
const BEGIN_NS: i64 = 1_760_000_000_000_000_000;

/// Writes `events` events: of each three, a process starts, a connection of its ends, and it exits.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, events: u32) -> io::Result<()> {
    let mut file = io::BufWriter::new(std::fs::File::create(path)?);
    for number in 0..events {
        let event = Event {
            key: EventKey { epoch: Epoch(0), sequence: Sequence(number.into()) },
            time: Timestamp(BEGIN_NS + i64::from(number) * STEP_NS),
            origin: Origin::Replay,
            body: body(number),
        };
        writeln!(file, "{}", json::to_json(&event))?;
    }
    file.flush()
}

fn body(number: u32) -> EventBody {
    let of_process = number / 3;
    let process =
        ProcessId { pid: 1000 + of_process, start_time: Timestamp(BEGIN_NS + i64::from(of_process) * 3 * STEP_NS) };
    let parent = ProcessId { pid: 900, start_time: Timestamp(BEGIN_NS - STEP_NS) };
    let program = ["/usr/bin/ls", "/usr/bin/curl", "/bin/sh", "/usr/bin/cc"][of_process as usize % 4];
    match number % 3 {
        0 => EventBody::ProcessStart(Box::new(ProcessStart {
            process,
            parent: Some(parent),
            executable: ByteString::from(program),
            arguments: vec![ByteString::from(program), ByteString::from(format!("--item={of_process}").as_str())],
            arguments_truncated: false,
            working_directory: ByteString::from("/srv"),
            user_id: Some(1000),
            group_id: Some(1000),
            user_name: ByteString::from("alice"),
            session_id: Some(900),
            has_terminal: Some(false),
            standard_streams: [StreamKind::Null, StreamKind::Pipe, StreamKind::File],
            ancestors: vec![ByteString::from("/bin/sh"), ByteString::from("/sbin/init")],
            executable_deleted: Some(false),
            seeded: false,
            cgroup_id: None,
            cgroup: ByteString::default(),
            executable_file: None,
            script: ByteString::default(),
        })),
        1 => EventBody::ConnectionClose(Box::new(ConnectionClose {
            connection: Connection {
                cookie: number.into(),
                protocol: Protocol::Tcp,
                direction: Direction::Outbound,
                local: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000 + (of_process % 10_000) as u16)),
                remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000 + (of_process % 7) as u16)),
                process: Some(process),
                executable: ByteString::from(program),
                user_id: Some(1000),
                cgroup_id: None,
            },
            bytes_sent: Some(u64::from(of_process) % 5000),
            bytes_received: Some(u64::from(of_process) * 7 % 90_000),
            segments_sent: Some(of_process % 40),
            segments_received: Some(of_process % 60),
            duration_ns: Some(1_000_000 + u64::from(of_process) * 1000),
            outcome: ConnectionOutcome::Closed,
        })),
        _ => EventBody::ProcessExit(ProcessExit {
            process,
            executable: ByteString::from(program),
            exit_code: Some(0),
            signal: None,
            duration_ns: Some(2 * STEP_NS.unsigned_abs()),
            cpu_time_ns: None,
        }),
    }
}

/// An agent's configuration that plays a recording and nothing else.
pub fn agent_config(path: &Path, events_per_second: u32, loops: u64) -> String {
    format!(
        "[sensor.process]\nmode = \"off\"\n[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n[sensor.kernel]\nmode = \"off\"\n\
         [sensor.replay]\npath = {path:?}\nevents_per_second = {events_per_second}\nloops = {loops}\nnumber_pids = true\n"
    )
}
