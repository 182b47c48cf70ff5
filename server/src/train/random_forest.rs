//! Many trees.

use picket_common::model::{Algorithm, ModelBody, TreeDraft};
use serde::Deserialize;
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;

use crate::evaluate::random::SplitMix64;
use crate::train::parallel;
use crate::train::smartcore_tree::{SerializedTree, TreeInput, engine_error};
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams};

const ALGORITHM: Algorithm = Algorithm::RandomForest;
/// Trees of one job. Part of what a seed means: changing it changes every model.
const TREES_PER_JOB: usize = 10;
/// Trees of a forest, by default.
const TREES: u16 = 60;

/// Regression trees on 0/1 labels, each on a bootstrap sample drawn with the rows' weights; the mean of their leaves is
/// a probability. smartcore's forest *classifier* looks at all rows in every node and votes; its *regressor* is three
/// times as fast and its means rank better than votes.
pub(super) struct RandomForest;

#[derive(Deserialize)]
struct Serialized {
    forest_regressor: SerializedForest,
}

#[derive(Deserialize)]
struct SerializedForest {
    trees: Vec<SerializedTree>,
}

/// What grows a part of a forest.
pub(super) type EngineForest = RandomForestRegressor<f32, f64, DenseMatrix<f32>, Vec<f64>>;

impl Trainer for RandomForest {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, feature_count: usize) -> Vec<ValidParams> {
        let root = (feature_count as f64).sqrt().round().max(1.0) as u16;
        let third = u16::try_from(feature_count / 3).unwrap_or(u16::MAX).max(1);
        [(1, third), (3, third), (1, root), (3, root)]
            .into_iter()
            .filter_map(|(leaf_rows_min, features_per_split)| {
                let forest = Params::RandomForest { trees: TREES, depth_max: 16, leaf_rows_min, features_per_split };
                ValidParams::new(forest).ok()
            })
            .collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let (trees, depth) = match params.get() {
            Params::RandomForest { trees, depth_max, .. } => (u64::from(*trees), u64::from(*depth_max)),
            _ => (1, 1),
        };
        set.len() as u64 * set.feature_count() as u64 * depth * trees
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let input = TreeInput::new(set, ALGORITHM)?;
        let weights = weights(set);
        let parts = part_sizes(params)?;
        let parts: Vec<Vec<TreeDraft>> = parallel::try_map(parts.len(), control.threads, |part| {
            control.check()?;
            let forest = grow_part(&input, &weights, params, seed, part, parts[part])?;
            let serialized = serde_json::to_value(&forest)
                .and_then(serde_json::from_value::<Serialized>)
                .map_err(|error| engine_error(ALGORITHM, error))?;
            let draft = |tree: &SerializedTree| tree.draft(&input.stand_ins);
            serialized
                .forest_regressor
                .trees
                .iter()
                .map(|tree| draft(tree).map_err(|error| engine_error(ALGORITHM, error)))
                .collect()
        })?;
        Ok(FittedModel { body: ModelBody::Forest(parts.into_iter().flatten().collect()) })
    }
}

/// Trees of each job.
pub(super) fn part_sizes(params: &ValidParams) -> Result<Vec<usize>, TrainError> {
    let Params::RandomForest { trees, .. } = *params.get() else {
        return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
    };
    let trees = usize::from(trees);
    Ok((0..trees).step_by(TREES_PER_JOB).map(|first| TREES_PER_JOB.min(trees - first)).collect())
}

/// One job's trees, before they are taken apart.
pub(super) fn grow_part(
    input: &TreeInput,
    weights: &[f64],
    params: &ValidParams,
    seed: u64,
    part: usize,
    trees: usize,
) -> Result<EngineForest, TrainError> {
    let Params::RandomForest { depth_max, leaf_rows_min, features_per_split, .. } = *params.get() else {
        return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
    };
    let leaf_rows_min = leaf_rows_min as usize;
    let parameters = RandomForestRegressorParameters {
        // smartcore counts levels of nodes.
        max_depth: Some(depth_max + 1),
        min_samples_leaf: leaf_rows_min,
        min_samples_split: (2 * leaf_rows_min).max(2),
        n_trees: trees,
        m: Some(usize::from(features_per_split)),
        keep_samples: false,
        seed: SplitMix64::for_job(seed, part as u64).next_u64(),
    };
    RandomForestRegressor::fit_with_weights(&input.matrix, &input.labels, weights, parameters)
        .map_err(|error| engine_error(ALGORITHM, error))
}
