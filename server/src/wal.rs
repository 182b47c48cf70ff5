//! The write-ahead log: an acknowledged batch is in it, durably, until the lake has its events.
//!
//! One thread writes. It takes all records that wait, writes them with one call, calls fdatasync once and answers all
//! of them (group commit). A folder holds the log:
//!
//! * `<first position, 20 digits>.segment`: records, oldest segment first; the last one grows
//! * `dedupe.snapshot`: which batches the deleted segments held (see `dedupe`)
//! * `lock`: held while a process has the log open
//!
//! A segment (all numbers little-endian):
//! ```text
//! magic "PKTWAL\0\1" | log id 16 | first position u64 | end of the segment before u64 | created, unix ns i64
//! | CRC32C of everything before it u32 | zero u32                                        56 bytes
//! magic "PKWR" | CRC32C of the log id and the rest of this header u32 | position u64
//! | received, unix ns i64 | host 16 | epoch u64 | batch sequence u64 | events u32
//! | frame length u32 | CRC32C of the frame u32                                            68 bytes, then the frame
//! …
//! ```
//!
//! Invariants:
//! * Positions count records, only grow and are never given twice to durable records. Before each fdatasync nobody is
//!   answered, nothing is readable, nothing is known to deduplication.
//! * A failed write is taken back (the file is cut) and the log goes on. After a failed fdatasync nobody knows what
//!   the disk holds: the log takes no more records.
//! * At open, bytes after the last record of the last segment are a write the crash interrupted: they are cut and
//!   counted. Damage anywhere else costs the records it hits and no other; they are counted as missing. Opening twice
//!   gives the same log.
//! * Segments are deleted (oldest first) only when the lake has all their records, and only after a snapshot that lists
//!   their batches is durable.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use picket_common::batch;
use picket_common::id::{BatchSequence, Epoch, HostId};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::dedupe::RANGES_PER_HOST_MAX;
use self::dedupe::{DedupeIndex, Seen};
pub use self::error::WalError;
use self::folder::Folder;
pub use self::reader::{StoredRecord, WalCursor};
pub use self::recovery::{DAMAGE_LISTED_MAX, Damage, OpenReport};
use self::segment::{RecordHeader, SegmentHeader};
use self::writer::{ActiveSegment, Incoming, Request, Writer};
use crate::clock::unix_nanoseconds;

mod dedupe;
mod error;
#[cfg(test)]
pub(crate) mod faults;
mod folder;
mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

/// Largest frame a record may hold, in bytes; batches are smaller by their own limits.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Default size at which the next segment is begun, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// Most appends that wait for the writer at a time; further callers wait for room.
pub const APPENDS_WAITING_MAX: usize = 256;

/// Random, made with the log; tells its files from another log's.
type LogId = [u8; 16];

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Size at which the next segment is begun, in bytes. Opening and reading hold one segment in memory.
    pub segment_bytes: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT }
    }
}

/// A batch to be stored.
#[derive(Clone, Debug)]
pub struct WalRecord {
    /// Who sent it, as its certificate says.
    pub host: HostId,
    /// The batch, as it was sent.
    pub frame: Bytes,
}

/// A record's place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalPosition(pub u64);

/// What became of an appended batch. Both are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was stored now.
    Stored(WalPosition),
    /// The same batch (host, epoch, batch sequence) was stored already, perhaps in this very moment.
    Duplicate,
}

/// Batches of one host that are durably stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBatches {
    /// Of batches below this (epoch, batch sequence) nothing is known beyond what `ranges` says.
    pub floor: (u64, u64),
    /// (epoch, first, last inclusive), in order.
    pub ranges: Vec<(u64, u64, u64)>,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The position after the last durable record.
    pub position: WalPosition,
    /// Frame bytes of all records read at open and stored since: the growth of this number tells how much waits.
    pub bytes: u64,
}

/// What the log did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalCounters {
    /// Records stored.
    pub records: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// Calls of fdatasync that stored records; `records / fsyncs` is the size of a group.
    pub fsyncs: u64,
    /// Batches that were stored already.
    pub duplicates: u64,
    /// Records that could not be stored.
    pub refused: u64,
    /// Segments on disk now.
    pub segments: u64,
    /// Whether the disk failed to make data durable.
    pub poisoned: bool,
}

#[derive(Debug, Default)]
struct Counters {
    records: AtomicU64,
    frame_bytes: AtomicU64,
    fsyncs: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
    poisoned: AtomicBool,
}

/// What the writer, the readers and the callers see together.
#[derive(Debug)]
struct Shared {
    folder: Folder,
    log_id: LogId,
    config: WalConfig,
    index: RwLock<DedupeIndex>,
    /// Each segment's durable length in bytes, by its first position.
    segments: Mutex<std::collections::BTreeMap<u64, u64>>,
    end: watch::Sender<LogEnd>,
    counters: Counters,
}

impl Shared {
    fn end(&self) -> LogEnd {
        *self.end.borrow()
    }
}

/// The log. Dropping it waits until everything handed to it is answered.
pub struct Wal {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    releasing: Mutex<()>,
    report: OpenReport,
}

impl Wal {
    /// Opens the log in `folder`, or begins one there. Reads it once, completely.
    ///
    /// # Errors
    /// [`WalError::Locked`], [`WalError::Io`], [`WalError::DiskFull`]; [`WalError::DedupeDamaged`],
    /// [`WalError::ForeignSegment`] and [`WalError::HeaderDamaged`] when a person has to decide.
    pub fn open(folder: &Path, config: WalConfig) -> Result<Self, WalError> {
        let folder = Folder::open(folder)?;
        let recovered = recovery::recover(&folder)?;
        recovered.report.log(recovered.end.position);
        let shared = Arc::new(Shared {
            folder,
            log_id: recovered.log_id,
            config,
            index: RwLock::new(recovered.index),
            segments: Mutex::new(recovered.segments),
            end: watch::Sender::new(recovered.end),
            counters: Counters::default(),
        });
        let active = match recovered.active {
            Some(active) => active,
            None => {
                let header = SegmentHeader {
                    log_id: shared.log_id,
                    first_position: recovered.end.position.0,
                    previous_end: recovered.end.position.0,
                    created_unix_ns: unix_nanoseconds(),
                };
                ActiveSegment::create(&shared, &header)?
            }
        };
        let (sender, receiver) = mpsc::channel(APPENDS_WAITING_MAX);
        let writer = Writer::new(shared.clone(), receiver, active);
        let thread = std::thread::Builder::new().name("wal-writer".to_owned()).spawn(move || writer.run()).map_err(
            |source| WalError::Io {
                action: "start the thread that writes to",
                path: shared.folder.snapshot_path(),
                source: Arc::new(source),
            },
        )?;
        Ok(Self {
            shared,
            requests: Some(sender),
            writer: Some(thread),
            releasing: Mutex::new(()),
            report: recovered.report,
        })
    }

    /// Stores a batch and returns when it is durable. Safe to drop: the batch is then stored or not, and sending it
    /// again is answered accordingly.
    ///
    /// # Errors
    /// See [`WalError::is_retryable`]: the others mean that this batch will never be accepted.
    pub async fn append(&self, record: WalRecord) -> Result<Appended, WalError> {
        let WalRecord { host, frame } = record;
        let too_large = WalError::TooLarge { bytes: frame.len(), limit: FRAME_BYTES_MAX };
        if frame.len() > FRAME_BYTES_MAX {
            return Err(too_large);
        }
        let batch = batch::peek_header(&frame).map_err(|error| WalError::Frame(Arc::new(error)))?;
        let header = RecordHeader {
            position: 0,
            received_unix_ns: unix_nanoseconds(),
            host,
            epoch: batch.epoch,
            batch_sequence: batch.batch_sequence,
            event_count: batch.event_count,
            frame_length: u32::try_from(frame.len()).map_err(|_| too_large)?,
            frame_checksum: crc32c::crc32c(&frame),
        };
        let (answer, answered) = oneshot::channel();
        self.send(Request::Append(Incoming { header, frame }, answer)).await?;
        answered.await.map_err(|_| WalError::Closed)?
    }

    /// Whether this batch is durably stored (here, or in the lake after it was here).
    pub fn contains(&self, host: HostId, epoch: Epoch, batch_sequence: BatchSequence) -> bool {
        self.shared.index.read().lookup(host, epoch, batch_sequence) == Seen::Stored
    }

    /// Which batches of a host are durably stored.
    pub fn stored_batches(&self, host: HostId) -> StoredBatches {
        self.shared.index.read().stored(host)
    }

    /// Where the log ends now.
    pub fn end(&self) -> LogEnd {
        self.shared.end()
    }

    /// Tells whenever records became durable.
    pub fn subscribe(&self) -> watch::Receiver<LogEnd> {
        self.shared.end.subscribe()
    }

    /// Text that tells this log from every other.
    pub fn log_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.shared.log_id)
    }

    /// Makes the next record's position at least `position`. For a lake that has seen positions which this log lost
    /// to damage: what comes next must not look as if the lake had it already.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn skip_to(&self, position: WalPosition) -> Result<(), WalError> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::SkipTo(position, answer)).await?;
        answered.await.map_err(|_| WalError::Closed)?
    }

    /// Deletes the segments whose records all lie before `end`: the lake has them. Blocks on the disk.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] and [`WalError::Io`]; what was not deleted stays for the next call.
    pub fn release(&self, end: WalPosition) -> Result<(), WalError> {
        let _one_at_a_time = self.releasing.lock();
        let firsts: Vec<u64> = self.shared.segments.lock().keys().copied().collect();
        // A segment ends where the next one begins; the last one stays.
        let done: Vec<u64> = firsts.windows(2).filter(|pair| pair[1] <= end.0).map(|pair| pair[0]).collect();
        if done.is_empty() {
            return Ok(());
        }
        // The end first, the index after it: whatever lies before the end is in the index by then.
        let stored_end = self.end().position;
        let snapshot = self.shared.index.read().encode(&self.shared.log_id, stored_end);
        self.shared.folder.replace_snapshot(&snapshot)?;
        for first in done {
            self.shared.folder.remove_segment(first)?;
            self.shared.segments.lock().remove(&first);
        }
        self.shared.folder.sync()
    }

    /// What was found when the log was opened.
    pub fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// What the log did since it was opened.
    pub fn counters(&self) -> WalCounters {
        let counters = &self.shared.counters;
        WalCounters {
            records: counters.records.load(Ordering::Relaxed),
            frame_bytes: counters.frame_bytes.load(Ordering::Relaxed),
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            duplicates: counters.duplicates.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            segments: self.shared.segments.lock().len() as u64,
            poisoned: counters.poisoned.load(Ordering::Relaxed),
        }
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn send(&self, request: Request) -> Result<(), WalError> {
        let requests = self.requests.as_ref().ok_or(WalError::Closed)?;
        requests.send(request).await.map_err(|_| WalError::Closed)
    }
}

#[cfg(test)]
impl Wal {
    /// Makes this log's disk fail, for tests of what is built on it.
    pub(crate) fn faults(&self) -> &faults::Faults {
        &self.shared.folder.faults
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the write-ahead log panicked");
        }
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("end", &self.end()).field("counters", &self.counters()).finish_non_exhaustive()
    }
}
