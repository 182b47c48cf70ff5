//! Trees of an isolation forest (Liu, Ting, Zhou, Isolation Forest, 2008): random splits, chosen by no label, until rows
//! stand alone or the depth ends.
//!
//! A split's feature is drawn among those in which the node's rows differ, its threshold evenly between their least and
//! greatest value. Where values are missing, every second split tells them from the others; the others send them to one
//! side by lot. A leaf's value is its depth, and the mean depth that its rows would still take ([`path_length`]).

use picket_common::model::TreeDraft;

use crate::random::SplitMix64;
use crate::train::tree::BinnedMatrix;
use crate::train::tree::bins::Spread;
use crate::train::tree::features::FeatureSampler;
use crate::train::tree::grow::{Split, grow_by};
use crate::train::tree::random::between;

/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;

/// The mean depth of a leaf in a random search tree of so many rows: that of an unsuccessful search (Preiss, 1999, as in
/// the paper, equation 1).
pub(in crate::train) fn path_length(rows: usize) -> f64 {
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let others = (rows - 1) as f64;
            2.0 * (libm::log(others) + EULER) - 2.0 * others / rows as f64
        }
    }
}

/// Grows a tree on so many rows, all of the matrix.
pub(in crate::train) fn isolate(matrix: &BinnedMatrix, rows: u32, depth_max: u16, seed: u64) -> TreeDraft {
    let mut random = SplitMix64::new(seed);
    let mut features = FeatureSampler::new(matrix.feature_count(), 1);
    grow_by(matrix, (0..rows).collect(), |rows, depth| {
        let length = f64::from(depth) + path_length(rows.len());
        let found = if depth < depth_max { differing(matrix, rows, &mut features, &mut random) } else { None };
        let split = found.map(|(feature, spread)| draw(matrix, feature, spread, rows, &mut random));
        (length as f32, split)
    })
}

/// A feature in which the rows differ, by lot, if there is one.
fn differing(
    matrix: &BinnedMatrix,
    rows: &[u32],
    features: &mut FeatureSampler,
    random: &mut SplitMix64,
) -> Option<(usize, Spread)> {
    if rows.len() < 2 {
        return None;
    }
    let mut looked_at = features.begin();
    while let Some(feature) = looked_at.next(random) {
        if let Some(spread) = matrix.spread(feature, rows) {
            return Some((feature, spread));
        }
    }
    None
}

/// A split that leaves rows on both sides.
fn draw(matrix: &BinnedMatrix, feature: usize, spread: Spread, rows: &[u32], random: &mut SplitMix64) -> Split {
    let Spread { low, high, has_missing } = spread;
    // Features are at most a few thousand.
    let split = |bin, threshold, missing_left| Split {
        feature: u16::try_from(feature).unwrap_or(u16::MAX),
        bin,
        threshold,
        missing_left,
    };
    if has_missing && (low == high || random.below(2) == 0) {
        return split(high, matrix.threshold(feature, high, 0.5), false);
    }
    let (bin, threshold) = between(matrix, feature, [low, high], random.unit());
    if has_missing {
        return split(bin, threshold, random.below(2) == 0);
    }
    // A value that is first missing in the field goes with the many.
    let column = matrix.column(feature);
    let left = rows.iter().filter(|row| column[**row as usize] <= bin).count();
    split(bin, threshold, 2 * left >= rows.len())
}

#[cfg(test)]
mod tests {
    use picket_common::model::NodeDraft;

    use super::*;
    use crate::train::TrainingSet;

    fn set(values: Vec<f32>, features: usize) -> TrainingSet {
        let rows = (values.len() / features) as u32;
        TrainingSet::unlabelled(features, values, (0..rows).collect()).unwrap()
    }

    /// For each row its leaf.
    fn leaves(tree: &TreeDraft, set: &TrainingSet) -> Vec<usize> {
        set.rows().map(|row| tree.leaf_of(row).unwrap()).collect()
    }

    #[test]
    fn path_lengths_are_those_of_the_paper() {
        assert_eq!([0, 1, 2].map(path_length), [0.0, 0.0, 1.0]);
        // 2 H(255) − 2 · 255 / 256, with H(i) taken for ln(i) + 0.5772156649.
        assert!((path_length(256) - 10.244_770_920_119).abs() < 1e-9, "{}", path_length(256));
        assert!((2..100_000).all(|rows| path_length(rows) <= path_length(rows + 1)));
        assert!(path_length(usize::MAX) < 100.0);
    }

    #[test]
    fn rows_stand_alone_at_a_leaf_whose_value_is_its_depth() {
        let mut random = SplitMix64::new(3);
        let set = set((0..600).map(|_| random.unit() as f32).collect(), 3);
        let tree = isolate(&BinnedMatrix::new(&set), 200, 60, 1);
        assert_eq!(tree.nodes.len(), 399, "a tree of 200 leaves");
        let mut found = leaves(&tree, &set);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 200);
        let mut depths = vec![0.0; tree.nodes.len()];
        for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf()) {
            depths[node.left as usize] = depths[index] + 1.0;
            depths[node.right as usize] = depths[index] + 1.0;
        }
        assert!(tree.nodes.iter().zip(depths).all(|(node, depth)| !node.is_leaf() || node.value == depth));
    }

    #[test]
    fn the_depth_ends_and_the_rest_is_counted() {
        let set = set((0..256).map(|row| row as f32).collect(), 1);
        let tree = isolate(&BinnedMatrix::new(&set), 256, 2, 1);
        let leaves: Vec<_> = tree.nodes.iter().filter(|node| node.is_leaf()).collect();
        assert_eq!((tree.nodes.len(), leaves.iter().map(|leaf| leaf.cover).sum::<u32>()), (7, 256));
        for leaf in leaves {
            assert_eq!(leaf.value, (2.0 + path_length(leaf.cover as usize)) as f32);
        }
    }

    #[test]
    fn missing_values_are_a_side() {
        // One in fifty has no value, and every value is another one.
        let values: Vec<f32> = (0..200).map(|row| if row % 50 == 0 { f32::NAN } else { row as f32 }).collect();
        let set = set(values, 1);
        let matrix = BinnedMatrix::new(&set);
        let mean = |missing: bool| -> f64 {
            let paths = (0..50).flat_map(|seed| {
                let tree = isolate(&matrix, 200, 20, seed);
                let values: Vec<f64> = leaves(&tree, &set).iter().map(|leaf| tree.nodes[*leaf].value.into()).collect();
                values.into_iter().enumerate().filter(|(row, _)| (row % 50 == 0) == missing).collect::<Vec<_>>()
            });
            let paths: Vec<f64> = paths.map(|(_, path)| path).collect();
            paths.iter().sum::<f64>() / paths.len() as f64
        };
        assert!(mean(true) + 2.0 < mean(false), "{} {}", mean(true), mean(false));
    }

    #[test]
    fn rows_that_are_the_same_are_one_leaf() {
        let set = set([1.0, f32::NAN].repeat(40), 2);
        let tree = isolate(&BinnedMatrix::new(&set), 40, 10, 1);
        assert_eq!(tree.nodes, [NodeDraft::leaf(path_length(40) as f32, 40)]);
    }
}
