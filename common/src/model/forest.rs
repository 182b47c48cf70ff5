//! Trees: nodes in one array, walked from each root.

use crate::model::limits::DEPTH_MAX;
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
    pub(super) roots: Vec<u32>,
    /// All trees' nodes, tree by tree.
    pub(super) nodes: Vec<Node>,
}

impl Forest {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        self.sum(vector) / self.tree_count()
    }

    /// The sum of the leaves' values, in the order of the trees.
    pub(super) fn sum(&self, vector: Vector<'_>) -> f64 {
        let mut sum = 0.0;
        for root in &self.roots {
            sum += self.leaf_value(*root, vector);
        }
        sum
    }

    /// Bounded by the proven depth whatever the array holds.
    #[inline]
    fn leaf_value(&self, root: u32, vector: Vector<'_>) -> f64 {
        let mut index = root as usize;
        let mut value = 0.0;
        for _ in 0..=DEPTH_MAX {
            let Some(node) = self.nodes.get(index) else { break };
            value = node.value;
            if node.left == 0 {
                break;
            }
            index = child(node, vector);
        }
        f64::from(value)
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
        size_of_val(self.roots.as_slice()) + size_of_val(self.nodes.as_slice())
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
