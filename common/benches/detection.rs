//! What features and scores cost. Run it with `cargo bench --profile dist -p picket-common`, or with `--profile dev` for
//! what the tests use.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use picket_common::event::{
    Connection, ConnectionClose, ConnectionOutcome, Direction, Event, EventBody, Origin, ProcessExit, ProcessId,
    ProcessStart, Protocol, StreamKind, Timestamp,
};
use picket_common::feature::{ContextLimits, FeaturePipeline, Subject};
use picket_common::id::{Digest, Epoch, EventKey, Sequence};
use picket_common::model::{Algorithm, Model, ModelBody, ModelDraft, ModelMetadata, NodeDraft, TreeDraft};

const SECOND: i64 = 1_000_000_000;
const RUNS: u32 = 5;
const SECONDS: u32 = 60;
const STARTS_PER_SECOND: u32 = 500;
const CONNECTIONS_PER_SECOND: u32 = 1000;

/// A minute of 500 process starts and exits and 1,000 connections a second, from many owners to many places.
fn busy_minute() -> Vec<Event> {
    let mut events = Vec::new();
    let mut push = |time: i64, body: EventBody| {
        let key = EventKey { epoch: Epoch(1), sequence: Sequence(events.len() as u64) };
        events.push(Event { key, time: Timestamp(time), origin: Origin::AgentNetlink, body });
    };
    for tick in 0..SECONDS * CONNECTIONS_PER_SECOND {
        let time = i64::from(tick) * SECOND / i64::from(CONNECTIONS_PER_SECOND);
        if tick % (CONNECTIONS_PER_SECOND / STARTS_PER_SECOND) == 0 {
            let start = start(tick, time);
            let process = start.process;
            push(time, EventBody::ProcessStart(Box::new(start)));
            let exit = ProcessExit {
                process,
                executable: "/usr/bin/ls".into(),
                exit_code: Some(0),
                signal: None,
                duration_ns: None,
                cpu_time_ns: None,
            };
            push(time, EventBody::ProcessExit(exit));
        }
        push(time, EventBody::ConnectionClose(Box::new(close(tick))));
    }
    events
}

fn start(tick: u32, time: i64) -> ProcessStart {
    let programs = ["ls", "grep", "sh", "gcc", "python3.12", "id"];
    let program = programs[tick as usize % programs.len()];
    let argument = "-I/usr/include/x86_64-linux-gnu -DNDEBUG=1 --output=/home/user/project/build/module.o";
    ProcessStart {
        process: ProcessId { pid: tick, start_time: Timestamp(time) },
        parent: Some(ProcessId { pid: tick / 100, start_time: Timestamp(0) }),
        executable: format!("/usr/bin/{program}").as_str().into(),
        arguments: [program, "-c", argument, argument].map(Into::into).to_vec(),
        arguments_truncated: false,
        working_directory: "/home/user/project".into(),
        user_id: Some(1000),
        group_id: Some(1000),
        user_name: "user".into(),
        session_id: Some(tick % 20),
        has_terminal: Some(false),
        standard_streams: [StreamKind::Pipe; 3],
        ancestors: ["/usr/bin/make", "/usr/bin/bash", "/usr/sbin/sshd"].map(Into::into).to_vec(),
        executable_deleted: Some(false),
        seeded: false,
        cgroup_id: None,
        cgroup: picket_common::event::ByteString::default(),
        executable_file: None,
        script: picket_common::event::ByteString::default(),
    }
}

fn close(tick: u32) -> ConnectionClose {
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ConnectionClose {
        connection: Connection {
            cookie: u64::from(tick),
            protocol: Protocol::Tcp,
            direction: Direction::Outbound,
            local: SocketAddr::new(host, 50_000),
            remote: SocketAddr::new(host, (tick.wrapping_mul(2_654_435_761) >> 20) as u16 % 3000),
            process: Some(ProcessId { pid: tick % 700, start_time: Timestamp(0) }),
            executable: "/usr/bin/python3.12".into(),
            user_id: Some(1000),
            cgroup_id: None,
        },
        bytes_sent: Some(u64::from(tick)),
        bytes_received: Some(300),
        segments_sent: Some(4),
        segments_received: Some(4),
        duration_ns: Some(2_000_000),
        outcome: ConnectionOutcome::Closed,
    }
}

fn main() {
    features();
    scores();
}

fn features() {
    let events = busy_minute();
    for class in ["all", "start", "close"] {
        let wanted: Vec<&Event> = events
            .iter()
            .filter(|event| match &event.body {
                EventBody::ProcessStart(_) => class != "close",
                EventBody::ConnectionClose(_) => class != "start",
                _ => class == "all",
            })
            .collect();
        let mut fastest = Duration::MAX;
        let (mut vectors, mut evictions) = (0, 0);
        // The machine may be busy with other things: the fastest run says most about the code.
        for _ in 0..RUNS {
            let mut pipeline = FeaturePipeline::new(ContextLimits::default());
            let begin = Instant::now();
            vectors = wanted.iter().filter(|event| pipeline.observe(event).is_some()).count();
            fastest = fastest.min(begin.elapsed());
            evictions = pipeline.evictions();
        }
        println!(
            "{class}: {} events, {vectors} vectors, {:?} per event, {evictions} evictions",
            wanted.len(),
            fastest / wanted.len() as u32
        );
    }
}

/// A forest whose trees are complete down to `depth`, with thresholds spread by a fixed pattern.
fn complete_forest(trees: u32, depth: u32, features: u16) -> ModelDraft {
    let tree = |seed: u32| {
        let inner_nodes = (1u32 << depth) - 1;
        let pattern = |node: u32| node.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8;
        let nodes = (0..2 * inner_nodes + 1)
            .map(|node| {
                let value = (pattern(node) % 1000) as f32 / 1000.0;
                if node >= inner_nodes {
                    return NodeDraft::leaf(value, 1 + pattern(node) % 1000);
                }
                let feature = (pattern(node) % u32::from(features)) as u16;
                NodeDraft::inner(feature, value, node.is_multiple_of(2), [1, 2].map(|side| 2 * node + side))
            })
            .collect();
        TreeDraft { nodes }
    };
    ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm: Algorithm::RandomForest,
            feature_spec_hash: Digest::of(b"spec"),
            feature_count: usize::from(features),
            threshold: 0.5,
            dataset_digest: Digest::of(b"data"),
            training_run: "bench".to_owned(),
            created: Timestamp(0),
        },
        imputation: Vec::new(),
        body: ModelBody::Forest((0..trees).map(tree).collect()),
        self_test: vec![vec![0.5; usize::from(features)]],
    }
}

fn scores() {
    for (trees, depth) in [(100, 5), (200, 6)] {
        score(trees, depth);
    }
}

fn score(trees: u32, depth: u32) {
    let key = SigningKey::from_bytes(&[1; 32]);
    let bytes = complete_forest(trees, depth, 60).encode(&key).unwrap();
    let model = Model::verify(&bytes, &[key.verifying_key()]).unwrap();
    let rows: Vec<Vec<f32>> = (0..1000u32)
        .map(|row| (0..60).map(|column| ((row * 7919 + column * 104_729) % 1009) as f32 / 1009.0).collect())
        .collect();
    let mut sum = 0.0;
    // The machine may be busy with other things: the fastest run says most about the code.
    let mut per_score = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        sum = rows.iter().map(|row| model.score(black_box(row))).sum::<f64>();
        per_score = per_score.min(begin.elapsed() / 1000);
    }
    let mut into = Vec::new();
    let begin = Instant::now();
    rows.iter().for_each(|row| model.explain(row, &mut into));
    let per_explanation = begin.elapsed() / 1000;
    let begin = Instant::now();
    assert!(Model::verify(&bytes, &[key.verifying_key()]).is_ok());
    println!(
        "{trees} trees of {} leaves: {per_score:?} per score (sum {sum}), {per_explanation:?} per explanation, \
         {:?} to verify {} bytes, {} bytes in memory",
        1 << depth,
        begin.elapsed(),
        bytes.len(),
        model.memory_bytes()
    );
}
