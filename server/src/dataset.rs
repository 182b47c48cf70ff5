//! Data sets: labelled vectors, split once, written once, never changed.
//!
//! ```text
//! labels in force at a snapshot ─┐
//! events of pinned lake versions ┴▶ replay (FeaturePipeline per host and epoch) ─▶ rows ─▶ split ─▶ files + manifest
//! ```
//!
//! * **Rows** are the labelled events that are subjects. The stored events of each (host, epoch) run through the same
//!   [`FeaturePipeline`](picket_common::feature::FeaturePipeline) as on the agent, so the vectors are those the agent
//!   scored.
//! * **Split**: by time, never cutting a group; the rule is told in [`split`].
//! * **Files** `train.parquet` and `test.parquet` in `<state>/datasets/<id>/`, immutable. `manifest.json` beside them
//!   names the schema, counts, SHA-256 of each file, lake versions, label snapshot, feature specification, split rule
//!   and boundary. The SHA-256 of the manifest is the data set's digest.
//! * **Reproducible**: the same events, labels, subject and test share give the same digest. Nothing here reads a clock,
//!   and the id is made of the digest.

use picket_common::event::Timestamp;
use picket_common::id::EventId;

pub use crate::dataset::manifest::Manifest;
pub use crate::dataset::service::{DatasetError, Datasets, NewDataset};

pub mod files;
pub mod manifest;
pub mod replay;
pub mod split;

mod service;

/// Most labels a data set is made of.
pub const LABELS_MAX: u32 = 1_000_000;
/// Smallest share of the rows that only evaluation sees.
pub const TEST_FRACTION_MIN: f64 = 0.05;
/// Largest share of the rows that only evaluation sees.
pub const TEST_FRACTION_MAX: f64 = 0.9;
/// The share when nobody says.
pub const TEST_FRACTION_DEFAULT: f64 = 0.3;

/// What a row is, beside its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowInfo {
    /// The event.
    pub event: EventId,
    /// When it happened.
    pub time: Timestamp,
    /// Its label.
    pub malicious: bool,
    /// ATT&CK id; empty when benign or unknown.
    pub technique: String,
    /// The attack or piece of work it is part of; never empty.
    pub group: String,
}

/// Labelled vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Features of a row.
    pub feature_count: usize,
    /// What each row is.
    pub info: Vec<RowInfo>,
    /// The rows' values, row by row; missing is NaN.
    pub values: Vec<f32>,
}

impl Rows {
    /// No rows yet.
    pub fn new(feature_count: usize) -> Self {
        Self { feature_count, info: Vec::new(), values: Vec::new() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.info.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.info.is_empty()
    }

    /// The values of one row.
    pub fn values(&self, row: usize) -> &[f32] {
        &self.values[row * self.feature_count..(row + 1) * self.feature_count]
    }

    /// Adds a row. `values` has one value per feature.
    pub fn push(&mut self, info: RowInfo, values: &[f32]) {
        debug_assert_eq!(values.len(), self.feature_count);
        self.info.push(info);
        self.values.extend_from_slice(values);
    }

    /// The rows with these places, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            feature_count: self.feature_count,
            info: rows.iter().map(|row| self.info[*row].clone()).collect(),
            values: rows.iter().flat_map(|row| self.values(*row)).copied().collect(),
        }
    }
}
