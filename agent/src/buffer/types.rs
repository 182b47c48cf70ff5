//! What goes into a buffer and comes out of it.

use crate::buffer::record::{Priority, RecordNumber};
use crate::buffer::store::StoreKind;
#[cfg(doc)]
use crate::buffer::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX, PAYLOAD_BYTES_MAX, TAG_BYTES_MAX};

/// How large a buffer may grow, and what it is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferConfig {
    /// Ceiling of the stored bytes (keys and values of records; metadata is a few kilobytes more).
    pub bytes_max: u64,
    /// What keeps them.
    pub store: StoreKind,
}

impl BufferConfig {
    /// sled with this ceiling.
    pub const fn in_sled(bytes_max: u64) -> Self {
        Self { bytes_max, store: StoreKind::Sled }
    }
}

/// A record to append.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// What goes first when room is needed.
    pub priority: Priority,
    /// How many items the payload stands for; reported when it is evicted.
    pub items: u32,
    /// Given back with the record, at most [`TAG_BYTES_MAX`].
    pub tag: &'a [u8],
    /// The bytes to deliver, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
}

/// A record without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its number.
    pub number: RecordNumber,
    /// Its priority.
    pub priority: Priority,
    /// How many items it stands for.
    pub items: u32,
    /// What the caller attached to it.
    pub tag: Vec<u8>,
}

/// A record on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedRecord {
    /// Everything but the payload.
    pub info: RecordInfo,
    /// The bytes to deliver.
    pub payload: Vec<u8>,
}

/// What a lease gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// In order of their numbers.
    pub records: Vec<LeasedRecord>,
    /// Records whose checksums did not hold; they were removed.
    pub unreadable: u64,
}

/// A metadata value to write (`Some`) or to remove (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataWrite {
    /// At most [`METADATA_KEY_BYTES_MAX`].
    pub key: Vec<u8>,
    /// At most [`METADATA_VALUE_BYTES_MAX`].
    pub value: Option<Vec<u8>>,
}

/// What lies in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Records, leased ones included.
    pub records: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Items they stand for.
    pub items: u64,
    /// Records handed out and not yet acknowledged.
    pub leased: u64,
    /// Bytes of the store's files.
    pub disk_bytes: u64,
}
