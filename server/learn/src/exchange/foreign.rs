//! A model by another tool's rules.

use picket_common::model::limits::NODES_MAX;
use picket_common::model::{ModelBody, NodeDraft, TreeDraft};

use crate::exchange::ImportError;

/// The covers of a tree whose tool counts weights, all together.
const COVER_SUM: f64 = (1u32 << 24) as f64;

/// What a tool says, not rounded yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ForeignModel {
    pub(super) tool: &'static str,
    pub(super) feature_names: Vec<String>,
    pub(super) body: ForeignBody,
    /// What a user should know.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ForeignBody {
    /// The logistic function of a base and all leaves.
    Boosting { base: f64, trees: Vec<ForeignTree> },
    /// The mean of all leaves.
    Forest(Vec<ForeignTree>),
    /// The logistic function of bias + Σ weight · (value − mean) · inverse scale.
    Linear { weights: Vec<f64>, bias: f64, mean: Vec<f64>, inverse_scale: Vec<f64> },
}

/// A tree; its root is node 0. Nodes may come in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ForeignTree {
    pub(super) nodes: Vec<ForeignNode>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ForeignNode {
    Split {
        feature: usize,
        threshold: f64,
        /// Whether a value that equals the threshold goes left, too.
        or_equal: bool,
        missing_left: bool,
        left: usize,
        right: usize,
    },
    Leaf {
        value: f64,
        /// Rows or weight that reached it, where the tool says.
        cover: Option<f64>,
    },
}

/// The number of a node or feature, which tools write as they do other numbers; what is none is the number of nothing.
pub(super) fn place(number: f64) -> usize {
    if number >= 0.0 && number.fract() == 0.0 { number as usize } else { usize::MAX }
}

impl ForeignModel {
    /// The score by the tool's rules. Only for models that [`ForeignModel::body`] has taken.
    pub(super) fn score(&self, values: &[f32]) -> f64 {
        let logistic = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        let sum = |trees: &[ForeignTree]| trees.iter().map(|tree| tree.value(values)).sum::<f64>();
        match &self.body {
            ForeignBody::Boosting { base, trees } => logistic(base + sum(trees)),
            ForeignBody::Forest(trees) => sum(trees) / trees.len() as f64,
            ForeignBody::Linear { weights, bias, mean, inverse_scale } => {
                let terms = weights.iter().zip(mean).zip(inverse_scale).zip(values);
                let terms = terms.filter(|(_, value)| value.is_finite());
                let terms = terms.map(|(((weight, mean), scale), value)| weight * (f64::from(*value) - mean) * scale);
                logistic(bias + terms.sum::<f64>())
            }
        }
    }

    /// The compact model's body, and its trees' thresholds.
    pub(super) fn body(&self) -> Result<ModelBody, ImportError> {
        let (tool, features) = (self.tool, self.feature_names.len());
        let drafts = |trees: &[ForeignTree]| {
            let nodes: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
            if nodes > NODES_MAX {
                let reason =
                    format!("it has {nodes} nodes, at most {NODES_MAX} are supported: train fewer or smaller trees");
                return Err(ImportError::Unsupported { tool, reason });
            }
            let draft = |(index, tree): (usize, &ForeignTree)| {
                let malformed = |reason| ImportError::Malformed { tool, reason: format!("tree {index}: {reason}") };
                tree.draft(features).map_err(malformed)
            };
            trees.iter().enumerate().map(draft).collect::<Result<Vec<_>, _>>()
        };
        Ok(match &self.body {
            ForeignBody::Boosting { base, trees } => ModelBody::Boosting { base_score: *base, trees: drafts(trees)? },
            ForeignBody::Forest(trees) => ModelBody::Forest(drafts(trees)?),
            ForeignBody::Linear { weights, bias, mean, inverse_scale } => ModelBody::Linear {
                weights: weights.clone(),
                bias: *bias,
                mean: mean.clone(),
                inverse_scale: inverse_scale.clone(),
            },
        })
    }

    /// For each feature the thresholds it is compared with, as `f64`.
    pub(super) fn thresholds(&self) -> Vec<Vec<f64>> {
        let mut thresholds = vec![Vec::new(); self.feature_names.len()];
        if let ForeignBody::Boosting { trees, .. } | ForeignBody::Forest(trees) = &self.body {
            for node in trees.iter().flat_map(|tree| &tree.nodes) {
                if let ForeignNode::Split { feature, threshold, .. } = node
                    && let Some(of_feature) = thresholds.get_mut(*feature)
                {
                    of_feature.push(*threshold);
                }
            }
        }
        thresholds
    }
}

impl ForeignTree {
    /// The value of the leaf that a vector comes to.
    fn value(&self, values: &[f32]) -> f64 {
        let mut index = 0;
        // No path is longer than there are nodes.
        for _ in 0..=self.nodes.len() {
            match self.nodes.get(index) {
                Some(ForeignNode::Split { feature, threshold, or_equal, missing_left, left, right }) => {
                    let value = values.get(*feature).copied().filter(|value| value.is_finite()).map(f64::from);
                    let goes_left =
                        value.map_or(
                            *missing_left,
                            |value| {
                                if *or_equal { value <= *threshold } else { value < *threshold }
                            },
                        );
                    index = if goes_left { *left } else { *right };
                }
                Some(ForeignNode::Leaf { value, .. }) => return *value,
                None => break,
            }
        }
        f64::NAN
    }

    /// The tree from its root on, every child after its parent.
    fn draft(&self, features: usize) -> Result<TreeDraft, &'static str> {
        let covers = self.covers();
        let mut seen = vec![false; self.nodes.len()];
        let mut nodes: Vec<NodeDraft> = Vec::with_capacity(self.nodes.len());
        let mut order = vec![0];
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            next += 1;
            let node = self.nodes.get(index).ok_or("a child is not there")?;
            if std::mem::replace(&mut seen[index], true) {
                return Err("a node has two parents");
            }
            match *node {
                ForeignNode::Leaf { value, .. } => {
                    if !value.is_finite() {
                        return Err("a leaf's value is not a number");
                    }
                    nodes.push(NodeDraft::leaf(value as f32, covers[index]));
                }
                ForeignNode::Split { feature, threshold, or_equal, missing_left, left, right } => {
                    let feature = u16::try_from(feature).ok().filter(|feature| usize::from(*feature) < features);
                    let feature = feature.ok_or("a split tests a feature that is not there")?;
                    let threshold = rounded(threshold, or_equal).ok_or("a threshold is not a number")?;
                    let place = u32::try_from(order.len()).unwrap_or(u32::MAX);
                    let children = [place, place + 1];
                    if threshold == f32::NEG_INFINITY {
                        // No value goes left: all of them do with the sides exchanged.
                        nodes.push(NodeDraft::inner(feature, f32::MAX, !missing_left, children));
                        order.extend([right, left]);
                    } else {
                        nodes.push(NodeDraft::inner(feature, threshold, missing_left, children));
                        order.extend([left, right]);
                    }
                }
            }
            if order.len() > self.nodes.len() {
                return Err("a node has two parents");
            }
        }
        Ok(TreeDraft { nodes })
    }

    /// For each node its cover if it is a leaf: whole numbers as they are, others in proportion, 1 where none is known.
    fn covers(&self) -> Vec<u32> {
        let cover = |node: &ForeignNode| match node {
            ForeignNode::Leaf { cover, .. } => cover.filter(|cover| cover.is_finite() && *cover > 0.0),
            ForeignNode::Split { .. } => None,
        };
        let known: Vec<f64> = self.nodes.iter().filter_map(cover).collect();
        let sum: f64 = known.iter().sum();
        let whole = sum <= f64::from(u32::MAX / 2) && known.iter().all(|cover| cover.fract() == 0.0);
        let scale = if whole { 1.0 } else { COVER_SUM / sum };
        self.nodes.iter().map(|node| cover(node).map_or(1, |cover| ((cover * scale).round() as u32).max(1))).collect()
    }
}

/// The threshold that decides alike for every finite `f32` by "less than or equal": the greatest finite `f32` not above it,
/// or below it; minus infinity when there is none.
fn rounded(threshold: f64, or_equal: bool) -> Option<f32> {
    let nearest = threshold as f32;
    let above = f64::from(nearest) > threshold || !or_equal && f64::from(nearest) == threshold;
    let rounded = if above { nearest.next_down() } else { nearest };
    (!rounded.is_nan()).then_some(rounded.min(f32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_decides_alike() {
        let infinities = [f64::INFINITY, f64::NEG_INFINITY, -1e300];
        for threshold in
            [0.1, -0.1, 1.0, 1.0 + 1e-9, 16_777_217.0, 1e-46, -1e-46, 0.0, -0.0, 1e300, f64::from(f32::MIN)]
                .into_iter()
                .chain(infinities)
        {
            for or_equal in [true, false] {
                let narrow = rounded(threshold, or_equal).unwrap();
                for value in [narrow.next_down(), narrow, narrow.next_up(), threshold as f32] {
                    let wide = f64::from(value);
                    let left = if or_equal { wide <= threshold } else { wide < threshold };
                    assert!(!value.is_finite() || left == (value <= narrow), "{value} against {threshold}");
                }
            }
        }
        assert_eq!(rounded(f64::NAN, true), None);
        assert_eq!(rounded(-1e300, true), Some(f32::NEG_INFINITY));
    }

    #[test]
    fn trees_that_are_none_are_refused() {
        let split = |left, right| ForeignNode::Split {
            feature: 0,
            threshold: 0.0,
            or_equal: true,
            missing_left: false,
            left,
            right,
        };
        let leaf = ForeignNode::Leaf { value: 0.5, cover: Some(0.25) };
        let draft = |nodes: Vec<ForeignNode>| ForeignTree { nodes }.draft(1);
        let nothing_left =
            ForeignNode::Split { feature: 0, threshold: -1e300, or_equal: true, missing_left: true, left: 1, right: 2 };
        let other = ForeignNode::Leaf { value: 0.25, cover: None };
        let turned = draft(vec![nothing_left, leaf, other]).unwrap();
        assert_eq!((turned.nodes[0].missing_left, turned.nodes[1].value, turned.nodes[2].value), (false, 0.25, 0.5));
        assert_eq!(draft(vec![split(1, 2), leaf, leaf]).ok().map(|tree| tree.nodes[1].cover), Some(1 << 23));
        for nodes in [
            vec![],
            vec![split(0, 1), leaf],
            vec![split(1, 1), leaf],
            vec![split(1, 7), leaf],
            vec![split(1, 2), split(0, 2), leaf],
            vec![ForeignNode::Leaf { value: f64::NAN, cover: None }],
        ] {
            assert!(draft(nodes).is_err());
        }
    }
}
