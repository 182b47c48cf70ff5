//! How a record lies in the store.
//!
//! A record is cut into chunks under the keys `r`, priority (1 byte), number (8, big-endian), chunk index (2,
//! big-endian). All chunks together are
//! `version u8 · items u32 · tag length u16 · payload length u32 · header CRC32C u32 · payload CRC32C u32 · tag · payload`
//! (little-endian; the header CRC covers what is before it and the tag). Header and tag always fit in chunk 0.

use crate::buffer::store::KeyValue;
use crate::buffer::{BufferError, LeasedRecord, NewRecord, RecordInfo};

/// Largest value given to sled: larger ones stay in its memory.
pub(crate) const CHUNK_BYTES_MAX: usize = 3_500;
/// Largest tag.
pub const TAG_BYTES_MAX: usize = 2_048;
/// Largest payload.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 19;
const KEY_BYTES: usize = 12;

/// Records are numbered in the order they were appended, across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

impl RecordNumber {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What is dropped first when room is needed: the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Dropped first.
    Low,
    /// Dropped when nothing low is left.
    Normal,
    /// Dropped when nothing normal is left.
    High,
    /// Dropped last.
    Highest,
}

impl Priority {
    /// From the first to go to the last.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Highest];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Low => 0,
            Self::Normal => 1,
            Self::High => 2,
            Self::Highest => 3,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Low => 0,
            Self::Normal => 1,
            Self::High => 2,
            Self::Highest => 3,
        }
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordKey {
    pub(crate) priority: Priority,
    pub(crate) number: RecordNumber,
}

impl RecordKey {
    /// What the keys of all its chunks begin with.
    pub(crate) fn prefix(self) -> [u8; KEY_BYTES - 2] {
        let mut key = [b'r'; KEY_BYTES - 2];
        key[1] = self.priority.byte();
        key[2..].copy_from_slice(&self.number.0.to_be_bytes());
        key
    }

    /// The key of one chunk. Payloads are limited, so the index fits.
    pub(crate) fn chunk(self, index: usize) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..KEY_BYTES - 2].copy_from_slice(&self.prefix());
        key[KEY_BYTES - 2..].copy_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
        key
    }

    /// Reads the number out of a chunk's key.
    pub(crate) fn parse(priority: Priority, key: &[u8]) -> Option<Self> {
        let number = key.get(2..KEY_BYTES - 2)?.try_into().ok()?;
        Some(Self { priority, number: RecordNumber(u64::from_be_bytes(number)) })
    }
}

/// The fixed part of a record.
pub(crate) struct Header {
    items: u32,
    payload_bytes: usize,
    payload_crc: u32,
    tag: Vec<u8>,
}

impl Header {
    pub(crate) fn decode(first_chunk: &[u8]) -> Option<Self> {
        let header = first_chunk.get(..HEADER_BYTES)?;
        let tag_bytes = usize::from(u16::from_le_bytes(header[5..7].try_into().ok()?));
        let tag = first_chunk.get(HEADER_BYTES..HEADER_BYTES + tag_bytes)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..11]), tag);
        if header[0] != VERSION || crc != u32::from_le_bytes(header[11..15].try_into().ok()?) {
            return None;
        }
        Some(Self {
            items: u32::from_le_bytes(header[1..5].try_into().ok()?),
            payload_bytes: usize::try_from(u32::from_le_bytes(header[7..11].try_into().ok()?)).ok()?,
            payload_crc: u32::from_le_bytes(header[15..19].try_into().ok()?),
            tag: tag.to_vec(),
        })
    }

    pub(crate) fn info(self, key: RecordKey) -> RecordInfo {
        RecordInfo { number: key.number, priority: key.priority, items: self.items, tag: self.tag }
    }
}

/// Cuts a record into chunks.
pub(crate) fn encode(record: &NewRecord<'_>) -> Result<Vec<Vec<u8>>, BufferError> {
    let too_large = |what, bytes, max| BufferError::TooLarge { what, bytes, max };
    let tag_bytes = u16::try_from(record.tag.len())
        .ok()
        .filter(|bytes| usize::from(*bytes) <= TAG_BYTES_MAX)
        .ok_or_else(|| too_large("tag", record.tag.len(), TAG_BYTES_MAX))?;
    let payload_bytes = u32::try_from(record.payload.len())
        .ok()
        .filter(|_| record.payload.len() <= PAYLOAD_BYTES_MAX)
        .ok_or_else(|| too_large("record", record.payload.len(), PAYLOAD_BYTES_MAX))?;

    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.push(VERSION);
    header.extend(record.items.to_le_bytes());
    header.extend(tag_bytes.to_le_bytes());
    header.extend(payload_bytes.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header), record.tag);
    header.extend(crc.to_le_bytes());
    header.extend(crc32c::crc32c(record.payload).to_le_bytes());

    let first_payload_bytes = record.payload.len().min(CHUNK_BYTES_MAX - HEADER_BYTES - record.tag.len());
    let (first, rest) = record.payload.split_at(first_payload_bytes);
    let mut chunks = vec![[&header, record.tag, first].concat()];
    chunks.extend(rest.chunks(CHUNK_BYTES_MAX).map(<[u8]>::to_vec));
    Ok(chunks)
}

/// What the chunks of a record count against the ceiling.
pub(crate) fn stored_bytes(chunks: &[Vec<u8>]) -> u64 {
    chunks.iter().map(|chunk| (KEY_BYTES + chunk.len()) as u64).sum()
}

/// The chunks of a record as they were found.
pub(crate) struct Stored(Vec<KeyValue>);

impl Stored {
    pub(crate) fn new(chunks: Vec<KeyValue>) -> Self {
        Self(chunks)
    }

    /// What they count against the ceiling.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(key, chunk)| (key.len() + chunk.len()) as u64).sum()
    }

    pub(crate) fn chunk_keys(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|(key, _)| key.clone()).collect()
    }

    fn header(&self, key: RecordKey) -> Option<Header> {
        let (first_key, first) = self.0.first()?;
        (first_key[..] == key.chunk(0)).then(|| Header::decode(first)).flatten()
    }

    /// The record without its payload; no items and no tag when it cannot be read.
    pub(crate) fn info(&self, key: RecordKey) -> RecordInfo {
        let unreadable = RecordInfo { number: key.number, priority: key.priority, items: 0, tag: Vec::new() };
        self.header(key).map_or(unreadable, |header| header.info(key))
    }

    /// The whole record, `None` when a checksum or a length is wrong.
    pub(crate) fn decode(&self, key: RecordKey) -> Option<LeasedRecord> {
        let header = self.header(key)?;
        let mut payload = Vec::with_capacity(header.payload_bytes.min(PAYLOAD_BYTES_MAX));
        for (index, (_, chunk)) in self.0.iter().enumerate() {
            let skip = if index == 0 { HEADER_BYTES + header.tag.len() } else { 0 };
            payload.extend_from_slice(chunk.get(skip..)?);
        }
        if payload.len() != header.payload_bytes || crc32c::crc32c(&payload) != header.payload_crc {
            return None;
        }
        Some(LeasedRecord { info: header.info(key), payload })
    }
}
