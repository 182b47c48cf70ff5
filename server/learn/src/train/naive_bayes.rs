//! Naive Bayes.

use picket_common::model::limits::EDGES_MAX;
use picket_common::model::{Algorithm, ModelBody, Steps};

use crate::train::platt::{self, Line, Margin};
use crate::train::smartcore_tree::engine_error;
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams};

const ALGORITHM: Algorithm = Algorithm::NaiveBayes;

/// For each feature how much more likely its value is in malicious rows than in benign ones, as if features knew nothing
/// of each other.
///
/// Values are binned by their quantiles rather than taken for normally distributed (smartcore's Gaussian): counts, bytes
/// and ports are nothing like that. A bin's share is drawn towards that of all rows by `smoothing` rows. A missing value is
/// no evidence. Features do know of each other, so that the sum says too much: a line fitted to sums of rows that were not
/// learned from ([`platt`]) makes log-odds of it, and each feature's share is scaled with it.
pub(super) struct NaiveBayes;

impl Trainer for NaiveBayes {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [(64, 1.0), (16, 1.0), (256, 1.0)]
            .into_iter()
            .filter_map(|(bins, smoothing)| ValidParams::new(Params::NaiveBayes { bins, smoothing }).ok())
            .collect()
    }

    fn cost(&self, set: &TrainingSet, _params: &ValidParams) -> u64 {
        // Sorting each feature, four times in all.
        4 * 32 * set.len() as u64 * set.feature_count() as u64
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let Params::NaiveBayes { bins, smoothing } = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        let body = platt::fit_scaled(set, seed, control, |set, control| {
            let weights = weights(set);
            let features = (0..set.feature_count()).map(|feature| {
                control.check()?;
                Ok(steps(set, feature, &weights, bins, smoothing))
            });
            Ok(Likelihoods(features.collect::<Result<_, TrainError>>()?))
        })?;
        Ok(FittedModel { body })
    }
}

/// Logarithms of likelihood ratios.
struct Likelihoods(Vec<Steps>);

impl Margin for Likelihoods {
    fn margin(&self, row: &[f32]) -> f64 {
        self.0.iter().zip(row).map(|(steps, value)| steps.log_odds(Some(*value).filter(|value| !value.is_nan()))).sum()
    }

    fn into_body(mut self, line: Line) -> ModelBody {
        for ratio in self.0.iter_mut().flat_map(|steps| &mut steps.log_odds) {
            // Likelihood ratios are logarithms of row counts, and slopes are limited.
            *ratio = (f64::from(*ratio) * line.slope) as f32;
        }
        ModelBody::Additive { bias: line.offset, features: self.0 }
    }
}

fn steps(set: &TrainingSet, feature: usize, weights: &[f64], bins: u16, smoothing: f64) -> Steps {
    let mut present: Vec<(f32, usize)> =
        set.column(feature).enumerate().filter(|(_, value)| !value.is_nan()).map(|(row, value)| (value, row)).collect();
    present.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let edges = edges(&present, usize::from(bins).min(EDGES_MAX + 1));
    if edges.is_empty() {
        return Steps::default();
    }
    let mut sums = vec![[0.0; 2]; edges.len() + 1];
    let mut bin = 0;
    for (value, row) in present {
        while edges.get(bin).is_some_and(|edge| value > *edge) {
            bin += 1;
        }
        sums[bin][usize::from(set.malicious()[row])] += weights[row];
    }
    let totals = [0, 1].map(|class| sums.iter().map(|sum| sum[class]).sum::<f64>());
    let all = totals[0] + totals[1];
    let log_odds = sums
        .iter()
        .map(|sum| {
            let share = (sum[0] + sum[1]) / all;
            let [benign, malicious] =
                [0, 1].map(|class| (sum[class] + smoothing * share) / (totals[class] + smoothing));
            libm::log(malicious / benign) as f32
        })
        .collect();
    Steps { edges, log_odds }
}

/// At most `bins` − 1 edges, each between two values that occur, with about equally many rows between them.
fn edges(sorted: &[(f32, usize)], bins: usize) -> Vec<f32> {
    let mut edges: Vec<f32> = Vec::new();
    for bin in 1..bins {
        let start = bin * sorted.len() / bins;
        // Equal values share a bin: the edge is where the run of them ends.
        let Some((value, _)) = start.checked_sub(1).and_then(|last| sorted.get(last)) else { continue };
        let end = sorted.partition_point(|other| other.0 <= *value);
        let Some((next, _)) = sorted.get(end) else { break };
        let middle = value + (next - value) / 2.0;
        let edge = if middle.is_finite() && middle < *next { middle.max(*value) } else { *value };
        if edges.last().is_none_or(|last| edge > *last) {
            edges.push(edge);
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(values: &[f32]) -> Vec<(f32, usize)> {
        values.iter().enumerate().map(|(row, value)| (*value, row)).collect()
    }

    #[test]
    fn edges_lie_between_values_and_hold_equal_ones_together() {
        assert_eq!(edges(&sorted(&[0.0, 1.0, 2.0, 3.0]), 4), [0.5, 1.5, 2.5]);
        assert_eq!(edges(&sorted(&[0.0, 0.0, 0.0, 3.0]), 4), [1.5]);
        assert_eq!(edges(&sorted(&[5.0; 8]), 4), [0.0; 0]);
        assert_eq!(edges(&[], 4), [0.0; 0]);
        let wide = edges(&sorted(&[f32::MIN, f32::MAX]), 2);
        assert!(wide.len() == 1 && wide[0] >= f32::MIN && wide[0] < f32::MAX);
        // Neighbouring numbers have no middle.
        let near = f32::from_bits(1.0_f32.to_bits() + 1);
        assert_eq!(edges(&sorted(&[1.0, near]), 2), [1.0]);
    }

    #[test]
    fn ratios_are_those_of_the_counts() {
        // Of 8 benign rows 6 have a 0, of 4 malicious ones 1; the weights make both classes alike.
        let values = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, f32::NAN];
        let labels = (0..12).map(|row| row >= 8).collect();
        let set = TrainingSet::new(1, values.to_vec(), labels, (0..12).collect()).unwrap();
        let found = steps(&set, 0, &weights(&set), 2, 1e-9);
        assert_eq!(found.edges, [0.5]);
        // The row without a value counts nowhere.
        let expected = [(1.0_f64 / 3.0) / 0.75, (2.0 / 3.0) / 0.25].map(f64::ln);
        for (ratio, expected) in found.log_odds.iter().zip(expected) {
            assert!((f64::from(*ratio) - expected).abs() < 1e-6, "{ratio} {expected}");
        }
    }
}
