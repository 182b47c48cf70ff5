//! The lake: every event, in Delta tables of Parquet, one for each class.
//!
//! ```text
//! <folder>/process_activity/_delta_log/…                     the table's versions
//!                          /event_day=2026-11-22/*.parquet    zstd, sorted by host, epoch and sequence
//!         /network_activity/… /authentication/… /sensor_loss/… /agent_activity/…
//!         /spill/     sorts that do not fit into memory; emptied at open
//!         /lock       held while a process has the lake open
//! ```
//! Only plain Delta features are used, so that other engines (Spark, ClickHouse, Trino) read the same tables. They must
//! not write them.
//!
//! * [`schema`]: the tables' columns; what is in an event is in them, exactly
//! * `commit`: from the write-ahead log to the tables, exactly once
//! * `query`: SQL, reading only
//! * `scan`: events back out, in order, at pinned versions
//!
//! Everything that plans or runs queries works on the lake's own threads: planning needs deep stacks in builds without
//! optimisation ([`THREAD_STACK_BYTES`]), and a heavy query must not keep the threads busy that answer agents.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionContext;
use parking_lot::{Mutex, RwLock};
use picket_common::event::EventClass;
use picket_common::id::{EventId, HostId};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::commit::CommitState;
pub use self::commit::{CommitSummary, Committer, ROUND_FRAME_BYTES_MAX};
pub use self::error::LakeError;
pub use self::query::{QUERIES_MAX, QUERY_ROWS_MAX, QUERY_TIME_MAX, QueryStream, SQL_BYTES_MAX, SQL_TOKENS_MAX};
pub use self::read::RowError;
pub use self::round::{ROUND_BYTES_MAX, ROUND_ROWS_MAX};
pub use self::rows::{EVENT_DAYS_AFTER_MAX, EVENT_DAYS_BEFORE_MAX};
pub use self::scan::{EventFilter, EventStream, TableVersions};
use self::store::DurableStore;
use self::table::{PublishedTable, Table};
use crate::wal::Wal;

mod commit;
mod error;
mod part;
mod query;
mod read;
mod round;
mod rows;
mod scan;
pub mod schema;
mod store;
mod table;
#[cfg(test)]
mod tests;

/// Stack of each of the lake's threads, bytes; memory is taken only as far as it is used.
pub const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Most of the lake's threads that block on files at a time.
const BLOCKING_THREADS_MAX: usize = 64;
const LOCK_NAME: &str = "lock";
const SPILL_NAME: &str = "spill";

/// Settings of the lake.
#[derive(Clone, Debug)]
pub struct LakeConfig {
    /// Longest time an acknowledged event waits before it is moved into its table.
    pub commit_interval: Duration,
    /// Frame bytes that, when they wait, are moved at once.
    pub commit_bytes: u64,
    /// Memory for all queries together, and again for each reading of events, in bytes.
    pub query_memory_bytes: usize,
    /// Disk space for sorts that do not fit into memory, in bytes.
    pub spill_bytes: u64,
    /// Threads for commits and queries.
    pub threads: usize,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(5),
            commit_bytes: 8 * 1024 * 1024,
            query_memory_bytes: 512 * 1024 * 1024,
            spill_bytes: 4 * 1024 * 1024 * 1024,
            threads: std::thread::available_parallelism().map_or(2, usize::from).max(2),
        }
    }
}

/// What the lake did since it was opened, and how far behind it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LakeCounters {
    /// Rows written.
    pub events: u64,
    /// Rounds of commits.
    pub rounds: u64,
    /// Rounds that failed; they are tried again.
    pub commit_errors: u64,
    /// Batches of the log that could not be decoded, and were skipped.
    pub undecodable: u64,
    /// Duration of the last round, microseconds.
    pub last_round_us: u64,
    /// Files that compaction replaced.
    pub files_compacted: u64,
    /// Files that no version needed and that were deleted.
    pub files_deleted: u64,
    /// Records in the write-ahead log that no query sees yet.
    pub lag_records: u64,
    /// Bytes of their frames.
    pub lag_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    events: AtomicU64,
    rounds: AtomicU64,
    commit_errors: AtomicU64,
    undecodable: AtomicU64,
    last_round_us: AtomicU64,
    files_compacted: AtomicU64,
    files_deleted: AtomicU64,
    committed_bytes: AtomicU64,
    committed_position: AtomicU64,
}

/// Rows of each class, of each host.
pub type EventCounts = BTreeMap<HostId, BTreeMap<EventClass, u64>>;

/// The versions of the tables that readers see.
struct Published(BTreeMap<EventClass, PublishedTable>);

impl Published {
    fn tables(&self) -> impl Iterator<Item = &PublishedTable> {
        self.0.values()
    }

    fn table(&self, class: EventClass) -> Option<&PublishedTable> {
        self.0.get(&class)
    }

    fn versions(&self) -> TableVersions {
        TableVersions(self.0.iter().map(|(class, table)| (*class, table.version())).collect())
    }
}

/// What tasks on the lake's threads share. Does not own the threads.
struct Inner {
    config: LakeConfig,
    wal: Arc<Wal>,
    handle: Handle,
    environment: Arc<RuntimeEnv>,
    commit: tokio::sync::Mutex<CommitState>,
    published: RwLock<Arc<Published>>,
    /// Counted when first asked for, then kept up.
    counts: Mutex<Option<EventCounts>>,
    queries: Semaphore,
    counters: Counters,
    #[cfg(test)]
    probe: tests::probe::Probe,
    _lock: File,
}

/// The lake.
pub struct Lake {
    inner: Arc<Inner>,
    threads: Option<Runtime>,
}

impl Lake {
    /// Opens the lake in `folder`, or begins one there. `wal` is the log whose records it takes; what an earlier
    /// process left in it becomes visible with the first commit.
    ///
    /// # Errors
    /// [`LakeError::Locked`], [`LakeError::Io`], [`LakeError::Table`], [`LakeError::Schema`].
    pub async fn open(folder: &Path, wal: Arc<Wal>, config: LakeConfig) -> Result<Self, LakeError> {
        let lock = lock(folder)?;
        let folder = &folder.canonicalize().map_err(|source| LakeError::Io {
            action: "resolve",
            path: folder.to_path_buf(),
            source,
        })?;
        let spill = folder.join(SPILL_NAME);
        if spill.exists() {
            fs::remove_dir_all(&spill).map_err(|source| LakeError::Io {
                action: "empty",
                path: spill.clone(),
                source,
            })?;
        }
        fs::create_dir(&spill).map_err(|source| LakeError::Io { action: "create", path: spill.clone(), source })?;
        store::remove_temporary_files(folder).map_err(|source| LakeError::Io {
            action: "clean",
            path: folder.to_path_buf(),
            source,
        })?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(|source| LakeError::Io { action: "start threads for", path: folder.to_path_buf(), source })?;
        let handle = threads.handle().clone();
        let opening = open_inner(folder.to_path_buf(), spill, wal, config, handle.clone(), lock);
        let opened = handle.spawn(opening).await;
        // From here on dropping the lake stops its threads in the background.
        let threads = Some(threads);
        match opened.map_err(|error| LakeError::Closed(error.to_string())).and_then(|opened| opened) {
            Ok(inner) => Ok(Self { inner: Arc::new(inner), threads }),
            Err(error) => {
                threads.into_iter().for_each(Runtime::shutdown_background);
                Err(error)
            }
        }
    }

    /// Moves every record that was durable before this call into the tables; returns when queries see them. Goes on
    /// when the caller stops waiting.
    ///
    /// # Errors
    /// [`LakeError::Table`], [`LakeError::Wal`]; the records stay in the log and the next commit tries again.
    pub async fn commit(&self) -> Result<CommitSummary, LakeError> {
        let target = self.inner.wal.end().position;
        self.on_threads(move |inner| async move { commit::commit_through(&inner, target).await }).await
    }

    /// As [`Self::commit`]; then compacts and vacuums tables when it is time to.
    ///
    /// # Errors
    /// As [`Self::commit`]; a failed compaction leaves the table as it was.
    pub async fn commit_and_maintain(&self) -> Result<CommitSummary, LakeError> {
        let target = self.inner.wal.end().position;
        self.on_threads(move |inner| async move {
            let summary = commit::commit_through(&inner, target).await?;
            commit::maintain(&inner, false).await?;
            Ok(summary)
        })
        .await
    }

    /// Compacts and vacuums now.
    ///
    /// # Errors
    /// [`LakeError::Table`]; the table stays as it was.
    pub async fn maintain(&self) -> Result<(), LakeError> {
        self.on_threads(|inner| async move { commit::maintain(&inner, true).await }).await
    }

    /// Runs one statement that reads: SELECT, WITH, EXPLAIN, DESCRIBE, SHOW. The stream has at most `row_limit` rows
    /// and ends within `time_limit`.
    ///
    /// # Errors
    /// [`LakeError::is_callers_fault`] tells a wrong statement from a lake that cannot be read. Also the stream's items
    /// may be errors.
    pub async fn query(&self, sql: &str, row_limit: usize, time_limit: Duration) -> Result<QueryStream, LakeError> {
        query::start(self.inner.clone(), sql, row_limit, time_limit).await
    }

    /// The versions that queries see now.
    pub fn table_versions(&self) -> TableVersions {
        self.inner.published().versions()
    }

    /// The events of these versions, ordered by host, epoch and sequence, all classes merged. Memory is bounded by
    /// [`LakeConfig::query_memory_bytes`].
    ///
    /// # Errors
    /// The stream's items: [`LakeError::Version`] for versions whose log or files are gone, [`LakeError::Read`],
    /// [`LakeError::Row`].
    pub fn read_events(&self, versions: &TableVersions, filter: EventFilter) -> EventStream {
        scan::read_events(&self.inner, versions.clone(), filter)
    }

    /// For each id, whether that event is stored. Events that were acknowledged before the call count.
    ///
    /// # Errors
    /// [`LakeError::Read`]; those of [`Self::commit`].
    pub async fn exists(&self, ids: &[EventId]) -> Result<Vec<bool>, LakeError> {
        let ids = ids.to_vec();
        let target = self.inner.wal.end().position;
        self.on_threads(move |inner| async move {
            let mut found = scan::exists(&inner, &ids).await?;
            if ids.iter().any(|id| !found.contains(id)) {
                // It may be in the log still.
                commit::commit_through(&inner, target).await?;
                found = scan::exists(&inner, &ids).await?;
            }
            Ok(ids.iter().map(|id| found.contains(id)).collect())
        })
        .await
    }

    /// How many events of each class are stored of each host. Reads the tables once, then keeps count.
    ///
    /// # Errors
    /// [`LakeError::Read`].
    pub async fn events_stored(&self) -> Result<EventCounts, LakeError> {
        self.on_threads(|inner| async move {
            if let Some(counts) = &*inner.counts.lock() {
                return Ok(counts.clone());
            }
            // No commit may come between counting and keeping count, so also what is not published yet is counted.
            let state = inner.commit.lock().await;
            let mut counts = EventCounts::new();
            for (class, table) in &state.tables {
                for (host, events) in scan::count_by_host(&inner, &table.current()).await? {
                    counts.entry(host).or_default().insert(*class, events);
                }
            }
            *inner.counts.lock() = Some(counts.clone());
            Ok(counts)
        })
        .await
    }

    /// What the lake did since it was opened, and how far behind it is.
    pub fn counters(&self) -> LakeCounters {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let end = self.inner.wal.end();
        LakeCounters {
            events: read(&counters.events),
            rounds: read(&counters.rounds),
            commit_errors: read(&counters.commit_errors),
            undecodable: read(&counters.undecodable),
            last_round_us: read(&counters.last_round_us),
            files_compacted: read(&counters.files_compacted),
            files_deleted: read(&counters.files_deleted),
            lag_records: end.position.0.saturating_sub(read(&counters.committed_position)),
            lag_bytes: end.bytes.saturating_sub(read(&counters.committed_bytes)),
        }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Runs work on the lake's threads, to its end even if the caller stops waiting.
    async fn on_threads<T, W, F>(&self, work: W) -> Result<T, LakeError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Inner>) -> F,
        F: Future<Output = Result<T, LakeError>> + Send + 'static,
    {
        let task = self.inner.spawn(work(self.inner.clone()));
        task.await.map_err(|error| LakeError::Closed(error.to_string()))?
    }
}

impl Drop for Lake {
    fn drop(&mut self) {
        // Waiting for the threads here could block a runtime. A commit that is cut off is finished at the next open.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Inner {
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(work)
    }

    /// A session of a query: all queries share the lake's memory.
    fn session(&self, batch_rows: usize) -> SessionContext {
        let config = query::session_config(self.config.query_memory_bytes, batch_rows, self.config.threads);
        query::session(config, self.environment.clone())
    }

    /// A session of one sort, with `memory_bytes` of its own: sorts that share memory cannot rely on what they need to
    /// merge what they spilled. One partition, so that it is one sort.
    fn sort_session(&self, batch_rows: usize, memory_bytes: usize) -> Result<SessionContext, LakeError> {
        let environment = RuntimeEnvBuilder::from_runtime_env(&self.environment)
            .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
            .build_arc()
            .map_err(|error| self.read_error(error))?;
        Ok(query::session(query::session_config(memory_bytes, batch_rows, 1), environment))
    }

    fn published(&self) -> Arc<Published> {
        self.published.read().clone()
    }

    fn publish(&self, state: &CommitState) {
        *self.published.write() = Arc::new(publishable(&state.tables));
    }

    fn add_to_counts(&self, class: EventClass, hosts: &BTreeMap<HostId, u64>) {
        if let Some(counts) = &mut *self.counts.lock() {
            for (host, events) in hosts {
                *counts.entry(*host).or_default().entry(class).or_default() += events;
            }
        }
    }

    fn read_error(&self, error: DataFusionError) -> LakeError {
        match LakeError::query(error, self.config.query_memory_bytes) {
            LakeError::Sql(message) => LakeError::Read(Box::new(DataFusionError::Execution(message))),
            other => other,
        }
    }

    fn probe(&self, _step: &'static str) {
        #[cfg(test)]
        self.probe.reached(_step);
    }
}

fn publishable(tables: &BTreeMap<EventClass, Table>) -> Published {
    Published(tables.iter().map(|(class, table)| (*class, table.current())).collect())
}

async fn open_inner(
    folder: PathBuf,
    spill: PathBuf,
    wal: Arc<Wal>,
    config: LakeConfig,
    handle: Handle,
    lock: File,
) -> Result<Inner, LakeError> {
    #[cfg(test)]
    let probe = tests::probe::Probe::default();
    let store = Arc::new(DurableStore::new(
        #[cfg(test)]
        probe.clone(),
    ));
    // The log's own name: positions of another log, which start anew, are not taken for this one's.
    let application = format!("picket-wal-{}", wal.log_id());
    let mut tables = BTreeMap::new();
    for class in EventClass::ALL {
        let table = Table::open(class, &folder.join(class.name()), &store, application.clone()).await?;
        tables.insert(class, table);
    }
    // A log that lost its end to damage would give positions again that tables have already, and new records
    // would be skipped as known.
    let applied = tables.values().map(|table| table.applied).max().unwrap_or_default();
    if applied > wal.end().position {
        tracing::error!(
            lake = applied.0,
            log = wal.end().position.0,
            "the write-ahead log lost records that are in the lake; going on after them"
        );
        wal.skip_to(applied).await?;
    }
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill]))
        .with_max_temp_directory_size(config.spill_bytes);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(config.query_memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(|error| LakeError::Read(Box::new(error)))?;
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
        _lock: lock,
    })
}

fn lock(folder: &Path) -> Result<File, LakeError> {
    let error = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| LakeError::Io { action, path, source }
    };
    fs::create_dir_all(folder).map_err(error("create", folder))?;
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LakeError::Locked { path: folder.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(error("lock", &path)(source)),
    }
}
