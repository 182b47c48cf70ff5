//! Trees: nodes in one array, as they stand in the file, and laid out for scoring.

use crate::model::scorer::Scorer;
use crate::model::{Contribution, NodeDraft, TreeDraft, Vector, shap};

/// One node; 16 bytes, so that four share a cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    /// An inner node's threshold; a leaf's value, the mean label of the training rows that reached it, a share of the
    /// log-odds, or a path length.
    pub(super) number: f32,
    /// Training rows that reached it, at least 1; of an inner node the sum of its children's.
    pub(super) cover: u32,
    /// Index of the left child in the whole array, which the right child follows; 0, which is nobody's child, in a leaf.
    pub(super) left: u32,
    pub(super) feature: u16,
    pub(super) missing_left: bool,
}

impl Node {
    /// Whether an inner node sends a vector to its left child.
    #[inline]
    pub(super) fn sends_left(&self, vector: Vector<'_>) -> bool {
        vector.get(usize::from(self.feature)).map_or(self.missing_left, |value| value <= self.number)
    }
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Root {
    /// Its root's index in the whole array.
    pub(super) index: u32,
    /// Its longest path, in edges.
    pub(super) depth: u8,
}

/// One or more trees: by themselves and in isolation forests their mean counts, in boosting their sum. Built only by the
/// reader, which has proven every child index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forest {
    pub(super) roots: Vec<Root>,
    /// All trees' nodes, tree by tree.
    pub(super) nodes: Vec<Node>,
    scorer: Scorer,
    /// The sum of the trees' means over their training rows.
    expected_sum: f64,
}

impl Forest {
    /// Takes trees whose structure is proven.
    pub(super) fn new(roots: Vec<Root>, nodes: Vec<Node>) -> Self {
        let scorer = Scorer::new(&roots, &nodes);
        let mut forest = Self { roots, nodes, scorer, expected_sum: 0.0 };
        forest.expected_sum = (0..forest.roots.len()).map(|tree| mean(forest.tree(tree))).sum();
        forest
    }

    /// A tree's nodes.
    fn tree(&self, tree: usize) -> &[Node] {
        let first = self.roots.get(tree).map_or(self.nodes.len(), |root| root.index as usize);
        let end = self.roots.get(tree + 1).map_or(self.nodes.len(), |next| next.index as usize);
        self.nodes.get(first..end).unwrap_or_default()
    }

    /// The trees as they were drafted, their nodes breadth first.
    pub(super) fn drafts(&self) -> Vec<TreeDraft> {
        let draft = |tree: usize| {
            let base = self.roots.get(tree).map_or(0, |root| root.index);
            let node = |node: &Node| match node.left.checked_sub(base).filter(|_| node.left != 0) {
                Some(left) => NodeDraft::inner(node.feature, node.number, node.missing_left, [left, left + 1]),
                None => NodeDraft::leaf(node.number, node.cover),
            };
            TreeDraft { nodes: self.tree(tree).iter().map(node).collect() }
        };
        (0..self.roots.len()).map(draft).collect()
    }

    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        self.sum(vector) / self.tree_count()
    }

    /// The sum of the leaves' values, in the order that [`Scorer`] says.
    pub(super) fn sum(&self, vector: Vector<'_>) -> f64 {
        self.scorer.sum(vector)
    }

    /// The mean score of the training rows, as far as the trees remember them.
    pub(super) fn expected(&self) -> f64 {
        self.expected_sum / self.tree_count()
    }

    /// The mean, over the training rows, of the sum of the leaves' values.
    pub(super) fn expected_sum(&self) -> f64 {
        self.expected_sum
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        self.explain_sum(vector, into);
        let trees = self.tree_count();
        for entry in into {
            entry.contribution /= trees;
        }
    }

    /// The same for the sum of all trees.
    pub(super) fn explain_sum(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        shap::add_contributions(self, vector, into);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.roots.as_slice()) + size_of_val(self.nodes.as_slice()) + self.scorer.memory_bytes()
    }

    /// At most [`super::limits::TREES_MAX`], so exact.
    fn tree_count(&self) -> f64 {
        self.roots.len() as f64
    }
}

/// The mean value of a tree's leaves, by their covers.
fn mean(nodes: &[Node]) -> f64 {
    let Some(root) = nodes.first() else { return 0.0 };
    let leaves = nodes.iter().filter(|node| node.left == 0);
    let sum: f64 = leaves.map(|leaf| f64::from(leaf.cover) * f64::from(leaf.number)).sum();
    sum / f64::from(root.cover)
}
