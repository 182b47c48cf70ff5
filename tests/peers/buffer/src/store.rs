//! The two stores behind the same few operations.

use std::fs::File;
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::{Failure, record};

/// What the agent gives sled, bytes; redb gets the same.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// The agent gives sled values in pieces of this size: larger ones stay in memory.
const CHUNK_BYTES: usize = 3_500;
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// Names of the stores: the agent's first.
pub const ENGINES: [&str; 2] = ["sled", "redb"];
/// The other one, as reports name it.
pub const PEER: &str = "redb 4.6.0";

pub enum Store {
    /// And its file once more: sled's own flush does not make the file's length and extents durable.
    Sled(sled::Db, File),
    Redb(Database),
}

impl Store {
    pub fn open(engine: &str, folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        match engine {
            // As agent/src/buffer/store.rs does.
            "sled" => {
                let config = sled::Config::new()
                    .path(folder)
                    .cache_capacity(CACHE_BYTES as u64)
                    .flush_every_ms(None)
                    .mode(sled::Mode::LowSpace);
                let database = config.open()?;
                let file = File::open(folder.join("db"))?;
                Ok(Self::Sled(database, file))
            }
            "redb" => {
                let database = Database::builder().set_cache_size(CACHE_BYTES).create(folder.join("records.redb"))?;
                let transaction = database.begin_write()?;
                transaction.open_table(TABLE)?;
                transaction.commit()?;
                Ok(Self::Redb(database))
            }
            other => Err(format!("no store called {other}").into()),
        }
    }

    /// Adds and removes records in one step, which is durable when this returns.
    pub fn step(&self, add: &[(u64, Vec<u8>)], remove: &[u64]) -> Result<(), Failure> {
        match self {
            Self::Sled(database, file) => {
                let mut batch = sled::Batch::default();
                for (key, value) in add {
                    for (index, chunk) in (0..).zip(value.chunks(CHUNK_BYTES)) {
                        batch.insert(&chunk_key(*key, index), chunk);
                    }
                }
                for key in remove {
                    for chunk in database.scan_prefix(key.to_be_bytes()).keys() {
                        batch.remove(chunk?);
                    }
                }
                database.apply_batch(batch)?;
                database.flush()?;
                file.sync_data()?;
            }
            Self::Redb(database) => {
                let transaction = database.begin_write()?;
                {
                    let mut table = transaction.open_table(TABLE)?;
                    for (key, value) in add {
                        table.insert(key, value.as_slice())?;
                    }
                    for key in remove {
                        table.remove(key)?;
                    }
                }
                transaction.commit()?;
            }
        }
        Ok(())
    }

    /// Calls `take` with every record, in order.
    pub fn each(&self, mut take: impl FnMut(u64, &[u8])) -> Result<(), Failure> {
        match self {
            Self::Sled(database, _) => {
                let mut record: Option<(u64, Vec<u8>)> = None;
                for chunk in database.iter() {
                    let (name, bytes) = chunk?;
                    let name = name.get(..8).and_then(|key| key.try_into().ok()).ok_or("a key that is too short")?;
                    let key = u64::from_be_bytes(name);
                    match &mut record {
                        Some((open, value)) if *open == key => value.extend_from_slice(&bytes),
                        _ => {
                            if let Some((key, value)) = record.replace((key, bytes.to_vec())) {
                                take(key, &value);
                            }
                        }
                    }
                }
                if let Some((key, value)) = record {
                    take(key, &value);
                }
            }
            Self::Redb(database) => {
                let transaction = database.begin_read()?;
                let table = transaction.open_table(TABLE)?;
                for record in table.iter()? {
                    let (key, value) = record?;
                    take(key.value(), value.value());
                }
            }
        }
        Ok(())
    }
}

fn chunk_key(key: u64, index: u16) -> [u8; 10] {
    let mut name = [0; 10];
    name[..8].copy_from_slice(&key.to_be_bytes());
    name[8..].copy_from_slice(&index.to_be_bytes());
    name
}

/// Prints what is in a store: `key intact` or `key corrupt`, a line each, then `end`.
pub fn check(engine: &str, folder: &str) -> Result<(), Failure> {
    let store = Store::open(engine, Path::new(folder))?;
    let mut lines = String::new();
    store.each(|key, value| {
        let word = if record::is_intact(key, value) { "intact" } else { "corrupt" };
        lines.push_str(&format!("{key} {word}\n"));
    })?;
    print!("{lines}end\n");
    Ok(())
}
