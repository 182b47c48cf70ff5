//! Parameters by lot, from ranges that are worth trying.

use picket_common::model::Algorithm;

use crate::random::SplitMix64;
use crate::train::{BoostingParams, ForestParams, Params, ValidParams};

/// Learning rates, smallest and greatest; drawn evenly on their logarithm.
const LEARNING_RATES: [f64; 2] = [0.03, 0.25];
/// Ridge penalties, likewise.
const RIDGES: [f64; 2] = [1e-3, 1e2];

/// A set of parameters; nothing for an algorithm whose usual ones are all there is to try.
pub(super) fn params(algorithm: Algorithm, features: usize, random: &mut SplitMix64) -> Option<ValidParams> {
    let params = if algorithm == Algorithm::GradientBoosting {
        Params::GradientBoosting(boosting(random))
    } else if algorithm == Algorithm::RandomForest {
        Params::RandomForest(forest(features, random))
    } else if algorithm == Algorithm::ExtraTrees {
        Params::ExtraTrees(forest(features, random))
    } else if algorithm == Algorithm::VotingForest {
        Params::VotingForest(forest(features, random))
    } else if algorithm == Algorithm::DecisionTree {
        let (depth_max, leaf_rows_min) =
            (one_of(&[4, 6, 8, 12, 16, 24], random), one_of(&[1, 2, 5, 10, 30, 100], random));
        Params::DecisionTree { depth_max, leaf_rows_min }
    } else if algorithm == Algorithm::LogisticRegression {
        Params::LogisticRegression { ridge: between(RIDGES, random) }
    } else {
        return None;
    };
    ValidParams::new(params).ok()
}

fn boosting(random: &mut SplitMix64) -> BoostingParams {
    let leaves_max = one_of(&[7, 15, 31, 31, 63, 127], random);
    BoostingParams {
        trees: one_of(&[100, 200, 300, 400, 600], random),
        learning_rate: between(LEARNING_RATES, random),
        leaves_max,
        leaf_rows_min: one_of(&[1, 3, 5, 10, 20, 50], random),
        l2: one_of(&[0.0, 0.1, 1.0, 1.0, 5.0, 20.0], random),
        feature_share: one_of(&[0.2, 0.35, 0.5, 0.7, 1.0, 1.0], random),
        other_share: one_of(&[0.6, 0.8, 1.0, 1.0], random),
        early_stopping_rounds: one_of(&[0, 30], random),
        ..BoostingParams::default()
    }
}

fn forest(features: usize, random: &mut SplitMix64) -> ForestParams {
    let usual = (features as f64).sqrt();
    let features_per_split = (usual * one_of(&[0.5, 1.0, 1.0, 2.0, 4.0], random)).round().clamp(1.0, features as f64);
    ForestParams {
        trees: one_of(&[50, 100, 200], random),
        depth_max: one_of(&[10, 16, 24, 32], random),
        leaf_rows_min: one_of(&[1, 2, 3, 5, 10], random),
        features_per_split: features_per_split as u16,
    }
}

fn one_of<T: Copy>(choices: &[T], random: &mut SplitMix64) -> T {
    choices[random.below(choices.len())]
}

/// Evenly on the logarithm.
fn between([low, high]: [f64; 2], random: &mut SplitMix64) -> f64 {
    let value = low * libm::pow(high / low, random.unit());
    // Few digits: people read them.
    let scale = libm::pow(10.0, libm::floor(libm::log10(value)) - 1.0);
    ((value / scale).round() * scale).clamp(low, high)
}
