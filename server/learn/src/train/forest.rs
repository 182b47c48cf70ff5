//! Many trees: random forests (Breiman, 2001) and extremely randomised trees (Geurts, Ernst, Wehenkel, 2006).

use std::sync::OnceLock;

use picket_common::model::limits::NODES_MAX;
use picket_common::model::{Algorithm, ModelBody, TreeDraft};

use crate::random::SplitMix64;
use crate::train::params::ForestParams;
use crate::train::tree::best::BestSplits;
use crate::train::tree::prune::prune;
use crate::train::tree::random::RandomSplits;
use crate::train::tree::{BinnedMatrix, Limits, RowWeights, Spreads, grow};
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, parallel};

/// Trees of a forest, by default …
const TREES: u16 = 60;
/// … and where each of them is cruder.
const EXTRA_TREES: u16 = 80;
/// Trees of both kinds.
const VOTING_TREES: u16 = 120;
/// Greatest depth of a tree, by default.
const DEPTH_MAX: u16 = 16;

/// Regression trees on 0/1 labels, each on a bootstrap sample drawn with the rows' weights; the mean of their leaves is
/// a probability.
pub(super) struct RandomForest;

/// Regression trees on all rows, weighted; each split is the best of one random threshold for each feature. Where few
/// attacks are known, a best threshold is mostly chance: random ones, averaged, make smoother borders.
pub(super) struct ExtraTrees;

/// Both, each with half of the trees: they err in different places (soft voting; Kuncheva, Combining Pattern
/// Classifiers, 2004, 5.2).
pub(super) struct VotingForest;

/// One kind of forest.
trait Forest: Sync {
    fn algorithm(&self) -> Algorithm;

    /// Trees and, for each set of parameters worth trying, fewest rows of a leaf and features looked at for each split.
    fn choices(&self, feature_count: usize) -> (u16, Vec<(u32, usize)>);

    fn params(&self, forest: ForestParams) -> Params;

    /// Grows the tree with this number.
    fn grow(&self, ground: &Ground<'_>, forest: ForestParams, tree: usize, seed: u64) -> TreeDraft;
}

impl Forest for RandomForest {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RandomForest
    }

    fn choices(&self, feature_count: usize) -> (u16, Vec<(u32, usize)>) {
        let third = feature_count / 3;
        let root = (feature_count as f64).sqrt().round() as usize;
        (TREES, vec![(3, third), (1, third), (3, root)])
    }

    fn params(&self, forest: ForestParams) -> Params {
        Params::RandomForest(forest)
    }

    fn grow(&self, ground: &Ground<'_>, forest: ForestParams, _: usize, seed: u64) -> TreeDraft {
        grow_best(ground, forest, seed)
    }
}

impl Forest for ExtraTrees {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ExtraTrees
    }

    fn choices(&self, feature_count: usize) -> (u16, Vec<(u32, usize)>) {
        (EXTRA_TREES, vec![(3, feature_count), (1, feature_count), (3, feature_count / 3)])
    }

    fn params(&self, forest: ForestParams) -> Params {
        Params::ExtraTrees(forest)
    }

    fn grow(&self, ground: &Ground<'_>, forest: ForestParams, _: usize, seed: u64) -> TreeDraft {
        grow_random(ground, forest, seed)
    }
}

impl Forest for VotingForest {
    fn algorithm(&self) -> Algorithm {
        Algorithm::VotingForest
    }

    fn choices(&self, feature_count: usize) -> (u16, Vec<(u32, usize)>) {
        (VOTING_TREES, vec![(3, feature_count / 3), (1, feature_count / 3)])
    }

    fn params(&self, forest: ForestParams) -> Params {
        Params::VotingForest(forest)
    }

    fn grow(&self, ground: &Ground<'_>, forest: ForestParams, tree: usize, seed: u64) -> TreeDraft {
        if tree.is_multiple_of(2) {
            grow_best(ground, forest, seed)
        } else {
            grow_random(ground, ForestParams { features_per_split: u16::MAX, ..forest }, seed)
        }
    }
}

impl<F: Forest> Trainer for F {
    fn algorithm(&self) -> Algorithm {
        Forest::algorithm(self)
    }

    fn candidates(&self, feature_count: usize) -> Vec<ValidParams> {
        let (trees, choices) = self.choices(feature_count);
        let params = |(leaf_rows_min, features): (u32, usize)| {
            let features_per_split = u16::try_from(features.max(1)).unwrap_or(u16::MAX);
            let forest = ForestParams { trees, depth_max: DEPTH_MAX, leaf_rows_min, features_per_split };
            ValidParams::new(self.params(forest)).ok()
        };
        choices.into_iter().filter_map(params).collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let (trees, depth) =
            params.get().forest().map_or((1, 1), |forest| (u64::from(forest.trees), u64::from(forest.depth_max)));
        set.len() as u64 * set.feature_count() as u64 * depth * trees
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let algorithm = Forest::algorithm(self);
        let wrong = || TrainError::Engine { algorithm, reason: "parameters of another algorithm".to_owned() };
        let forest = params.get().forest().ok_or_else(wrong)?;
        let ground = Ground::of(set, control.threads);
        let trees = parallel::try_map(usize::from(forest.trees), control.threads, |tree| {
            control.check()?;
            let seed = SplitMix64::for_job(seed, tree as u64).next_u64();
            let mut tree = self.grow(&ground, forest, tree, seed);
            // Deep trees on many rows would make a model that no agent takes.
            prune(&mut tree, NODES_MAX / usize::from(forest.trees));
            Ok::<_, TrainError>(tree)
        })?;
        Ok(FittedModel { body: ModelBody::Forest(trees) })
    }
}

/// What the trees of a forest grow on.
struct Ground<'a> {
    set: &'a TrainingSet,
    matrix: BinnedMatrix,
    /// Made for the first tree that needs it.
    spreads: OnceLock<Spreads>,
    /// What every row weighs.
    weights: RowWeights,
    /// What the rows up to each weigh together, that one included.
    ends: Vec<f64>,
}

impl<'a> Ground<'a> {
    fn of(set: &'a TrainingSet, threads: usize) -> Self {
        let weights = weights(set);
        let mut total = 0.0;
        let add = |weight: &f64| {
            total += weight;
            total
        };
        let ends = weights.iter().map(add).collect();
        let (matrix, weights) =
            (BinnedMatrix::with_threads(set, threads), RowWeights::scaled(&weights, set.malicious()));
        Self { set, matrix, spreads: OnceLock::new(), weights, ends }
    }
}

fn limits(forest: ForestParams) -> Limits {
    Limits { depth_max: forest.depth_max, leaf_rows_min: forest.leaf_rows_min }
}

/// A tree of a random forest: the best splits of a bootstrap sample.
fn grow_best(ground: &Ground<'_>, forest: ForestParams, seed: u64) -> TreeDraft {
    let mut random = SplitMix64::new(seed);
    let counts = bootstrap(&ground.ends, &mut random);
    let weights = RowWeights::counted(&counts, ground.set.malicious());
    let features = usize::from(forest.features_per_split);
    let mut finder = BestSplits::new(&ground.matrix, limits(forest), features, random.next_u64());
    grow(&ground.matrix, &weights, limits(forest), &mut finder)
}

/// A tree of extra trees: random splits of all rows.
fn grow_random(ground: &Ground<'_>, forest: ForestParams, seed: u64) -> TreeDraft {
    let features = usize::from(forest.features_per_split);
    let spreads = ground.spreads.get_or_init(|| Spreads::new(&ground.matrix));
    let mut finder = RandomSplits::new(&ground.matrix, spreads, limits(forest), features, seed);
    grow(&ground.matrix, &ground.weights, limits(forest), &mut finder)
}

/// How often each row is drawn when as many are drawn as there are, each with a chance by its weight; see
/// [`Ground::ends`].
fn bootstrap(ends: &[f64], random: &mut SplitMix64) -> Vec<u32> {
    let mut counts = vec![0; ends.len()];
    let Some(total) = ends.last() else { return counts };
    for _ in ends {
        let place = random.unit() * total;
        let row = ends.partition_point(|end| *end <= place).min(ends.len() - 1);
        counts[row] += 1;
    }
    counts
}
