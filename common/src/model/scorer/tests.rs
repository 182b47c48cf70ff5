//! The layout against a naive walk.

use proptest::prelude::*;

use super::*;
use crate::feature::MISSING;

/// What a tree is grown from: for each node, breadth first, whether it is split.
#[derive(Clone, Debug)]
struct Plan {
    split: bool,
    feature: u16,
    threshold: f32,
    missing_left: bool,
    value: f32,
}

/// Scoring does not ask for the depth.
fn root(index: u32) -> Root {
    Root { index, depth: 0 }
}

/// Nodes in the order of the file: children follow in the order of their parents.
fn forest(plans: &[Vec<Plan>]) -> (Vec<Root>, Vec<Node>) {
    let (mut roots, mut nodes) = (Vec::new(), Vec::<Node>::new());
    for plan in plans {
        let base = nodes.len();
        roots.push(root(base as u32));
        let mut claimed = 1;
        let mut place = 0;
        while place < claimed {
            let Plan { split, feature, threshold, missing_left, value } = plan[place % plan.len()].clone();
            let inner = split && place < plan.len();
            let left = if inner { (base + claimed) as u32 } else { 0 };
            claimed += 2 * usize::from(inner);
            let number = if inner { threshold } else { value };
            nodes.push(Node { number, cover: 1, left, feature, missing_left });
            place += 1;
        }
    }
    (roots, nodes)
}

fn naive(roots: &[Root], nodes: &[Node], vector: Vector<'_>) -> f64 {
    let mut sums = [0.0; LANES];
    for (tree, root) in roots.iter().enumerate() {
        let mut node = &nodes[root.index as usize];
        while node.left != 0 {
            node = &nodes[node.left as usize + usize::from(!node.sends_left(vector))];
        }
        sums[tree % LANES] += f64::from(node.number);
    }
    sums.iter().fold(0.0, |total, sum| total + sum)
}

/// Few numbers, so that values meet thresholds.
fn number() -> impl Strategy<Value = f32> {
    let special = prop::sample::select(vec![0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -1e-45, 1e-45]);
    prop_oneof![4 => (-6_i8..6).prop_map(|value| f32::from(value) / 4.0), 1 => special, 1 => -1e30_f32..1e30]
}

fn cell(features: u16) -> impl Strategy<Value = u16> {
    prop_oneof![3 => 0..features.min(6), 1 => 0..features]
}

fn plan(features: u16) -> impl Strategy<Value = Vec<Plan>> {
    let node = (prop::bool::weighted(0.7), cell(features), number(), any::<bool>(), number()).prop_map(
        |(split, feature, threshold, missing_left, value)| Plan { split, feature, threshold, missing_left, value },
    );
    prop::collection::vec(node, 1..30)
}

fn row(features: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![6 => number(), 1 => Just(MISSING), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)];
    // Rows may be short.
    prop::collection::vec(value, 0..=features)
}

proptest! {
    // Each case is a whole forest.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sums_have_the_bits_of_a_naive_walk(
        (plans, rows, imputation) in (1_u16..60).prop_flat_map(|features| (
            prop::collection::vec(plan(features), 1..25),
            prop::collection::vec(row(features.into()), 1..6),
            prop_oneof![Just(Vec::new()), row(features.into())],
        ))
    ) {
        let (roots, nodes) = forest(&plans);
        let scorer = Scorer::new(&roots, &nodes);
        for values in &rows {
            let vector = Vector { values, imputation: &imputation };
            prop_assert_eq!(scorer.sum(vector).to_bits(), naive(&roots, &nodes, vector).to_bits(), "{:?}", values);
        }
    }
}

#[test]
fn every_feature_on_both_sides_fits() {
    // One number of features for each size that rows come in.
    for features in [100, 300, FEATURES_MAX] {
        every_feature_fits(features);
    }
}

fn every_feature_fits(features: usize) {
    let node = |feature: usize, left, missing_left| Node {
        number: 0.5,
        cover: 2,
        left,
        feature: feature as u16,
        missing_left,
    };
    let leaf = |value| Node { number: value, cover: 1, left: 0, feature: 0, missing_left: false };
    let (mut roots, mut nodes) = (Vec::new(), Vec::new());
    for tree in 0..features {
        let base = nodes.len() as u32;
        roots.push(root(base));
        // Twice each feature, once with missing values on either side.
        nodes.push(node(tree, base + 1, false));
        nodes.push(node(tree, base + 3, true));
        nodes.extend([leaf(4.0), leaf(1.0), leaf(2.0)]);
    }
    let scorer = Scorer::new(&roots, &nodes);
    assert_eq!(scorer.features.len(), features);
    let sum = |values: &[f32]| scorer.sum(Vector { values, imputation: &[] });
    assert_eq!(sum(&[]), 4.0 * features as f64, "all are missing");
    assert_eq!(sum(&[0.0; FEATURES_MAX]), features as f64);
    assert_eq!(sum(&[1.0; FEATURES_MAX]), 4.0 * features as f64);
}

#[test]
fn the_longest_branches_end() {
    // A branch as deep as the limit in one lane, nothing but leaves in the others.
    let depth = DEPTH_MAX as u32;
    let mut nodes = Vec::new();
    for level in 0..depth {
        nodes.extend((level > 0).then_some(Node { number: 1.0, cover: 1, left: 0, feature: 0, missing_left: false }));
        nodes.push(Node { number: 0.0, cover: 2, left: 2 * level + 1, feature: 0, missing_left: false });
    }
    nodes.extend([3.0, 7.0].map(|value| Node { number: value, cover: 1, left: 0, feature: 0, missing_left: false }));
    let mut roots = vec![root(0)];
    for _ in 0..40 {
        roots.push(root(nodes.len() as u32));
        nodes.push(Node { number: 0.5, cover: 1, left: 0, feature: 0, missing_left: false });
    }
    let scorer = Scorer::new(&roots, &nodes);
    for (value, expected) in [(-1.0, 1.0), (1.0, 7.0), (MISSING, 7.0)] {
        let values = [value];
        let vector = Vector { values: &values, imputation: &[] };
        assert_eq!(scorer.sum(vector), expected + 20.0);
        assert_eq!(scorer.sum(vector), naive(&roots, &nodes, vector));
    }
}
