//! Opening the lake.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use parking_lot::{Mutex, RwLock};
use picket_common::event::EventClass;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::commit::CommitState;
use super::counters::Counters;
use super::store::{self, DurableStore};
use super::table::Table;
use super::{Inner, LakeConfig, LakeError, QUERIES_MAX, publishable};
use crate::wal::Wal;

const LOCK_NAME: &str = "lock";
const SPILL_NAME: &str = "spill";

/// The lake's folder, locked and clean.
pub(super) struct LakeFolder {
    pub(super) path: PathBuf,
    lock: File,
}

pub(super) fn prepare_folder(folder: &Path) -> Result<LakeFolder, LakeError> {
    attempt("create", folder, store::create_folder)?;
    let path = attempt("resolve", folder, Path::canonicalize)?;
    let lock_path = path.join(LOCK_NAME);
    let lock =
        attempt("open", &lock_path, |path| OpenOptions::new().create(true).truncate(false).write(true).open(path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LakeError::Locked { path }),
        Err(TryLockError::Error(source)) => return Err(LakeError::Io { action: "lock", path: lock_path, source }),
    }
    let spill = path.join(SPILL_NAME);
    if spill.exists() {
        attempt("empty", &spill, fs::remove_dir_all)?;
    }
    attempt("create", &spill, fs::create_dir)?;
    attempt("clean", &path, store::remove_temporary_files)?;
    Ok(LakeFolder { path, lock })
}

fn attempt<'a, T>(
    action: &'static str,
    path: &'a Path,
    operation: impl FnOnce(&'a Path) -> io::Result<T>,
) -> Result<T, LakeError> {
    operation(path).map_err(|source| LakeError::Io { action, path: path.to_path_buf(), source })
}

pub(super) async fn open(
    folder: LakeFolder,
    wal: Arc<Wal>,
    config: LakeConfig,
    handle: Handle,
) -> Result<Inner, LakeError> {
    #[cfg(test)]
    let probe = super::tests::probe::Probe::default();
    let store = Arc::new(DurableStore::new(
        #[cfg(test)]
        probe.clone(),
    ));
    let tables = open_tables(&folder.path, &store, &wal).await?;
    let environment = environment(&config, folder.path.join(SPILL_NAME))?;
    let published = RwLock::new(Arc::new(publishable(&tables)));
    let cursor = wal.start();
    let counters = Counters::default();
    counters.committed_position.store(cursor.position().0, Ordering::Relaxed);
    Ok(Inner {
        config,
        wal,
        handle,
        environment,
        commit: tokio::sync::Mutex::new(CommitState {
            cursor,
            tables,
            rounds_since_compaction: 0,
            last_vacuum: Instant::now(),
        }),
        published,
        counts: Mutex::new(None),
        queries: Semaphore::new(QUERIES_MAX),
        counters,
        #[cfg(test)]
        probe,
        _lock: folder.lock,
    })
}

async fn open_tables(
    folder: &Path,
    store: &Arc<DurableStore>,
    wal: &Wal,
) -> Result<BTreeMap<EventClass, Table>, LakeError> {
    // The log's own name: positions of another log, which start anew, are not taken for this one's.
    let application = format!("picket-wal-{}", wal.log_id());
    let mut tables = BTreeMap::new();
    for class in EventClass::ALL {
        let table = Table::open(class, &folder.join(class.name()), store, application.clone()).await?;
        tables.insert(class, table);
    }
    // A log that lost its end to damage would give positions again that tables have already, and new records
    // would be skipped as known.
    let applied = tables.values().map(|table| table.applied).max().unwrap_or_default();
    let end = wal.end().position;
    if applied > end {
        tracing::error!(
            lake = applied.0,
            log = end.0,
            "the write-ahead log lost records that are in the lake; going on after them"
        );
        wal.skip_to(applied).await?;
    }
    Ok(tables)
}

fn environment(config: &LakeConfig, spill: PathBuf) -> Result<Arc<RuntimeEnv>, LakeError> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill]))
        .with_max_temp_directory_size(config.spill_bytes);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(config.query_memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(|error| LakeError::Read(Box::new(error)))
}
