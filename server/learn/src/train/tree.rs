//! Picket's own tree engine: trees on binned values.
//!
//! ```text
//! TrainingSet ─▶ BinnedMatrix (u8, columns) ────┐
//! weights ─────▶ Row sums (integers) ───────────┼▶ grow ─▶ TreeDraft
//! seed ────────▶ SplitFinder (best or random) ──┘
//! ```
//!
//! * **Bins** ([`bins`]): each feature is cut into at most 254 bins at places between values that occur, and one bin for
//!   "missing". A value is one byte; a column of a million rows stays in the second-level cache.
//! * **Sums are integers** ([`Sums`]): weights are scaled to whole numbers once, so that a sum is the same in whatever
//!   order it is made, and a tree is the same whatever the number of threads.
//! * **Missing values** are a side of each split: both sides are tried where values are missing, and where none is, the
//!   side with more weight is taken (a value that is first missing in the field goes with the many).
//! * **Size** ([`prune`]): a tree that is larger than its share of a model's nodes loses the splits that explain least.
//! * **Split finders**: [`best`] looks at all thresholds of some features (random forests), [`random`] draws one for each
//!   (extremely randomised trees).
//! * **Isolation** ([`isolate`]): splits that no label chose, on the bins of a few rows.

pub(super) use crate::train::tree::bins::{BinnedMatrix, MISSING_BIN};
pub(super) use crate::train::tree::grow::{Limits, grow};
pub(super) use crate::train::tree::spreads::Spreads;
pub(super) use crate::train::tree::sums::{RowWeights, Sums};

/// The cover of a leaf of so many rows.
pub(super) fn cover(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX).max(1)
}

pub(super) mod best;
mod bins;
mod choice;
mod features;
mod grow;
pub(super) mod isolate;
pub(super) mod prune;
pub(super) mod random;
pub(super) mod spreads;
mod sums;
#[cfg(test)]
mod tests;
