//! What a forest costs, beside smartcore's in the same run. Run it with
//! `cargo bench --workspace --profile dev --bench forests`: this package is optimised there, too.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use picket_common::model::{Algorithm, ModelBody, TreeDraft};
use picket_learn::evaluate::curve::Curve;
use picket_learn::random::SplitMix64;
use picket_learn::train::weight::weights;
use picket_learn::train::{Control, ForestParams, Params, TrainingSet, Unobserved, ValidParams, trainer};
use smartcore::ensemble::extra_trees_regressor::{ExtraTreesRegressor, ExtraTreesRegressorParameters};
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;

const ROWS: usize = 20_000;
const FEATURES: usize = 40;
const FOREST: ForestParams = ForestParams { trees: 20, depth_max: 16, leaf_rows_min: 3, features_per_split: 13 };
const REPEATS: usize = 3;

fn main() {
    let (set, fresh) = (generated(1), generated(2));
    println!(
        "{ROWS} rows × {FEATURES} features, {} trees; best of {REPEATS}; ROC-AUC on {ROWS} fresh rows",
        FOREST.trees
    );
    for params in [Params::RandomForest(FOREST), Params::ExtraTrees(FOREST)] {
        let algorithm = params.algorithm();
        let params = ValidParams::new(params).unwrap();
        for threads in [1, 2] {
            let control = Control { threads, observer: &Unobserved };
            let (time, fitted) = best_of(|| trainer(algorithm).fit(&set, &params, 7, &control).unwrap());
            let ModelBody::Forest(trees) = fitted.body else { panic!("no forest") };
            report(&format!("picket {algorithm}, {threads} threads"), time, auc(&fresh, |row| mean(&trees, row)));
        }
        smartcore(algorithm, &set, &fresh);
    }
}

fn smartcore(algorithm: Algorithm, set: &TrainingSet, fresh: &TrainingSet) {
    let matrix = |set: &TrainingSet| {
        let values = (0..FEATURES).flat_map(|feature| set.column(feature)).collect();
        DenseMatrix::new(set.len(), FEATURES, values, true).unwrap()
    };
    let (x, fresh_x) = (matrix(set), matrix(fresh));
    let y: Vec<f64> = set.malicious().iter().map(|malicious| f64::from(u8::from(*malicious))).collect();
    let weights = weights(set);
    let (time, scores) = if algorithm == Algorithm::RandomForest {
        let (time, forest) = best_of(|| {
            let parameters = RandomForestRegressorParameters {
                max_depth: Some(FOREST.depth_max + 1),
                min_samples_leaf: FOREST.leaf_rows_min as usize,
                min_samples_split: 2 * FOREST.leaf_rows_min as usize,
                n_trees: FOREST.trees.into(),
                m: Some(FOREST.features_per_split.into()),
                keep_samples: false,
                seed: 7,
            };
            RandomForestRegressor::fit_with_weights(&x, &y, &weights, parameters).unwrap()
        });
        (time, forest.predict(&fresh_x).unwrap())
    } else {
        let (time, forest) = best_of(|| {
            let parameters = ExtraTreesRegressorParameters {
                max_depth: Some(FOREST.depth_max + 1),
                min_samples_leaf: FOREST.leaf_rows_min as usize,
                min_samples_split: 2 * FOREST.leaf_rows_min as usize,
                n_trees: FOREST.trees.into(),
                m: Some(FOREST.features_per_split.into()),
                keep_samples: false,
                seed: 7,
            };
            ExtraTreesRegressor::fit_with_weights(&x, &y, &weights, parameters).unwrap()
        });
        (time, forest.predict(&fresh_x).unwrap())
    };
    let rows = scores.into_iter().zip(fresh.malicious().iter().copied());
    report(&format!("smartcore {algorithm}, 1 thread"), time, Curve::new(rows).roc_auc().unwrap());
}

fn report(name: &str, time: Duration, auc: f64) {
    println!("{name:<38} {:>8.3} s   ROC-AUC {auc:.4}", time.as_secs_f64());
}

fn best_of<T>(work: impl Fn() -> T) -> (Duration, T) {
    let once = || {
        let begin = Instant::now();
        let result = black_box(work());
        (begin.elapsed(), result)
    };
    (0..REPEATS).map(|_| once()).min_by_key(|(time, _)| *time).unwrap()
}

fn auc(set: &TrainingSet, score: impl Fn(&[f32]) -> f64) -> f64 {
    Curve::new(set.rows().map(score).zip(set.malicious().iter().copied())).roc_auc().unwrap()
}

fn mean(trees: &[TreeDraft], row: &[f32]) -> f64 {
    let leaf = |tree: &TreeDraft| {
        let mut node = &tree.nodes[0];
        while node.left != 0 {
            let left = row[usize::from(node.feature)] <= node.threshold;
            node = &tree.nodes[if left { node.left } else { node.right } as usize];
        }
        f64::from(node.value)
    };
    trees.iter().map(leaf).sum::<f64>() / trees.len() as f64
}

/// Eight features tell the classes apart, two of them only together; the rest is noise.
fn generated(seed: u64) -> TrainingSet {
    let mut random = SplitMix64::new(seed);
    let (mut values, mut labels) = (Vec::with_capacity(ROWS * FEATURES), Vec::new());
    for _ in 0..ROWS {
        let malicious = random.unit() < 0.1;
        let swapped = random.unit() < 0.5;
        for feature in 0..FEATURES {
            let noise = (random.unit() + random.unit() + random.unit() - 1.5) as f32;
            let signal = match feature {
                0..6 if malicious => 0.25,
                6 => f32::from(u8::from(swapped)),
                7 => f32::from(u8::from(swapped != malicious)),
                _ => 0.0,
            };
            values.push(noise + signal);
        }
        labels.push(malicious);
    }
    let groups = (0..ROWS as u32).collect();
    TrainingSet::new(FEATURES, values, labels, groups).unwrap()
}
