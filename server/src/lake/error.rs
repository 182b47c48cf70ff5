//! What can go wrong with the lake.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;
use picket_common::event::EventClass;

use super::read::RowError;
use crate::wal::WalError;

/// Why the lake could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// Another process has the lake open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lake's folder.
        path: PathBuf,
    },
    /// An operation on the lake's folder failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A table could not be opened, written or maintained. Nothing is lost: what it lacks stays in the write-ahead log.
    #[error("cannot {action} table {}: {source}", class.name())]
    Table {
        /// What was tried.
        action: &'static str,
        /// The table.
        class: EventClass,
        /// What the table's library said.
        source: Box<DeltaTableError>,
    },
    /// A table lacks a column, or has it in another type: something else wrote it.
    #[error("table {} has no column {column} of type {expected}; restore it, or move its folder away", class.name())]
    Schema {
        /// The table.
        class: EventClass,
        /// The column.
        column: &'static str,
        /// The type it should have.
        expected: String,
    },
    /// A row that no event can have made: something else wrote it.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The write-ahead log could not be read or shortened.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The statement only reads, but this one does more.
    #[error("only SELECT, WITH, EXPLAIN, DESCRIBE and SHOW are allowed, not {statement}")]
    NotAQuery {
        /// What it is.
        statement: String,
    },
    /// The statement is longer than [`SQL_BYTES_MAX`](super::SQL_BYTES_MAX) or [`SQL_TOKENS_MAX`](super::SQL_TOKENS_MAX).
    #[error("the statement has {length} {unit}, more than the limit of {limit}")]
    SqlTooLong {
        /// Its length.
        length: usize,
        /// In what.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The statement is wrong: syntax, an unknown name, a type, a value.
    #[error("{0}")]
    Sql(String),
    /// The query did not end in time.
    #[error("the query took longer than {} s; ask for less, or for a shorter time", .0.as_secs_f64())]
    QueryTimeout(Duration),
    /// The query needs more memory than queries may have.
    #[error("the query needs more memory than the limit of {limit} bytes; ask for less, or for a shorter time")]
    QueryMemory {
        /// The limit for all queries together.
        limit: usize,
    },
    /// A table has no such version any more, or not yet.
    #[error("table {} has no version {version} any more: {source}", class.name())]
    Version {
        /// The table.
        class: EventClass,
        /// The version asked for.
        version: u64,
        /// What the query engine said.
        source: Box<DataFusionError>,
    },
    /// Reading failed for another reason than the statement.
    #[error("cannot read the lake: {0}")]
    Read(Box<DataFusionError>),
    /// A round of commits failed; it is tried again.
    #[error("{0}")]
    Commit(Arc<LakeError>),
    /// A task of the lake panicked or the lake is being closed.
    #[error("the lake is closed, or a task of it failed: {0}")]
    Closed(String),
}

impl LakeError {
    pub(super) fn table(action: &'static str, class: EventClass) -> impl FnOnce(DeltaTableError) -> Self {
        move |source| Self::Table { action, class, source: Box::new(source) }
    }

    /// Sorts an error of the query engine.
    pub(super) fn query(error: DataFusionError, memory_limit: usize) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::QueryMemory { limit: memory_limit },
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::Internal(_) => {
                Self::Read(Box::new(error))
            }
            root => Self::Sql(helpful_part(&root.strip_backtrace())),
        }
    }

    /// Whether the caller's statement or wish is at fault, and not the lake.
    pub fn is_callers_fault(&self) -> bool {
        matches!(
            self,
            Self::NotAQuery { .. }
                | Self::SqlTooLong { .. }
                | Self::Sql(_)
                | Self::QueryTimeout(_)
                | Self::QueryMemory { .. }
                | Self::Version { .. }
        )
    }
}

/// The engine's message without the names of its stages.
fn helpful_part(message: &str) -> String {
    const STAGES: [&str; 7] = [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
        "This feature is not implemented: ",
    ];
    let mut message = message.trim();
    while let Some(rest) = STAGES.iter().find_map(|stage| message.strip_prefix(stage)) {
        message = rest.trim_start();
    }
    let message = message.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")")).unwrap_or(message);
    message.to_owned()
}
