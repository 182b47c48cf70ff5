//! Columns that hardly vary.

use crate::select::{Columns, Ranking};

/// A column hardly varies when, in each of its features, all rows but this share have the same value (or none).
const VARYING_SHARE_MIN: f64 = 0.001;

/// Columns by how much they vary: the measure is the share of rows with the most frequent value of a feature, of that
/// feature which varies most.
pub(super) fn ranking(columns: &Columns<'_>) -> Ranking {
    let mut measures = vec![1.0_f64; columns.names.len()];
    let mut values: Vec<u32> = Vec::new();
    for (feature, column) in columns.of_feature.iter().enumerate() {
        values.clear();
        // Missing values are one value, whatever their bits.
        values.extend(columns.set.column(feature).map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }));
        values.sort_unstable();
        let most = values.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(0);
        let share = most as f64 / columns.set.len() as f64;
        measures[*column] = measures[*column].min(share);
    }
    let mut order: Vec<usize> = (0..measures.len()).collect();
    order.sort_by(|a, b| measures[*a].total_cmp(&measures[*b]));
    Ranking { order, measures, reason: "the same in nearly all rows" }
}

/// Whether a column of such a measure varies.
pub(super) fn varies(measure: f64) -> bool {
    measure <= 1.0 - VARYING_SHARE_MIN
}
