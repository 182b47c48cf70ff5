//! Isolation forests (Liu, Ting, Zhou, Isolation Forest, 2008): rows that few random splits set apart from others.
//!
//! Labels are used for one thing only: rows that are known to be malicious are left out of what is learned. The threshold
//! and the evaluation take them as they do for every algorithm.
//!
//! Each tree learns from a few hundred rows, whose values are binned by themselves: a bin holds one value where the rows
//! have at most 254 of them, and thresholds are drawn between values as they are, not between shares of rows. Of more
//! values, neighbours share a bin, and cannot be told apart.

use std::collections::BTreeSet;

use picket_common::model::{Algorithm, ModelBody};

use crate::random::SplitMix64;
use crate::train::tree::BinnedMatrix;
use crate::train::tree::isolate::{isolate, path_length};
use crate::train::{
    Control, FittedModel, IsolationParams, Params, TrainError, Trainer, TrainingSet, ValidParams, parallel,
};

/// Fewest rows: of one alone nothing can be set apart.
const ROWS_MIN: usize = 2;

/// Path lengths of trees of random splits, each on a sub-sample.
pub(super) struct IsolationForest;

impl Trainer for IsolationForest {
    fn algorithm(&self) -> Algorithm {
        Algorithm::IsolationForest
    }

    /// The usual parameters alone: to choose among several would be to learn from labels.
    fn candidates(&self, _: usize) -> Vec<ValidParams> {
        ValidParams::new(Params::IsolationForest(IsolationParams::default())).into_iter().collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let IsolationParams { trees, sample_rows } = params.get().isolation().unwrap_or_default();
        let (rows, features) = (set.len() as u64, set.feature_count() as u64);
        let sample = u64::from(sample_rows).min(rows);
        // Sub-samples are binned and split; then rows of other folds are scored.
        u64::from(trees) * (sample * (features + u64::from(depth_max(sample as usize))) + rows) + rows * features
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let failed = |reason: &str| TrainError::Engine { algorithm: self.algorithm(), reason: reason.to_owned() };
        let isolation = params.get().isolation().ok_or_else(|| failed("parameters of another algorithm"))?;
        let learned: Vec<usize> = (0..set.len()).filter(|row| !set.malicious()[*row]).collect();
        if learned.len() < ROWS_MIN {
            return Err(failed("fewer than two rows are not malicious: nothing is set apart from one"));
        }
        let sample_rows = learned.len().min(isolation.sample_rows as usize);
        let trees = parallel::try_map(usize::from(isolation.trees), control.threads, |tree| {
            control.check()?;
            let mut random = SplitMix64::for_job(seed, tree as u64);
            let rows: Vec<usize> =
                sample(learned.len(), sample_rows, &mut random).into_iter().map(|place| learned[place]).collect();
            let matrix = BinnedMatrix::with_threads(&set.subset(&rows), 1);
            let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            Ok::<_, TrainError>(isolate(&matrix, count, depth_max(rows.len()), random.next_u64()))
        })?;
        Ok(FittedModel { body: ModelBody::IsolationForest { normaliser: path_length(sample_rows), trees } })
    }
}

/// Depth from which on all rows are ordinary: the height of a balanced tree, ⌈log₂ rows⌉.
fn depth_max(rows: usize) -> u16 {
    rows.max(1).next_power_of_two().ilog2() as u16
}

/// So many of the numbers below `of`, each set of them with the same chance, ascending (Floyd's algorithm; Bentley, 1987).
fn sample(of: usize, count: usize, random: &mut SplitMix64) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    for last in of.saturating_sub(count)..of {
        let drawn = random.below(last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::curve::Curve;
    use crate::train::tests::compact;

    /// A cloud, and as many rows around it as said; every row is labelled as such when `labelled`.
    fn rows(cloud: usize, around: usize, labelled: bool, seed: u64) -> (TrainingSet, Vec<bool>) {
        let mut random = SplitMix64::new(seed);
        let (mut values, mut odd) = (Vec::new(), Vec::new());
        for row in 0..cloud + around {
            let is_odd = row >= cloud;
            odd.push(is_odd);
            for _ in 0..4 {
                let near = random.unit() + random.unit() + random.unit() - 1.5;
                values.push(if is_odd { 8.0 * random.unit() - 4.0 } else { near } as f32);
            }
        }
        let groups = (0..odd.len() as u32).collect();
        let set = if labelled {
            TrainingSet::new(4, values, odd.clone(), groups)
        } else {
            TrainingSet::unlabelled(4, values, groups)
        };
        (set.unwrap(), odd)
    }

    fn fit(set: &TrainingSet, params: IsolationParams, threads: usize) -> FittedModel {
        let params = ValidParams::new(Params::IsolationForest(params)).unwrap();
        let control = Control { threads, ..Control::unobserved() };
        IsolationForest.fit(set, &params, 7, &control).unwrap()
    }

    #[test]
    fn odd_rows_score_higher_without_a_label() {
        let (set, odd) = rows(1000, 20, false, 1);
        let model = compact(fit(&set, IsolationParams::default(), 2), Algorithm::IsolationForest, 4);
        let scored = || set.rows().map(|row| model.score(row)).zip(odd.iter().copied());
        let auc = Curve::new(scored()).roc_auc().unwrap();
        assert!(auc > 0.97, "{auc}");
        let mean: f64 = scored().map(|row| row.0).sum::<f64>() / odd.len() as f64;
        assert!((0.4..0.55).contains(&mean), "a row like the others scores about a half: {mean}");
        assert!(scored().filter(|row| row.1).any(|row| row.0 > 0.65));
    }

    #[test]
    fn known_malicious_rows_are_left_out_and_labels_do_nothing_else() {
        let (labelled, _) = rows(500, 300, true, 2);
        let (benign, _) = rows(500, 0, false, 2);
        let params = IsolationParams { trees: 20, sample_rows: 64 };
        assert_eq!(fit(&labelled, params, 1), fit(&benign, params, 3), "and the threads do nothing");
        let (all, _) = rows(500, 300, false, 2);
        assert_ne!(fit(&labelled, params, 1), fit(&all, params, 1));
    }

    #[test]
    fn sub_samples_are_drawn_without_replacement_and_paths_end() {
        let mut random = SplitMix64::new(1);
        let mut counts = [0; 10];
        for _ in 0..3000 {
            let drawn = sample(10, 3, &mut random);
            assert_eq!(drawn.len(), 3);
            drawn.into_iter().for_each(|place| counts[place] += 1);
        }
        assert!(counts.iter().all(|count| (780..1020).contains(count)), "{counts:?}");
        assert_eq!(sample(4, 4, &mut random).len(), 4);
        assert_eq!([1, 2, 3, 4, 5, 256, 257].map(depth_max), [0, 1, 2, 2, 3, 8, 9]);
        let (set, _) = rows(40, 0, false, 3);
        let ModelBody::IsolationForest { normaliser, trees } = fit(&set, IsolationParams::default(), 1).body else {
            panic!("no isolation forest")
        };
        assert_eq!((normaliser, trees.len()), (path_length(40), 100), "fewer rows than a sub-sample has: all of them");
    }
}
