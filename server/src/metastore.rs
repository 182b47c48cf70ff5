//! Metadata: hosts, tokens, labels, data sets, models, in one SQLite file.
//!
//! # Shape
//! One trait per noun ([`HostStore`], [`JoinTokenStore`], [`ApiTokenStore`], [`SettingStore`] …), each in its own file
//! beside its SQLite implementation, which is an `impl … for Metastore`. Trait methods are declared as
//! `fn …(&self) -> impl Future<Output = Result<…, MetastoreError>> + Send` and implemented as `async fn`. Services hold
//! a [`Metastore`] (cheap to clone) and import the traits of the nouns they need; another database becomes a second
//! variant behind this type, held to the same tests.
//!
//! # Rules
//! * What must be true together is one method and one transaction.
//! * Writes go through `Metastore::write`: there is one write connection, so a write transaction never meets
//!   another one and never fails with `SQLITE_BUSY`. Reads run beside it on their own connections (WAL mode).
//! * A write that returned `Ok` is on the disk (`synchronous = FULL`).
//! * No store reads the clock: the caller passes the time.
//! * Migrations in `server/migrations/` are only ever added, never changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

pub use crate::metastore::account::{AccountRecord, AccountStore};
pub use crate::metastore::api_token::{ApiTokenRecord, ApiTokenStore, NewApiToken};
pub use crate::metastore::chain::ChainStore;
pub use crate::metastore::dataset::{DatasetRecord, DatasetStore};
pub use crate::metastore::host::{
    Admission, CertificateRecord, EnrollError, HostRecord, HostReport, HostStore, NewHost,
};
pub use crate::metastore::join_token::{JoinTokenRecord, JoinTokenStore, NewJoinToken};
pub use crate::metastore::label::LabelStore;
pub use crate::metastore::model::ModelStore;
pub use crate::metastore::setting::SettingStore;

mod account;
mod api_token;
mod chain;
mod dataset;
mod host;
mod join_token;
mod label;
mod model;
mod setting;
#[cfg(test)]
mod tests;

/// Read connections.
const READ_CONNECTIONS_MAX: u32 = 4;
/// How long a statement waits for a lock that another process holds (a backup, somebody's `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The metadata database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Metastore {
    reads: SqlitePool,
    writes: SqlitePool,
}

/// Why the metastore could not answer.
#[derive(Debug, thiserror::Error)]
pub enum MetastoreError {
    /// The file could not be opened.
    #[error("cannot open the metadata database {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: sqlx::Error,
    },
    /// A newer server has used this file.
    #[error(
        "the metadata database {path} has schema version {found}, this server knows versions up to {known}: \
         run the newer server, or restore a backup made before the upgrade"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version this server knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the metadata database {path} up to date: {source}")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: MigrateError,
    },
    /// A statement failed.
    #[error("metadata database: {operation}: {source}")]
    Statement {
        /// What was being done.
        operation: &'static str,
        /// SQLite's reason.
        source: sqlx::Error,
    },
    /// A stored value is not what this server writes.
    #[error("metadata database: {what} is damaged: {reason}")]
    Damaged {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl MetastoreError {
    /// For `map_err`: what was being done when a statement failed.
    pub fn during(operation: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Statement { operation, source }
    }

    /// For `map_err`: a stored value that could not be read.
    pub fn damaged<E: ToString>(what: &'static str) -> impl Fn(E) -> Self {
        move |reason| Self::Damaged { what, reason: reason.to_string() }
    }
}

impl Metastore {
    /// Opens the database, making it when there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, MetastoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let open = |source| MetastoreError::Open { path: path.to_owned(), source };
        let writes = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // SQLite ends a transaction by itself when the disk is full; the connection still believes to be inside
            // of one and would refuse to begin another for ever. A new connection takes its place.
            .before_acquire(|connection, _| {
                let is_free = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_free) })
            })
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        if let Err(source) = MIGRATOR.run(&writes).await {
            writes.close().await;
            return Err(migration_error(path, source));
        }
        let reads = SqlitePoolOptions::new()
            .max_connections(READ_CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(open)?;
        Ok(Self { reads, writes })
    }

    /// Connections for reading.
    pub(crate) fn read(&self) -> &SqlitePool {
        &self.reads
    }

    /// Begins a write transaction. Dropped without `commit`, it is rolled back.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, MetastoreError> {
        self.writes.begin_with("BEGIN IMMEDIATE").await.map_err(MetastoreError::during("begin a write"))
    }

    /// Waits for running statements and closes the file.
    pub async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
    }
}

fn migration_error(path: &Path, source: MigrateError) -> MetastoreError {
    let known = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
    match source {
        MigrateError::VersionMissing(found) if found > known => {
            MetastoreError::NewerSchema { path: path.to_owned(), found, known }
        }
        source => MetastoreError::Migrate { path: path.to_owned(), source },
    }
}

/// A digest column.
pub(crate) fn digest_column(what: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], MetastoreError> {
    <[u8; 32]>::try_from(bytes)
        .map_err(|bytes| MetastoreError::Damaged { what, reason: format!("{} bytes instead of 32", bytes.len()) })
}

/// A host id column.
pub(crate) fn host_column(bytes: Vec<u8>) -> Result<picket_common::id::HostId, MetastoreError> {
    <[u8; 16]>::try_from(bytes).map(picket_common::id::HostId::from_bytes).map_err(|bytes| MetastoreError::Damaged {
        what: "a host id",
        reason: format!("{} bytes instead of 16", bytes.len()),
    })
}
