//! One Delta table: opening, appending exactly once, keeping it small.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use deltalake::delta_datafusion::DeltaScanNext;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, StructType, Transaction};
use deltalake::operations::vacuum::VacuumMode;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter as _, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, FilterOp, FilterValue, TableProperty};
use picket_common::event::EventClass;

use super::error::LakeError;
use super::schema::{INDEXED_COLUMNS, PARTITION_COLUMN, field, is_nullable, schema};
use super::store::DurableStore;
use crate::wal::WalPosition;

/// Commits between two checkpoints of a table's log: an open reads at most so many log entries.
const COMMITS_PER_CHECKPOINT: u64 = 50;
/// Commits after which a table is opened anew: its snapshot in memory grows with each update.
const COMMITS_PER_REOPEN: u32 = 100;
/// Commits between two removals of log entries that are older than [`LOG_RETENTION`].
const COMMITS_PER_LOG_CLEANUP: u64 = 100;
/// How long log entries stay, and so how long a version that was pinned can be opened. A reader that opened it goes on.
/// Every commit lists the entries: 1,400 of them at a commit each 5 s.
const LOG_RETENTION: &str = "interval 2 hours";
/// How long files stay that are part of no current version.
const FILE_RETENTION: &str = "interval 1 days";
/// zstd level of the Parquet files.
const ZSTD_LEVEL: i32 = 3;
/// Files of one day from which on they are compacted.
const COMPACT_FILES_MIN: usize = 16;
/// Days compacted at a time.
const COMPACT_DAYS_MAX: usize = 4;
/// Size of a file that is not compacted any further, in bytes.
const COMPACTED_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A table, and how far the log's records are in it.
pub(super) struct Table {
    pub(super) class: EventClass,
    delta: DeltaTable,
    application: String,
    /// Records before this are in the table, all later ones are not.
    pub(super) applied: WalPosition,
    commits_since_open: u32,
}

impl Table {
    /// Opens the table in `folder`, or creates it. `application` names the log whose positions it keeps.
    pub(super) async fn open(
        class: EventClass,
        folder: &Path,
        store: &Arc<DurableStore>,
        application: String,
    ) -> Result<Self, LakeError> {
        let error = LakeError::table("open", class);
        let delta = open_or_create(class, folder, store).await.map_err(error)?;
        let delta = add_missing_columns(class, delta).await?;
        check_schema(class, &delta)?;
        let mut table = Self { class, delta, application, applied: WalPosition::default(), commits_since_open: 0 };
        table.applied = table.read_applied().await?;
        Ok(table)
    }

    /// The table as it is now, for readers.
    pub(super) fn current(&self) -> PublishedTable {
        PublishedTable { class: self.class, delta: self.delta.clone() }
    }

    /// Appends rows and, in the same commit, notes that all records before `end` are in. Does nothing when they were
    /// already.
    ///
    /// After an error the table tells from its log whether the commit happened: an error may come after it, from a
    /// checkpoint for instance.
    pub(super) async fn append(&mut self, rows: RecordBatch, end: WalPosition) -> Result<(), LakeError> {
        if self.applied >= end {
            return Ok(());
        }
        match self.try_append(rows, end).await {
            Ok(delta) => {
                self.delta = delta;
                self.applied = end;
            }
            Err(error) => {
                self.reopen().await?;
                if self.applied < end {
                    return Err(LakeError::table("append to", self.class)(error));
                }
                tracing::warn!(table = self.class.name(), %error, "committed, but housekeeping failed");
            }
        }
        self.commits_since_open += 1;
        if self.commits_since_open >= COMMITS_PER_REOPEN {
            self.reopen().await?;
        }
        Ok(())
    }

    async fn try_append(&self, rows: RecordBatch, end: WalPosition) -> Result<DeltaTable, DeltaTableError> {
        let mut writer = RecordBatchWriter::for_table(&self.delta)?.with_writer_properties(writer_properties()?);
        writer.write(rows).await?;
        let files: Vec<Action> = writer.flush().await?.into_iter().map(Action::Add).collect();
        let version = i64::try_from(end.0).map_err(|_| DeltaTableError::generic("positions are used up"))?;
        let state = self.delta.snapshot()?;
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(&self.application, version))
            .with_cleanup_expired_logs(Some((state.version() + 1).is_multiple_of(COMMITS_PER_LOG_CLEANUP)));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![PARTITION_COLUMN.to_owned()]),
            predicate: None,
        };
        let commit = CommitBuilder::from(properties)
            .with_actions(files)
            .build(Some(state), self.delta.log_store(), operation)
            .await?;
        let mut delta = DeltaTable::new(self.delta.log_store());
        delta.state = Some(commit.snapshot());
        Ok(delta)
    }

    /// Merges the files of days that have many. Rows stay what they are; the table gets a new version.
    pub(super) async fn compact(&mut self) -> Result<u64, LakeError> {
        let crowded = crowded_days(&self.delta).map_err(LakeError::table("compact", self.class))?;
        let mut removed = 0;
        for day in crowded {
            match compact_day(self.delta.clone(), &day).await {
                Ok((delta, files)) => {
                    self.delta = delta;
                    removed += files;
                }
                Err(error) => {
                    self.reopen().await?;
                    return Err(LakeError::table("compact", self.class)(error));
                }
            }
        }
        Ok(removed)
    }

    /// Deletes files that are part of no version younger than [`FILE_RETENTION`].
    pub(super) async fn vacuum(&mut self) -> Result<usize, LakeError> {
        let vacuum = self.delta.clone().vacuum().with_mode(VacuumMode::Full);
        match vacuum.await {
            Ok((delta, metrics)) => {
                self.delta = delta;
                Ok(metrics.files_deleted.len())
            }
            Err(error) => {
                self.reopen().await?;
                Err(LakeError::table("vacuum", self.class)(error))
            }
        }
    }

    /// Reads the table's state from its log, forgetting everything in memory.
    async fn reopen(&mut self) -> Result<(), LakeError> {
        let mut delta = DeltaTable::new(self.delta.log_store());
        delta.load().await.map_err(LakeError::table("open", self.class))?;
        self.delta = delta;
        self.commits_since_open = 0;
        self.applied = self.read_applied().await?;
        Ok(())
    }

    async fn read_applied(&self) -> Result<WalPosition, LakeError> {
        let error = LakeError::table("read the log of", self.class);
        let log_store = self.delta.log_store();
        let read = async || self.delta.snapshot()?.transaction_version(log_store.as_ref(), &self.application).await;
        let version = read().await.map_err(error)?;
        Ok(WalPosition(version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0)))
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> usize {
        self.delta.snapshot().unwrap().log_data().num_files()
    }
}

/// A version of a table, for readers.
#[derive(Clone)]
pub(super) struct PublishedTable {
    pub(super) class: EventClass,
    delta: DeltaTable,
}

impl PublishedTable {
    pub(super) fn version(&self) -> u64 {
        self.delta.version().unwrap_or_default()
    }

    /// What queries read: this version.
    pub(super) async fn provider(
        &self,
        session: Arc<datafusion::execution::SessionState>,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let provider = self.delta.table_provider().with_session(session).await;
        provider.map_err(|error| LakeError::Read(Box::new(error)))
    }

    /// What queries read: an older version.
    pub(super) async fn provider_at(
        &self,
        version: u64,
        session: Arc<datafusion::execution::SessionState>,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        if version == self.version() {
            return self.provider(session).await;
        }
        let builder = DeltaScanNext::builder().with_log_store(self.delta.log_store()).with_table_version(version);
        let provider = builder.with_session(session).await;
        provider.map_err(|source| LakeError::Version { class: self.class, version, source: Box::new(source) })
    }
}

async fn open_or_create(
    class: EventClass,
    folder: &Path,
    store: &Arc<DurableStore>,
) -> Result<DeltaTable, DeltaTableError> {
    let url = deltalake::ensure_table_uri(folder.to_string_lossy())?;
    let mut delta = DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store.clone(), url).build()?;
    if delta.verify_deltatable_existence().await? {
        delta.load().await?;
        return Ok(delta);
    }
    let columns: StructType = schema(class).as_ref().try_into_kernel()?;
    delta
        .create()
        .with_table_name(class.name())
        .with_columns(columns.fields().cloned())
        .with_partition_columns([PARTITION_COLUMN])
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_configuration_property(TableProperty::CheckpointInterval, Some(COMMITS_PER_CHECKPOINT.to_string()))
        .with_configuration_property(TableProperty::LogRetentionDuration, Some(LOG_RETENTION))
        .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some(FILE_RETENTION))
        .with_configuration_property(TableProperty::EnableExpiredLogCleanup, Some("false"))
        .with_configuration_property(TableProperty::DataSkippingStatsColumns, Some(INDEXED_COLUMNS.join(",")))
        .await
}

/// Gives a table that an earlier version made the columns that are new since. Its rows have NULL in them.
async fn add_missing_columns(class: EventClass, delta: DeltaTable) -> Result<DeltaTable, LakeError> {
    let found = read_schema(class, &delta)?;
    let missing: Vec<_> = super::schema::columns(class)
        .filter(|column| is_nullable(column) && found.field_with_name(column.name).is_err())
        .map(field)
        .collect();
    if missing.is_empty() {
        return Ok(delta);
    }
    tracing::info!(table = class.name(), columns = missing.len(), "adding columns that are new in this version");
    let add = async {
        let fields: StructType = (&arrow::datatypes::Schema::new(missing)).try_into_kernel()?;
        delta.add_columns().with_fields(fields.fields().cloned().collect::<Vec<_>>()).await
    };
    add.await.map_err(LakeError::table("add columns to", class))
}

fn read_schema(class: EventClass, delta: &DeltaTable) -> Result<arrow::datatypes::Schema, LakeError> {
    let read = || -> Result<_, DeltaTableError> { Ok(delta.snapshot()?.schema().as_ref().try_into_arrow()?) };
    read().map_err(LakeError::table("read the schema of", class))
}

fn check_schema(class: EventClass, delta: &DeltaTable) -> Result<(), LakeError> {
    let found = read_schema(class, delta)?;
    for column in super::schema::columns(class) {
        let expected: DataType = column.kind.data_type();
        let same = found.field_with_name(column.name).is_ok_and(|field| *field.data_type() == expected);
        if !same {
            return Err(LakeError::Schema { class, column: column.name, expected: expected.to_string() });
        }
    }
    Ok(())
}

fn writer_properties() -> Result<WriterProperties, DeltaTableError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL)?;
    Ok(WriterProperties::builder().set_compression(Compression::ZSTD(level)).build())
}

/// Days with many small files, the most crowded first.
fn crowded_days(delta: &DeltaTable) -> Result<Vec<String>, DeltaTableError> {
    let mut small_files = std::collections::BTreeMap::<String, usize>::new();
    for file in delta.snapshot()?.log_data().iter() {
        let day = file.partition_values_map().remove(PARTITION_COLUMN).flatten();
        if u64::try_from(file.size()).unwrap_or(0) < COMPACTED_FILE_BYTES / 2
            && let Some(day) = day
        {
            *small_files.entry(day).or_default() += 1;
        }
    }
    let mut crowded: Vec<(usize, String)> = small_files
        .into_iter()
        .filter(|(_, files)| *files >= COMPACT_FILES_MIN)
        .map(|(day, files)| (files, day))
        .collect();
    crowded.sort_by(|a, b| b.cmp(a));
    Ok(crowded.into_iter().take(COMPACT_DAYS_MAX).map(|(_, day)| day).collect())
}

/// Returns the table and how many files were replaced.
async fn compact_day(delta: DeltaTable, day: &str) -> Result<(DeltaTable, u64), DeltaTableError> {
    let filters = [(PARTITION_COLUMN, FilterOp::Eq, FilterValue::Scalar(day))];
    let mut optimize = delta
        .optimize()
        .with_filters(&filters)
        .with_writer_properties(writer_properties()?)
        .with_max_concurrent_tasks(1);
    if let Some(size) = std::num::NonZeroU64::new(COMPACTED_FILE_BYTES) {
        optimize = optimize.with_target_size(size);
    }
    let (delta, metrics) = optimize.await?;
    Ok((delta, metrics.num_files_removed))
}
