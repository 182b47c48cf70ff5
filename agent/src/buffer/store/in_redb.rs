//! redb: a copy-on-write B-tree, whose memory does not grow with what it holds.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

use crate::buffer::store::KeyValue;
use crate::buffer::store::engine::{Changes, Engine, EngineError, EngineResult};

/// Its page cache, bytes: a batch that is written and one that is read fit many times. A larger one makes nothing faster.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("buffer");
const FILE: &str = "db";
/// Steps that need not be durable, one after the other. The room that they free is used again only after a durable one.
const LAZY_STEPS_MAX: u32 = 64;

pub(super) struct RedbEngine {
    database: Database,
    /// Its file once more, to know its length.
    file: File,
    lazy_steps: AtomicU32,
}

impl RedbEngine {
    pub(super) fn open(folder: &Path) -> EngineResult<Self> {
        std::fs::create_dir_all(folder).map_err(EngineError::Io)?;
        let path = folder.join(FILE);
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(convert)?;
        let file = File::open(&path).map_err(EngineError::Io)?;
        let engine = Self { database, file, lazy_steps: AtomicU32::new(0) };
        engine.apply_durably(Changes::default())?;
        Ok(engine)
    }

    fn commit(&self, changes: Changes, durability: Durability) -> EngineResult<()> {
        let mut transaction = self.database.begin_write().map_err(convert)?;
        transaction.set_durability(durability).map_err(convert)?;
        {
            let mut table = transaction.open_table(TABLE).map_err(convert)?;
            for (key, value) in changes.into_steps() {
                match value {
                    Some(value) => drop(table.insert(&key[..], &value[..]).map_err(convert)?),
                    None => drop(table.remove(&key[..]).map_err(convert)?),
                }
            }
        }
        transaction.commit().map_err(convert)
    }
}

impl Engine for RedbEngine {
    fn apply(&self, changes: Changes) -> EngineResult<()> {
        if self.lazy_steps.fetch_add(1, Ordering::Relaxed) >= LAZY_STEPS_MAX {
            return self.apply_durably(changes);
        }
        self.commit(changes, Durability::None)
    }

    fn apply_durably(&self, changes: Changes) -> EngineResult<()> {
        self.commit(changes, Durability::Immediate)?;
        self.lazy_steps.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> EngineResult<()> {
        if self.lazy_steps.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.apply_durably(Changes::default())
    }

    fn get(&self, key: &[u8]) -> EngineResult<Option<Vec<u8>>> {
        let table = self.database.begin_read().map_err(convert)?.open_table(TABLE).map_err(convert)?;
        Ok(table.get(key).map_err(convert)?.map(|value| value.value().to_vec()))
    }

    fn range(&self, low: &[u8], high: &[u8], pairs_max: usize) -> EngineResult<Vec<KeyValue>> {
        let table = self.database.begin_read().map_err(convert)?.open_table(TABLE).map_err(convert)?;
        let pairs = table.range::<&[u8]>(low..=high).map_err(convert)?.take(pairs_max);
        pairs
            .map(|pair| pair.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(convert))
            .collect()
    }

    fn first_key(&self, low: &[u8], high: &[u8]) -> EngineResult<Option<Vec<u8>>> {
        let table = self.database.begin_read().map_err(convert)?.open_table(TABLE).map_err(convert)?;
        let first = table.range::<&[u8]>(low..=high).map_err(convert)?.next().transpose().map_err(convert)?;
        Ok(first.map(|(key, _)| key.value().to_vec()))
    }

    fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// What the operating system refused can be tried again, the rest means damage.
fn convert(error: impl Into<redb::Error>) -> EngineError {
    match error.into() {
        redb::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            EngineError::Io(source)
        }
        error @ redb::Error::DatabaseAlreadyOpen => {
            EngineError::Io(io::Error::new(io::ErrorKind::WouldBlock, error.to_string()))
        }
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => EngineError::Io(io::Error::other(error)),
        other => EngineError::Damaged(other.to_string()),
    }
}
