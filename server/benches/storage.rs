//! What the log and the lake cost. Run it with `cargo bench --profile dist -p picket-server`, or with `--profile dev` for
//! what the tests use. The times are those of the disk below the temporary folder, too.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt as _;
use picket_common::batch::BatchBuilder;
use picket_common::event::{
    Authentication, ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, Event, EventBody, Origin,
    ProcessExit, ProcessId, ProcessStart, Protocol, StreamKind, Timestamp,
};
use picket_common::id::{BatchSequence, Epoch, EventKey, HostId, Sequence};
use picket_server::lake::{EventFilter, Lake, LakeConfig};
use picket_server::wal::{Wal, WalConfig, WalRecord};
use tempfile::TempDir;

/// Tasks that append at the same time, and how often each does.
const APPENDERS: u8 = 64;
const APPENDS: u64 = 200;

/// Events of the lake: hosts, events of each, and of each batch.
const HOSTS: u8 = 10;
const EVENTS: u64 = 10_000;
const BATCH_EVENTS: usize = 500;

const QUERIES: [&str; 3] = [
    "SELECT count(*) FROM process_activity",
    "SELECT executable, count(*) AS n FROM process_activity GROUP BY executable ORDER BY n DESC LIMIT 10",
    "SELECT host_id, remote_address, sum(bytes_sent) FROM network_activity WHERE activity = 'close' GROUP BY 1, 2",
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(8 * 1024 * 1024).enable_all().build().unwrap();
    runtime.block_on(async {
        group_commit().await;
        commit_and_query().await;
    });
}

/// Appends a second, each of them durable before it returns.
async fn group_commit() {
    let folder = TempDir::new().unwrap();
    let wal = Arc::new(Wal::open(folder.path(), WalConfig::default()).unwrap());
    let records: Vec<Vec<WalRecord>> =
        (0..APPENDERS).map(|host| (0..APPENDS).map(|batch| padded_record(host, batch)).collect()).collect();
    let bytes = records[0][0].frame.len();
    let begin = Instant::now();
    let tasks: Vec<_> = records
        .into_iter()
        .map(|records| {
            let wal = Arc::clone(&wal);
            tokio::spawn(async move {
                for record in records {
                    wal.append(record).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counters = wal.counters();
    println!(
        "{} appends of {bytes} bytes by {APPENDERS} tasks in {seconds:.2} s: {:.0} appends/s, {:.1} records a sync",
        counters.records,
        counters.records as f64 / seconds,
        counters.records as f64 / counters.fsyncs as f64
    );
}

/// From the log to the lake, and out of it again.
async fn commit_and_query() {
    let folder = TempDir::new().unwrap();
    let wal = Arc::new(Wal::open(&folder.path().join("wal"), WalConfig::default()).unwrap());
    let lake_folder = folder.path().join("lake");
    let lake = Lake::open(&lake_folder, Arc::clone(&wal), LakeConfig::default()).await.unwrap();
    for host in 0..HOSTS {
        let events: Vec<Event> = (0..EVENTS).map(event).collect();
        for (batch, events) in (0..).zip(events.chunks(BATCH_EVENTS)) {
            wal.append(record(host, batch, events)).await.unwrap();
        }
    }
    let frame_bytes = wal.counters().frame_bytes;
    let begin = Instant::now();
    let summary = lake.commit().await.unwrap();
    println!(
        "commit of {} events ({frame_bytes} frame bytes) in {} rounds: {:?}",
        summary.events,
        summary.rounds,
        begin.elapsed()
    );
    for sql in QUERIES {
        let begin = Instant::now();
        let answer = lake.query(sql, 100_000, Duration::from_secs(60)).await.unwrap();
        let rows: usize = answer.try_collect::<Vec<_>>().await.unwrap().iter().map(|batch| batch.num_rows()).sum();
        println!("{rows} rows in {:?}: {sql}", begin.elapsed());
    }
    let begin = Instant::now();
    let events: Vec<_> = lake.read_events(&lake.table_versions(), EventFilter::default()).try_collect().await.unwrap();
    println!("{} events in order in {:?}", events.len(), begin.elapsed());
    let mut sizes = BTreeMap::new();
    folder_bytes(&lake_folder, &mut sizes);
    println!("bytes of the lake by kind of file: {sizes:?}");
    lake.close().await;
}

fn folder_bytes(folder: &Path, sizes: &mut BTreeMap<String, u64>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            folder_bytes(&path, sizes);
        } else {
            let kind = path.extension().map(|end| end.to_string_lossy().into_owned()).unwrap_or_default();
            *sizes.entry(kind).or_default() += std::fs::metadata(&path).unwrap().len();
        }
    }
}

fn record(host: u8, batch: u64, events: &[Event]) -> WalRecord {
    let mut builder = BatchBuilder::new();
    events.iter().for_each(|event| builder.push(event).unwrap());
    let frame = builder.finish(Epoch(1), BatchSequence(batch)).unwrap();
    WalRecord { host: HostId::from_bytes([host; 16]), frame: frame.into() }
}

/// A batch of about 4 KB that does not compress.
fn padded_record(host: u8, batch: u64) -> WalRecord {
    let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    let body = EventBody::Authentication(Box::new(Authentication {
        user_name: ByteString::truncated(&noise),
        success: true,
        service: ByteString::from("sshd"),
        source: None,
        process: None,
        action: picket_common::event::AuthenticationAction::Logon,
        user_id: None,
        user_exists: None,
        method: ByteString::default(),
        acting_user_name: ByteString::default(),
        terminal: ByteString::default(),
        command: ByteString::default(),
        source_port: None,
    }));
    record(host, batch, &[numbered(batch, body)])
}

fn numbered(sequence: u64, body: EventBody) -> Event {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400 * 86_400;
    let time = today as i64 * 1_000_000_000 + sequence as i64 * 1_234_567;
    let key = EventKey { epoch: Epoch(1), sequence: Sequence(sequence) };
    Event { key, time: Timestamp(time), origin: Origin::AgentNetlink, body }
}

/// Of each four events, a process starts, two connections of its end, and it exits.
fn event(sequence: u64) -> Event {
    let process = ProcessId { pid: 1000 + (sequence / 4 % 5000) as u32, start_time: Timestamp(1) };
    let programs = ["/usr/bin/ls", "/usr/bin/grep", "/bin/sh", "/usr/bin/python3.11"];
    let executable = ByteString::from(programs[(sequence / 4 % 4) as usize]);
    let body = match sequence % 4 {
        0 => EventBody::ProcessStart(Box::new(ProcessStart {
            process,
            parent: Some(ProcessId { pid: 1, start_time: Timestamp(0) }),
            arguments: vec![executable.clone(), format!("/home/user/project/{}", sequence % 97).as_str().into()],
            executable,
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
        })),
        3 => EventBody::ProcessExit(ProcessExit {
            process,
            executable,
            exit_code: Some((sequence % 3) as i32),
            signal: None,
            duration_ns: Some(sequence * 1000),
            cpu_time_ns: None,
        }),
        _ => EventBody::ConnectionClose(Box::new(ConnectionClose {
            connection: Connection {
                cookie: sequence,
                protocol: Protocol::Tcp,
                direction: Direction::Outbound,
                local: SocketAddr::from(([192, 168, 1, 5], 40_000 + (sequence % 20_000) as u16)),
                remote: SocketAddr::from(([93, 184, (sequence % 9) as u8, 34], 443)),
                process: Some(process),
                executable,
                user_id: Some(1000),
                cgroup_id: None,
            },
            bytes_sent: Some(sequence * 37),
            bytes_received: Some(sequence * 101),
            segments_sent: Some(12),
            segments_received: Some(15),
            duration_ns: Some(55_000_000),
            outcome: ConnectionOutcome::Closed,
        })),
    };
    numbered(sequence, body)
}
