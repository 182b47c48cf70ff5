//! What can be wrong with a table or a table model.

use crate::model::ModelError;
use crate::table::limits;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableReadError {
    /// The system failed.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
    /// There is nothing.
    #[error("the table is empty: not even a line with the names of its columns")]
    Empty,
    /// Too many columns.
    #[error(
        "the table has {found} columns, at most {} are supported: leave out those that are not needed",
        limits::COLUMNS_MAX
    )]
    TooManyColumns {
        /// How many there are.
        found: usize,
    },
    /// A column's name is too long.
    #[error(
        "the name of column {column} is longer than {} bytes: is the first line the names of the columns?",
        limits::NAME_BYTES_MAX
    )]
    LongName {
        /// Which, from 1.
        column: usize,
    },
    /// A row is too long.
    #[error(
        "line {line}: the row is longer than {} bytes; perhaps a quotation mark is not closed",
        limits::ROW_BYTES_MAX
    )]
    LongRow {
        /// Where it begins, from 1.
        line: u64,
    },
    /// A quoted field does not end.
    #[error("line {line}: a quotation mark is not closed")]
    OpenQuote {
        /// Where the row begins, from 1.
        line: u64,
    },
    /// A row has another number of fields than the header.
    #[error("line {line}: {found} fields, but the table has {expected} columns")]
    FieldCount {
        /// Where the row begins, from 1.
        line: u64,
        /// Fields it has.
        found: usize,
        /// Columns there are.
        expected: usize,
    },
    /// A line is no JSON object.
    #[error("line {line}: not a JSON object: {reason}")]
    NotAnObject {
        /// Which, from 1.
        line: u64,
        /// What the parser says.
        reason: String,
    },
}

/// Why a table model cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TableModelError {
    /// The first bytes are not a table model's.
    #[error("not a table model: it does not begin with PKTTABLE")]
    NotATableModel,
    /// Written by a newer Picket.
    #[error("table model format version {0} is not supported, this program reads version 1; update it")]
    UnsupportedVersion(u16),
    /// The file ends too early.
    #[error("table model is cut short: it ends at byte {offset}")]
    Truncated {
        /// Its length, in bytes.
        offset: usize,
    },
    /// A field holds what it must not.
    #[error("malformed table model: {what} (byte {offset})")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// Something exceeds a limit.
    #[error("table model exceeds a limit: {found} {what}, at most {limit} allowed")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much is allowed.
        limit: usize,
    },
    /// Preparation and model are not of one piece.
    #[error("table model is damaged: its model was trained on another preparation")]
    Mismatch,
    /// The model itself is refused.
    #[error(transparent)]
    Model(ModelError),
    /// The table lacks columns that the model judges by.
    #[error("the table's schema changed: it lacks {count} of the model's columns: {names}")]
    MissingColumns {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// A column holds something else than in training.
    #[error(
        "the table's schema changed: none of the {cells} values in column {column:?} is a {kind}, as all were in training"
    )]
    OtherKind {
        /// Which.
        column: String,
        /// Values that are not missing.
        cells: u64,
        /// What they were in training: `number` or `time`.
        kind: &'static str,
    },
    /// A column of JSON lines is in no row.
    #[error("the table's schema changed: no row has a key {column:?}, which the model judges by")]
    AbsentKey {
        /// Which.
        column: String,
    },
}
