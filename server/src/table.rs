//! Tables of users as files: reading them, training on them with no server running, scoring them.
//!
//! | file | is |
//! |---|---|
//! | `.csv` `.tsv` `.txt` | CSV, its first line names the columns |
//! | `.jsonl` `.ndjson` `.json` | one JSON object a line |
//! | `.parquet` | Parquet |
//!
//! The first two also end in `.gz` or `.zst`. What is learned from them is in [`picket_learn::table`]; what a model file holds,
//! in [`picket_common::table`].

use std::io;
use std::path::PathBuf;

use picket_common::table::{TableModelError, TableReadError};
use picket_learn::table::{SchemaError, SplitError, TableError, TableTrainError};

pub use crate::table::input::Input;
pub use crate::table::load::{Loaded, Loader};
pub use crate::table::schema_file::SchemaFileError;

pub mod compare;
pub mod folder;
pub mod input;
pub mod load;
pub mod memory;
pub mod rebuild;
pub mod schema_file;
pub mod score;
pub mod train;

mod parquet_rows;
#[cfg(test)]
mod tests;

/// Why nothing came of a table.
#[derive(Debug, thiserror::Error)]
pub enum TableFileError {
    /// The system failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What a file holds is not known.
    #[error("{}: the name says no format: .csv, .tsv, .jsonl, .ndjson (also with .gz, .zst) or .parquet", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Its rows cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TableReadError,
    },
    /// A training's manifest cannot be used.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A Parquet file cannot be read.
    #[error("{}: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A schema cannot be used.
    #[error("{}: {source}", path.display())]
    SchemaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SchemaFileError,
    },
    /// The table's columns do not fit what is asked.
    #[error("{}: {source}", path.display())]
    Schema {
        /// The table.
        path: PathBuf,
        /// Why not.
        source: SchemaError,
    },
    /// The table cannot be used.
    #[error("{}: {source}", path.display())]
    Table {
        /// The table.
        path: PathBuf,
        /// Why not.
        source: TableError,
    },
    /// There is not enough memory, said before the table is read.
    #[error(
        "{}: about {rows} rows need {need_mib} MiB of memory, {available_mib} MiB may be taken: give fewer rows or columns, \
         or more memory (--memory-mib)",
        path.display()
    )]
    Memory {
        /// The table.
        path: PathBuf,
        /// Its rows, by estimate.
        rows: u64,
        /// What it takes.
        need_mib: u64,
        /// What there is.
        available_mib: u64,
    },
    /// More rows than can be learned from, said before the table is read.
    #[error("{}: about {rows} rows, at most {rows_max} can be learned from: give a part of them", path.display())]
    TooManyRows {
        /// The table.
        path: PathBuf,
        /// Its rows, by estimate.
        rows: u64,
        /// How many may be.
        rows_max: usize,
    },
    /// The rows cannot be divided.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// Nothing was learned.
    #[error(transparent)]
    Train(#[from] TableTrainError),
    /// The model cannot be used, or not for this table.
    #[error("{}: {source}", path.display())]
    Model {
        /// The model or the table.
        path: PathBuf,
        /// Why not.
        source: TableModelError,
    },
}

impl TableFileError {
    fn file(path: &std::path::Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path: path.clone(), source }
    }
}
