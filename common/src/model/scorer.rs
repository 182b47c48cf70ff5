//! Trees laid out for one row at a time.
//!
//! A walk from a root to a leaf is a chain of reads that wait for each other, and a processor guesses every second of its
//! turns wrong. So [`LANES`] trees are walked at once, without a branch a step:
//!
//! * **Keys.** A row becomes whole numbers in the order of its values, once: of each feature one for nodes that send
//!   missing values to the left and one for those that send them to the right. A step then compares two whole numbers,
//!   whatever is missing.
//! * **Steps.** A node is 8 bytes: the key of its threshold, the place of its two children (pairs of slots are numbered) and
//!   the cell of the row that it looks at, in this order, so that one comparison of the whole with the row's key decides.
//! * **Chains.** A leaf holds its value, and is at the same time the root of the next tree of its lane: there is no end of
//!   a tree to look for. Inner nodes have the value zero. The last leaves lead to a step that leads to itself.
//! * **Neighbours.** The children of a node lie together with those of both of them: two levels a line of the cache.
//!
//! Tree *k* belongs to lane *k* mod [`LANES`]. A lane adds its leaves in the order of the trees, and the sums of the lanes
//! are added in order: this is what a score is defined by, and the same bits come out wherever it is computed.

use std::collections::BTreeSet;

use crate::feature::MISSING;
use crate::model::Vector;
use crate::model::forest::{Node, Root};
use crate::model::limits::{DEPTH_MAX, FEATURES_MAX, NODES_MAX, TREES_MAX};
use crate::model::order::key;

/// Trees that are walked at once: with more of them their state no longer fits the registers, with fewer each waits for
/// memory longer.
pub(super) const LANES: usize = 10;
/// Steps between two looks at whether all lanes are at their end.
const STEPS_AT_ONCE: usize = 4;

const CELL_BITS: u32 = 13;
const PAIR_BITS: u32 = 19;
const KEY_SHIFT: u32 = CELL_BITS + PAIR_BITS;
/// Enough cells for any model: two for each feature.
const CELLS_MAX: usize = 1 << CELL_BITS;
const _: () = assert!(2 * FEATURES_MAX <= CELLS_MAX);
// Every node but the roots has a slot, a tree that is only a leaf has two; then the first roots and the end.
const _: () = assert!(NODES_MAX + 2 * TREES_MAX + LANES < 2 << PAIR_BITS);
// Slots come in pairs, from the first on.
const _: () = assert!(LANES.is_multiple_of(2));

/// The key of the last step: no row's key is above it, and no node has it.
const END_KEY: u32 = u32::MAX;
/// What a missing value is where it goes to the right: above every node's key.
const MISSING_RIGHT: u32 = u32::MAX;
/// A key above that of every value, for a step that has the same behind both sides.
const EITHER_KEY: u32 = END_KEY - 1;

/// A node; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step(u64);

impl Step {
    fn new(key: u32, left: usize, cell: usize) -> Self {
        // Slots and cells are below their limits, which were proven with those of the model.
        Self(u64::from(key) << KEY_SHIFT | (left as u64 / 2) << CELL_BITS | cell as u64)
    }

    fn end(slot: usize) -> Self {
        Self::new(END_KEY, slot, 0)
    }

    /// The slot that comes next.
    #[inline]
    fn next<const CELLS: usize>(self, row: &[u64; CELLS]) -> usize {
        const { assert!(CELLS.is_power_of_two()) };
        let right = row[self.0 as usize & (CELLS - 1)] > self.0;
        (2 * (self.0 as u32 >> CELL_BITS) + u32::from(right)) as usize
    }
}

/// Trees that are added up; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scorer {
    /// The first [`LANES`] are the first roots, the last is the end.
    steps: Vec<Step>,
    /// For each step what it adds.
    values: Vec<f32>,
    /// The features that steps look at, in order. Each has two cells: for nodes that send missing values to the left, and
    /// for those that send them to the right.
    features: Vec<u16>,
}

impl Scorer {
    /// Lays out trees whose structure is proven.
    pub(super) fn new(roots: &[Root], nodes: &[Node]) -> Self {
        let inner = nodes.iter().filter(|node| node.left != 0);
        let features: BTreeSet<u16> = inner.map(|node| node.feature).collect();
        let features: Vec<u16> = features.into_iter().collect();
        let trees = roots.iter().enumerate().map(|(tree, root)| {
            let end = roots.get(tree + 1).map_or(nodes.len(), |next| next.index as usize);
            nodes.get(root.index as usize..end).unwrap_or_default()
        });
        let trees: Vec<&[Node]> = trees.collect();
        let mut layout = Layout { trees: &trees, firsts: Vec::new(), end: LANES, features: &features };
        for tree in &trees {
            layout.firsts.push(layout.end);
            layout.end += (tree.len() - usize::from(!tree.is_empty())).max(2);
        }
        let mut scorer = Self {
            steps: vec![Step::end(layout.end); layout.end + 1],
            values: vec![0.0; layout.end + 1],
            features: Vec::new(),
        };
        for lane in 0..LANES {
            scorer.steps[lane] = layout.root(lane);
        }
        for tree in 0..trees.len() {
            scorer.lay_out(tree, &layout);
        }
        scorer.features = features;
        scorer
    }

    /// Fills the slots of a tree.
    fn lay_out(&mut self, tree: usize, layout: &Layout<'_>) {
        let (first, next_root) = (layout.firsts[tree], layout.root(tree + LANES));
        let nodes = layout.trees[tree];
        let Some(root) = nodes.first() else { return };
        if root.left == 0 {
            for slot in [first, first + 1] {
                (self.steps[slot], self.values[slot]) = (next_root, root.number);
            }
            return;
        }
        let slots = slots(nodes, root.left as usize - 1, first);
        let base = root.left as usize - 1;
        for (node, slot) in nodes.iter().zip(&slots).skip(1) {
            if node.left == 0 {
                (self.steps[*slot], self.values[*slot]) = (next_root, node.number);
            } else {
                self.steps[*slot] = layout.step(node, slots[node.left as usize - base]);
            }
        }
    }

    /// The sum of the leaves that a row comes to.
    pub(super) fn sum(&self, vector: Vector<'_>) -> f64 {
        match 2 * self.features.len() {
            0..=256 => self.sum_with::<256>(vector),
            257..=1024 => self.sum_with::<1024>(vector),
            _ => self.sum_with::<CELLS_MAX>(vector),
        }
    }

    fn sum_with<const CELLS: usize>(&self, vector: Vector<'_>) -> f64 {
        let mut row = [0; CELLS];
        for (cells, feature) in row.as_chunks_mut::<2>().0.iter_mut().zip(&self.features) {
            let feature = usize::from(*feature);
            let mut value = vector.values.get(feature).copied().unwrap_or(MISSING);
            if !vector.imputation.is_empty() {
                value = vector.get(feature).unwrap_or(MISSING);
            }
            let key = u64::from(key(value)) << KEY_SHIFT;
            *cells = if value.is_finite() { [key; 2] } else { [0, u64::from(MISSING_RIGHT) << KEY_SHIFT] };
        }
        self.walk(&row)
    }

    #[inline]
    fn walk<const CELLS: usize>(&self, row: &[u64; CELLS]) -> f64 {
        let mut sums = [0.0; LANES];
        let Some(steps) = self.steps.first_chunk::<LANES>() else { return 0.0 };
        let mut steps = *steps;
        let Some(values) = self.values.get(..self.steps.len()) else { return 0.0 };
        // What was proven ends long before.
        let rounds_max = self.values.len().saturating_mul(DEPTH_MAX);
        'walk: for _ in 0..rounds_max {
            for _ in 0..STEPS_AT_ONCE {
                for (step, sum) in steps.iter_mut().zip(&mut sums) {
                    let slot = step.next(row);
                    let (Some(next), Some(value)) = (self.steps.get(slot), values.get(slot)) else { break 'walk };
                    *step = *next;
                    *sum += f64::from(*value);
                }
            }
            let together = steps.iter().fold(u64::MAX, |together, step| together & step.0);
            if (together >> KEY_SHIFT) as u32 == END_KEY {
                break;
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        total
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.steps.as_slice()) + size_of_val(self.values.as_slice()) + size_of_val(self.features.as_slice())
    }
}

/// What is where.
struct Layout<'a> {
    trees: &'a [&'a [Node]],
    /// For each tree its first slot.
    firsts: Vec<usize>,
    /// The last slot.
    end: usize,
    features: &'a [u16],
}

impl Layout<'_> {
    /// The root of a tree, or the end when there is no such tree.
    fn root(&self, tree: usize) -> Step {
        let (Some(nodes), Some(first)) = (self.trees.get(tree), self.firsts.get(tree)) else {
            return Step::end(self.end);
        };
        match nodes.first() {
            Some(root) if root.left != 0 => self.step(root, *first),
            _ => Step::new(EITHER_KEY, *first, 0),
        }
    }

    fn step(&self, node: &Node, left: usize) -> Step {
        // All features of inner nodes are there.
        let place = self.features.binary_search(&node.feature).unwrap_or(0);
        let cell = 2 * place + usize::from(!node.missing_left);
        Step::new(key(node.number), left, cell)
    }
}

/// For each node of a tree but its root its slot, from `first` on: the children of a node, then those of both children;
/// what is below them the same way, depth first. `base` is the place of the root among all nodes.
fn slots(nodes: &[Node], base: usize, first: usize) -> Vec<usize> {
    let mut slots = vec![first; nodes.len()];
    let children = |node: usize| {
        let left = nodes.get(node).map_or(0, |node| node.left as usize);
        (left != 0).then(|| [left - base, left - base + 1])
    };
    let mut next = first;
    let mut open = vec![0];
    while let Some(parent) = open.pop() {
        let Some(pair) = children(parent) else { continue };
        for node in [Some(pair), children(pair[0]), children(pair[1])].into_iter().flatten().flatten() {
            slots[node] = next;
            next += 1;
        }
        let below = pair.into_iter().rev().filter_map(children).flat_map(|pair| pair.into_iter().rev());
        open.extend(below);
    }
    slots
}

#[cfg(test)]
mod tests;
