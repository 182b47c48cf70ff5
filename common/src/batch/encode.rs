//! Events into columns into a frame.

use zstd::bulk::Compressor;

use crate::batch::BatchHeader;
use crate::batch::columns::{COLUMN_OVERHEAD_BYTES_MAX, Column, ColumnWriter, DeltaWriter};
use crate::batch::error::EncodeError;
use crate::batch::frame::{self, HEADER_BYTES};
use crate::batch::limits::{BATCH_ENCODED_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_STRING_MEMORY_BYTES_MAX};
use crate::batch::size::BatchedSize;
use crate::event::Event;
use crate::id::{BatchSequence, Epoch, EventKey, Sequence};

mod body;
mod tables;

use self::tables::Tables;

const ZSTD_LEVEL: i32 = 3;

/// Collects events into one batch after the other. Kept by the agent: memory and compressor are used again.
pub struct BatchBuilder {
    first: Option<EventKey>,
    event_count: usize,
    /// Time of the last event.
    time: i64,
    /// What the strings of all events take when decoded.
    string_memory_bytes: usize,
    columns: ColumnWriter,
    times: DeltaWriter,
    tables: Tables,
    payload: Vec<u8>,
    compressor: Option<Compressor<'static>>,
}

impl std::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBuilder")
            .field("first", &self.first)
            .field("event_count", &self.event_count)
            .field("estimated_bytes", &self.estimated_bytes())
            .finish_non_exhaustive()
    }
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            first: None,
            event_count: 0,
            time: 0,
            string_memory_bytes: 0,
            columns: ColumnWriter::new(),
            times: DeltaWriter::new(),
            tables: Tables::new(),
            payload: Vec::new(),
            compressor: None,
        }
    }

    /// Adds an event. The first may have any key; each later one must have the same epoch and the next sequence.
    ///
    /// # Errors
    /// [`EncodeError::Full`], [`EncodeError::NotContiguous`] and [`EncodeError::OverLimit`]; the event is then not part
    /// of the batch, and the batch is as it was.
    pub fn push(&mut self, event: &Event) -> Result<(), EncodeError> {
        let size = BatchedSize::of(event)?;
        self.check_room(size)?;
        self.check_key(event.key)?;

        self.first.get_or_insert(event.key);
        self.event_count += 1;
        self.string_memory_bytes += size.string_memory_bytes;
        self.columns.put(Column::EventKinds, event.body.kind().code());
        self.columns.put(Column::EventOrigins, event.origin.code());
        self.times.put(event.time.0, self.time);
        self.time = event.time.0;
        body::put(&mut self.columns, &mut self.tables, event);
        Ok(())
    }

    fn check_room(&self, size: BatchedSize) -> Result<(), EncodeError> {
        if self.event_count == BATCH_EVENTS_MAX
            || self.estimated_bytes() + size.encoded_bytes_max > BATCH_ENCODED_BYTES_MAX
            || self.string_memory_bytes + size.string_memory_bytes > BATCH_STRING_MEMORY_BYTES_MAX
        {
            return Err(EncodeError::Full { events: self.event_count, bytes: self.estimated_bytes() });
        }
        Ok(())
    }

    fn check_key(&self, found: EventKey) -> Result<(), EncodeError> {
        let first = self.first.unwrap_or(found);
        // The number after this event must exist: readers keep it as "next expected".
        let end = first.sequence.0.checked_add(self.event_count as u64).filter(|&next| next < u64::MAX);
        let expected = EventKey { epoch: first.epoch, sequence: Sequence(end.unwrap_or(0)) };
        if end.is_none() || found != expected {
            return Err(EncodeError::NotContiguous { expected, found });
        }
        Ok(())
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.event_count
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.event_count == 0
    }

    /// Upper bound of the columns' length before compression; they usually compress to a third or less.
    pub fn estimated_bytes(&self) -> usize {
        const OVERHEAD: usize = Column::COUNT * COLUMN_OVERHEAD_BYTES_MAX;
        OVERHEAD + self.columns.bytes() + self.times.bytes() + self.tables.delta_bytes()
    }

    /// Compresses the batch into a frame and starts the next one.
    ///
    /// # Errors
    /// [`EncodeError::Empty`], [`EncodeError::EpochMismatch`] and [`EncodeError::Compression`]; the events are kept.
    pub fn finish(&mut self, epoch: Epoch, batch_sequence: BatchSequence) -> Result<Vec<u8>, EncodeError> {
        let first = self.first.ok_or(EncodeError::Empty)?;
        if first.epoch != epoch {
            return Err(EncodeError::EpochMismatch { of_events: first.epoch.0, of_batch: epoch.0 });
        }
        let mut compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => Compressor::new(ZSTD_LEVEL).map_err(|error| EncodeError::Compression(error.to_string()))?,
        };
        self.encode_payload();
        let frame = self.compress(&mut compressor, first, batch_sequence)?;
        self.compressor = Some(compressor);
        self.clear();
        Ok(frame)
    }

    /// Drops the events, keeps the memory.
    pub fn clear(&mut self) {
        self.first = None;
        (self.event_count, self.time, self.string_memory_bytes) = (0, 0, 0);
        self.columns.clear();
        self.times.clear();
        self.tables.clear();
        self.payload.clear();
    }

    /// Writes all columns into the payload.
    pub(super) fn encode_payload(&mut self) -> &[u8] {
        self.payload.clear();
        self.times.write_to(&mut self.columns, Column::EventTimes);
        self.tables.write_deltas_to(&mut self.columns);
        self.columns.write_to(&mut self.payload);
        &self.payload
    }

    fn compress(
        &self,
        compressor: &mut Compressor<'static>,
        first: EventKey,
        batch_sequence: BatchSequence,
    ) -> Result<Vec<u8>, EncodeError> {
        let bound = zstd::zstd_safe::compress_bound(self.payload.len());
        let mut frame = vec![0; HEADER_BYTES + bound];
        let compressed_bytes = compressor
            .compress_to_buffer(&self.payload, &mut frame[HEADER_BYTES..])
            .map_err(|error| EncodeError::Compression(error.to_string()))?;
        frame.truncate(HEADER_BYTES + compressed_bytes);
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let header = BatchHeader {
            epoch: first.epoch,
            batch_sequence,
            first_event_sequence: first.sequence,
            event_count: narrow(self.event_count),
            compressed_bytes: narrow(compressed_bytes),
            decompressed_bytes: narrow(self.payload.len()),
        };
        frame::write_header(&mut frame, &header);
        frame.shrink_to_fit();
        Ok(frame)
    }
}
