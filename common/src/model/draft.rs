//! What trainers fill in.

use crate::model::{Calibration, Layer, ModelMetadata, Scaling, Steps};

/// A model that is not encoded yet.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDraft {
    /// What it is and where it comes from.
    pub metadata: ModelMetadata,
    /// Empty, or one value per feature: what stands in for a missing value, NaN for "nothing".
    pub imputation: Vec<f32>,
    /// The model proper.
    pub body: ModelBody,
    /// What is done to the body's score, if anything.
    pub calibration: Option<Calibration>,
    /// Rows whose scores every reader must reproduce: 1 to [`limits::SELF_TEST_ROWS_MAX`](super::limits), each with one
    /// value per feature. Their expected scores are computed when the draft is encoded.
    pub self_test: Vec<Vec<f32>>,
}

/// The model proper.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelBody {
    /// Trees whose leaf values are averaged; exactly one for a decision tree.
    Forest(Vec<TreeDraft>),
    /// `logistic(base_score + Σ leaf value)`, with values in log-odds.
    Boosting {
        /// Log-odds before the first tree.
        base_score: f64,
        /// The trees.
        trees: Vec<TreeDraft>,
    },
    /// `2^(−mean leaf value / normaliser)`, with path lengths as values.
    IsolationForest {
        /// The mean path length of a search tree of as many rows as each tree learned from; at least 1.
        normaliser: f64,
        /// The trees.
        trees: Vec<TreeDraft>,
    },
    /// `logistic(bias + Σ weight · (value − mean) · inverse_scale)`; one entry per feature in each list.
    Linear {
        /// Weights of the standardised values.
        weights: Vec<f64>,
        /// Added to the sum.
        bias: f64,
        /// Means of the training rows.
        mean: Vec<f64>,
        /// 1 / standard deviation of the training rows; 0 for a constant feature.
        inverse_scale: Vec<f64>,
    },
    /// `logistic(bias + Σ log-odds of the step that the value stands on)`.
    Additive {
        /// Added to the sum.
        bias: f64,
        /// One for each feature.
        features: Vec<Steps>,
    },
    /// `logistic` of the last layer's one unit.
    Network {
        /// One for each feature.
        scaling: Vec<Scaling>,
        /// The layers; the inputs of the first are the standardised values, those of each further one the units of the
        /// one before, cut off below zero. The last has one unit.
        layers: Vec<Layer>,
    },
    /// `logistic(bias + Σ coefficient · e^(−gamma · squared distance from the centre))`.
    Kernel {
        /// One for each feature.
        scaling: Vec<Scaling>,
        /// How fast nearness falls off, above 0.
        gamma: f64,
        /// Added to the sum.
        bias: f64,
        /// One for each centre.
        coefficients: Vec<f64>,
        /// For each feature one standardised value for each centre, feature by feature.
        centres: Vec<f32>,
    },
}

/// A tree; its root is node 0.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeDraft {
    /// The nodes, every child after its parent. The encoder renumbers them.
    pub nodes: Vec<NodeDraft>,
}

impl TreeDraft {
    /// The index of the leaf that a vector comes to, values beyond its end and values that are not finite being missing;
    /// nothing when the nodes form no tree.
    pub fn leaf_of(&self, values: &[f32]) -> Option<usize> {
        let mut index = 0;
        // Whatever the nodes are, this ends.
        for _ in 0..self.nodes.len() {
            let node = self.nodes.get(index)?;
            if node.is_leaf() {
                return Some(index);
            }
            let value = values.get(usize::from(node.feature)).filter(|value| value.is_finite());
            let goes_left = value.map_or(node.missing_left, |value| *value <= node.threshold);
            index = if goes_left { node.left } else { node.right } as usize;
        }
        None
    }

    /// Gives each leaf the number of `rows` that come to it as its cover, at least 1.
    pub fn count_covers<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.nodes.iter_mut().for_each(|node| node.cover = 0);
        for row in rows {
            if let Some(node) = self.leaf_of(row).and_then(|leaf| self.nodes.get_mut(leaf)) {
                node.cover = node.cover.saturating_add(1);
            }
        }
        self.nodes.iter_mut().filter(|node| node.is_leaf()).for_each(|leaf| leaf.cover = leaf.cover.max(1));
    }
}

/// A node of a tree; a leaf when it has no children (then only `value` and `cover` count, and else all but these).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeDraft {
    /// Which feature it tests.
    pub feature: u16,
    /// A value less than or equal to it goes left.
    pub threshold: f32,
    /// Where a missing value goes.
    pub missing_left: bool,
    /// Index of the left child; 0 for a leaf.
    pub left: u32,
    /// Index of the right child; 0 for a leaf.
    pub right: u32,
    /// A leaf's value: the mean label of the training rows that reached it, 0 to 1; in boosting its share of the log-odds; in
    /// isolation forests the path length.
    pub value: f32,
    /// How many training rows reached a leaf, at least 1; what an unknown feature would do is judged by it. An inner node's
    /// is that of its leaves.
    pub cover: u32,
}

impl NodeDraft {
    /// A leaf that so many training rows reached.
    pub fn leaf(value: f32, cover: u32) -> Self {
        Self { feature: 0, threshold: 0.0, missing_left: false, left: 0, right: 0, value, cover }
    }

    /// An inner node; its children follow.
    pub fn inner(feature: u16, threshold: f32, missing_left: bool, [left, right]: [u32; 2]) -> Self {
        Self { feature, threshold, missing_left, left, right, value: 0.0, cover: 0 }
    }

    /// Whether it is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.left == 0 && self.right == 0
    }
}
