//! One tree.

use picket_common::model::limits::NODES_MAX;
use picket_common::model::{Algorithm, ModelBody};
use serde::Deserialize;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::tree::decision_tree_regressor::{DecisionTreeRegressor, DecisionTreeRegressorParameters};

use crate::train::smartcore_tree::{SerializedTree, TreeInput, engine_error};
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams};

const ALGORITHM: Algorithm = Algorithm::DecisionTree;

/// A regression tree on 0/1 labels: squared error and Gini impurity choose the same splits for two classes, and the
/// leaves' means are probabilities.
pub(super) struct DecisionTree;

#[derive(Deserialize)]
struct Serialized {
    tree_regressor: SerializedTree,
}

impl Trainer for DecisionTree {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [(8, 3), (4, 3), (6, 10), (12, 1)]
            .into_iter()
            .filter_map(|(depth_max, leaf_rows_min)| {
                ValidParams::new(Params::DecisionTree { depth_max, leaf_rows_min }).ok()
            })
            .collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let depth = match params.get() {
            Params::DecisionTree { depth_max, .. } => u64::from(*depth_max),
            _ => 1,
        };
        // Sorting every feature once costs more than the levels do.
        set.len() as u64 * set.feature_count() as u64 * (64 + 2 * depth)
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        control.check()?;
        let Params::DecisionTree { depth_max, leaf_rows_min } = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        check_size(set.len(), depth_max, leaf_rows_min)?;
        let input = TreeInput::new(set)?;
        let tree = grow(&input, &weights(set), depth_max, leaf_rows_min, seed)?;
        let serialized = serde_json::to_value(&tree)
            .and_then(serde_json::from_value::<Serialized>)
            .map_err(|error| engine_error(ALGORITHM, error))?;
        let mut draft =
            serialized.tree_regressor.draft(&input.stand_ins).map_err(|error| engine_error(ALGORITHM, error))?;
        draft.count_covers(set.rows());
        Ok(FittedModel { body: ModelBody::Forest(vec![draft]) })
    }
}

/// Refuses, before anything is grown, what could become larger than a model may be.
fn check_size(rows: usize, depth_max: u16, leaf_rows_min: u32) -> Result<(), TrainError> {
    let leaves_max = NODES_MAX.div_ceil(2);
    let of_depth = 1usize.checked_shl(depth_max.into()).unwrap_or(usize::MAX);
    let leaves = of_depth.min(rows / leaf_rows_min.max(1) as usize);
    if leaves <= leaves_max {
        return Ok(());
    }
    let reason = format!(
        "a tree of {rows} rows may grow {leaves} leaves, at most {leaves_max} are supported: set leaf_rows_min to {} or \
         more, or depth_max to {} or less",
        rows / (leaves_max + 1) + 1,
        leaves_max.ilog2()
    );
    Err(engine_error(ALGORITHM, reason))
}

/// smartcore's tree, before it is taken apart.
pub(super) fn grow(
    input: &TreeInput,
    weights: &[f64],
    depth_max: u16,
    leaf_rows_min: u32,
    seed: u64,
) -> Result<DecisionTreeRegressor<f32, f64, DenseMatrix<f32>, Vec<f64>>, TrainError> {
    let leaf_rows_min = leaf_rows_min as usize;
    let parameters = DecisionTreeRegressorParameters {
        // smartcore counts levels of nodes.
        max_depth: Some(depth_max + 1),
        min_samples_leaf: leaf_rows_min,
        min_samples_split: (2 * leaf_rows_min).max(2),
        seed: Some(seed),
    };
    DecisionTreeRegressor::fit_with_weights(&input.matrix, &input.labels, weights, parameters)
        .map_err(|error| engine_error(ALGORITHM, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_grow_too_large_is_refused_with_what_would_do() {
        let refused = check_size(1_000_000, 40, 1).unwrap_err().to_string();
        assert!(refused.contains("leaf_rows_min to 2 or more, or depth_max to 18 or less"), "{refused}");
        assert!(check_size(1_000_000, 40, 2).is_ok());
        assert!(check_size(1_000_000, 18, 1).is_ok());
        assert!(check_size(500_000, 40, 1).is_ok());
    }
}
