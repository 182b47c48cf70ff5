//! A frame into columns into events.

use zstd::bulk::Decompressor;

use crate::batch::BatchHeader;
use crate::batch::columns::{Column, ColumnReader, DeltaReader};
use crate::batch::error::BatchError;
use crate::batch::frame::{self, OpenFrame};
use crate::batch::limits::BATCH_STRING_MEMORY_BYTES_MAX;
use crate::batch::size::BatchedSize;
use crate::batch::version::Version;
use crate::event::{Event, EventKind, Origin, Timestamp};
use crate::id::{EventKey, Sequence};

mod body;
mod tables;

use self::tables::Tables;

/// Checks a frame completely and reads its events.
///
/// # Errors
/// Everything of [`BatchError`]; see the module's head for what decoding never does.
pub fn decode(frame: &[u8]) -> Result<(BatchHeader, Vec<Event>), BatchError> {
    let OpenFrame { version, header, payload } = frame::open(frame)?;
    let payload = decompress(payload, header.decompressed_bytes as usize)?;
    let events = decode_payload(&header, &payload, version)?;
    Ok((header, events))
}

/// The decompressor gets a buffer of the length that the (bounded) header says, and cannot write beyond it.
pub(super) fn decompress(compressed: &[u8], expected: usize) -> Result<Vec<u8>, BatchError> {
    let error = |problem: String| BatchError::Compression { expected, problem };
    let mut payload = vec![0; expected];
    let decompressed_bytes = Decompressor::new()
        .and_then(|mut decompressor| decompressor.decompress_to_buffer(compressed, payload.as_mut_slice()))
        .map_err(|cause| error(cause.to_string()))?;
    if decompressed_bytes != expected {
        return Err(error(format!("it makes {decompressed_bytes}")));
    }
    Ok(payload)
}

/// Reads `header.event_count` events, which must use up all columns.
pub(super) fn decode_payload(header: &BatchHeader, payload: &[u8], version: Version) -> Result<Vec<Event>, BatchError> {
    let mut columns = ColumnReader::new(payload, version)?;
    // Every event has a kind: with fewer kinds than events nothing is allocated.
    if columns.remaining_bytes(Column::EventKinds) < header.event_count as usize {
        return Err(Column::EventKinds.error("has fewer values than the header has events"));
    }
    let mut events = Vec::with_capacity(header.event_count as usize);
    let mut tables = Tables::default();
    let mut times = DeltaReader::default();
    let mut time = 0;
    let mut string_memory_bytes = 0;
    for index in 0..u64::from(header.event_count) {
        let kind = EventKind::from_code(columns.take(Column::EventKinds)?)
            .filter(|kind| version > Version::V1 || kind.code() <= EventKind::AgentStart.code())
            .ok_or(Column::EventKinds.error("has an unknown event kind"))?;
        let origin = Origin::from_code(columns.take(Column::EventOrigins)?)
            .ok_or(Column::EventOrigins.error("has an unknown origin"))?;
        time = times.take(&mut columns, Column::EventTimes, time)?;
        let event = Event {
            key: EventKey {
                epoch: header.epoch,
                sequence: Sequence(header.first_event_sequence.0.saturating_add(index)),
            },
            time: Timestamp(time),
            origin,
            body: body::take(&mut columns, &mut tables, kind, time, header.epoch)?,
        };
        string_memory_bytes += BatchedSize::of(&event)?.string_memory_bytes;
        if string_memory_bytes > BATCH_STRING_MEMORY_BYTES_MAX {
            return Err(BatchError::TooLarge {
                what: "bytes of strings",
                value: string_memory_bytes as u64,
                limit: BATCH_STRING_MEMORY_BYTES_MAX as u64,
            });
        }
        events.push(event);
    }
    columns.finish()?;
    Ok(events)
}
