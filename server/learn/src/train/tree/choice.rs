//! Comparing splits.

use crate::train::tree::Sums;
use crate::train::tree::grow::Split;

/// What a threshold does to the rows of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cut {
    /// Rows with values at most the threshold.
    pub(super) left: Side,
    /// Rows without a value.
    pub(super) missing: Side,
}

/// Some rows of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    pub(super) sums: Sums,
    /// How many rows they count as.
    pub(super) rows: u32,
}

impl std::ops::Add for Side {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { sums: self.sums + other.sums, rows: self.rows + other.rows }
    }
}

impl std::ops::Sub for Side {
    type Output = Self;
    fn sub(self, part: Self) -> Self {
        Self { sums: self.sums - part.sums, rows: self.rows - part.rows }
    }
}

/// The best split so far. Of equally good ones the first stays.
pub(super) struct Best {
    total: Side,
    leaf_rows_min: u32,
    explained: f64,
    split: Option<Split>,
}

impl Best {
    /// Nothing yet, for a node of these rows.
    pub(super) fn of(total: Side, leaf_rows_min: u32) -> Self {
        // A split that explains no more than this by a rounding error is none.
        let explained = total.sums.explained() * (1.0 + 1e-12);
        Self { total, leaf_rows_min: leaf_rows_min.max(1), explained, split: None }
    }

    /// Offers a cut, with missing values on each side in turn. `threshold` is only asked when the cut is taken.
    pub(super) fn offer(&mut self, feature: usize, bin: u8, cut: &Cut, threshold: impl Fn() -> f32) {
        let with_missing = cut.left + cut.missing;
        if cut.missing.rows == 0 {
            let missing_left = 2 * u64::from(cut.left.sums.weight()) >= u64::from(self.total.sums.weight());
            self.consider(feature, bin, cut.left, missing_left, &threshold);
        } else {
            self.consider(feature, bin, cut.left, false, &threshold);
            self.consider(feature, bin, with_missing, true, &threshold);
        }
    }

    fn consider(&mut self, feature: usize, bin: u8, left: Side, missing_left: bool, threshold: &impl Fn() -> f32) {
        let right = self.total - left;
        if left.rows < self.leaf_rows_min || right.rows < self.leaf_rows_min {
            return;
        }
        let explained = left.sums.explained() + right.sums.explained();
        if explained > self.explained {
            self.explained = explained;
            // A training set has at most 65,536 features, as a model has.
            let feature = u16::try_from(feature).unwrap_or(u16::MAX);
            self.split = Some(Split { feature, bin, threshold: threshold(), missing_left });
        }
    }

    /// The best of all.
    pub(super) fn split(self) -> Option<Split> {
        self.split
    }
}
