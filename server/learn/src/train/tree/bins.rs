//! Values cut into bins, column by column.

use std::ops::Range;

use crate::train::TrainingSet;
use crate::train::parallel::try_map;

/// The bin of missing values; values have bins from 1 on.
pub(in crate::train) const MISSING_BIN: u8 = 0;
/// Most bins for values.
const VALUE_BINS_MAX: usize = 254;
/// Features that are read together: as many as lie in one line of the cache.
const FEATURES_AT_ONCE: usize = 16;

/// A training set with every value replaced by the number of its bin.
pub(in crate::train) struct BinnedMatrix {
    features: Vec<FeatureBins>,
    /// For each feature the bin of every row.
    columns: Vec<Vec<u8>>,
}

/// Which bins some rows have in one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::train) struct Spread {
    /// Lowest bin of a value.
    pub(in crate::train) low: u8,
    /// Highest bin of a value.
    pub(in crate::train) high: u8,
    /// Whether any value is missing.
    pub(in crate::train) has_missing: bool,
}

impl Spread {
    /// Of the lowest bin of a value less one, and of the highest and the lowest bin of all; nothing when all rows have the
    /// same.
    pub(super) fn of(low_less_one: u8, high: u8, lowest: u8) -> Option<Self> {
        let has_missing = lowest == MISSING_BIN;
        if high == MISSING_BIN {
            return None;
        }
        let low = low_less_one.wrapping_add(1);
        (low < high || has_missing).then_some(Self { low, high, has_missing })
    }
}

/// The bins of one feature. Bin b (from 1) holds the values from `lows[b - 1]` to `highs[b - 1]`, and bins are in the
/// order of their values.
struct FeatureBins {
    lows: Vec<f32>,
    highs: Vec<f32>,
}

impl BinnedMatrix {
    /// As [`with_threads`](Self::with_threads), on one.
    #[cfg(test)]
    pub(in crate::train) fn new(set: &TrainingSet) -> Self {
        Self::with_threads(set, 1)
    }

    /// Cuts the values of `set` into bins: one for each value where a feature has few, else such that each has about
    /// the same number of rows. On so many threads.
    pub(in crate::train) fn with_threads(set: &TrainingSet, threads: usize) -> Self {
        let features = set.feature_count();
        let groups = try_map(features.div_ceil(FEATURES_AT_ONCE), threads, |group| {
            let first = group * FEATURES_AT_ONCE;
            Ok::<_, std::convert::Infallible>(bin_features(set, first..(first + FEATURES_AT_ONCE).min(features)))
        });
        let (features, columns) = groups.into_iter().flatten().flatten().unzip();
        Self { features, columns }
    }

    /// Number of features.
    pub(in crate::train) fn feature_count(&self) -> usize {
        self.features.len()
    }

    /// How many bins of values a feature has.
    pub(in crate::train) fn value_bins(&self, feature: usize) -> usize {
        self.features[feature].highs.len()
    }

    /// The bin of every row in one feature.
    pub(in crate::train) fn column(&self, feature: usize) -> &[u8] {
        &self.columns[feature]
    }

    /// Which bins `rows` have in one feature; nothing when they do not differ in it.
    pub(in crate::train) fn spread(&self, feature: usize, rows: &[u32]) -> Option<Spread> {
        let column = self.column(feature);
        // The bin of missing values less one is the highest number there is, and not the lowest bin.
        let (mut low_less_one, mut high, mut lowest) = (u8::MAX, MISSING_BIN, u8::MAX);
        for row in rows {
            let bin = column[*row as usize];
            low_less_one = low_less_one.min(bin.wrapping_sub(1));
            high = high.max(bin);
            lowest = lowest.min(bin);
        }
        Spread::of(low_less_one, high, lowest)
    }

    /// A threshold between bin `bin` and the next: at `part` (0 to 1) of the way from the one's highest value to the
    /// other's lowest. Every value of `bin` and before is at most it, every later one is above.
    pub(in crate::train) fn threshold(&self, feature: usize, bin: u8, part: f64) -> f32 {
        let FeatureBins { lows, highs } = &self.features[feature];
        let low = highs.get(usize::from(bin).wrapping_sub(1)).copied().unwrap_or(f32::MIN);
        match lows.get(usize::from(bin)) {
            Some(high) => {
                let between = f64::from(low) + part * (f64::from(*high) - f64::from(low));
                (between as f32).clamp(low, high.next_down().max(low))
            }
            // Nothing seen is above it: it only tells values from missing ones.
            None => f32::MAX,
        }
    }

    /// Lowest and highest value of a bin.
    pub(in crate::train) fn range(&self, feature: usize, bin: u8) -> (f32, f32) {
        let FeatureBins { lows, highs } = &self.features[feature];
        let index = usize::from(bin).wrapping_sub(1);
        (lows.get(index).copied().unwrap_or(f32::MIN), highs.get(index).copied().unwrap_or(f32::MAX))
    }

    /// The last bin whose values are all at most `value`; 0 when there is none.
    pub(in crate::train) fn last_at_most(&self, feature: usize, value: f32) -> u8 {
        let bins = self.features[feature].highs.partition_point(|high| *high <= value);
        u8::try_from(bins).unwrap_or(u8::MAX)
    }
}

/// Cuts some features, which are read together because the values of a row lie together.
fn bin_features(set: &TrainingSet, features: Range<usize>) -> Vec<(FeatureBins, Vec<u8>)> {
    let mut columns = vec![Vec::with_capacity(set.len()); features.len()];
    for row in set.rows() {
        for (column, value) in columns.iter_mut().zip(&row[features.clone()]) {
            column.push(*value);
        }
    }
    let mut keys = Vec::with_capacity(set.len());
    let bin = |values: Vec<f32>| {
        keys.clear();
        keys.extend(values.iter().filter(|value| !value.is_nan()).map(|value| key(*value)));
        keys.sort_unstable();
        let feature = FeatureBins::of(&keys);
        let bins = values.iter().map(|value| feature.bin(*value)).collect();
        (feature, bins)
    };
    columns.into_iter().map(bin).collect()
}

/// A number for each value, in the order of the values: whole numbers are sorted faster. Both zeros are one value.
fn key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The value of a [`key`].
fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

impl FeatureBins {
    /// The bins of sorted keys.
    fn of(keys: &[u32]) -> Self {
        let runs: Vec<(f32, usize)> = keys.chunk_by(|a, b| a == b).map(|run| (value(run[0]), run.len())).collect();
        let mut bins = Self { lows: Vec::new(), highs: Vec::new() };
        let mut rows_left: usize = runs.iter().map(|(_, count)| count).sum();
        let mut in_bin = 0;
        for (index, (value, count)) in runs.iter().enumerate() {
            if in_bin == 0 {
                bins.lows.push(*value);
                bins.highs.push(*value);
            } else if let Some(high) = bins.highs.last_mut() {
                *high = *value;
            }
            in_bin += count;
            // One bin for each value that is left, or an even share of the rows that are left.
            let bins_left = VALUE_BINS_MAX - (bins.lows.len() - 1);
            let fits = runs.len() - index <= bins_left;
            let wanted = rows_left.div_ceil(bins_left.max(1));
            if fits || (in_bin >= wanted && bins_left > 1) {
                rows_left -= in_bin;
                in_bin = 0;
            }
        }
        bins
    }

    /// The bin of a value that was there when the bins were made, or of one between two of them.
    fn bin(&self, value: f32) -> u8 {
        if value.is_nan() {
            return MISSING_BIN;
        }
        let below = self.highs.partition_point(|high| *high < value);
        // There are at most 254 bins.
        u8::try_from((below + 1).min(self.highs.len())).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[f32]) -> BinnedMatrix {
        let rows = values.len();
        let labels = (0..rows).map(|row| row % 2 == 0).collect();
        BinnedMatrix::new(&TrainingSet::new(1, values.to_vec(), labels, vec![0; rows]).unwrap())
    }

    #[test]
    fn few_values_have_a_bin_each() {
        let matrix = matrix(&[5.0, f32::NAN, -1.0, 5.0, 7.5, -0.0, 0.0, f32::NAN]);
        let bins: Vec<u8> = (0..8).map(|row| matrix.column(0)[row]).collect();
        assert_eq!(bins, [3, MISSING_BIN, 1, 3, 4, 2, 2, MISSING_BIN]);
        assert_eq!(matrix.range(0, 2), (0.0, 0.0));
        assert_eq!([1.0, 4.9, 5.0, -2.0, 99.0].map(|value| matrix.last_at_most(0, value)), [2, 2, 3, 0, 4]);
    }

    #[test]
    fn many_values_share_bins_evenly() {
        // 10,000 different values, and one value that a third of the rows have.
        let values: Vec<f32> = (0..15_000_u16).map(|row| if row % 3 == 0 { 0.5 } else { f32::from(row) }).collect();
        let matrix = matrix(&values);
        let mut rows_of = [0usize; 256];
        for row in 0..15_000 {
            rows_of[usize::from(matrix.column(0)[row])] += 1;
        }
        assert_eq!(rows_of[usize::from(MISSING_BIN)], 0);
        assert_eq!(rows_of[1], 5_000, "the frequent value is alone");
        let largest = rows_of[2..].iter().max().unwrap();
        assert!(rows_of[2..255].iter().all(|rows| *rows > 0) && *largest <= 41, "{rows_of:?}");
        assert_eq!(rows_of[255], 0);
    }

    #[test]
    fn thresholds_separate_bins() {
        let third = 1.0_f32 / 3.0;
        for (low, high) in [(1.0, 2.0), (third, third.next_up()), (f32::MIN, f32::MAX), (-1.0, 0.0)] {
            let matrix = matrix(&[low, high, low, high, low, high, low, high]);
            for part in [0.0, 0.3, 0.5, 1.0] {
                let threshold = matrix.threshold(0, 1, part);
                assert!(low <= threshold && threshold < high, "{low} {threshold} {high}");
            }
            assert_eq!(matrix.threshold(0, 2, 0.5), f32::MAX);
        }
    }

    #[test]
    fn a_feature_without_values_has_no_bins() {
        let matrix = matrix(&[f32::NAN; 8]);
        assert!((0..8).all(|row| matrix.column(0)[row] == MISSING_BIN));
    }
}
