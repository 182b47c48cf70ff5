//! Tests of the lake, on real tables.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use picket_common::batch::BatchBuilder;
use picket_common::event::Event;
use picket_common::id::{BatchSequence, Epoch, HostId};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::wal::{Appended, WalConfig, WalRecord};

mod crash;
pub(super) mod events;
mod maintenance;
mod migration;
pub(super) mod probe;
mod query;
mod rows;
mod scan;

/// A server's state folder with a log and a lake in it.
struct State {
    lake: Lake,
    wal: Arc<Wal>,
    folder: TempDir,
}

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

fn small_config() -> LakeConfig {
    LakeConfig { threads: 2, query_memory_bytes: 64 * 1024 * 1024, ..LakeConfig::default() }
}

impl State {
    async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    async fn open(folder: TempDir) -> Self {
        Self::open_with(folder, small_config()).await
    }

    async fn open_with(folder: TempDir, config: LakeConfig) -> Self {
        let wal_config = WalConfig { segment_bytes: 4096 };
        let wal = Arc::new(Wal::open(&folder.path().join("wal"), wal_config).unwrap());
        let lake = Lake::open(&folder.path().join("lake"), wal.clone(), config).await.unwrap();
        Self { lake, wal, folder }
    }

    /// As after a restart.
    async fn reopen(self) -> Self {
        let Self { lake, wal, folder } = self;
        close(lake, wal).await;
        Self::open(folder).await
    }

    /// Stores one batch.
    async fn append(&self, host_number: u8, batch: u64, events: &[Event]) -> Appended {
        let mut builder = BatchBuilder::new();
        events.iter().for_each(|event| builder.push(event).unwrap());
        let frame = builder.finish(events[0].key.epoch, BatchSequence(batch)).unwrap();
        self.wal.append(WalRecord { host: host(host_number), frame: frame.into() }).await.unwrap()
    }

    /// Stores `count` plausible events of an epoch in batches of `batch_events`.
    async fn fill(&self, host_number: u8, epoch: u64, count: u64, batch_events: usize) -> Vec<Event> {
        let events: Vec<Event> = (0..count).map(|sequence| events::plausible(epoch, sequence)).collect();
        for (batch, chunk) in (0..).zip(events.chunks(batch_events)) {
            self.append(host_number, batch, chunk).await;
        }
        events
    }

    async fn read(&self, filter: EventFilter) -> Vec<(HostId, Event)> {
        self.lake.read_events(&self.lake.table_versions(), filter).try_collect().await.unwrap()
    }

    async fn sql(&self, sql: &str) -> Vec<serde_json::Value> {
        try_sql(&self.lake, sql).await.unwrap()
    }
}

/// As at the end of a process: the folder can be opened again.
async fn close(lake: Lake, wal: Arc<Wal>) {
    lake.close().await;
    assert_eq!(Arc::strong_count(&wal), 1);
}

async fn try_sql(lake: &Lake, sql: &str) -> Result<Vec<serde_json::Value>, LakeError> {
    let rows = lake.query(sql, 100_000, Duration::from_secs(60)).await?;
    let batches: Vec<_> = rows.try_collect().await?;
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    let json = writer.into_inner();
    Ok(if json.is_empty() { Vec::new() } else { serde_json::from_slice(&json).unwrap() })
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn acknowledged_events_are_visible_after_a_commit_and_stay_so() {
    let state = State::new().await;
    let events = state.fill(1, 7, 100, 9).await;
    assert_eq!(state.read(EventFilter::default()).await, []);
    assert_eq!(state.lake.counters().lag_records, 12);
    let summary = state.lake.commit().await.unwrap();
    assert_eq!(summary, CommitSummary { events: 100, rounds: 1 });
    assert_eq!(state.lake.counters().lag_records, 0);
    assert_eq!(state.lake.counters().lag_bytes, 0);
    let expected: Vec<_> = events.into_iter().map(|event| (host(1), event)).collect();
    assert_eq!(state.read(EventFilter::default()).await, expected);

    // Nothing to do, and nothing done, however often and after a restart.
    let versions = state.lake.table_versions();
    assert_eq!(state.lake.commit().await.unwrap(), CommitSummary::default());
    let state = state.reopen().await;
    assert_eq!(state.read(EventFilter::default()).await, expected, "before any commit");
    assert_eq!(state.lake.commit().await.unwrap().events, 0);
    assert_eq!(state.lake.table_versions(), versions);
    assert_eq!(state.read(EventFilter::default()).await, expected);
}

/// From frames over the log and Parquet files back: what agents send, extremes included, neither changes nor stops
/// the commits of others.
#[tokio::test(flavor = "multi_thread")]
async fn any_event_comes_back_from_the_tables_as_it_was() {
    use picket_common::id::{EventKey, Sequence};
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    let state = State::new().await;
    let mut runner = TestRunner::deterministic();
    let mut expected = Vec::new();
    for (number, epoch) in [(1, 0), (2, 1 << 40), (3, u64::MAX)] {
        let events: Vec<Event> = (0..150)
            .map(|sequence| {
                let event = events::any_event().new_tree(&mut runner).unwrap().current();
                Event { key: EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) }, ..event }
            })
            .collect();
        for (batch, chunk) in (0..).zip(events.chunks(40)) {
            state.append(number, batch, chunk).await;
        }
        state.lake.commit().await.unwrap();
        expected.extend(events.into_iter().map(|event| (host(number), event)));
    }
    state.lake.maintain().await.unwrap();
    let state = state.reopen().await;
    assert_eq!(state.read(EventFilter::default()).await, expected);
    let ids: Vec<EventId> = expected.iter().map(|(host, event)| EventId { host: *host, key: event.key }).collect();
    assert!(state.lake.exists(&ids).await.unwrap().into_iter().all(|exists| exists));
}

#[tokio::test]
async fn the_log_is_deleted_once_the_tables_have_it() {
    let state = State::new().await;
    state.fill(1, 1, 2000, 20).await;
    let before = state.wal.counters().segments;
    state.lake.commit().await.unwrap();
    let after = state.wal.counters().segments;
    assert!(before > 3 && after == 1, "{before} {after}");
    assert_eq!(state.append(1, 3, &[events::plausible(1, 60)]).await, Appended::Duplicate);
    assert_eq!(state.sql("SELECT count(*) AS n FROM (SELECT host_id FROM process_activity UNION ALL SELECT host_id FROM network_activity UNION ALL SELECT host_id FROM authentication UNION ALL SELECT host_id FROM sensor_loss UNION ALL SELECT host_id FROM agent_activity)").await[0]["n"], 2000);
}

#[tokio::test]
async fn a_log_that_lost_its_end_does_not_hide_what_comes_next() {
    let state = State::new().await;
    let mut events = state.fill(1, 1, 40, 10).await;
    state.lake.commit().await.unwrap();
    let State { lake, wal, folder } = state;
    close(lake, wal).await;
    // The disk loses the log's last records after the lake has them.
    let segment = fs::read_dir(folder.path().join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "segment")).max().unwrap();
    let length = fs::metadata(&segment).unwrap().len();
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 1).unwrap();

    let state = State::open(folder).await;
    let more: Vec<Event> = (40..50).map(|sequence| events::plausible(1, sequence)).collect();
    state.append(1, 4, &more).await;
    state.lake.commit().await.unwrap();
    events.extend(more);
    let stored: Vec<Event> = state.read(EventFilter::default()).await.into_iter().map(|(_, event)| event).collect();
    assert_eq!(stored, events);
}

#[tokio::test]
async fn a_lake_is_opened_once() {
    let state = State::new().await;
    let error = Lake::open(&state.folder.path().join("lake"), state.wal.clone(), small_config()).await.err().unwrap();
    assert!(matches!(error, LakeError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn a_lake_may_be_dropped_inside_a_runtime() {
    let state = State::new().await;
    state.fill(1, 1, 10, 10).await;
    drop(state.lake.commit());
    drop(state);
}

#[tokio::test]
async fn counts_by_host_are_kept_up() {
    let state = State::new().await;
    state.fill(1, 1, 70, 10).await;
    state.lake.commit().await.unwrap();
    let total = |counts: &EventCounts, number: u8| counts.get(&host(number)).map_or(0, |by| by.values().sum::<u64>());
    let counts = state.lake.events_stored().await.unwrap();
    assert_eq!((total(&counts, 1), total(&counts, 2)), (70, 0));
    state.fill(2, 1, 30, 10).await;
    state.fill(1, 2, 5, 10).await;
    state.lake.commit().await.unwrap();
    let kept = state.lake.events_stored().await.unwrap();
    assert_eq!((total(&kept, 1), total(&kept, 2)), (75, 30));
    let counted = state.reopen().await.lake.events_stored().await.unwrap();
    assert_eq!(counted, kept);
    assert_eq!(counted[&host(2)].values().sum::<u64>(), 30);
}

/// Starts a committer; the state goes on to use the same lake.
fn start_committer(state: State) -> (State, Arc<Lake>, CancellationToken, JoinHandle<()>) {
    let State { lake, wal, folder } = state;
    let lake = Arc::new(lake);
    let stop = CancellationToken::new();
    let running = tokio::spawn(Committer::new(lake.clone()).run(stop.clone()));
    (State { lake: Lake { inner: lake.inner.clone(), threads: Threads(None) }, wal, folder }, lake, stop, running)
}

#[tokio::test]
async fn the_committer_commits_when_it_is_time() {
    let config = LakeConfig { commit_interval: Duration::from_millis(20), ..small_config() };
    let state = State::open_with(TempDir::new().unwrap(), config).await;
    let (state, lake, stop, running) = start_committer(state);
    state.fill(1, 1, 10, 10).await;
    wait_until(|| lake.counters().events == 10).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_committer_commits_when_much_waits_and_when_it_stops() {
    // The timer is far away.
    let config = LakeConfig { commit_interval: Duration::from_secs(3600), commit_bytes: 4000, ..small_config() };
    let state = State::open_with(TempDir::new().unwrap(), config).await;
    let (state, lake, stop, running) = start_committer(state);
    state.fill(1, 1, 400, 20).await;
    wait_until(|| lake.counters().events > 0).await;
    state.append(2, 0, &[events::plausible(1, 0)]).await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(lake.counters().lag_records, 0);
    assert_eq!(state.read(EventFilter::default()).await.len(), 401);
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}
