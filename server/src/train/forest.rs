//! Many trees: random forests (Breiman, 2001) and extremely randomised trees (Geurts, Ernst, Wehenkel, 2006).

use picket_common::model::{Algorithm, ModelBody, TreeDraft};
use serde::{Deserialize, Serialize};
use smartcore::ensemble::extra_trees_regressor::{ExtraTreesRegressor, ExtraTreesRegressorParameters};
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;

use crate::evaluate::random::SplitMix64;
use crate::train::params::ForestParams;
use crate::train::smartcore_tree::{SerializedTree, TreeInput, engine_error};
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, parallel};

/// Trees of one job. Part of what a seed means: changing it changes every model.
const TREES_PER_JOB: usize = 10;
/// Trees of a forest, by default …
const TREES: u16 = 60;
/// … and where each of them is cruder.
const EXTRA_TREES: u16 = 80;
/// Greatest depth of a tree, by default.
const DEPTH_MAX: u16 = 16;

/// Regression trees on 0/1 labels, each on a bootstrap sample drawn with the rows' weights; the mean of their leaves is
/// a probability. smartcore's forest *classifier* looks at all rows in every node and votes; its *regressor* is three
/// times as fast and its means rank better than votes.
pub(super) struct RandomForest;

/// Regression trees on all rows, weighted; each split is the best of one random threshold for each feature. Where few
/// attacks are known, a best threshold is mostly chance: random ones, averaged, make smoother borders.
pub(super) struct ExtraTrees;

impl Trainer for RandomForest {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RandomForest
    }

    fn candidates(&self, feature_count: usize) -> Vec<ValidParams> {
        let third = feature_count / 3;
        let root = (feature_count as f64).sqrt().round() as usize;
        candidates(Params::RandomForest, TREES, &[(3, third), (1, third), (3, root)])
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        cost(set, params)
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        fit(self.algorithm(), set, params, seed, control)
    }
}

impl Trainer for ExtraTrees {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ExtraTrees
    }

    fn candidates(&self, feature_count: usize) -> Vec<ValidParams> {
        candidates(Params::ExtraTrees, EXTRA_TREES, &[(3, feature_count), (1, feature_count), (3, feature_count / 3)])
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        cost(set, params)
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        fit(self.algorithm(), set, params, seed, control)
    }
}

/// Candidates from (fewest rows of a leaf, features looked at for each split).
fn candidates(of: fn(ForestParams) -> Params, trees: u16, choices: &[(u32, usize)]) -> Vec<ValidParams> {
    let params = |(leaf_rows_min, features): &(u32, usize)| {
        let features_per_split = u16::try_from((*features).max(1)).unwrap_or(u16::MAX);
        let forest = ForestParams { trees, depth_max: DEPTH_MAX, leaf_rows_min: *leaf_rows_min, features_per_split };
        ValidParams::new(of(forest)).ok()
    };
    choices.iter().filter_map(params).collect()
}

fn cost(set: &TrainingSet, params: &ValidParams) -> u64 {
    let (trees, depth) =
        params.get().forest().map_or((1, 1), |forest| (u64::from(forest.trees), u64::from(forest.depth_max)));
    set.len() as u64 * set.feature_count() as u64 * depth * trees
}

fn fit(
    algorithm: Algorithm,
    set: &TrainingSet,
    params: &ValidParams,
    seed: u64,
    control: &Control<'_>,
) -> Result<FittedModel, TrainError> {
    let input = TreeInput::new(set, algorithm)?;
    let weights = weights(set);
    let parts = part_sizes(params)?;
    let parts: Vec<Vec<TreeDraft>> = parallel::try_map(parts.len(), control.threads, |part| {
        control.check()?;
        grow_part(&input, &weights, params, seed, part, parts[part])?.drafts(algorithm, &input.stand_ins)
    })?;
    Ok(FittedModel { body: ModelBody::Forest(parts.into_iter().flatten().collect()) })
}

/// Trees of each job.
pub(super) fn part_sizes(params: &ValidParams) -> Result<Vec<usize>, TrainError> {
    let trees = usize::from(forest_params(params)?.trees);
    Ok((0..trees).step_by(TREES_PER_JOB).map(|first| TREES_PER_JOB.min(trees - first)).collect())
}

fn forest_params(params: &ValidParams) -> Result<ForestParams, TrainError> {
    let algorithm = params.get().algorithm();
    params.get().forest().ok_or_else(|| engine_error(algorithm, "it is no forest"))
}

/// A part of a forest as smartcore grew it.
pub(super) enum EngineForest {
    Random(RandomForestRegressor<f32, f64, DenseMatrix<f32>, Vec<f64>>),
    Extra(ExtraTreesRegressor<f32, f64, DenseMatrix<f32>, Vec<f64>>),
}

/// One job's trees.
pub(super) fn grow_part(
    input: &TreeInput,
    weights: &[f64],
    params: &ValidParams,
    seed: u64,
    part: usize,
    trees: usize,
) -> Result<EngineForest, TrainError> {
    let ForestParams { depth_max, leaf_rows_min, features_per_split, .. } = forest_params(params)?;
    // smartcore counts levels of nodes.
    let max_depth = Some(depth_max + 1);
    let min_samples_leaf = leaf_rows_min as usize;
    let min_samples_split = (2 * min_samples_leaf).max(2);
    let m = Some(usize::from(features_per_split));
    let seed = SplitMix64::for_job(seed, part as u64).next_u64();
    let (x, y) = (&input.matrix, &input.labels);
    let algorithm = params.get().algorithm();
    let grown = if algorithm == Algorithm::ExtraTrees {
        let parameters = ExtraTreesRegressorParameters {
            max_depth,
            min_samples_leaf,
            min_samples_split,
            n_trees: trees,
            m,
            keep_samples: false,
            seed,
        };
        ExtraTreesRegressor::fit_with_weights(x, y, weights, parameters).map(EngineForest::Extra)
    } else {
        let parameters = RandomForestRegressorParameters {
            max_depth,
            min_samples_leaf,
            min_samples_split,
            n_trees: trees,
            m,
            keep_samples: false,
            seed,
        };
        RandomForestRegressor::fit_with_weights(x, y, weights, parameters).map(EngineForest::Random)
    };
    grown.map_err(|error| engine_error(algorithm, error))
}

#[derive(Deserialize)]
struct SerializedForest {
    forest_regressor: SerializedTrees,
}

#[derive(Deserialize)]
struct SerializedTrees {
    trees: Vec<SerializedTree>,
}

impl EngineForest {
    fn drafts(&self, algorithm: Algorithm, stand_ins: &[f32]) -> Result<Vec<TreeDraft>, TrainError> {
        let serialized = match self {
            Self::Random(forest) => read_back(forest),
            Self::Extra(forest) => read_back(forest),
        };
        let forest = serialized.map_err(|error| engine_error(algorithm, error))?;
        let draft = |tree: &SerializedTree| tree.draft(stand_ins).map_err(|error| engine_error(algorithm, error));
        forest.forest_regressor.trees.iter().map(draft).collect()
    }

    #[cfg(test)]
    pub(super) fn predict(&self, rows: &DenseMatrix<f32>) -> Vec<f64> {
        match self {
            Self::Random(forest) => forest.predict(rows).unwrap(),
            Self::Extra(forest) => forest.predict(rows).unwrap(),
        }
    }
}

fn read_back(forest: &impl Serialize) -> Result<SerializedForest, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(forest)?)
}
