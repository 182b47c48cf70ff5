//! What can go wrong with the buffer.

use std::io;
use std::path::PathBuf;

use crate::buffer::record::RecordNumber;

/// Why the buffer could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The operating system refused; the data is as it was. Try again after [`crate::buffer::Buffer::reopen`].
    #[error("cannot {operation} the buffer in {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store's files do not hold what was written, or the store failed inside.
    #[error("the buffer's store is damaged: {detail}")]
    Damaged {
        /// What the store said.
        detail: String,
    },
    /// No room: everything else has a higher priority or is on its way to the server.
    #[error("the buffer is full: {needed} bytes do not fit under its ceiling of {ceiling} bytes")]
    Full {
        /// Bytes the record needs.
        needed: u64,
        /// The configured ceiling.
        ceiling: u64,
    },
    /// The disk is full; what there is can be leased and removed.
    #[error("no space on the disk for the buffer in {}", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// More bytes than one value may have.
    #[error("a {what} of {bytes} bytes is more than the {max} that fit")]
    TooLarge {
        /// What it was.
        what: &'static str,
        /// How large.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A commit of a record that is not leased.
    #[error("record {} is not leased", number.0)]
    NotLeased {
        /// Which.
        number: RecordNumber,
    },
    /// The store is closed after an error and has not been opened again.
    #[error("the buffer is closed")]
    Closed,
}

impl BufferError {
    /// Whether the store must be opened again before anything else.
    pub fn needs_reopen(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Damaged { .. } | Self::Closed)
    }
}
