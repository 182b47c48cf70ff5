//! The lake: every event, in Delta tables of Parquet, one for each class.
//!
//! ```text
//! <folder>/process_activity/_delta_log/…                     the table's versions
//!                          /event_day=2026-11-22/*.parquet    zstd, sorted by host, epoch and sequence
//!         /network_activity/… /authentication/… /file_activity/… /dns_activity/… /kernel_activity/…
//!         /sensor_loss/… /agent_activity/…
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
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
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
use self::counters::Counters;
pub use self::counters::LakeCounters;
pub use self::error::LakeError;
pub use self::query::{QUERIES_MAX, QUERY_ROWS_MAX, QUERY_TIME_MAX, QueryStream, SQL_BYTES_MAX, SQL_TOKENS_MAX};
pub use self::read::RowError;
pub use self::round::{ROUND_BYTES_MAX, ROUND_ROWS_MAX};
pub use self::rows::{EVENT_DAYS_AFTER_MAX, EVENT_DAYS_BEFORE_MAX};
pub use self::scan::{EventFilter, EventStream, TableVersions};
use self::table::{PublishedTable, Table};
use crate::wal::Wal;

mod commit;
mod counters;
mod error;
mod open;
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

/// How long closing waits for files that are being written.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

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
    threads: Threads,
}

/// The lake's threads; stopped when dropped.
struct Threads(Option<Runtime>);

impl Lake {
    /// Opens the lake in `folder`, or begins one there. `wal` is the log whose records it takes; what an earlier
    /// process left in it becomes visible with the first commit.
    ///
    /// # Errors
    /// [`LakeError::Locked`], [`LakeError::Io`], [`LakeError::Table`], [`LakeError::Schema`].
    pub async fn open(folder: &Path, wal: Arc<Wal>, config: LakeConfig) -> Result<Self, LakeError> {
        let folder = open::prepare_folder(folder)?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(|source| LakeError::Io { action: "start threads for", path: folder.path.clone(), source })?;
        let handle = threads.handle().clone();
        let threads = Threads(Some(threads));
        let opened = handle.spawn(open::open(folder, wal, config, handle.clone())).await;
        let inner = opened.map_err(|error| LakeError::Closed(error.to_string()))??;
        Ok(Self { inner: Arc::new(inner), threads })
    }

    /// Moves every record that was durable before this call into the tables; returns when queries see them. Goes on
    /// when the caller stops waiting.
    ///
    /// # Errors
    /// [`LakeError::Table`], [`LakeError::Wal`]; the records stay in the log and the next commit tries again.
    pub async fn commit(&self) -> Result<CommitSummary, LakeError> {
        let target = self.inner.wal.end();
        self.on_threads(move |inner| async move { commit::commit_through(&inner, target).await }).await
    }

    /// As [`Self::commit`]; then compacts and vacuums tables when it is time to. That this failed is only logged: it
    /// leaves the tables as they were, and is tried again.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_and_maintain(&self) -> Result<CommitSummary, LakeError> {
        let target = self.inner.wal.end();
        self.on_threads(move |inner| async move {
            let summary = commit::commit_through(&inner, target).await?;
            if let Err(error) = commit::maintain(&inner, false).await {
                tracing::warn!(%error, "cannot compact or vacuum");
            }
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
        let target = self.inner.wal.end();
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
        self.inner.counters.read(self.inner.wal.end())
    }

    /// Stops everything the lake does and returns when its folder can be opened again. Does not commit; a commit that is
    /// cut off is finished at the next open. Dropping the lake does the same without waiting.
    pub async fn close(mut self) {
        if let Some(threads) = self.threads.0.take() {
            let stopping = tokio::task::spawn_blocking(move || threads.shutdown_timeout(CLOSE_TIME_MAX));
            if let Err(error) = stopping.await {
                tracing::error!(%error, "cannot wait for the lake's threads");
            }
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

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for the threads here could block a runtime.
        if let Some(threads) = self.0.take() {
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
