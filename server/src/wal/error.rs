//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use picket_common::batch::BatchError;
use picket_common::id::{BatchSequence, Epoch, HostId};

/// Why the log could not be opened, or a record not be stored.
///
/// Clonable: one failed write answers every record of its group.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The disk, or the quota, is full. Nothing was stored; the log goes on as soon as there is space.
    #[error("no space left to append to {path}; free some space on this disk")]
    DiskFull {
        /// The segment.
        path: PathBuf,
    },
    /// An operation on a file failed. Nothing was stored; the log goes on.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The disk failed to make data durable, so that nobody knows what it holds. The log takes no more records until it
    /// is opened again.
    #[error("the log is closed since its disk failed ({cause}); check the disk, then restart")]
    Poisoned {
        /// The first failure.
        cause: Arc<str>,
    },
    /// The frame is not a batch.
    #[error("not a batch: {0}")]
    Frame(Arc<BatchError>),
    /// The frame is larger than a record may be.
    #[error("a frame of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The frame's size.
        bytes: usize,
        /// The limit, [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX).
        limit: usize,
    },
    /// The batch is so much older than what its host delivered since, that the log no longer knows whether it has it.
    #[error("batch {} of epoch {} of host {host} is too old to tell whether it is stored already", batch_sequence.0, epoch.0)]
    TooOld {
        /// The host.
        host: HostId,
        /// The batch's epoch.
        epoch: Epoch,
        /// The batch's place in its epoch.
        batch_sequence: BatchSequence,
    },
    /// Another process has the log open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The log's folder.
        path: PathBuf,
    },
    /// The list of stored batches is damaged. Without it, batches that agents send again would be stored twice.
    #[error(
        "{path} is damaged ({reason}); restore it, or delete it to go on and accept that batches sent again are stored twice"
    )]
    DedupeDamaged {
        /// The snapshot file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A segment's header is damaged, and no other file tells which log it is of.
    #[error("the header of {path} is damaged and no other file tells its log; restore it, or move it away")]
    HeaderDamaged {
        /// The segment.
        path: PathBuf,
    },
    /// A file in the log's folder belongs to another log.
    #[error("{path} belongs to another log; do not mix the folders of two servers")]
    ForeignSegment {
        /// The file.
        path: PathBuf,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    /// Wraps a failed operation; a full disk becomes [`WalError::DiskFull`].
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_path_buf() },
            _ => Self::Io { action, path: path.to_path_buf(), source: Arc::new(source) },
        }
    }

    /// Whether the same record may be stored later: the sender should keep it and try again. The others will never
    /// be accepted.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Frame(_) | Self::TooLarge { .. } | Self::TooOld { .. })
    }
}
