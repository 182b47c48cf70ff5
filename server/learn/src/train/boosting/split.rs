//! The best split of a node, from its histograms.

use crate::train::boosting::histogram::{BINS, FeatureHistogram, Slope};
use crate::train::tree::MISSING_BIN;

/// What splits must leave, and what leaves are penalised with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Least curvature of a leaf, in the units of [`Slope`].
    pub(super) curvature_min: f64,
    /// Fewest rows of a leaf.
    pub(super) leaf_rows_min: u32,
    /// L2 penalty, in the units of curvature.
    pub(super) l2: f64,
}

/// How a node is split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Split {
    /// What it gains, in the units of `gradient² / curvature`.
    pub(super) gain: f64,
    pub(super) feature: usize,
    /// Rows of this bin and before go left.
    pub(super) bin: u8,
    pub(super) missing_left: bool,
    /// The sums of the left child.
    pub(super) left: Slope,
}

impl Split {
    /// Whether rows of a bin go left.
    pub(super) fn goes_left(&self, bin: u8) -> bool {
        if bin == MISSING_BIN { self.missing_left } else { bin <= self.bin }
    }
}

/// Searches one node.
pub(super) struct Search {
    rules: Rules,
    total: Slope,
    /// Least curvature of a child.
    child_min: f64,
    /// What the node's own value explains.
    unsplit: f64,
    best: Option<Split>,
    gains: [f64; BINS],
    before: [Slope; BINS],
}

impl Search {
    /// For a node of so many rows.
    pub(super) fn new(rules: Rules, total: Slope, rows: usize) -> Self {
        let curvature = f64::from(total.curvature());
        // How many rows a side has is told from its share of the curvature.
        let for_rows = curvature * f64::from(rules.leaf_rows_min) / rows.max(1) as f64;
        let gradient = f64::from(total.gradient());
        let unsplit = gradient * gradient / (curvature + rules.l2).max(f64::MIN_POSITIVE);
        let child_min = rules.curvature_min.max(for_rows).max(1.0);
        Self { rules, total, child_min, unsplit, best: None, gains: [0.0; BINS], before: [Slope::default(); BINS] }
    }

    /// Looks at every threshold of a feature with so many bins of values. The first of equally good splits stays.
    pub(super) fn feature(&mut self, feature: usize, histogram: &FeatureHistogram, value_bins: usize) {
        let missing = histogram[usize::from(MISSING_BIN)];
        let mut sum = Slope::default();
        let last = value_bins.min(BINS - 1);
        for (before, bin) in self.before[1..=last].iter_mut().zip(&histogram[1..=last]) {
            sum += *bin;
            *before = sum;
        }
        if missing == Slope::default() {
            // What is first missing in the field goes with the many.
            self.direction(feature, last, missing, None, histogram);
        } else {
            self.direction(feature, last, Slope::default(), Some(false), histogram);
            self.direction(feature, last, missing, Some(true), histogram);
        }
    }

    fn direction(
        &mut self,
        feature: usize,
        last: usize,
        extra: Slope,
        missing_left: Option<bool>,
        histogram: &FeatureHistogram,
    ) {
        let greatest = self.gains(last, extra);
        let least = self.best.map_or(self.unsplit * (1.0 + 1e-9), |best| best.gain + self.unsplit);
        if greatest <= least {
            return;
        }
        let Some(bin) = (1..=last).find(|bin| self.gains[*bin] == greatest) else { return };
        let left = self.before[bin] + extra;
        let majority = 2 * i64::from(left.curvature()) >= i64::from(self.total.curvature());
        // Half-way to the next bin that the node's rows have.
        let next = (bin + 1..=last).find(|next| histogram[*next] != Slope::default()).unwrap_or(last + 1);
        self.best = Some(Split {
            gain: greatest - self.unsplit,
            feature,
            bin: u8::try_from((bin + next - 1) / 2).unwrap_or(u8::MAX),
            missing_left: missing_left.unwrap_or(majority),
            left,
        });
    }

    /// What each threshold explains, with `extra` on the left; the greatest of them.
    fn gains(&mut self, last: usize, extra: Slope) -> f64 {
        let (l2, child_min) = (self.rules.l2, self.child_min);
        let (gradient, curvature) = (f64::from(self.total.gradient()), f64::from(self.total.curvature()));
        let mut greatest = [0.0_f64; 4];
        let bins = self.before[..=last].chunks(4).zip(self.gains[..=last].chunks_mut(4));
        for (before, gains) in bins {
            for ((before, gain), greatest) in before.iter().zip(gains).zip(&mut greatest) {
                let left = *before + extra;
                let (left_gradient, left_curvature) = (f64::from(left.gradient()), f64::from(left.curvature()));
                let (right_gradient, right_curvature) = (gradient - left_gradient, curvature - left_curvature);
                let (below_left, below_right) = (left_curvature + l2, right_curvature + l2);
                let explained = (left_gradient * left_gradient * below_right
                    + right_gradient * right_gradient * below_left)
                    / (below_left * below_right);
                let enough = left_curvature.min(right_curvature) >= child_min;
                *gain = if enough { explained } else { 0.0 };
                *greatest = if *gain > *greatest { *gain } else { *greatest };
            }
        }
        greatest.into_iter().fold(0.0, f64::max)
    }

    /// The best of all.
    pub(super) fn best(self) -> Option<Split> {
        self.best
    }
}
