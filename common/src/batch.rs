//! The batch: consecutive events of one agent in columns, encoded once on the agent and then stored in its buffer,
//! sent and appended to the server's write-ahead log as it is.
//!
//! # Frame (integers little-endian)
//! | bytes | content |
//! |---|---|
//! | 0..4 | `PKTB` |
//! | 4..8 | CRC32C of all bytes that follow |
//! | 8 | version, 1 or 2: which columns there are. Both are read, 2 is written |
//! | 9 | codec of the payload, 1 = one zstd frame |
//! | 10..12 | reserved, 0 |
//! | 12..16 | length of the payload |
//! | 16..20 | length of the payload decompressed |
//! | 20..24 | number of events, at least 1 |
//! | 24..32 | epoch |
//! | 32..40 | batch sequence |
//! | 40..48 | sequence of the first event; the others follow without gaps |
//! | 48.. | payload: the columns of `proto/picket/v1/batch.proto`, compressed |
//!
//! The checksum's place and range hold for every version, so that damage is never taken for a later version.
//!
//! # Trust
//! Whatever the bytes, decoding returns an error or events within [`crate::event::limits`], takes time linear in the
//! limits below, and allocates nothing that a length or a count in the frame merely claims.

mod columns;
mod decode;
mod encode;
mod error;
mod frame;
mod interner;
mod size;
mod varint;
mod version;

#[cfg(test)]
mod tests;

pub use self::decode::decode;
pub use self::encode::BatchBuilder;
pub use self::error::{BatchError, BatchErrorKind, EncodeError};
use crate::id::{BatchSequence, Epoch, Sequence};

/// Limits of one batch, held on both sides.
pub mod limits {
    /// Most events.
    pub const BATCH_EVENTS_MAX: usize = 4096;
    /// Longest compressed payload.
    pub const BATCH_COMPRESSED_BYTES_MAX: usize = 256 * 1024;
    /// Longest frame: the payload and its header.
    pub const BATCH_FRAME_BYTES_MAX: usize = BATCH_COMPRESSED_BYTES_MAX + super::frame::HEADER_BYTES;
    /// Longest decompressed payload that is read.
    pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// A decompressed payload longer than [`COMPRESSION_RATIO_FREE_BYTES`] is read only if it is at most this many
    /// times as long as the compressed one.
    pub const COMPRESSION_RATIO_MAX: usize = 64;
    /// Payloads up to this length may be compressed at any ratio.
    pub const COMPRESSION_RATIO_FREE_BYTES: usize = 256 * 1024;
    /// Longest decompressed payload that is written. Even if it cannot be compressed at all it keeps the frame under
    /// [`BATCH_COMPRESSED_BYTES_MAX`], so that finishing a batch never fails for its size.
    pub const BATCH_ENCODED_BYTES_MAX: usize = 248 * 1024;
    /// Most memory for the strings of all events decoded: a small frame may refer to a long string many times.
    pub const BATCH_STRING_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
}

const NANOSECONDS_PER_MICROSECOND: u64 = 1000;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The agent's life that its events belong to.
    pub epoch: Epoch,
    /// Its place in that life: with host and epoch, the key by which repeated deliveries are found.
    pub batch_sequence: BatchSequence,
    /// Sequence of its first event.
    pub first_event_sequence: Sequence,
    /// Number of events, 1 to [`limits::BATCH_EVENTS_MAX`].
    pub event_count: u32,
    /// Length of the payload.
    pub compressed_bytes: u32,
    /// Length of the payload decompressed.
    pub decompressed_bytes: u32,
}

/// Checks a frame's header, sizes and checksum without decompressing it.
///
/// # Errors
/// See [`BatchError`]. A frame that passes may still fail to [`decode`](decode()).
pub fn peek_header(frame: &[u8]) -> Result<BatchHeader, BatchError> {
    frame::open(frame).map(|open| open.header)
}
