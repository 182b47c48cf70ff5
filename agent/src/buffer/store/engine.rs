//! What the buffer asks of the store below it.

use std::io;

use crate::buffer::store::KeyValue;

/// Pairs that are written and keys that are removed, in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Changes {
    pub(crate) fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((key.into(), Some(value.into())));
    }

    pub(crate) fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.push((key.into(), None));
    }

    pub(super) fn into_steps(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.0
    }
}

/// Why an engine could not.
#[derive(Debug)]
pub(super) enum EngineError {
    /// The operating system refused.
    Io(io::Error),
    /// The files do not hold what was written.
    Damaged(String),
}

pub(super) type EngineResult<T> = Result<T, EngineError>;

/// An ordered map of bytes to bytes on disk, with changes that happen as a whole or not at all.
pub(super) trait Engine: Send {
    /// Makes all changes, in order; durable only after [`Engine::flush`].
    fn apply(&self, changes: Changes) -> EngineResult<()>;

    /// Makes all changes durably, in order.
    fn apply_durably(&self, changes: Changes) -> EngineResult<()>;

    /// Makes everything so far durable.
    fn flush(&self) -> EngineResult<()>;

    fn get(&self, key: &[u8]) -> EngineResult<Option<Vec<u8>>>;

    /// The first pairs from `low` on whose keys are not above `high`, in order: at most `pairs_max`.
    fn range(&self, low: &[u8], high: &[u8], pairs_max: usize) -> EngineResult<Vec<KeyValue>>;

    /// The first key from `low` to `high`, both included.
    fn first_key(&self, low: &[u8], high: &[u8]) -> EngineResult<Option<Vec<u8>>>;

    /// Bytes of its file.
    fn disk_bytes(&self) -> u64;
}
