//! sled, kept at arm's length: its cache is set small (the default is 1 GB) and its timer-driven flush is off.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::buffer::store::KeyValue;
use crate::buffer::store::engine::{Changes, Engine, EngineError, EngineResult};

/// Its page cache, bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

pub(super) struct SledEngine {
    db: sled::Db,
    /// sled's own file once more: its flush does not make the file's length and extents durable.
    file: File,
}

impl SledEngine {
    pub(super) fn open(folder: &Path) -> EngineResult<Self> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()?;
        let file = File::open(folder.join("db")).map_err(EngineError::Io)?;
        Ok(Self { db, file })
    }
}

impl Engine for SledEngine {
    fn apply(&self, changes: Changes) -> EngineResult<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes.into_steps() {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn apply_durably(&self, changes: Changes) -> EngineResult<()> {
        self.apply(changes)?;
        self.flush()
    }

    fn flush(&self) -> EngineResult<()> {
        self.db.flush()?;
        self.file.sync_data().map_err(EngineError::Io)
    }

    fn get(&self, key: &[u8]) -> EngineResult<Option<Vec<u8>>> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn range(&self, low: &[u8], high: &[u8], pairs_max: usize) -> EngineResult<Vec<KeyValue>> {
        let pairs = self.db.range(low..=high).take(pairs_max);
        Ok(pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect::<Result<_, _>>()?)
    }

    fn first_key(&self, low: &[u8], high: &[u8]) -> EngineResult<Option<Vec<u8>>> {
        Ok(self.db.range(low..=high).next().transpose()?.map(|(key, _)| key.to_vec()))
    }

    fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// What the operating system refused can be tried again, the rest means damage.
impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(source)
                if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Self::Io(source)
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}
