//! What can be wrong with a batch.

use crate::event::LimitError;
use crate::id::EventKey;

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Shorter than a header.
    #[error("batch of {bytes} bytes is shorter than a header of {header_bytes} bytes")]
    Truncated {
        /// Length of the frame.
        bytes: usize,
        /// Length of a header.
        header_bytes: usize,
    },
    /// It does not begin as a batch does.
    #[error("not a batch: it does not begin with \"PKTB\"")]
    NotABatch,
    /// It was damaged on its way.
    #[error("batch is damaged: its CRC32C is {computed:08x}, its header says {stored:08x}")]
    Checksum {
        /// CRC32C in the header.
        stored: u32,
        /// CRC32C of the bytes.
        computed: u32,
    },
    /// A later version wrote it.
    #[error("batch has version {version}, this side reads version {supported}: upgrade it")]
    UnsupportedVersion {
        /// Version in the header.
        version: u8,
        /// Latest version this code reads.
        supported: u8,
    },
    /// A later version wrote it.
    #[error("batch is compressed with codec {codec}, this side reads codec {supported}: upgrade it")]
    UnsupportedCodec {
        /// Codec in the header.
        codec: u8,
        /// The codec this code reads.
        supported: u8,
    },
    /// One of its events exceeds a limit of [`crate::event::limits`].
    #[error("batch is malformed: {0}")]
    OverLimit(#[from] LimitError),
    /// It exceeds a limit.
    #[error("batch has {value} {what}, the limit is {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much of it.
        value: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// Header fields that do not go together.
    #[error("batch header is malformed: {0}")]
    Header(&'static str),
    /// The payload is not what zstd makes, or not as long as the header says.
    #[error("batch does not decompress to the {expected} bytes its header says: {problem}")]
    Compression {
        /// Decompressed length in the header.
        expected: usize,
        /// What the decompressor says.
        problem: String,
    },
    /// The payload is not a message of columns.
    #[error("batch columns are malformed: {0}")]
    Columns(&'static str),
    /// One column is wrong.
    #[error("batch column {column} {problem}")]
    Column {
        /// Its name in `batch.proto`.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What a peer does about a [`BatchError`]: the machine-readable reason of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchErrorKind {
    /// Damaged bytes.
    Checksum,
    /// A limit was exceeded.
    TooLarge,
    /// Not a batch, or not one that an encoder makes.
    Malformed,
    /// From a later version.
    UnsupportedVersion,
}

impl BatchError {
    /// The kind of the error.
    pub fn kind(&self) -> BatchErrorKind {
        match self {
            Self::Checksum { .. } => BatchErrorKind::Checksum,
            Self::TooLarge { .. } | Self::OverLimit(_) => BatchErrorKind::TooLarge,
            Self::UnsupportedVersion { .. } | Self::UnsupportedCodec { .. } => BatchErrorKind::UnsupportedVersion,
            Self::Truncated { .. }
            | Self::NotABatch
            | Self::Header(_)
            | Self::Compression { .. }
            | Self::Columns(_)
            | Self::Column { .. } => BatchErrorKind::Malformed,
        }
    }
}

/// Why a builder refused an event or could not finish. The builder is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// No room: finish this batch, then push the event again.
    #[error("the batch is full with {events} events and {bytes} bytes: finish it, then push the event again")]
    Full {
        /// Events in it.
        events: usize,
        /// Its estimated bytes.
        bytes: usize,
    },
    /// Not the event after the last one.
    #[error("event {found:?} does not follow: the batch expects {expected:?}")]
    NotContiguous {
        /// The key the next event must have.
        expected: EventKey,
        /// The key it has.
        found: EventKey,
    },
    /// The event exceeds a limit of [`crate::event::limits`]. Its number has to go to the next event.
    #[error(transparent)]
    OverLimit(#[from] LimitError),
    /// There is nothing to finish.
    #[error("the batch has no events")]
    Empty,
    /// The batch's events are of another epoch.
    #[error("the batch has events of epoch {of_events}, not {of_batch}")]
    EpochMismatch {
        /// Epoch of the events.
        of_events: u64,
        /// Epoch asked for.
        of_batch: u64,
    },
    /// The compressor failed, which is possible only without memory.
    #[error("cannot compress the batch: {0}")]
    Compression(String),
}
