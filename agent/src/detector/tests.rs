use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use picket_common::event::{
    Connection, ConnectionClose, ConnectionOutcome, Direction, EventBody, Origin, Protocol, Timestamp, json,
};
use picket_common::feature::FeatureSpec;
use picket_common::id::{Digest, Epoch, EventKey, Sequence};
use picket_common::model::{Algorithm, ModelBody, ModelDraft, ModelMetadata};
use serde_json::Value;

use super::*;

/// A linear model whose score says only how much data went out: an alert from some kilobytes on.
fn model(threshold: f64) -> Arc<Model> {
    let spec = FeatureSpec::v1(Subject::Connection);
    let count = spec.features.len();
    let mut weights = vec![0.0; count];
    weights[spec.index_of("bytes_sent").expect("a feature of that name")] = 1.0;
    let bytes = ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm: Algorithm::LogisticRegression,
            feature_spec_hash: spec.hash(),
            feature_count: count,
            threshold,
            dataset_digest: Digest::of(b"data set"),
            training_run: "test".to_owned(),
            created: Timestamp(1),
        },
        imputation: Vec::new(),
        body: ModelBody::Linear { weights, bias: -8.0, mean: vec![0.0; count], inverse_scale: vec![1.0; count] },
        calibration: None,
        self_test: vec![vec![0.5; count]],
    }
    .encode(&SigningKey::from_bytes(&[1; 32]))
    .unwrap();
    Arc::new(Model::parse(&bytes).unwrap())
}

fn close(sequence: u64, bytes_sent: u64, remote: &str) -> Event {
    let connection = Connection {
        cookie: sequence + 1,
        protocol: Protocol::Tcp,
        direction: Direction::Outbound,
        local: "10.0.0.1:40000".parse().unwrap(),
        remote: remote.parse::<SocketAddr>().unwrap(),
        process: None,
        executable: "/usr/bin/scp".into(),
        user_id: Some(1_000),
        cgroup_id: None,
    };
    Event {
        key: EventKey { epoch: Epoch(7), sequence: Sequence(sequence) },
        time: now(),
        origin: Origin::Replay,
        body: EventBody::ConnectionClose(Box::new(ConnectionClose {
            connection,
            bytes_sent: Some(bytes_sent),
            bytes_received: Some(10),
            segments_sent: Some(3),
            segments_received: Some(3),
            duration_ns: Some(1_000_000),
            outcome: ConnectionOutcome::Closed,
        })),
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    models: Arc<ActiveModels>,
    counters: Arc<DetectorCounters>,
    mark: AlertMark,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            models: Arc::default(),
            counters: Arc::default(),
            mark: AlertMark::default(),
        }
    }

    fn parts(&self, config: DetectorConfig) -> Detector {
        let host = OnceLock::new();
        host.set("0190b5c0-7c1d-4a5e-9c39-8a8f2d0f6a11".parse().unwrap()).unwrap();
        Detector {
            config: Arc::new(Live::new(config)),
            host: Arc::new(host),
            alert_path: self.dir.path().join("alerts.jsonl"),
            models: Arc::clone(&self.models),
            mark: self.mark.clone(),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Runs a detector over `events`, as the pipeline would.
    fn run(&self, config: DetectorConfig, events: impl IntoIterator<Item = Event>) {
        let (sender, thread) = spawn(self.parts(config)).unwrap();
        events.into_iter().for_each(|event| sender.offer(vec![event]));
        drop(sender);
        thread.join().unwrap();
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.dir.path().join(name))
    }

    fn count(&self, counter: impl Fn(&DetectorCounters) -> &AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_alert_says_what_why_and_by_which_model() {
    let fixture = Fixture::new();
    let model = model(0.5);
    fixture.models.set(Subject::Connection, Arc::clone(&model));
    let loud = close(1, 5_000_000, "192.0.2.7:443");
    fixture.run(DetectorConfig::default(), [close(0, 20, "192.0.2.7:443"), loud.clone()]);

    let alerts = fixture.lines("alerts.jsonl");
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0];
    assert_eq!((&alert["kind"], &alert["subject"]), (&"alert".into(), &"connection".into()));
    assert_eq!((alert["epoch"].as_u64(), alert["sequence"].as_u64()), (Some(7), Some(1)));
    assert_eq!(alert["host_id"], "0190b5c0-7c1d-4a5e-9c39-8a8f2d0f6a11");
    assert_eq!(alert["model_digest"], model.id().to_string());
    assert_eq!(alert["algorithm"], "logistic_regression");
    assert!(alert["score"].as_f64() > alert["threshold"].as_f64());
    let reason = &alert["reasons"][0];
    assert_eq!(reason["feature"], "bytes_sent");
    assert!(!reason["words"].as_str().unwrap().is_empty());
    assert_eq!(json::from_json(&alert["event"]).unwrap(), loud);
    assert_eq!(alert["vector_digest"].as_str().unwrap().len(), 64);
    assert!(alert["time"].as_str().unwrap().ends_with('Z'));

    assert_eq!(fixture.count(|counters| &counters.scored), 2);
    assert_eq!(fixture.count(|counters| &counters.alerts), 1);
    assert_eq!(fixture.counters.alert_latency.lock().summary().count, 1);
}

#[test]
fn an_alert_keeps_its_batch_for_last() {
    let fixture = Fixture::new();
    fixture.models.set(Subject::Connection, model(0.5));
    fixture.run(DetectorConfig::default(), [close(41, 5_000_000, "192.0.2.7:443")]);
    assert!(fixture.mark.is_from(Sequence(41)) && fixture.mark.is_from(Sequence(30)));
    assert!(!fixture.mark.is_from(Sequence(42)));
}

#[test]
fn without_a_model_nothing_is_scored_and_the_context_is_kept() {
    let fixture = Fixture::new();
    let trace = fixture.dir.path().join("trace.jsonl");
    let config = DetectorConfig { trace_vectors: trace.clone(), ..DetectorConfig::default() };
    let (sender, thread) = spawn(fixture.parts(config)).unwrap();
    let wait_until_observed = |count| {
        let begun = Instant::now();
        while fixture.counters.observed.load(Ordering::Acquire) < count {
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    };
    sender.offer(vec![close(0, 20, "192.0.2.7:443")]);
    wait_until_observed(1);
    assert_eq!(fixture.count(|counters| &counters.without_model), 1);
    // A model that comes while the detector runs is used for the next event.
    fixture.models.set(Subject::Connection, model(0.5));
    sender.offer(vec![close(1, 5_000_000, "192.0.2.7:443")]);
    wait_until_observed(2);
    fixture.models.set(Subject::Connection, model(1.0));
    sender.offer(vec![close(2, 5_000_000, "192.0.2.7:443")]);
    drop(sender);
    thread.join().unwrap();
    assert_eq!(fixture.count(|counters| &counters.scored), 2);
    assert_eq!(fixture.lines("alerts.jsonl").len(), 1);

    // The traced vectors are those of a pipeline that has seen all three.
    let mut features = FeaturePipeline::new(ContextLimits::default());
    let mut traced = lines(&trace).into_iter();
    for (sequence, bytes) in [(0, 20), (1, 5_000_000), (2, 5_000_000)] {
        let event = close(sequence, bytes, "192.0.2.7:443");
        let vector = features.observe(&event).unwrap();
        if sequence == 0 {
            continue;
        }
        let line = traced.next().unwrap();
        assert_eq!(line["sequence"].as_u64(), Some(sequence));
        assert_eq!(line["values"].as_array().unwrap().len(), vector.values.len());
        assert!(line["score_bits"].as_u64().is_some() && line["model_digest"].as_str().is_some());
    }
    assert!(traced.next().is_none());
}

#[test]
fn repeats_are_counted_and_other_looks_are_not_held_back() {
    let fixture = Fixture::new();
    fixture.models.set(Subject::Connection, model(0.5));
    let config = DetectorConfig { alert_repeats_max: 3, ..DetectorConfig::default() };
    let loud = (0..10).map(|sequence| close(sequence, 5_000_000, "192.0.2.7:443"));
    fixture.run(config, loud.chain([close(10, 5_000_000, "192.0.2.8:443")]));
    let written = fixture.lines("alerts.jsonl");
    let kinds: Vec<&str> = written.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["alert", "alert", "alert", "alert", "repeats"]);
    let repeats = &written[4];
    assert_eq!((repeats["suppressed"].as_u64(), repeats["sequence"].as_u64()), (Some(7), Some(9)));
    assert_eq!(repeats["remote_address"], "192.0.2.7");
    assert_eq!(fixture.count(|counters| &counters.alerts), 11);
    assert_eq!(fixture.count(|counters| &counters.suppressed), 7);
}

#[test]
fn repeats_begin_anew_after_a_minute_and_the_table_is_bounded() {
    let mut repeats = Repeats::new(1);
    let minute = 61_000_000_000;
    let mut decide = |sequence: u64, time: i64, remote: &str| {
        let event = close(sequence, 1, remote);
        repeats.decide(Subject::Connection, &event, Timestamp(time))
    };
    assert_eq!(decide(0, 0, "192.0.2.7:443"), Decision::Write);
    assert_eq!(decide(1, 1, "192.0.2.7:444"), Decision::Suppress);
    assert_eq!(decide(2, minute, "192.0.2.7:443"), Decision::Write);
    for index in 0..2_000_u64 {
        let remote = format!("10.0.{}.{}:80", index / 250, index % 250 + 1);
        assert_eq!(decide(3 + index, minute + 1, &remote), Decision::Write);
    }
    let over = repeats.take_over(Timestamp(minute + 2), true);
    assert_eq!(over.len(), 1, "only what was suppressed is told");
}

#[test]
fn what_does_not_fit_into_the_queue_is_counted_and_nobody_waits() {
    let fixture = Fixture::new();
    let (sender, receiver) = queue(QueueLimits { items: 2, bytes: 1_000_000 });
    let shared = Shared {
        worker: Mutex::new(Worker::new(fixture.parts(DetectorConfig::default()))),
        behind: AtomicUsize::new(0),
        counters: Arc::clone(&fixture.counters),
    };
    let sender = DetectorSender { queue: sender, shared: Arc::new(shared) };
    let is_busy = sender.shared.worker.lock();
    (0..5).for_each(|sequence| sender.offer(vec![close(sequence, 1, "192.0.2.7:443")]));
    drop(is_busy);
    sender.offer(vec![close(5, 1, "192.0.2.7:443")]);
    assert_eq!(fixture.count(|counters| &counters.observed), 0, "none overtakes those that wait");
    assert_eq!(fixture.count(|counters| &counters.overflowed), 4);
    assert_eq!(receiver.try_recv().unwrap()[0].key.sequence, Sequence(0));
}

#[test]
fn alerts_the_disk_does_not_take_are_counted() {
    let fixture = Fixture::new();
    fixture.models.set(Subject::Connection, model(0.5));
    std::fs::create_dir(fixture.dir.path().join("alerts.jsonl")).unwrap();
    fixture.run(DetectorConfig::default(), [close(0, 5_000_000, "192.0.2.7:443")]);
    assert_eq!(fixture.count(|counters| &counters.write_failures), 1);
    assert_eq!(fixture.count(|counters| &counters.alerts), 1);
}

#[test]
fn few_events_and_many_keep_their_order() {
    let fixture = Fixture::new();
    fixture.models.set(Subject::Connection, model(0.5));
    let config = DetectorConfig { alert_repeats_max: 0, ..DetectorConfig::default() };
    let (sender, thread) = spawn(fixture.parts(config)).unwrap();
    let mut next = 0;
    for turn in [1, 2 * AT_ONCE_MAX, 1, 3, AT_ONCE_MAX, AT_ONCE_MAX + 1, 1, 1] {
        let events = (0..turn).map(|_| {
            next += 1;
            close(next, 5_000_000, "192.0.2.7:443")
        });
        sender.offer(events.collect());
    }
    drop(sender);
    thread.join().unwrap();
    let sequences: Vec<u64> =
        fixture.lines("alerts.jsonl").iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=next).collect::<Vec<_>>());
}
