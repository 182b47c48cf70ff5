//! Takes back splits of trees that are too large for a model.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use picket_common::model::{NodeDraft, TreeDraft};

use crate::train::gain::Gain;

/// Makes leaves of inner nodes until no more than `nodes_max` nodes are left: each time of the one with two leaves whose
/// split explains least, which is what its rows' squared errors would grow by. Inner nodes must have their rows' mean as
/// value and their number as cover, as in a tree while it grows.
pub(in crate::train) fn prune(tree: &mut TreeDraft, nodes_max: usize) {
    let mut left_over = tree.nodes.len();
    if left_over <= nodes_max {
        return;
    }
    let mut parents = vec![None; tree.nodes.len()];
    for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf()) {
        [node.left, node.right].iter().for_each(|child| parents[*child as usize] = Some(index));
    }
    let mut weakest: BinaryHeap<(Reverse<Gain>, usize)> = BinaryHeap::new();
    let offer = |weakest: &mut BinaryHeap<_>, nodes: &[NodeDraft], index: usize| {
        if let Some(gain) = gain(nodes, index) {
            weakest.push((Reverse(Gain(gain)), index));
        }
    };
    (0..tree.nodes.len()).for_each(|index| offer(&mut weakest, &tree.nodes, index));
    while left_over > nodes_max.max(1) {
        let Some((_, index)) = weakest.pop() else { break };
        let node = &mut tree.nodes[index];
        *node = NodeDraft::leaf(node.value, node.cover);
        left_over -= 2;
        if let Some(parent) = parents[index] {
            offer(&mut weakest, &tree.nodes, parent);
        }
    }
    *tree = without_orphans(tree, left_over);
}

/// What a node's split explains, if both children are leaves.
fn gain(nodes: &[NodeDraft], index: usize) -> Option<f64> {
    let node = nodes.get(index).filter(|node| !node.is_leaf())?;
    let children = [node.left, node.right].map(|child| nodes.get(child as usize).filter(|child| child.is_leaf()));
    let [Some(left), Some(right)] = children else { return None };
    let of_child =
        |child: &NodeDraft| f64::from(child.cover) * (f64::from(child.value) - f64::from(node.value)).powi(2);
    Some(of_child(left) + of_child(right))
}

/// The nodes that the root leads to, in their order.
fn without_orphans(tree: &TreeDraft, count: usize) -> TreeDraft {
    let mut nodes: Vec<NodeDraft> = Vec::with_capacity(count);
    // Where a node goes, and where its parent refers to it. The left child comes first.
    let mut open = vec![(0, None)];
    while let Some((index, parent)) = open.pop() {
        let node = tree.nodes[index];
        let place = nodes.len();
        if let Some((parent, is_left)) = parent {
            let parent: &mut NodeDraft = &mut nodes[parent];
            *(if is_left { &mut parent.left } else { &mut parent.right }) = u32::try_from(place).unwrap_or(u32::MAX);
        }
        nodes.push(node);
        if !node.is_leaf() {
            open.push((node.right as usize, Some((place, false))));
            open.push((node.left as usize, Some((place, true))));
        }
    }
    TreeDraft { nodes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: f32, cover: u32, children: [u32; 2]) -> NodeDraft {
        NodeDraft { value, cover, ..NodeDraft::inner(0, 0.0, false, children) }
    }

    /// 0 → (1, 4), 1 → (2, 3), 4 → (5, 6): the split at 1 explains most, that at 4 least.
    fn tree() -> TreeDraft {
        let leaf = NodeDraft::leaf;
        let nodes = vec![
            node(0.5, 40, [1, 4]),
            node(0.25, 20, [2, 3]),
            leaf(0.0, 15),
            leaf(1.0, 5),
            node(0.75, 20, [5, 6]),
            leaf(0.7, 10),
            leaf(0.8, 10),
        ];
        TreeDraft { nodes }
    }

    #[test]
    fn the_weakest_split_goes_first() {
        let mut pruned = tree();
        prune(&mut pruned, 7);
        assert_eq!(pruned, tree(), "small enough");
        prune(&mut pruned, 6);
        assert_eq!(pruned.nodes.len(), 5);
        assert_eq!(pruned.nodes[..4], tree().nodes[..4]);
        assert_eq!(pruned.nodes[4], NodeDraft::leaf(0.75, 20));
        // Then the root would explain more than the split below it, but that one has two leaves.
        prune(&mut pruned, 3);
        assert_eq!(pruned.nodes[1], NodeDraft::leaf(0.25, 20));
        assert_eq!((pruned.nodes[0].left, pruned.nodes[0].right), (1, 2));
        prune(&mut pruned, 0);
        assert_eq!(pruned.nodes, [NodeDraft::leaf(0.5, 40)], "a root is left in any case");
    }
}
