//! Reading records back, in order, for the lake.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Bound;

use bytes::Bytes;
use picket_common::event::Timestamp;
use picket_common::id::HostId;

use super::segment::{Item, SEGMENT_HEADER_BYTES, scan};
use super::{Wal, WalError, WalPosition};

/// A record as it was stored.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Its place in the log.
    pub position: WalPosition,
    /// When it was stored.
    pub received: Timestamp,
    /// Who sent it.
    pub host: HostId,
    /// Events in the batch.
    pub event_count: u32,
    /// The batch, as the agent sent it.
    pub frame: Bytes,
    /// The cursor after this record.
    pub after: WalCursor,
}

/// How far a reader got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalCursor {
    segment: u64,
    offset: u64,
    position: WalPosition,
}

impl WalCursor {
    /// The position after the last record that was read.
    pub fn position(&self) -> WalPosition {
        self.position
    }
}

impl Wal {
    /// A cursor before the oldest record there is.
    pub fn start(&self) -> WalCursor {
        let oldest = self.shared().segments.lock().keys().next().copied().unwrap_or(self.end().position.0);
        WalCursor { segment: oldest, offset: SEGMENT_HEADER_BYTES as u64, position: WalPosition(oldest) }
    }

    /// The durable records after `cursor`, oldest first, and the cursor after them: at least one unless there is none,
    /// and no more than make `bytes_max` of frames. Blocks on the disk; holds the segments it reads in memory.
    ///
    /// Damaged records are stepped over; they were reported when the log was opened, or are logged now.
    ///
    /// # Errors
    /// [`WalError::Io`] when a segment cannot be read.
    pub fn read(&self, cursor: WalCursor, bytes_max: usize) -> Result<(Vec<StoredRecord>, WalCursor), WalError> {
        let mut at = cursor;
        let mut records = Vec::new();
        let mut bytes = 0;
        loop {
            let segments = self.shared().segments.lock();
            let length = segments.get(&at.segment).copied().unwrap_or(0);
            let next = segments.range((Bound::Excluded(at.segment), Bound::Unbounded)).next().map(|(first, _)| *first);
            drop(segments);
            if at.offset < length {
                let (more, after) = self.read_segment(at, length)?;
                for record in more {
                    if !records.is_empty() && bytes + record.frame.len() > bytes_max {
                        return Ok((records, at));
                    }
                    bytes += record.frame.len();
                    at = record.after;
                    records.push(record);
                }
                at = after;
            } else if let Some(next) = next {
                let position = WalPosition(next.max(at.position.0));
                at = WalCursor { segment: next, offset: SEGMENT_HEADER_BYTES as u64, position };
            } else {
                return Ok((records, at));
            }
        }
    }

    fn read_segment(&self, cursor: WalCursor, length: u64) -> Result<(Vec<StoredRecord>, WalCursor), WalError> {
        let path = self.shared().folder.segment_path(cursor.segment);
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(cursor.offset))?;
            let mut bytes = Vec::new();
            file.take(length - cursor.offset).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        };
        let bytes = read().map_err(|error| WalError::io("read", &path, error))?;
        let mut records = Vec::new();
        let mut after = cursor;
        for item in scan(&bytes, &self.shared().log_id, cursor.position.0) {
            match item {
                Item::Damage { bytes: range } => {
                    let offset = cursor.offset + range.start as u64;
                    let length = range.len();
                    tracing::error!(path = %path.display(), offset, length, "stepping over damaged records");
                }
                Item::Record { header, frame } => {
                    after.offset = cursor.offset + frame.end as u64;
                    after.position = WalPosition(header.position.saturating_add(1));
                    records.push(StoredRecord {
                        position: WalPosition(header.position),
                        received: Timestamp(header.received_unix_ns),
                        host: header.host,
                        event_count: header.event_count,
                        frame: bytes.slice(frame),
                        after,
                    });
                }
            }
        }
        // Also past a cut end: a sealed segment does not grow again, the active one is read up to what is durable.
        after.offset = length;
        Ok((records, after))
    }
}
