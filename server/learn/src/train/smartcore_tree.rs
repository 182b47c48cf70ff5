//! Trees grown by smartcore: the matrix they learn from, and their nodes as the compact model wants them.
//!
//! smartcore 0.7 keeps nodes private but serialises them. What is read back is checked, not trusted: the shape of that
//! serialisation is not a promise of the library.
//!
//! * A row goes to the true child when `value <= split_value`, compared as `f64`. Values are `f32`, so the greatest `f32`
//!   that is not above the split value decides alike for every value there is ([`floor_to_f32`]).
//! * smartcore knows no missing values. Each feature gets a stand-in: below everything seen where values are missing in
//!   training (so that a tree can tell "missing" from every value), else the median (so that a value that is first
//!   missing in the field goes with the many). A node then records the way its feature's stand-in goes.
//! * Every leaf carries the weighted mean label of its rows.

use picket_common::model::{Algorithm, NodeDraft, TreeDraft};
use serde::Deserialize;
use smartcore::linalg::basic::matrix::DenseMatrix;

use crate::train::{TrainError, TrainingSet};

/// What trees learn from.
pub(super) struct TreeInput {
    pub(super) matrix: DenseMatrix<f32>,
    pub(super) labels: Vec<f64>,
    pub(super) stand_ins: Vec<f32>,
}

impl TreeInput {
    pub(super) fn new(set: &TrainingSet) -> Result<Self, TrainError> {
        let stand_ins: Vec<f32> = (0..set.feature_count()).map(|feature| stand_in(set.column(feature))).collect();
        let mut values = Vec::with_capacity(set.len() * set.feature_count());
        for (feature, stand_in) in stand_ins.iter().enumerate() {
            values.extend(set.column(feature).map(|value| if value.is_nan() { *stand_in } else { value }));
        }
        let matrix = DenseMatrix::new(set.len(), set.feature_count(), values, true)
            .map_err(|error| engine_error(Algorithm::DecisionTree, error))?;
        let labels = set.malicious().iter().map(|malicious| f64::from(u8::from(*malicious))).collect();
        Ok(Self { matrix, labels, stand_ins })
    }
}

pub(super) fn engine_error(algorithm: Algorithm, reason: impl ToString) -> TrainError {
    TrainError::Engine { algorithm, reason: reason.to_string() }
}

/// What takes the place of a missing value of this feature.
fn stand_in(column: impl Iterator<Item = f32>) -> f32 {
    let mut missing = false;
    let mut present: Vec<f32> = column
        .filter(|value| {
            missing |= value.is_nan();
            !value.is_nan()
        })
        .collect();
    if present.is_empty() {
        return 0.0;
    }
    present.sort_by(f32::total_cmp);
    let (least, greatest) = (present[0], present[present.len() - 1]);
    if missing {
        let span = f64::from(greatest) - f64::from(least);
        // As far below as the values span: the split half-way is not at the edge of the values.
        let below = (f64::from(least) - span.max(1.0)) as f32;
        below.max(f32::MIN).min(least.next_down().max(f32::MIN))
    } else {
        present[present.len() / 2]
    }
}

/// The greatest `f32` that is not above `value`. `value` is finite and not below `f32::MIN`.
fn floor_to_f32(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) > value { nearest.next_down() } else { nearest }
}

/// The parts of smartcore's serialised tree that matter.
#[derive(Deserialize)]
pub(super) struct SerializedTree {
    nodes: Vec<SerializedNode>,
}

#[derive(Deserialize)]
struct SerializedNode {
    output: f64,
    split_feature: usize,
    split_value: Option<f64>,
    true_child: Option<usize>,
    false_child: Option<usize>,
}

/// What is wrong with a tree that smartcore gave.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node}: {reason}")]
pub(super) struct TreeError {
    node: usize,
    reason: &'static str,
}

impl SerializedTree {
    /// The tree as the compact model wants it.
    pub(super) fn draft(&self, stand_ins: &[f32]) -> Result<TreeDraft, TreeError> {
        if self.nodes.is_empty() {
            return Err(TreeError { node: 0, reason: "the tree has no root" });
        }
        let mut has_parent = vec![false; self.nodes.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let error = |reason| TreeError { node: index, reason };
            // Weighted means may miss 0 or 1 by a rounding error.
            if !(-1e-9..=1.0 + 1e-9).contains(&node.output) {
                return Err(error("the mean label is not between 0 and 1"));
            }
            let value = node.output.clamp(0.0, 1.0) as f32;
            let (left, right) = match (node.true_child, node.false_child) {
                // A split that was found but not made leaves its value behind.
                (None, None) => {
                    // Rows are counted later.
                    nodes.push(NodeDraft::leaf(value, 1));
                    continue;
                }
                (Some(left), Some(right)) => (left, right),
                _ => return Err(error("it has one child")),
            };
            for child in [left, right] {
                match has_parent.get_mut(child) {
                    Some(seen) if child > index && !*seen => *seen = true,
                    _ => return Err(error("a child is not a later node of its own")),
                }
            }
            let stand_in =
                *stand_ins.get(node.split_feature).ok_or(error("it splits on a feature that is not there"))?;
            let feature = u16::try_from(node.split_feature).map_err(|_| error("it splits on a feature above 65535"))?;
            let split = node.split_value.filter(|split| split.is_finite()).ok_or(error("it has no split value"))?;
            let threshold = floor_to_f32(split);
            if !threshold.is_finite() {
                return Err(error("its split value is out of range"));
            }
            let index_of = |child| u32::try_from(child).map_err(|_| error("there are too many nodes"));
            let children = [index_of(left)?, index_of(right)?];
            nodes.push(NodeDraft::inner(feature, threshold, stand_in <= threshold, children));
        }
        match has_parent.iter().skip(1).position(|seen| !seen) {
            Some(orphan) => Err(TreeError { node: orphan + 1, reason: "it has no parent" }),
            None => Ok(TreeDraft { nodes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: serde_json::Value) -> Result<TreeDraft, TreeError> {
        serde_json::from_value::<SerializedTree>(json).unwrap().draft(&[0.0, 5.0])
    }

    fn node(split_feature: usize, split: Option<f64>, children: Option<(usize, usize)>) -> serde_json::Value {
        serde_json::json!({
            "output": 0.25, "split_feature": split_feature, "split_value": split, "split_score": null,
            "true_child": children.map(|pair| pair.0), "false_child": children.map(|pair| pair.1),
        })
    }

    #[test]
    fn a_tree_becomes_a_draft() {
        let json = serde_json::json!({"nodes": [
            node(1, Some(2.5), Some((1, 2))), node(0, Some(9.0), None), node(0, None, None),
        ]});
        let draft = tree(json).unwrap();
        assert_eq!(draft.nodes.len(), 3);
        assert_eq!((draft.nodes[0].left, draft.nodes[0].right), (1, 2));
        assert_eq!((draft.nodes[0].threshold, draft.nodes[0].missing_left), (2.5, false));
        assert_eq!(draft.nodes[1], NodeDraft::leaf(0.25, 1));
    }

    #[test]
    fn malformed_trees_are_refused() {
        for (nodes, reason) in [
            (vec![], "no root"),
            (vec![node(0, Some(1.0), Some((1, 1))), node(0, None, None)], "later node"),
            (vec![node(0, Some(1.0), Some((0, 1))), node(0, None, None)], "later node"),
            (vec![node(0, Some(1.0), Some((1, 7))), node(0, None, None)], "later node"),
            (vec![node(2, Some(1.0), Some((1, 2))), node(0, None, None), node(0, None, None)], "not there"),
            (vec![node(0, None, Some((1, 2))), node(0, None, None), node(0, None, None)], "no split value"),
            (vec![node(0, Some(-1e300), Some((1, 2))), node(0, None, None), node(0, None, None)], "out of range"),
            (vec![node(0, None, None), node(0, None, None)], "no parent"),
        ] {
            let error = tree(serde_json::json!({ "nodes": nodes })).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
    }

    #[test]
    fn rounding_down_decides_as_the_wide_threshold_does() {
        for split in [0.1, -0.1, 1.0 / 3.0, 16_777_217.0, -16_777_217.0, 1e-46, -1e-46, 0.0, f64::from(f32::MIN)] {
            let threshold = floor_to_f32(split);
            for value in [threshold.next_down(), threshold, threshold.next_up(), split as f32] {
                assert_eq!(f64::from(value) <= split, value <= threshold, "{value} against {split}");
            }
        }
    }

    #[test]
    fn stand_ins_are_apart_from_values_only_where_values_are_missing() {
        assert_eq!(stand_in([f32::NAN, 1.0, 5.0].into_iter()), -3.0);
        assert_eq!(stand_in([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(stand_in([f32::NAN, f32::NAN].into_iter()), 0.0);
        assert_eq!(stand_in([f32::NAN, f32::MIN, f32::MAX].into_iter()), f32::MIN);
        for only in [1e20, 0.0, -7.5] {
            let narrow = stand_in([f32::NAN, only].into_iter());
            assert!(narrow < only && narrow.is_finite());
        }
    }
}
