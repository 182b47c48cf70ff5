//! The quadrature against the definition of the Shapley value.

use proptest::prelude::*;

use super::*;
use crate::feature::MISSING;

/// What a tree is expected to give when only some features are known (Lundberg et al., 2018, Algorithm 1).
fn expected(nodes: &[Node], index: usize, vector: Vector<'_>, known: u32) -> f64 {
    let node = &nodes[index];
    let left = node.left as usize;
    if left == 0 {
        return f64::from(node.number);
    }
    if known >> node.feature & 1 == 1 {
        let next = if node.sends_left(vector) { left } else { left + 1 };
        return expected(nodes, next, vector, known);
    }
    let sides = [left, left + 1].map(|child| f64::from(nodes[child].cover) * expected(nodes, child, vector, known));
    (sides[0] + sides[1]) / f64::from(node.cover)
}

/// The Shapley values over all sets of features, by definition.
fn by_definition(nodes: &[Node], vector: Vector<'_>, features: u32) -> Vec<f64> {
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let value: Vec<f64> = (0..1 << features).map(|known| expected(nodes, 0, vector, known)).collect();
    let of_feature = |feature: u32| {
        let without = (0..1u32 << features).filter(|known| known >> feature & 1 == 0);
        let terms = without.map(|known| {
            let size = known.count_ones();
            let weight = factorial(size) * factorial(features - size - 1) / factorial(features);
            weight * (value[(known | 1 << feature) as usize] - value[known as usize])
        });
        terms.sum()
    };
    (0..features).map(of_feature).collect()
}

fn contributions(nodes: &[Node], depth: u8, vector: Vector<'_>, features: u32) -> Vec<f64> {
    let forest = Forest::new(vec![Root { index: 0, depth }], nodes.to_vec());
    let entry = |feature| Contribution { feature, value: 0.0, contribution: 0.0 };
    let mut into: Vec<_> = (0..features as usize).map(entry).collect();
    add_contributions(&forest, vector, &mut into);
    into.iter().map(|entry| entry.contribution).collect()
}

/// One node to grow from: which leaf it splits, and how.
type Split = (prop::sample::Index, u16, i8, bool, [u32; 2], [f32; 2]);

/// Splits one leaf after another, then numbers the nodes as the file does.
fn grow(splits: &[Split]) -> (Vec<Node>, u8) {
    let leaf = |value, cover| Node { number: value, cover, left: 0, feature: 0, missing_left: false };
    let mut grown = vec![(leaf(0.5, 1), 0usize)];
    for (place, feature, threshold, missing_left, covers, values) in splits {
        let leaves: Vec<usize> = (0..grown.len()).filter(|index| grown[*index].1 == 0).collect();
        let split = leaves[place.index(leaves.len())];
        let inner =
            Node { number: f32::from(*threshold), feature: *feature, missing_left: *missing_left, ..grown[split].0 };
        grown[split] = (inner, grown.len());
        grown.extend([0, 1].map(|side| (leaf(values[side], covers[side]), 0)));
    }
    let (mut nodes, mut order, mut depths): (Vec<Node>, _, _) = (Vec::new(), vec![0], vec![0]);
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        let (mut node, children) = grown[index];
        if children != 0 {
            node.left = order.len() as u32;
            order.extend([children, children + 1]);
            depths.extend([depths[next] + 1; 2]);
        }
        nodes.push(node);
        next += 1;
    }
    for index in (0..nodes.len()).rev() {
        let left = nodes[index].left as usize;
        if left != 0 {
            nodes[index].cover = nodes[left].cover + nodes[left + 1].cover;
        }
    }
    (nodes, depths.into_iter().max().unwrap_or(0))
}

const FEATURES: u16 = 10;

fn splits(count: usize) -> impl Strategy<Value = Vec<Split>> {
    let cover = || prop_oneof![1u32..5, 1u32..1_000_000];
    // Few features more often, so that they come again on a path.
    let feature = prop_oneof![0u16..3, 0..FEATURES];
    let split = (
        any::<prop::sample::Index>(),
        feature,
        -3i8..3,
        any::<bool>(),
        [cover(), cover()],
        [-8.0f32..8.0, -8.0f32..8.0],
    );
    prop::collection::vec(split, 0..count)
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop_oneof![4 => (-4i8..4).prop_map(f32::from), 1 => Just(MISSING)], FEATURES as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn contributions_are_shapley_values((splits, values) in (splits(25), values())) {
        let (nodes, depth) = grow(&splits);
        let vector = Vector { values: &values, imputation: &[] };
        let found = contributions(&nodes, depth, vector, FEATURES.into());
        let wanted = by_definition(&nodes, vector, FEATURES.into());
        for (found, wanted) in found.iter().zip(&wanted) {
            prop_assert!((found - wanted).abs() < 1e-12 * 8.0, "{found} {wanted}");
        }
    }

    /// A feature that no node tests gets nothing, and two that do the same get the same.
    #[test]
    fn dummies_get_nothing_and_equals_get_the_same(
        (first, second) in (0u16..FEATURES, 1u16..FEATURES), value in -8.0f32..8.0, covers in [1u32..100, 1..100],
    ) {
        let second = (first + second) % FEATURES;
        // Symmetric in both features: the value counts only when both are above zero.
        let [few, many] = covers;
        let node = |feature, left, cover| Node { number: 0.0, cover, left, feature, missing_left: false };
        let leaf = |number, cover| Node { number, cover, left: 0, feature: 0, missing_left: false };
        let root = few + many;
        // Each side's share is the same at both splits: few / (few + many).
        let nodes = [
            node(first, 1, root * root),
            leaf(0.0, few * root),
            node(second, 3, many * root),
            leaf(0.0, few * many),
            leaf(value, many * many),
        ];
        let vector = Vector { values: &[1.0; FEATURES as usize], imputation: &[] };
        let found = contributions(&nodes, 2, vector, FEATURES.into());
        prop_assert!((found[usize::from(first)] - found[usize::from(second)]).abs() < 1e-12);
        let others = found.iter().enumerate().filter(|(at, _)| ![first.into(), second.into()].contains(at));
        prop_assert!(others.into_iter().all(|(_, contribution)| *contribution == 0.0));
    }
}

/// Paths as long as the limit, with a feature for each level and with few that come again and again.
#[test]
fn long_paths_add_up() {
    for (depth, features) in [(8, 8), (9, 9), (16, 16), (17, 17), (32, 32), (33, 33), (64, 64), (64, 3), (64, 1)] {
        let mut nodes = Vec::new();
        for level in 0..depth {
            if level > 0 {
                let value = (level % 7) as f32 - 3.0;
                nodes.push(Node {
                    number: value,
                    cover: 1 + level * level % 11,
                    left: 0,
                    feature: 0,
                    missing_left: false,
                });
            }
            let feature = (level % features) as u16;
            let threshold = 10.0 - (level / features) as f32 / 10.0;
            nodes.push(Node { number: threshold, cover: 0, left: 2 * level + 1, feature, missing_left: true });
        }
        for (value, cover) in [(-2.0, 3), (5.0, 2)] {
            nodes.push(Node { number: value, cover, left: 0, feature: 0, missing_left: false });
        }
        for index in (0..nodes.len()).rev() {
            let left = nodes[index].left as usize;
            if left != 0 {
                nodes[index].cover = nodes[left].cover + nodes[left + 1].cover;
            }
        }
        let depth = u8::try_from(depth).unwrap();
        for value in [0.0, 9.0, 20.0] {
            let values = [value; 64];
            let vector = Vector { values: &values, imputation: &[] };
            let found = contributions(&nodes, depth, vector, features);
            let forest = Forest::new(vec![Root { index: 0, depth }], nodes.clone());
            let sum: f64 = found.iter().sum();
            let wanted = forest.sum(vector) - forest.expected_sum();
            assert!((sum - wanted).abs() < 1e-11, "depth {depth}, {features} features: {sum} {wanted}");
            if features == 1 {
                assert!((found[0] - wanted).abs() < 1e-11, "one feature gets all");
            }
        }
    }
}

#[test]
fn rules_integrate_polynomials() {
    fn check<const POINTS: usize>(rule: &Rule<POINTS>) {
        for degree in 0..2 * POINTS {
            let terms = rule.points.iter().zip(&rule.weights);
            let integral: f64 = terms.map(|(point, weight)| weight * point.powi(degree as i32)).sum();
            assert!((integral - 1.0 / (degree as f64 + 1.0)).abs() < 1e-14, "{POINTS} points, degree {degree}");
        }
        assert!(rule.points.iter().all(|point| *point > 0.0 && *point < 1.0));
        assert!(rule.points.is_sorted_by(|a, b| a > b), "each point once");
    }
    check(&RULE_4);
    check(&RULE_8);
    check(&RULE_16);
    check(&RULE_32);
}
