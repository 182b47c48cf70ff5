//! The store below the buffer, kept at arm's length.
//!
//! Every call is guarded: sled 0.34 panics on some damaged files, and after the first failed write it refuses
//! everything until it is opened again. [`Store::flush`] and [`Store::apply_durably`] are what makes things durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::buffer::record::RecordKey;
pub(crate) use crate::buffer::store::engine::Changes;
use crate::buffer::store::engine::{Engine, EngineError, EngineResult};
use crate::buffer::{BufferError, METADATA_KEY_BYTES_MAX, Priority, RecordNumber};

mod engine;
mod in_redb;
mod in_sled;

/// Longest key.
const KEY_BYTES_MAX: usize = METADATA_KEY_BYTES_MAX + 1;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// What keeps the buffer on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// sled 0.34: quick to write. Its memory grows with what waits.
    #[default]
    Sled,
    /// redb: its memory does not grow with what waits. Each batch takes it some milliseconds longer.
    Redb,
}

impl StoreKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 2] = [Self::Sled, Self::Redb];

    /// What its folder is called.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    fn open(self, path: &Path) -> EngineResult<Box<dyn Engine>> {
        Ok(match self {
            Self::Sled => Box::new(in_sled::SledEngine::open(path)?),
            Self::Redb => Box::new(in_redb::RedbEngine::open(path)?),
        })
    }
}

pub(crate) struct Store {
    path: PathBuf,
    open: Option<Box<dyn Engine>>,
}

impl Store {
    /// Opens the store or makes a new one. May panic inside the engine when the files are damaged: call it guarded.
    pub(crate) fn open(kind: StoreKind, path: &Path) -> Result<Self, BufferError> {
        let engine = kind.open(path).map_err(|error| convert("open", path, error))?;
        Ok(Self { path: path.to_owned(), open: Some(engine) })
    }

    /// Lets go of the files; everything but opening anew fails from now on.
    pub(crate) fn close(&mut self) {
        let open = self.open.take();
        if catch_unwind(AssertUnwindSafe(move || drop(open))).is_err() {
            tracing::warn!(path = %self.path.display(), "the buffer's store failed while it was closed");
        }
    }

    /// Makes all changes in one step, durable with the next [`Store::flush`].
    pub(crate) fn apply(&self, changes: Changes) -> Result<(), BufferError> {
        self.guarded("write to", |engine| engine.apply(changes))
    }

    /// Makes all changes in one step that is durable when this returns.
    pub(crate) fn apply_durably(&self, changes: Changes) -> Result<(), BufferError> {
        self.guarded("write to", |engine| engine.apply_durably(changes))
    }

    pub(crate) fn flush(&self) -> Result<(), BufferError> {
        self.guarded("flush", |engine| engine.flush())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
        self.guarded("read", |engine| engine.get(key))
    }

    /// All pairs whose key starts with `prefix`. Callers know that they are few.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BufferError> {
        let high = [prefix, &[u8::MAX; KEY_BYTES_MAX]].concat();
        self.guarded("read", |engine| engine.range(prefix, &high, usize::MAX))
    }

    /// At most `pairs_max` pairs from `low` on.
    pub(crate) fn page(&self, low: &[u8], pairs_max: usize) -> Result<Vec<KeyValue>, BufferError> {
        self.guarded("read", |engine| engine.range(low, &[u8::MAX; KEY_BYTES_MAX], pairs_max))
    }

    /// The first record of one priority from a number on.
    pub(crate) fn first_record(
        &self,
        priority: Priority,
        from: RecordNumber,
    ) -> Result<Option<RecordKey>, BufferError> {
        let low = RecordKey { priority, number: from }.chunk(0);
        let high = RecordKey { priority, number: RecordNumber(u64::MAX) }.chunk(usize::from(u16::MAX));
        let first = self.guarded("read", |engine| engine.first_key(&low, &high))?;
        Ok(first.and_then(|key| RecordKey::parse(priority, &key)))
    }

    /// Bytes of the store's file.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |engine| engine.disk_bytes())
    }

    fn guarded<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&dyn Engine) -> EngineResult<T>,
    ) -> Result<T, BufferError> {
        let engine = self.open.as_deref().ok_or(BufferError::Closed)?;
        match catch_unwind(AssertUnwindSafe(|| run(engine))) {
            Ok(result) => result.map_err(|error| convert(operation, &self.path, error)),
            Err(panic) => Err(BufferError::Damaged { detail: panic_message(panic.as_ref()) }),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a caught panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the store failed without saying why").to_owned()
}

fn convert(operation: &'static str, path: &Path, error: EngineError) -> BufferError {
    match error {
        EngineError::Io(source) => BufferError::Io { operation, path: path.to_owned(), source },
        EngineError::Damaged(detail) => BufferError::Damaged { detail },
    }
}
