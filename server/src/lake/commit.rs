//! From the write-ahead log to the tables, exactly once.
//!
//! Records go over in rounds. A round reads records from the log, appends their rows to each table that has any (one
//! commit each), and then lets the log delete what no table needs any more. Each commit carries, as Delta's `txn`
//! action, the position up to which the table has the log's records; only records from that position on make rows for
//! that table. So whatever a crash interrupts, the next open reads the remaining log again and each table takes
//! exactly what it lacks:
//!
//! * before a table's commit: its files are orphans (vacuum removes them), the rows come from the log again
//! * between two tables' commits: the first one skips those records, the second one takes them
//! * before the log's deletion: every table skips those records
//!
//! A table without rows in a round gets no commit; its position lags, which is harmless: the records it is behind on
//! have no rows for it. Rounds need not be cut as they were before the crash.
//!
//! Readers see whole rounds: the tables' new versions are published together, after the last commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use picket_common::event::EventClass;
use tokio_util::sync::CancellationToken;

use super::round::{Round, prepare};
use super::table::Table;
use super::{Inner, Lake, LakeError};
use crate::wal::{LogEnd, WalCursor};

/// Frame bytes read from the log for one round.
pub const ROUND_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Rounds after which the tables are looked at for compaction.
const ROUNDS_PER_COMPACTION: u32 = 16;
/// How often the interval doubles while commits fail.
const BACK_OFF_DOUBLINGS_MAX: u32 = 4;
/// Time between two removals of files that no version needs.
const VACUUM_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What only the committer touches.
pub(super) struct CommitState {
    pub(super) cursor: WalCursor,
    pub(super) tables: BTreeMap<EventClass, Table>,
    pub(super) rounds_since_compaction: u32,
    pub(super) last_vacuum: Instant,
}

/// What a commit moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSummary {
    /// Rows that became visible.
    pub events: u64,
    /// Rounds it took.
    pub rounds: u64,
}

/// Moves records into tables regularly: every [`LakeConfig::commit_interval`](super::LakeConfig), and as soon as
/// [`LakeConfig::commit_bytes`](super::LakeConfig) of frames wait. Keeps the tables small.
pub struct Committer {
    lake: Arc<Lake>,
}

impl Committer {
    /// A committer for `lake`; there should be one.
    pub fn new(lake: Arc<Lake>) -> Self {
        Self { lake }
    }

    /// Runs until `stop`, and then commits what was acknowledged before it. Errors are logged, counted and tried
    /// again: the records stay in the log.
    pub async fn run(self, stop: CancellationToken) {
        let inner = self.lake.inner();
        let mut ends = inner.wal.subscribe();
        let mut failures = 0u32;
        // At once what an earlier process left.
        let mut interval = Duration::ZERO;
        loop {
            let full = async {
                let committed = inner.counters.committed_bytes.load(Ordering::Relaxed);
                let limit = committed.saturating_add(inner.config.commit_bytes);
                if ends.wait_for(|end| failures == 0 && end.bytes >= limit).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(interval) => {}
                () = full => {}
            }
            failures = match self.lake.commit_and_maintain().await {
                Ok(_) => 0,
                Err(error) => {
                    tracing::warn!(%error, "cannot commit to the lake; the events stay in the write-ahead log");
                    failures.saturating_add(1)
                }
            };
            interval = inner.config.commit_interval * 2u32.saturating_pow(failures.min(BACK_OFF_DOUBLINGS_MAX));
        }
        if let Err(error) = self.lake.commit().await {
            tracing::warn!(%error, "stopping with events in the write-ahead log only; the next start commits them");
        }
    }
}

/// Moves every record before `target`; returns when readers see them.
pub(super) async fn commit_through(inner: &Inner, target: LogEnd) -> Result<CommitSummary, LakeError> {
    let mut state = inner.commit.lock().await;
    let mut summary = CommitSummary::default();
    while state.cursor.position() < target.position {
        let started = Instant::now();
        let Some(events) = commit_round(inner, &mut state).await.inspect_err(|_| {
            inner.counters.commit_errors.fetch_add(1, Ordering::Relaxed);
        })?
        else {
            break;
        };
        summary.events += events;
        summary.rounds += 1;
        state.rounds_since_compaction += 1;
        let counters = &inner.counters;
        counters.events.fetch_add(events, Ordering::Relaxed);
        counters.rounds.fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.last_round_us.store(microseconds, Ordering::Relaxed);
    }
    // Records that turned out damaged were counted when they were stored, and do not wait any more either.
    inner.counters.committed_bytes.fetch_max(target.bytes, Ordering::Relaxed);
    inner.counters.committed_position.fetch_max(target.position.0, Ordering::Relaxed);
    Ok(summary)
}

/// One round; `None` when the log has no more.
async fn commit_round(inner: &Inner, state: &mut CommitState) -> Result<Option<u64>, LakeError> {
    let start = state.cursor;
    let wal = inner.wal.clone();
    let applied = state.tables.iter().map(|(class, table)| (*class, table.applied)).collect::<BTreeMap<_, _>>();
    let prepared = tokio::task::spawn_blocking(move || {
        let (records, after) = wal.read(start, ROUND_FRAME_BYTES_MAX)?;
        if records.is_empty() {
            return Ok((None, after, 0));
        }
        let round = prepare(&records, start, &applied).map_err(|error| LakeError::Read(Box::new(error.into())))?;
        let taken = records.iter().take_while(|record| record.position < round.after.position());
        let frame_bytes = taken.map(|record| record.frame.len() as u64).sum();
        Ok::<_, LakeError>((Some(round), after, frame_bytes))
    });
    let (round, after, frame_bytes) = prepared.await.map_err(|error| LakeError::Closed(error.to_string()))??;
    let Some(Round { tables, after, undecodable }) = round else {
        state.cursor = after;
        return Ok(None);
    };
    inner.counters.undecodable.fetch_add(undecodable, Ordering::Relaxed);
    let end = after.position();
    let mut events = 0;
    for (class, rows) in tables {
        let Some(table) = state.tables.get_mut(&class) else { continue };
        let count = rows.rows.num_rows() as u64;
        inner.probe("before a table's commit");
        table.append(rows.rows, end).await?;
        inner.probe("after a table's commit");
        inner.add_to_counts(class, &rows.hosts);
        events += count;
    }
    state.cursor = after;
    inner.counters.committed_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
    inner.counters.committed_position.store(end.0, Ordering::Relaxed);
    inner.publish(state);
    let wal = inner.wal.clone();
    inner.probe("before the log is released");
    let released = tokio::task::spawn_blocking(move || wal.release(end)).await;
    inner.probe("after the log was released");
    if let Err(error) = released.map_err(|error| LakeError::Closed(error.to_string()))? {
        // The tables have everything; the next round tries again.
        tracing::warn!(%error, "cannot delete committed segments of the write-ahead log");
    }
    Ok(Some(events))
}

/// Compacts and vacuums when it is time to.
pub(super) async fn maintain(inner: &Inner, now: bool) -> Result<(), LakeError> {
    let mut state = inner.commit.lock().await;
    let state = &mut *state;
    if now || state.rounds_since_compaction >= ROUNDS_PER_COMPACTION {
        state.rounds_since_compaction = 0;
        for table in state.tables.values_mut() {
            let files = table.compact().await?;
            inner.counters.files_compacted.fetch_add(files, Ordering::Relaxed);
        }
        inner.publish(state);
    }
    if now || state.last_vacuum.elapsed() >= VACUUM_INTERVAL {
        state.last_vacuum = Instant::now();
        for table in state.tables.values_mut() {
            let files = table.vacuum().await?;
            inner.counters.files_deleted.fetch_add(files as u64, Ordering::Relaxed);
        }
        inner.publish(state);
    }
    Ok(())
}
