//! Trees against the rows they grew on, splits against brute force.

use picket_common::model::TreeDraft;
use proptest::prelude::*;

use super::best::BestSplits;
use super::grow::{Node, Split, SplitFinder};
use super::random::RandomSplits;
use super::*;
use crate::random::SplitMix64;
use crate::train::TrainingSet;
use crate::train::tests::generated;

const FEATURES: usize = 8;
const LIMITS: Limits = Limits { depth_max: 9, leaf_rows_min: 3 };

fn uniform(set: &TrainingSet) -> RowWeights {
    RowWeights::counted(&vec![1; set.len()], set.malicious())
}

/// The leaf that a row of values comes to, and how deep it is.
fn leaf(tree: &TreeDraft, row: &[f32]) -> (usize, u16) {
    let (mut index, mut depth) = (0, 0);
    while tree.nodes[index].left != 0 {
        let node = &tree.nodes[index];
        let value = row[usize::from(node.feature)];
        let left = if value.is_nan() { node.missing_left } else { value <= node.threshold };
        index = if left { node.left } else { node.right } as usize;
        depth += 1;
    }
    (index, depth)
}

/// Every leaf has the mean label of the rows whose values lead there, enough of them, and is not too deep.
fn assert_leaves_are_of_their_rows(tree: &TreeDraft, set: &TrainingSet, weights: &RowWeights) {
    let mut sums = vec![(Sums::default(), 0); tree.nodes.len()];
    for (index, row) in set.rows().enumerate() {
        let (leaf, depth) = leaf(tree, row);
        assert!(depth <= LIMITS.depth_max);
        sums[leaf].0 += weights.row(index as u32);
        sums[leaf].1 += 1;
    }
    let leaves = tree.nodes.iter().zip(sums).filter(|(node, _)| node.left == 0);
    for (node, (sums, rows)) in leaves {
        assert!(rows >= LIMITS.leaf_rows_min, "a leaf of {rows} rows");
        assert_eq!(node.value, sums.mean() as f32);
        assert_eq!(node.cover, rows);
    }
}

#[test]
fn values_lead_where_the_rows_went() {
    for missing_share in [0.0, 0.15] {
        let set = generated(2_000, FEATURES, missing_share, 5);
        let matrix = BinnedMatrix::new(&set);
        let counted = uniform(&set);
        let mut best = BestSplits::new(&matrix, LIMITS, 3, 7);
        let tree = grow(&matrix, &counted, LIMITS, &mut best);
        assert!(tree.nodes.len() > 20);
        assert_leaves_are_of_their_rows(&tree, &set, &counted);

        let scaled = RowWeights::scaled(&crate::train::weight::weights(&set), set.malicious());
        let spreads = Spreads::new(&matrix);
        let mut random = RandomSplits::new(&matrix, &spreads, LIMITS, FEATURES, 7);
        let tree = grow(&matrix, &scaled, LIMITS, &mut random);
        assert!(tree.nodes.len() > 20);
        assert_leaves_are_of_their_rows(&tree, &set, &scaled);
    }
}

/// What a split explains, from the rows themselves; nothing when a side has too few.
fn explained(set: &TrainingSet, split: &Split) -> Option<f64> {
    let mut sides = [(0.0, 0.0); 2];
    for (row, malicious) in set.rows().zip(set.malicious()) {
        let value = row[usize::from(split.feature)];
        let left = if value.is_nan() { split.missing_left } else { value <= split.threshold };
        let (malicious_rows, rows) = &mut sides[usize::from(left)];
        *malicious_rows += f64::from(u8::from(*malicious));
        *rows += 1.0;
    }
    let enough = sides.iter().all(|(_, rows)| *rows >= f64::from(LIMITS.leaf_rows_min));
    enough.then(|| sides.iter().map(|(malicious, rows)| malicious * malicious / rows).sum())
}

fn brute_force(set: &TrainingSet) -> Option<f64> {
    let mut best: Option<f64> = None;
    for feature in 0..set.feature_count() {
        for threshold in set.column(feature).filter(|value| !value.is_nan()) {
            for missing_left in [false, true] {
                let split = Split { feature: feature as u16, bin: 0, threshold, missing_left };
                if let Some(explained) = explained(set, &split) {
                    best = Some(best.map_or(explained, |best| best.max(explained)));
                }
            }
        }
    }
    best
}

proptest! {
    #[test]
    fn the_best_split_is_the_best_of_all(
        rows in prop::collection::vec((prop::collection::vec(prop::option::weighted(0.8, -4i8..4), 3), any::<bool>()), 12..60)
    ) {
        let value = |value: &Option<i8>| value.map_or(f32::NAN, |value| f32::from(value) / 3.0);
        let values = rows.iter().flat_map(|(values, _)| values.iter().map(value)).collect();
        let labels: Vec<bool> = rows.iter().map(|(_, label)| *label).collect();
        // Too few rows of a class are no training set.
        let Ok(set) = TrainingSet::new(3, values, labels, vec![0; rows.len()]) else { return Ok(()) };
        let (matrix, weights) = (BinnedMatrix::new(&set), uniform(&set));
        let order = weights.rows();
        let of_rows: Vec<Sums> = order.iter().map(|row| weights.row(*row)).collect();
        let sums = of_rows.iter().copied().sum();
        let found = BestSplits::new(&matrix, LIMITS, 3, 1).find(&Node { rows: &order, weights: &of_rows, sums });
        let none = Sums::explained(sums);
        match (found, brute_force(&set)) {
            (Some(split), Some(best)) => {
                let explained = explained(&set, &split);
                prop_assert!(explained.is_some_and(|explained| (explained - best).abs() < 1e-9), "{split:?} {explained:?} {best}");
            }
            (None, best) => prop_assert!(best.is_none_or(|best| best < none + 1e-9), "{best:?} {none}"),
            (Some(split), None) => prop_assert!(false, "{split:?} leaves too few rows"),
        }
    }
}

#[test]
fn drawn_thresholds_are_spread_evenly_over_the_values() {
    // One feature from 0 to 10, a few values missing, labels that any split tells something about.
    let rows = 400;
    let mut random = SplitMix64::new(3);
    let values: Vec<f32> =
        (0..rows).map(|row| if row % 20 == 0 { f32::NAN } else { 10.0 * random.unit() as f32 }).collect();
    let labels = values.iter().map(|value| value.is_nan() || random.unit() * 10.0 > f64::from(*value)).collect();
    let set = TrainingSet::new(1, values, labels, vec![0; rows]).unwrap();
    let (matrix, weights) = (BinnedMatrix::new(&set), uniform(&set));
    let order = weights.rows();
    let of_rows: Vec<Sums> = order.iter().map(|row| weights.row(*row)).collect();
    let sums = of_rows.iter().copied().sum();
    let spreads = Spreads::new(&matrix);
    let mut finder = RandomSplits::new(&matrix, &spreads, LIMITS, 1, 11);
    let (mut tenths, mut only_missing) = ([0; 10], 0);
    for _ in 0..2_000 {
        let Some(split) = finder.find(&Node { rows: &order, weights: &of_rows, sums }) else { continue };
        if split.threshold == f32::MAX {
            only_missing += 1;
        } else {
            tenths[split.threshold as usize] += 1;
        }
    }
    assert!((50..150).contains(&only_missing), "{only_missing}");
    assert!(tenths.iter().all(|count| (140..240).contains(count)), "{tenths:?}");
}
