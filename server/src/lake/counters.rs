//! What the lake did, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wal::LogEnd;

/// What the lake did since it was opened, and how far behind it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LakeCounters {
    /// Rows written.
    pub events: u64,
    /// Rounds of commits.
    pub rounds: u64,
    /// Rounds that failed; they are tried again.
    pub commit_errors: u64,
    /// Batches of the log that could not be decoded, and were skipped.
    pub undecodable: u64,
    /// Duration of the last round, microseconds.
    pub last_round_us: u64,
    /// Files that compaction replaced.
    pub files_compacted: u64,
    /// Files that no version needed and that were deleted.
    pub files_deleted: u64,
    /// Records in the write-ahead log that no query sees yet.
    pub lag_records: u64,
    /// Bytes of their frames.
    pub lag_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) events: AtomicU64,
    pub(super) rounds: AtomicU64,
    pub(super) commit_errors: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) last_round_us: AtomicU64,
    pub(super) files_compacted: AtomicU64,
    pub(super) files_deleted: AtomicU64,
    pub(super) committed_bytes: AtomicU64,
    pub(super) committed_position: AtomicU64,
}

impl Counters {
    /// `end`: where the write-ahead log ends.
    pub(super) fn read(&self, end: LogEnd) -> LakeCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LakeCounters {
            events: read(&self.events),
            rounds: read(&self.rounds),
            commit_errors: read(&self.commit_errors),
            undecodable: read(&self.undecodable),
            last_round_us: read(&self.last_round_us),
            files_compacted: read(&self.files_compacted),
            files_deleted: read(&self.files_deleted),
            lag_records: end.position.0.saturating_sub(read(&self.committed_position)),
            lag_bytes: end.bytes.saturating_sub(read(&self.committed_bytes)),
        }
    }
}
