//! sled, kept at arm's length.
//!
//! Every call is guarded: sled 0.34 panics on some damaged files, and after the first failed write it refuses
//! everything until it is opened again. Its cache is set small (the default is 1 GB) and its timer-driven flush is
//! off: [`Store::flush`] is what makes things durable.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::buffer::record::RecordKey;
use crate::buffer::{BufferError, Priority, RecordNumber};

/// sled's page cache.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

pub(crate) struct Store {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    db: sled::Db,
    /// sled's own file once more: its flush does not make the file's length and extents durable.
    file: File,
}

impl Store {
    /// Opens the store or makes a new one. May panic inside sled when the files are damaged: call it guarded.
    pub(crate) fn open(path: &Path) -> Result<Self, BufferError> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()
            .map_err(|error| convert("open", path, error))?;
        let file = File::open(path.join("db")).map_err(|source| BufferError::Io {
            operation: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path: path.to_owned(), open: Some(Open { db, file }) })
    }

    /// Lets go of the files; everything but opening anew fails from now on.
    pub(crate) fn close(&mut self) {
        let open = self.open.take();
        if catch_unwind(AssertUnwindSafe(move || drop(open))).is_err() {
            tracing::warn!(path = %self.path.display(), "the buffer's store failed while it was closed");
        }
    }

    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), BufferError> {
        self.guarded("write to", |open| open.db.apply_batch(batch))
    }

    pub(crate) fn flush(&self) -> Result<(), BufferError> {
        self.guarded("flush", |open| {
            open.db.flush()?;
            open.file.sync_data().map_err(sled::Error::Io)
        })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
        self.guarded("read", |open| Ok(open.db.get(key)?.map(|value| value.to_vec())))
    }

    /// All pairs whose key starts with `prefix`. Callers know that they are few.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BufferError> {
        self.guarded("read", |open| {
            open.db.scan_prefix(prefix).map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    /// The first record of one priority from a number on.
    pub(crate) fn first_record(
        &self,
        priority: Priority,
        from: RecordNumber,
    ) -> Result<Option<RecordKey>, BufferError> {
        let low = RecordKey { priority, number: from }.chunk(0);
        let high = RecordKey { priority, number: RecordNumber(u64::MAX) }.chunk(usize::from(u16::MAX));
        let first = self.guarded("read", |open| {
            open.db.range(&low[..]..=&high[..]).next().transpose().map(|pair| pair.map(|(key, _)| key.to_vec()))
        })?;
        Ok(first.and_then(|key| RecordKey::parse(priority, &key)))
    }

    /// Bytes of the store's log file.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.open.as_ref().and_then(|open| open.file.metadata().ok()).map_or(0, |metadata| metadata.len())
    }

    fn guarded<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&Open) -> sled::Result<T>,
    ) -> Result<T, BufferError> {
        let open = self.open.as_ref().ok_or(BufferError::Closed)?;
        match catch_unwind(AssertUnwindSafe(|| run(open))) {
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

/// Sorts sled's errors: what the operating system refused can be tried again, the rest means damage.
fn convert(operation: &'static str, path: &Path, error: sled::Error) -> BufferError {
    match error {
        sled::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            BufferError::Io { operation, path: path.to_owned(), source }
        }
        other => BufferError::Damaged { detail: other.to_string() },
    }
}
