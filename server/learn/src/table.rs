//! Tables of users: from rows of any columns to a model, an evaluation and a profile.
//!
//! ```text
//! sample ─▶ Schema (edited by people) ─▶ Table ─▶ Split ─▶ Preparation (training part) ─▶ TrainingSet ─▶ train ─▶ evaluate
//!                                          └────▶ Profile, Difference
//! ```
//!
//! What is learned for the preparation, is learned from the training part alone. The trainers, the threshold and the
//! evaluation are those of every other model.

pub use crate::table::difference::{ColumnDifference, Difference, difference};
pub use crate::table::frame::{Column, Counts, Table, TableBuilder, TableError, Values, Words};
pub use crate::table::memory::{MemoryNeed, estimate};
pub use crate::table::profile::{ColumnProfile, Drift, Finding, FindingKind, Profile, profile};
pub use crate::table::schema::{LabelValues, Role, SAMPLE_ROWS_MAX, Sample, Schema, SchemaColumn, SchemaError};
pub use crate::table::split::{
    Division, Parts, SplitCounts, SplitError, SplitRule, divide, divide_unsupervised, row_groups, split,
};
pub use crate::table::train::{
    Evaluation, TableOptions, TableSearch, TableTrainError, TrainedTable, ValidationRule, recipe, scores, train,
};

pub mod page;

mod difference;
mod frame;
mod key;
mod memory;
mod prepare;
mod profile;
mod schema;
mod separation;
mod split;
#[cfg(test)]
mod tests;
mod train;
