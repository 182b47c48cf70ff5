//! Which bins the rows of a node have, for all features at once.
//!
//! The bins of a row lie together, sixteen features in each group: one read and a few operations on all of them take the
//! place of sixteen walks through columns.

use crate::train::tree::BinnedMatrix;
use crate::train::tree::bins::{MISSING_BIN, Spread};

/// Features of a group: as many bytes as every processor we run on can compare at once.
const TOGETHER: usize = 16;

/// The bins of every row, group by group.
pub(in crate::train) struct Spreads {
    groups: Vec<Vec<[u8; TOGETHER]>>,
    feature_count: usize,
}

impl Spreads {
    /// Lays out the bins of all features.
    pub(in crate::train) fn new(matrix: &BinnedMatrix) -> Self {
        let feature_count = matrix.feature_count();
        let group = |first: usize| {
            let columns = (first..feature_count.min(first + TOGETHER)).map(|feature| matrix.column(feature));
            let mut rows = Vec::new();
            for (place, column) in columns.enumerate() {
                rows.resize(column.len(), [MISSING_BIN; TOGETHER]);
                for (row, bin) in rows.iter_mut().zip(column) {
                    row[place] = *bin;
                }
            }
            rows
        };
        Self { groups: (0..feature_count).step_by(TOGETHER).map(group).collect(), feature_count }
    }

    /// Replaces the content of `into` by what [`BinnedMatrix::spread`] says of `rows` in each feature.
    pub(in crate::train) fn find(&self, rows: &[u32], into: &mut Vec<Option<Spread>>) {
        into.clear();
        for group in &self.groups {
            // The bin of missing values less one is the highest number there is, and not the lowest bin.
            let mut low_less_one = [u8::MAX; TOGETHER];
            let mut high = [MISSING_BIN; TOGETHER];
            let mut lowest = [u8::MAX; TOGETHER];
            for row in rows {
                let bins = &group[*row as usize];
                for place in 0..TOGETHER {
                    low_less_one[place] = low_less_one[place].min(bins[place].wrapping_sub(1));
                    high[place] = high[place].max(bins[place]);
                    lowest[place] = lowest[place].min(bins[place]);
                }
            }
            for place in 0..TOGETHER.min(self.feature_count - into.len()) {
                into.push(Spread::of(low_less_one[place], high[place], lowest[place]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::generated;

    #[test]
    fn all_at_once_is_as_one_by_one() {
        for features in [1, 16, 21, 40] {
            let set = generated(600, features.max(8), 0.3, 11);
            let matrix = BinnedMatrix::new(&set);
            let spreads = Spreads::new(&matrix);
            let mut found = Vec::new();
            for rows in [vec![], vec![7], vec![3, 3], (0..600).step_by(7).collect(), (0..600).collect::<Vec<u32>>()] {
                spreads.find(&rows, &mut found);
                let expected: Vec<_> =
                    (0..matrix.feature_count()).map(|feature| matrix.spread(feature, &rows)).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
