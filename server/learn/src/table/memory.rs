//! What a training will need, before it starts.

use picket_common::table::{ColumnKind, text};

use crate::table::prepare::NGRAMS;
use crate::table::schema::{Role, Sample, Schema};

/// Bytes that a value of a vector takes while models are fitted: itself, its copies in the folds that are fitted at the
/// same time, and its bins.
const FEATURE_BYTES: f64 = 18.0;
/// Bytes for each row besides its values: labels, keys, scores, gradients.
const ROW_BYTES: f64 = 160.0;
/// Bytes that a text takes besides its own, of which the most are different.
const TEXT_BYTES: f64 = 64.0;

/// An estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryNeed {
    /// Rows it is for.
    pub rows: u64,
    /// Bytes for the table.
    pub table_bytes: u64,
    /// Bytes for the table and a training on it.
    pub training_bytes: u64,
}

/// What a table of so many rows like those of `sample` needs.
pub fn estimate(schema: &Schema, sample: &Sample, rows: u64) -> MemoryNeed {
    let (mut table, mut features) = (0.0, 0.0);
    for (column, text_bytes) in schema.columns.iter().zip(sample.text_bytes()) {
        table += match (column.role, column.kind) {
            (Role::Feature(_) | Role::Ignore, ColumnKind::Numeric) => 8.0,
            (Role::Feature(_) | Role::Ignore, ColumnKind::Time) => 16.0,
            (_, ColumnKind::Text) => 4.0 + TEXT_BYTES + text_bytes,
            _ => 4.0,
        };
        features += match column.role {
            Role::Feature(ColumnKind::Numeric) => 1.0,
            Role::Feature(ColumnKind::Categorical) => 2.0,
            Role::Feature(ColumnKind::Text) => (text::SHAPES + NGRAMS) as f64,
            Role::Feature(ColumnKind::Time) => 4.0,
            _ => 0.0,
        };
    }
    let of_all = |bytes: f64| (bytes * rows as f64) as u64;
    let training = table + ROW_BYTES + FEATURE_BYTES * features;
    MemoryNeed { rows, table_bytes: of_all(table), training_bytes: of_all(training) }
}
