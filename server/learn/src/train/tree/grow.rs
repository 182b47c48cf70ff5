//! From rows to a tree, whatever finds the splits.

use picket_common::model::{NodeDraft, TreeDraft};

use crate::train::tree::bins::MISSING_BIN;
use crate::train::tree::{BinnedMatrix, RowWeights, Sums, cover};

/// When to stop splitting.
#[derive(Clone, Copy, Debug)]
pub(in crate::train) struct Limits {
    /// Greatest depth, in edges.
    pub(in crate::train) depth_max: u16,
    /// Fewest rows of a leaf; what counts as a row is the finder's to say.
    pub(in crate::train) leaf_rows_min: u32,
}

/// The rows of a node, what each of them weighs, and all together.
pub(in crate::train) struct Node<'a> {
    pub(in crate::train) rows: &'a [u32],
    pub(in crate::train) weights: &'a [Sums],
    pub(in crate::train) sums: Sums,
}

/// How a node is split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::train) struct Split {
    pub(in crate::train) feature: u16,
    /// Rows of this bin and before go left.
    pub(in crate::train) bin: u8,
    /// Values up to this go left.
    pub(in crate::train) threshold: f32,
    /// Whether missing values go left.
    pub(in crate::train) missing_left: bool,
}

/// Finds splits.
pub(in crate::train) trait SplitFinder {
    /// A split of this node that leaves enough rows on both sides and explains more than none, if there is one.
    fn find(&mut self, node: &Node<'_>) -> Option<Split>;
}

/// A node that is still to be dealt with: its rows are `first..end` of the order.
struct Open {
    first: usize,
    end: usize,
    depth: u16,
    /// The parent's index, and whether this is its left child.
    parent: Option<(usize, bool)>,
}

/// Grows one tree on the rows that weigh something.
pub(in crate::train) fn grow(
    matrix: &BinnedMatrix,
    weights: &RowWeights,
    limits: Limits,
    finder: &mut impl SplitFinder,
) -> TreeDraft {
    let mut of_rows = Vec::new();
    grow_by(matrix, weights.rows(), |rows, depth| {
        of_rows.clear();
        of_rows.extend(rows.iter().map(|row| weights.row(*row)));
        let sums: Sums = of_rows.iter().copied().sum();
        let is_done = depth >= limits.depth_max || sums.is_pure();
        let split = if is_done { None } else { finder.find(&Node { rows, weights: &of_rows, sums }) };
        (sums.mean() as f32, split)
    })
}

/// Grows a tree on these rows. `look` tells the value that a node of some rows and depth has as a leaf, and its split, which
/// leaves rows on both sides; without one it stays a leaf.
pub(super) fn grow_by(
    matrix: &BinnedMatrix,
    mut order: Vec<u32>,
    mut look: impl FnMut(&[u32], u16) -> (f32, Option<Split>),
) -> TreeDraft {
    let mut aside = Vec::with_capacity(order.len());
    let mut nodes: Vec<NodeDraft> = Vec::new();
    let mut open = vec![Open { first: 0, end: order.len(), depth: 0, parent: None }];
    while let Some(Open { first, end, depth, parent }) = open.pop() {
        let rows = &mut order[first..end];
        let index = nodes.len();
        let (value, split) = look(rows, depth);
        nodes.push(NodeDraft::leaf(value, cover(rows.len())));
        if let Some((parent, is_left)) = parent {
            // Trees have fewer nodes than twice the rows, and those are at most a million.
            let child = u32::try_from(index).unwrap_or(u32::MAX);
            if is_left {
                nodes[parent].left = child;
            } else {
                nodes[parent].right = child;
            }
        }
        let Some(split) = split else { continue };
        let left = partition(matrix, rows, &mut aside, &split);
        let node = &mut nodes[index];
        (node.feature, node.threshold, node.missing_left) = (split.feature, split.threshold, split.missing_left);
        let middle = first + left;
        // The left child comes first.
        open.push(Open { first: middle, end, depth: depth + 1, parent: Some((index, false)) });
        open.push(Open { first, end: middle, depth: depth + 1, parent: Some((index, true)) });
    }
    TreeDraft { nodes }
}

/// Brings the rows that go left to the front, both sides in their order; how many go left.
fn partition(matrix: &BinnedMatrix, rows: &mut [u32], aside: &mut Vec<u32>, split: &Split) -> usize {
    aside.clear();
    let column = matrix.column(usize::from(split.feature));
    let mut left = 0;
    for index in 0..rows.len() {
        let row = rows[index];
        let bin = column[row as usize];
        let goes_left = if bin == MISSING_BIN { split.missing_left } else { bin <= split.bin };
        if goes_left {
            rows[left] = row;
            left += 1;
        } else {
            aside.push(row);
        }
    }
    rows[left..].copy_from_slice(aside);
    left
}
