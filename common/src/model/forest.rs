//! Trees: nodes in one array, as they stand in the file, and laid out for scoring.

use crate::model::limits::DEPTH_MAX;
use crate::model::scorer::Scorer;
use crate::model::{Contribution, Vector};

/// One node; 16 bytes, so that four share a cache line. A leaf's `left` is 0, which is nobody's child.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) threshold: f32,
    /// Mean label of the training rows that reached this node, or its share of the log-odds.
    pub(super) value: f32,
    /// Index of the left child in the whole array; the right child follows it.
    pub(super) left: u32,
    pub(super) feature: u16,
    pub(super) missing_left: bool,
}

/// One or more trees: by themselves their mean counts, in boosting their sum. Built only by the reader, which has proven
/// every child index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forest {
    /// Index of each tree's root.
    roots: Vec<u32>,
    /// All trees' nodes, tree by tree.
    nodes: Vec<Node>,
    scorer: Scorer,
}

impl Forest {
    /// Takes trees whose structure is proven.
    pub(super) fn new(roots: Vec<u32>, nodes: Vec<Node>) -> Self {
        let scorer = Scorer::new(&roots, &nodes);
        Self { roots, nodes, scorer }
    }

    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        self.sum(vector) / self.tree_count()
    }

    /// The sum of the leaves' values, in the order that [`Scorer`] says.
    pub(super) fn sum(&self, vector: Vector<'_>) -> f64 {
        self.scorer.sum(vector)
    }

    pub(super) fn baseline(&self) -> f64 {
        self.sum_of_roots() / self.tree_count()
    }

    /// The sum of the roots' values.
    pub(super) fn sum_of_roots(&self) -> f64 {
        let mut sum = 0.0;
        for root in self.roots.iter().filter_map(|root| self.nodes.get(*root as usize)) {
            sum += f64::from(root.value);
        }
        sum
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        self.add_steps(vector, into);
        let trees = self.tree_count();
        for entry in into {
            entry.contribution /= trees;
        }
    }

    /// Adds to each feature's entry what the steps at it change, over all trees.
    pub(super) fn add_steps(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        for root in &self.roots {
            let mut index = *root as usize;
            for _ in 0..DEPTH_MAX {
                let Some(node) = self.nodes.get(index).filter(|node| node.left != 0) else { break };
                index = child(node, vector);
                let Some(next) = self.nodes.get(index) else { break };
                if let Some(entry) = into.get_mut(usize::from(node.feature)) {
                    entry.contribution += f64::from(next.value) - f64::from(node.value);
                }
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.roots.as_slice()) + size_of_val(self.nodes.as_slice()) + self.scorer.memory_bytes()
    }

    /// At most [`super::limits::TREES_MAX`], so exact.
    fn tree_count(&self) -> f64 {
        self.roots.len() as f64
    }
}

#[inline]
fn child(node: &Node, vector: Vector<'_>) -> usize {
    let left = match vector.get(usize::from(node.feature)) {
        Some(value) => value <= node.threshold,
        None => node.missing_left,
    };
    node.left as usize + usize::from(!left)
}
