//! Boosted trees against brute force and against the rows they grew on.

use proptest::prelude::*;

use super::histogram::{BINS, FeatureHistogram, RowSlope, Slope};
use super::split::{Search, Split};
use super::*;
use crate::train::Unobserved;
use crate::train::tests::generated;

const FEATURES: usize = 30;

fn control(threads: usize) -> Control<'static> {
    Control { threads, observer: &Unobserved }
}

fn params() -> BoostingParams {
    BoostingParams { trees: 12, leaves_max: 8, early_stopping_rounds: 0, ..BoostingParams::default() }
}

fn fit(set: &TrainingSet, params: BoostingParams, threads: usize) -> (f64, Vec<TreeDraft>) {
    let valid = ValidParams::new(Params::GradientBoosting(params)).unwrap();
    let fitted = GradientBoosting.fit(set, &valid, 5, &control(threads)).unwrap();
    let ModelBody::Boosting { base_score, trees } = fitted.body else { panic!("not boosted") };
    (base_score, trees)
}

/// Each leaf is the Newton step of the rows whose values lead there, at the log-odds of the trees before.
#[test]
fn leaves_are_newton_steps_of_their_rows() {
    let set = generated(9_000, FEATURES, 0.1, 3);
    let weights = weights(&set);
    let params = params();
    let (base_score, trees) = fit(&set, params, 2);
    assert_eq!(trees.len(), 12);
    let mut scores = vec![base_score; set.len()];
    for tree in &trees {
        assert_eq!(tree.nodes.len(), 15, "eight leaves");
        let mut sums = vec![(0.0, 0.0, 0.0); tree.nodes.len()];
        let leaves: Vec<usize> = set.rows().map(|row| tree.leaf_of(row).unwrap()).collect();
        for (row, leaf) in leaves.iter().enumerate() {
            let probability = 1.0 / (1.0 + libm::exp(-scores[row]));
            let label = f64::from(u8::from(set.malicious()[row]));
            sums[*leaf].0 += weights[row] * (probability - label);
            sums[*leaf].1 += weights[row] * probability * (1.0 - probability);
            sums[*leaf].2 += 1.0;
        }
        for (node, (gradient, curvature, rows)) in tree.nodes.iter().zip(&sums).filter(|(node, _)| node.left == 0) {
            let expected = -params.learning_rate * gradient / (curvature + params.l2);
            assert!((f64::from(node.value) - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{node:?} {expected}");
            assert_eq!(f64::from(node.cover), *rows);
        }
        for (score, leaf) in scores.iter_mut().zip(leaves) {
            *score += f64::from(tree.nodes[leaf].value);
        }
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    // Several segments and several blocks.
    let set = generated(20_000, FEATURES, 0.05, 4);
    let sampled = BoostingParams { top_share: 0.2, other_share: 0.2, feature_share: 0.5, ..params() };
    let stopped = BoostingParams { early_stopping_rounds: 3, trees: 40, ..params() };
    for params in [params(), sampled, stopped] {
        let one = fit(&set, params, 1);
        assert_eq!(one, fit(&set, params, 2));
        assert_eq!(one, fit(&set, params, 5));
    }
}

#[test]
fn limits_of_trees_are_kept() {
    let set = generated(5_000, FEATURES, 0.05, 6);
    let (_, trees) = fit(&set, BoostingParams { depth_max: 2, leaves_max: 64, ..params() }, 2);
    assert!(trees.iter().all(|tree| tree.nodes.len() <= 7));
    let (_, trees) = fit(&set, BoostingParams { leaf_weight_min: 400.0, ..params() }, 2);
    assert!(trees.iter().all(|tree| tree.nodes.len() <= 5), "the curvature of 5,000 rows is at most 1,250");
}

/// Where labels are chance, the trees after the first few make held-out groups worse.
#[test]
fn it_stops_early_on_noise() {
    let mut random = SplitMix64::new(9);
    let rows = 2_000;
    let values = (0..rows * 5).map(|_| random.unit() as f32).collect();
    let labels = (0..rows).map(|_| random.unit() < 0.3).collect();
    let set = TrainingSet::new(5, values, labels, (0..rows as u32).collect()).unwrap();
    let stops = BoostingParams { trees: 200, early_stopping_rounds: 10, ..BoostingParams::default() };
    let (_, trees) = fit(&set, stops, 2);
    assert!(trees.len() < 40, "{} trees", trees.len());
    let set = generated(2_000, FEATURES, 0.05, 10);
    let (_, trees) = fit(&set, stops, 2);
    assert!((15..=200).contains(&trees.len()), "{} trees", trees.len());
}

/// Every row and bin of a histogram, in any order and by subtraction.
#[test]
fn histograms_are_exact() {
    let set = generated(3_000, FEATURES, 0.1, 7);
    let matrix = BinnedMatrix::new(&set);
    let blocks = RowBlocks::new(&matrix);
    let mut random = SplitMix64::new(1);
    let slopes: Vec<RowSlope> = (0..set.len())
        .map(|_| RowSlope::new(random.below(64_001) as i32 - 32_000, random.below(65_001) as u32))
        .collect();
    let (left, right): (Vec<u16>, Vec<u16>) = (0..3_000_u16).partition(|row| row % 3 == 0);
    let all: Vec<u16> = (0..3_000).collect();
    let mut features = 0;
    for block in 0..blocks.count() {
        let histogram = |rows: &[u16]| {
            let mut histogram = blocks.histogram(block);
            blocks.add(block, 0, rows, &slopes, &mut histogram);
            histogram
        };
        let (whole, left, right) = (histogram(&all), histogram(&left), histogram(&right));
        for (place, feature) in blocks.features(block).enumerate() {
            features += 1;
            let mut expected = [(0_i64, 0_i64); BINS];
            for (bin, slope) in matrix.column(feature).iter().zip(&slopes) {
                expected[usize::from(*bin)].0 += i64::from(slope.sum().gradient());
                expected[usize::from(*bin)].1 += i64::from(slope.sum().curvature());
            }
            for (bin, (gradient, curvature)) in expected.into_iter().enumerate() {
                let found = whole[place][bin];
                assert_eq!((i64::from(found.gradient()), i64::from(found.curvature())), (gradient, curvature));
                assert_eq!(found - left[place][bin], right[place][bin]);
            }
        }
    }
    assert_eq!(features, FEATURES, "each feature is in one block");
}

fn explained(slope: Slope, l2: f64) -> f64 {
    f64::from(slope.gradient()).powi(2) / (f64::from(slope.curvature()) + l2)
}

proptest! {
    /// No threshold and no side for missing values gains more than the one that was found, and the gain is what it says.
    #[test]
    fn the_best_split_is_the_best_of_all(
        bins in prop::collection::vec((-300_i32..300, 0_u32..400), 2..40),
        missing in prop::option::of((-300_i32..300, 1_u32..400)),
        (l2, curvature_min) in (0.0..50.0, 0.0..200.0),
    ) {
        let rules = Rules { curvature_min, leaf_rows_min: 0, l2 };
        let mut histogram: FeatureHistogram = [Slope::default(); BINS];
        for ((gradient, curvature), bin) in bins.iter().zip(&mut histogram[1..]) {
            // A bin without curvature has no rows.
            *bin = RowSlope::new(if *curvature == 0 { 0 } else { *gradient }, *curvature).sum();
        }
        histogram[0] = missing.map_or(Slope::default(), |(gradient, curvature)| RowSlope::new(gradient, curvature).sum());
        let total: Slope = histogram.iter().copied().sum();
        let mut search = Search::new(rules, total, 1_000);
        search.feature(4, &histogram, bins.len());
        let found = search.best();
        let left_of = |split: &Split| -> Slope {
            (0..=u8::MAX).zip(&histogram).filter(|(bin, _)| split.goes_left(*bin)).map(|(_, slope)| *slope).sum()
        };
        let gain = |left: Slope| {
            let right = total - left;
            let least = f64::from(left.curvature().min(right.curvature()));
            (least >= curvature_min.max(1.0)).then(|| explained(left, l2) + explained(right, l2) - explained(total, l2))
        };
        let mut best: Option<f64> = None;
        for bin in 1..=bins.len() as u8 {
            for missing_left in [false, true] {
                let split = Split { gain: 0.0, feature: 4, bin, missing_left, left: Slope::default() };
                best = [best, gain(left_of(&split))].into_iter().flatten().reduce(f64::max);
            }
        }
        let tolerance = 1e-6 * (1.0 + explained(total, l2));
        match found {
            Some(split) => {
                prop_assert_eq!(left_of(&split), split.left);
                prop_assert!((gain(split.left).unwrap() - split.gain).abs() <= tolerance);
                prop_assert!(best.unwrap() <= split.gain + tolerance);
            }
            None => prop_assert!(best.is_none_or(|best| best <= tolerance), "{best:?}"),
        }
    }
}
