#![allow(clippy::unwrap_used)]

use picket_common::batch::BatchBuilder;
use picket_common::event::{EventBody, LossReason, LossStage, Origin, SensorLoss, Timestamp};
use picket_common::id::{BatchSequence, Epoch, EventKey, Sequence};
use tempfile::TempDir;

use super::*;
use crate::wal::WalConfig;

const RATE: AgentRate = AgentRate {
    bytes_per_second: NonZeroU64::new(COST_BYTES_MIN).unwrap(),
    burst_bytes: NonZeroU64::new(4 * COST_BYTES_MIN).unwrap(),
};

fn ingest() -> (TempDir, Arc<Ingest>) {
    let folder = TempDir::new().unwrap();
    let wal = Wal::open(&folder.path().join("wal"), WalConfig::default()).unwrap();
    (folder, Arc::new(Ingest::new(Arc::new(wal), RATE)))
}

fn host(seed: u8) -> HostId {
    HostId::from_random([seed; 16])
}

fn frame() -> Bytes {
    let key = EventKey { epoch: Epoch(1), sequence: Sequence(0) };
    let loss = SensorLoss { stage: LossStage::Sensor, reason: LossReason::QueueFull, count: 1, epoch: Epoch(1) };
    let event = Event { key, time: Timestamp(1), origin: Origin::Agent, body: EventBody::SensorLoss(loss) };
    let mut builder = BatchBuilder::new();
    builder.push(&event).unwrap();
    builder.finish(Epoch(1), BatchSequence(0)).unwrap().into()
}

#[tokio::test]
async fn the_same_bytes_of_two_hosts_are_two_batches() {
    let (_folder, ingest) = ingest();
    for seed in [1, 2] {
        let stream = ingest.open_stream(host(seed)).unwrap();
        assert_eq!(stream.deliver(frame()).await.unwrap(), Verdict::Accepted);
        assert_eq!(stream.deliver(frame()).await.unwrap(), Verdict::Duplicate);
    }
    let counters = ingest.counters();
    assert_eq!((counters.batches_accepted, counters.events_accepted, counters.batches_duplicate), (2, 2, 2));
}

#[tokio::test]
async fn a_rejected_batch_is_counted_and_not_stored() {
    let (_folder, ingest) = ingest();
    let stream = ingest.open_stream(host(1)).unwrap();
    for _ in 0..20 {
        let verdict = stream.deliver(Bytes::from_static(b"rubbish")).await.unwrap();
        assert!(matches!(verdict, Verdict::Rejected(Rejection { kind: RejectionKind::Malformed, .. })), "{verdict:?}");
    }
    assert_eq!(ingest.counters().batches_rejected, 20);
    assert_eq!(ingest.wal.counters().records, 0);
}

#[tokio::test]
async fn a_rate_outlives_the_stream_and_is_each_agents_own() {
    let (_folder, ingest) = ingest();
    let stream = ingest.open_stream(host(1)).unwrap();
    for _ in 0..4 {
        stream.pace(1).await.unwrap();
    }
    // Over by ten seconds: longer than anybody is held back.
    let far_too_much = usize::try_from(10 * COST_BYTES_MIN).unwrap();
    assert!(matches!(stream.pace(far_too_much).await, Err(IngestError::Rate(_))));
    drop(stream);
    let again = ingest.open_stream(host(1)).unwrap();
    assert!(matches!(again.pace(far_too_much).await, Err(IngestError::Rate(_))));
    ingest.open_stream(host(2)).unwrap().pace(far_too_much / 3).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_a_little_too_fast_is_held_back() {
    let (_folder, ingest) = ingest();
    let stream = ingest.open_stream(host(1)).unwrap();
    let begun = Instant::now();
    for _ in 0..4 {
        stream.pace(1).await.unwrap();
    }
    // A tenth of a second's worth more than there is.
    stream.pace(usize::try_from(COST_BYTES_MIN + COST_BYTES_MIN / 10).unwrap()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_watching_costs_nothing_and_slow_watchers_learn_what_they_missed() {
    let (_folder, ingest) = ingest();
    let stream = ingest.open_stream(host(1)).unwrap();
    stream.deliver(frame()).await.unwrap();
    let mut tail = ingest.subscribe();
    let others: Vec<_> = (2..=2 + u8::try_from(TAIL_BATCHES_MAX).unwrap()).map(host).collect();
    for other in &others {
        ingest.open_stream(*other).unwrap().deliver(frame()).await.unwrap();
    }
    let missed = match tail.recv().await {
        Err(broadcast::error::RecvError::Lagged(missed)) => missed,
        other => panic!("{other:?}"),
    };
    assert_eq!(missed as usize, others.len() - TAIL_BATCHES_MAX);
    assert_eq!(tail.recv().await.unwrap().host, others[others.len() - TAIL_BATCHES_MAX]);
}
