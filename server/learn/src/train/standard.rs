//! Standardised values, for algorithms that add up what they are given.
//!
//! Mean and standard deviation come from the present values of the training part. Bytes, counts and durations span many
//! powers of ten: a few large values would take up the whole scale. Where the logarithm tames them (the mean deviation as a
//! share of the standard deviation, Geary's kurtosis, grows by a tenth), it is taken first; what still lies far out is cut
//! off. A missing value stands at the mean, a constant feature says nothing.

use picket_common::model::Scaling;
use picket_common::model::limits::COEFFICIENT_MAX;

use crate::train::TrainingSet;

/// A feature whose standard deviation is smaller than this share of its mean is a constant with rounding errors.
const CONSTANT_DEVIATION: f64 = 1e-9;
/// The logarithm is taken when the mean deviation grows so much, as a share of the standard deviation.
const TAMED_GROWTH: f64 = 1.1;

/// How each feature is standardised.
pub(super) fn learn(set: &TrainingSet) -> Vec<Scaling> {
    (0..set.feature_count()).map(|feature| of_column(set.column(feature))).collect()
}

/// How each feature is standardised where there can be no logarithm.
pub(super) fn learn_plain(set: &TrainingSet) -> Vec<Scaling> {
    (0..set.feature_count()).map(|feature| moments(set.column(feature), false).0).collect()
}

/// The standardised values, row by row.
pub(super) fn matrix(set: &TrainingSet, scaling: &[Scaling]) -> Vec<f32> {
    set.rows().flat_map(|values| standardised(values, scaling)).collect()
}

/// One standardised row.
pub(super) fn row(values: &[f32], scaling: &[Scaling]) -> Vec<f32> {
    standardised(values, scaling).collect()
}

fn standardised(values: &[f32], scaling: &[Scaling]) -> impl Iterator<Item = f32> {
    values.iter().zip(scaling).map(|(value, scaling)| scaling.apply(*value))
}

fn of_column(column: impl Iterator<Item = f32> + Clone) -> Scaling {
    let [plain, logarithmic] = [false, true].map(|signed_log| moments(column.clone(), signed_log));
    if logarithmic.1 > TAMED_GROWTH * plain.1 { logarithmic.0 } else { plain.0 }
}

/// A scaling, and the mean deviation of what it gives: 0.8 when values are normally distributed, little when a few of
/// them lie far out.
fn moments(column: impl Iterator<Item = f32> + Clone, signed_log: bool) -> (Scaling, f64) {
    let plain = Scaling { signed_log, mean: 0.0, inverse_scale: 0.0 };
    let present = || column.clone().filter(|value| !value.is_nan()).map(|value| plain.transform(value));
    let rows = present().count().max(1) as f64;
    let mean = present().sum::<f64>() / rows;
    let square = |value: f64| (value - mean) * (value - mean);
    let deviation = (present().map(square).sum::<f64>() / rows).sqrt();
    if deviation <= CONSTANT_DEVIATION * mean.abs() || deviation < f64::MIN_POSITIVE {
        return (Scaling { signed_log: false, mean, inverse_scale: 0.0 }, 0.0);
    }
    let inverse_scale = (1.0 / deviation).min(COEFFICIENT_MAX);
    let mean_deviation = present().map(|value| (value - mean).abs()).sum::<f64>() / rows;
    (Scaling { signed_log, mean, inverse_scale }, mean_deviation * inverse_scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_tails_are_tamed_and_others_left() {
        let even: Vec<f32> = (0..1000).map(|row| row as f32 / 1000.0).collect();
        let scaling = of_column(even.iter().copied());
        assert!(!scaling.signed_log && (scaling.mean - 0.4995).abs() < 1e-6);
        assert!((f64::from(scaling.apply(0.4995)).abs()) < 1e-6);
        // Bytes of a hundred thousand small and a few huge connections.
        let bytes: Vec<f32> = (0..1000).map(|row| if row % 100 == 0 { 1e9 } else { (row % 50) as f32 }).collect();
        let scaling = of_column(bytes.iter().copied());
        assert!(scaling.signed_log);
        assert!(scaling.apply(40.0) - scaling.apply(1.0) > 0.5, "small values are told apart");
        // Rare flags are no heavy tail: their logarithm is as rare.
        let flags = (0..1000).map(|row| if row % 200 == 0 { 1.0 } else { 0.0 });
        assert!(!of_column(flags).signed_log);
        let missing = of_column([f32::NAN; 4].into_iter());
        assert_eq!((missing.inverse_scale, missing.apply(3.0)), (0.0, 0.0));
        assert_eq!(of_column([5.0; 4].into_iter()).apply(9.0), 0.0);
    }

    #[test]
    fn far_values_are_cut_off() {
        let scaling = of_column([0.0_f32, 1.0, 0.0, 1.0].into_iter());
        assert_eq!(scaling.apply(f32::MAX), 8.0);
        assert_eq!(scaling.apply(f32::MIN), -8.0);
        assert_eq!(scaling.apply(f32::NAN), 0.0);
    }
}
