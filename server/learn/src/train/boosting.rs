//! Gradient boosting (Friedman, 2001) on histograms: each tree corrects the log-odds of those before it.
//!
//! ```text
//! log-odds ─▶ gradients, curvatures (whole numbers) ─▶ histograms ─▶ splits ─▶ leaves ─▶ log-odds …
//! ```
//!
//! * **Newton steps** on the weighted log-loss; trees grow best split first, up to so many leaves.
//! * **Exact sums** ([`histogram`]): the same bytes on any number of threads, and the histogram of the larger child is
//!   that of the parent less that of the smaller.
//! * **Missing values** go to the side that gains more; where a node has none, with the majority.
//! * **Sampling by gradient** (GOSS; Ke et al., 2017): rows with large gradients, and some of the others in their stead.
//! * **Early stopping** on groups that are held out; then all rows are fitted with as many trees as were best.

use std::sync::Arc;

use parking_lot::RwLock;
use picket_common::model::{Algorithm, ModelBody, TreeDraft};

use crate::random::SplitMix64;
use crate::train::boosting::gradient::{Scale, Segment};
use crate::train::boosting::ground::{Done, Ground, MAGNITUDE_STEP, NodeRows, Sampling, Task, Workers};
use crate::train::boosting::grow::{Grower, Limits};
use crate::train::boosting::histogram::RowBlocks;
use crate::train::boosting::split::Rules;
use crate::train::crew::with_crew;
use crate::train::fold::Folds;
use crate::train::params::BoostingParams;
use crate::train::tree::BinnedMatrix;
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams};

mod gradient;
mod ground;
mod grow;
mod histogram;
mod split;
#[cfg(test)]
mod tests;

/// One part in so many is held out for early stopping.
const HELD_OUT: usize = 8;
/// How much the log-loss must fall to count as better, as a share.
const BETTER: f64 = 1e-6;

/// Trees that correct each other.
pub(super) struct GradientBoosting;

impl Trainer for GradientBoosting {
    fn algorithm(&self) -> Algorithm {
        Algorithm::GradientBoosting
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        // Labels are few where one begins: small trees, and soon an end.
        let usual =
            BoostingParams { trees: 100, leaves_max: 12, early_stopping_rounds: 10, ..BoostingParams::default() };
        let choices =
            [usual, BoostingParams { leaves_max: 6, ..usual }, BoostingParams { feature_share: 0.4, ..usual }];
        choices.into_iter().filter_map(|params| ValidParams::new(Params::GradientBoosting(params)).ok()).collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        params.get().boosting().map_or(1, |boosting| cost(set, &boosting))
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let algorithm = Algorithm::GradientBoosting;
        let wrong = || TrainError::Engine { algorithm, reason: "parameters of another algorithm".to_owned() };
        let params = params.get().boosting().ok_or_else(wrong)?;
        let matrix = BinnedMatrix::with_threads(set, control.threads);
        let blocks = RowBlocks::new(&matrix);
        let fit = Fit { set, matrix: &matrix, blocks: &blocks, params, weights: weights(set), seed, control };
        let trees = match fit.held_out() {
            Some(held_out) => fit.boost(params.trees, Some(&held_out))?.trees.len(),
            None => usize::from(params.trees),
        };
        let Boosted { base_score, trees } = fit.boost(u16::try_from(trees).unwrap_or(u16::MAX), None)?;
        Ok(FittedModel { body: ModelBody::Boosting { base_score, trees } })
    }
}

/// Elementary steps: for each tree every row in every feature about three times, of which a boosting step takes a
/// seventh of the time that a forest's step takes, and every bin of the two children of each split.
fn cost(set: &TrainingSet, params: &BoostingParams) -> u64 {
    let (rows, features) = (set.len() as u64, set.feature_count() as u64);
    let bins = u64::from(params.leaves_max) * 512;
    let fits = if params.early_stopping_rounds > 0 { 2 } else { 1 };
    fits * u64::from(params.trees) * features * (rows * 3 / 7 + bins / 2)
}

/// What all fits on one set share.
struct Fit<'a> {
    set: &'a TrainingSet,
    matrix: &'a BinnedMatrix,
    blocks: &'a RowBlocks,
    params: BoostingParams,
    weights: Vec<f64>,
    seed: u64,
    control: &'a Control<'a>,
}

/// What boosting gave.
struct Boosted {
    base_score: f64,
    trees: Vec<TreeDraft>,
}

impl Fit<'_> {
    /// For each row whether it is held out; nothing when there is no early stopping, or no honest part for it.
    fn held_out(&self) -> Option<Vec<bool>> {
        if self.params.early_stopping_rounds == 0 {
            return None;
        }
        let folds = Folds::assign(self.set, HELD_OUT, self.seed);
        // A model that has seen rows of the same attack would never stop.
        folds.grouped.then(|| folds.fold_of_row.iter().map(|fold| *fold == Some(0)).collect())
    }

    /// Boosts up to so many trees; where rows are held out, as many as were best on them.
    fn boost(&self, trees: u16, held_out: Option<&[bool]>) -> Result<Boosted, TrainError> {
        let learns = |row: usize| held_out.is_none_or(|held_out| !held_out[row]);
        let base_score = self.base_score(learns);
        let segment_rows = Ground::segment_rows(self.set.len());
        let segment = |base: usize| {
            let rows = base..(base + segment_rows).min(self.set.len());
            let (weights, malicious) = (&self.weights[rows.clone()], &self.set.malicious()[rows]);
            RwLock::new(Segment::new(base, weights, malicious, base_score as f32))
        };
        let segments: Vec<_> = (0..self.set.len()).step_by(segment_rows).map(segment).collect();
        let rows_where = |wanted: bool| -> Arc<NodeRows> {
            let of_segment = |base: usize| {
                let places = 0..segment_rows.min(self.set.len() - base);
                let places = places.filter(|place| learns(base + place) == wanted);
                places.filter_map(|place| u16::try_from(place).ok()).collect()
            };
            Arc::new((0..self.set.len()).step_by(segment_rows).map(of_segment).collect())
        };
        let (rows, judged) = (rows_where(true), rows_where(false));
        let params = &self.params;
        let scale = Scale::of(&self.weights, params.amplification());
        let ground = Ground {
            matrix: self.matrix,
            blocks: self.blocks,
            segments,
            scale,
            rules: Rules {
                curvature_min: params.leaf_weight_min * scale.curvature,
                leaf_rows_min: params.leaf_rows_min,
                l2: params.l2 * scale.curvature,
            },
        };
        let work = |task| ground.work(task);
        let trees = with_crew(self.control.threads, &work, |workers| {
            let rounds = Rounds { fit: self, ground: &ground, workers, rows, judged };
            rounds.run(trees, held_out.is_some())
        })?;
        Ok(Boosted { base_score, trees })
    }

    /// Log-odds of the weighted mean label.
    fn base_score(&self, learns: impl Fn(usize) -> bool) -> f64 {
        let mut classes = [0.0; 2];
        for (row, (weight, malicious)) in self.weights.iter().zip(self.set.malicious()).enumerate() {
            classes[usize::from(*malicious)] += if learns(row) { *weight } else { 0.0 };
        }
        let least = f64::MIN_POSITIVE.max(1e-9 * (classes[0] + classes[1]));
        libm::log(classes[1].max(least) / classes[0].max(least))
    }
}

/// Tree after tree.
struct Rounds<'a> {
    fit: &'a Fit<'a>,
    ground: &'a Ground<'a>,
    workers: &'a Workers<'a>,
    rows: Arc<NodeRows>,
    /// The rows that are held out.
    judged: Arc<NodeRows>,
}

impl Rounds<'_> {
    fn run(&self, trees: u16, stops_early: bool) -> Result<Vec<TreeDraft>, TrainError> {
        let params = &self.fit.params;
        let limits = Limits {
            leaves_max: params.leaves_max.into(),
            depth_max: params.depth_max,
            learning_rate: params.learning_rate,
        };
        let mut random = SplitMix64::new(self.fit.seed);
        let mut grown = Vec::with_capacity(trees.into());
        let (mut least_loss, mut best) = (self.advance(Vec::new(), &mut random), 0);
        for _ in 0..trees {
            self.fit.control.check()?;
            let features = self.features(&mut random);
            let (rows, watched) = self.sample(&mut random);
            let grower = Grower { ground: self.ground, workers: self.workers, limits, features };
            let tree = grower.grow(rows, watched);
            let is_stump = tree.tree.nodes.len() == 1;
            let loss = self.advance(tree.leaves, &mut random);
            grown.push(tree.tree);
            if loss < least_loss * (1.0 - BETTER) {
                (least_loss, best) = (loss, grown.len());
            }
            let patience = usize::from(params.early_stopping_rounds);
            if is_stump && features_are_all(params) || stops_early && grown.len() - best >= patience {
                break;
            }
        }
        if stops_early {
            grown.truncate(best.max(1));
        }
        Ok(grown)
    }

    /// Adds a tree to the scores; the log-loss of what is held out.
    fn advance(&self, leaves: Vec<ground::Leaf>, random: &mut SplitMix64) -> f64 {
        let (leaves, shift) = (Arc::new(leaves), random.next_u64() as u32);
        let task =
            |segment| Task::Advance { segment, leaves: Arc::clone(&leaves), shift, judged: Arc::clone(&self.judged) };
        let done = self.workers.run((0..self.ground.segments.len()).map(task).collect());
        done.into_iter().map(|done| if let Done::Advanced(loss) = done { loss } else { 0.0 }).sum()
    }

    /// The features that a tree looks at.
    fn features(&self, random: &mut SplitMix64) -> Arc<Vec<bool>> {
        let count = self.fit.set.feature_count();
        let wanted = (count as f64 * self.fit.params.feature_share).ceil() as usize;
        let mut order: Vec<usize> = (0..count).collect();
        if wanted < count {
            random.shuffle(&mut order);
        }
        let mut features = vec![false; count];
        order.iter().take(wanted.max(1)).for_each(|feature| features[*feature] = true);
        Arc::new(features)
    }

    /// The rows that a tree learns from, and the others.
    fn sample(&self, random: &mut SplitMix64) -> (Arc<NodeRows>, Arc<NodeRows>) {
        let params = &self.fit.params;
        if params.takes_all_rows() {
            return (Arc::clone(&self.rows), Arc::clone(&self.judged));
        }
        let segments = 0..self.ground.segments.len();
        let task = |segment| Task::Magnitudes { segment, rows: Arc::clone(&self.rows) };
        let mut counts: Vec<u64> = Vec::new();
        for done in self.workers.run(segments.clone().map(task).collect()) {
            let Done::Magnitudes(of_segment) = done else { continue };
            counts.resize(of_segment.len(), 0);
            counts.iter_mut().zip(of_segment).for_each(|(sum, count)| *sum += u64::from(count));
        }
        let rows: u64 = counts.iter().sum();
        let wanted = rows as f64 * params.top_share;
        let mut taken = 0;
        let mut step = counts.len();
        while step > 0 && (taken + counts[step - 1]) as f64 <= wanted {
            step -= 1;
            taken += counts[step];
        }
        let gradient_min = i32::try_from(step).unwrap_or(i32::MAX).saturating_mul(MAGNITUDE_STEP);
        let chance = params.other_share / (1.0 - params.top_share);
        let sampling = Sampling { gradient_min, chance, seed: random.next_u64() };
        let task = |segment| Task::Sample { segment, rows: Arc::clone(&self.rows), sampling };
        let done = self.workers.run(segments.map(task).collect());
        let (mut rows, mut watched) = (NodeRows::new(), NodeRows::new());
        for (done, judged) in done.into_iter().zip(self.judged.iter()) {
            let Done::Parted(taken, mut left_out) = done else { continue };
            left_out.extend(judged);
            left_out.sort_unstable();
            rows.push(taken);
            watched.push(left_out);
        }
        (Arc::new(rows), Arc::new(watched))
    }
}

/// Whether the next tree has nothing else to look at than the last one.
fn features_are_all(params: &BoostingParams) -> bool {
    params.feature_share >= 1.0 && params.takes_all_rows()
}
