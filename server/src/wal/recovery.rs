//! Opening: what the folder holds is read once, completely, and checked.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::dedupe::DedupeIndex;
use super::folder::Folder;
use super::segment::{Item, SEGMENT_HEADER_BYTES, SegmentHeader, scan};
use super::writer::ActiveSegment;
use super::{LogEnd, LogId, WalError, WalPosition};

/// Most stretches of damage that are listed one by one; the sums count them all.
pub const DAMAGE_LISTED_MAX: usize = 64;

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Segments read.
    pub segments: usize,
    /// Records read.
    pub records: u64,
    /// Bytes after the last record of the last segment that were cut: a write that was under way at the crash and was
    /// not acknowledged (or, far less likely, damage to the last records).
    pub torn_bytes: u64,
    /// Bytes between or after records that are no records although they were.
    pub damaged_bytes: u64,
    /// Records that are missing where bytes are damaged or a segment is gone. They were acknowledged, and are lost.
    pub missing_records: u64,
    /// Where the damage is, the first [`DAMAGE_LISTED_MAX`].
    pub damage: Vec<Damage>,
}

/// A damaged stretch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// The bytes of the file.
    pub bytes: Range<u64>,
}

/// The state of the log on disk.
pub(super) struct Recovered {
    pub(super) log_id: LogId,
    pub(super) index: DedupeIndex,
    /// Every segment's valid length, by its first position.
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) end: LogEnd,
    /// The last segment, to be continued; `None` when a new one has to be begun at the end.
    pub(super) active: Option<ActiveSegment>,
    pub(super) report: OpenReport,
}

struct Recovery<'a> {
    folder: &'a Folder,
    log_id: LogId,
    index: DedupeIndex,
    segments: BTreeMap<u64, u64>,
    end: LogEnd,
    report: OpenReport,
}

pub(super) fn recover(folder: &Folder) -> Result<Recovered, WalError> {
    let paths = folder.segments()?;
    let snapshot_path = folder.snapshot_path();
    let snapshot = match folder.read_snapshot()? {
        None => None,
        Some(bytes) => Some(
            DedupeIndex::decode(&bytes)
                .map_err(|reason| WalError::DedupeDamaged { path: snapshot_path.clone(), reason })?,
        ),
    };
    let log_id = match &snapshot {
        Some((_, log_id, _)) => *log_id,
        None => find_log_id(&paths)?.unwrap_or_else(rand::random),
    };
    let (index, _, snapshot_end) = snapshot.unwrap_or_default();
    let mut recovery = Recovery {
        folder,
        log_id,
        index,
        segments: BTreeMap::new(),
        end: LogEnd::default(),
        report: OpenReport::default(),
    };
    let last = paths.keys().next_back().copied();
    let mut active = None;
    for (&first, path) in &paths {
        active = recovery.read_segment(first, path, Some(first) == last)?;
    }
    let Recovery { index, segments, mut end, report, .. } = recovery;
    if end.position < snapshot_end {
        // The list of stored batches knows of records that are gone: never give their positions to others.
        end.position = snapshot_end;
        active = None;
    }
    Ok(Recovered { log_id, index, segments, end, active, report })
}

/// The log's id as the first intact header states it.
fn find_log_id(paths: &BTreeMap<u64, PathBuf>) -> Result<Option<LogId>, WalError> {
    let mut with_records = None;
    for path in paths.values() {
        let bytes = read(path)?;
        if let Some(header) = SegmentHeader::decode(&bytes) {
            return Ok(Some(header.log_id));
        }
        if bytes.len() > SEGMENT_HEADER_BYTES {
            with_records = Some(path);
        }
    }
    match with_records {
        Some(path) => Err(WalError::HeaderDamaged { path: path.clone() }),
        None => Ok(None),
    }
}

impl Recovery<'_> {
    /// Reads a segment; gives it back when it is the last one and can be continued.
    fn read_segment(&mut self, first: u64, path: &Path, is_last: bool) -> Result<Option<ActiveSegment>, WalError> {
        let bytes = read(path)?;
        self.report.segments += 1;
        let header = SegmentHeader::decode(&bytes);
        match header {
            Some(header) if header.log_id != self.log_id || header.first_position != first => {
                return Err(WalError::ForeignSegment { path: path.to_path_buf() });
            }
            Some(header) if self.report.segments > 1 => {
                self.report.missing_records += header.previous_end.saturating_sub(self.end.position.0);
            }
            Some(_) => {}
            None if bytes.len() <= SEGMENT_HEADER_BYTES => {
                // Its creation was interrupted, before anything was stored in it.
                self.folder.remove_segment(first)?;
                self.end.position.0 = self.end.position.0.max(first);
                return Ok(None);
            }
            None => self.note_damage(path, 0..SEGMENT_HEADER_BYTES as u64),
        }
        self.end.position.0 = self.end.position.0.max(first);
        let length = self.read_records(path, &bytes, is_last);
        self.segments.insert(first, length);
        if !is_last {
            return Ok(None);
        }
        let file = self.folder.open_segment(path)?;
        if length < bytes.len() as u64 {
            file.truncate(length).map_err(|error| WalError::io("cut", path, error))?;
        }
        // A record that was written but not yet synced at the crash counts as stored from now on.
        file.sync().map_err(|error| WalError::io("sync", path, error))?;
        let active = ActiveSegment { file, path: path.to_path_buf(), first_position: first, length };
        Ok(header.map(|_| active))
    }

    /// Takes in a segment's records; returns how long its valid part is.
    fn read_records(&mut self, path: &Path, bytes: &[u8], is_last: bool) -> u64 {
        let records = &bytes[SEGMENT_HEADER_BYTES..];
        let mut length = bytes.len();
        for item in scan(records, &self.log_id, self.end.position.0) {
            match item {
                Item::Record { header, frame } => {
                    self.report.missing_records += header.position - self.end.position.0;
                    self.end.position.0 = header.position.saturating_add(1);
                    self.end.bytes += frame.len() as u64;
                    self.report.records += 1;
                    self.index.insert(header.host, header.epoch, header.batch_sequence);
                }
                Item::Damage { bytes: range } if is_last && range.end == records.len() => {
                    length = SEGMENT_HEADER_BYTES + range.start;
                    self.report.torn_bytes += range.len() as u64;
                }
                Item::Damage { bytes: range } => {
                    let offset = SEGMENT_HEADER_BYTES as u64;
                    self.note_damage(path, offset + range.start as u64..offset + range.end as u64);
                }
            }
        }
        length as u64
    }

    fn note_damage(&mut self, path: &Path, bytes: Range<u64>) {
        self.report.damaged_bytes += bytes.end - bytes.start;
        if self.report.damage.len() < DAMAGE_LISTED_MAX {
            self.report.damage.push(Damage { path: path.to_path_buf(), bytes });
        }
    }
}

impl OpenReport {
    pub(super) fn log(&self, end: WalPosition) {
        if self.missing_records > 0 || self.damaged_bytes > 0 {
            tracing::error!(
                missing_records = self.missing_records,
                damaged_bytes = self.damaged_bytes,
                damage = ?self.damage,
                "the write-ahead log is damaged: acknowledged records are lost"
            );
        }
        if self.torn_bytes > 0 {
            tracing::warn!(torn_bytes = self.torn_bytes, "cut an unfinished write from the end of the write-ahead log");
        }
        tracing::info!(segments = self.segments, records = self.records, end = end.0, "write-ahead log open");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, WalError> {
    fs::read(path).map_err(|error| WalError::io("read", path, error))
}
