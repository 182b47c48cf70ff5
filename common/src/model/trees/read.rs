//! From bits to proven trees.

use std::ops::RangeInclusive;

use crate::model::bits::{BitReader, width};
use crate::model::cursor::Cursor;
use crate::model::error::NodeProblem;
use crate::model::forest::{Forest, Node, Root};
use crate::model::order::value_with;
use crate::model::trees::{KEY_BITS, PREFIX, SPLIT_PREFIX};
use crate::model::{ModelError, Section, limits};

/// Reads all that is left in a section. `values` is what a leaf's value may be.
pub(in crate::model) fn read_trees(
    reader: &mut Cursor<'_>,
    features: usize,
    values: &RangeInclusive<f64>,
) -> Result<Forest, ModelError> {
    let trees = reader.count("trees", 1, limits::TREES_MAX)?;
    let nodes = reader.count("nodes", 1, limits::NODES_MAX)?;
    let splits = reader.count("splits", 0, limits::NODES_MAX)?;
    let leaf_values = reader.count("leaf values", 1, limits::NODES_MAX)?;
    let inner = nodes.checked_sub(trees).filter(|twice| twice.is_multiple_of(2)).map(|twice| twice / 2);
    let inner = inner.ok_or_else(|| reader.malformed("so many nodes do not form so many trees"))?;
    if splits > inner || leaf_values > inner + trees {
        return Err(reader.malformed("there are more splits or values than nodes"));
    }
    let (split_width, value_width) = (width(splits), width(leaf_values));
    // The fewest bits that all of this takes: what is reserved below is no more than the file is worth.
    let least = splits * SPLIT_PREFIX as usize
        + leaf_values * PREFIX as usize
        + inner * (2 + split_width) as usize
        + (inner + trees) * (1 + value_width + PREFIX) as usize;
    reader.need(least / 8)?;
    let offset = reader.offset();
    let mut trees_reader = TreesReader {
        bits: BitReader::new(reader.take_rest()),
        offset,
        splits: Vec::with_capacity(splits),
        values: Vec::with_capacity(leaf_values),
        split_used: vec![false; splits],
        value_used: vec![false; leaf_values],
        nodes: Vec::with_capacity(nodes),
        nodes_max: nodes,
    };
    trees_reader.read_tables(splits, leaf_values, features, values)?;
    let mut roots = Vec::with_capacity(trees);
    for tree in 0..trees {
        roots.push(trees_reader.read_tree(tree)?);
    }
    trees_reader.finish(roots)
}

struct TreesReader<'a> {
    bits: BitReader<'a>,
    /// Where the bits begin in the file.
    offset: usize,
    splits: Vec<(u16, f32)>,
    values: Vec<f32>,
    split_used: Vec<bool>,
    value_used: Vec<bool>,
    nodes: Vec<Node>,
    nodes_max: usize,
}

impl TreesReader<'_> {
    fn read_tables(
        &mut self,
        splits: usize,
        leaf_values: usize,
        features: usize,
        values: &RangeInclusive<f64>,
    ) -> Result<(), ModelError> {
        let mut next = 0;
        for _ in 0..splits {
            let split = next + self.number(SPLIT_PREFIX)? - 1;
            next = split + 1;
            let feature = u16::try_from(split >> KEY_BITS).ok().filter(|feature| usize::from(*feature) < features);
            let feature = feature.ok_or_else(|| self.malformed("a split tests a feature beyond the vector"))?;
            let threshold = value_with(split as u32).ok_or_else(|| self.malformed("a threshold is not finite"))?;
            self.splits.push((feature, threshold));
        }
        let mut next = 0;
        for _ in 0..leaf_values {
            let key = next + self.number(PREFIX)? - 1;
            next = key + 1;
            let value =
                u32::try_from(key).ok().and_then(value_with).filter(|value| values.contains(&f64::from(*value)));
            let value = value.ok_or_else(|| {
                self.malformed("a leaf's value is not between 0 and 1, or too large a share of the log-odds")
            })?;
            self.values.push(value);
        }
        Ok(())
    }

    /// Reads one tree and proves it.
    ///
    /// `claimed` counts the nodes that have a parent, and the root: the children of the node at hand are the next two.
    fn read_tree(&mut self, tree: usize) -> Result<Root, ModelError> {
        let base = self.nodes.len();
        let (mut claimed, mut position) = (1, 0);
        let (mut depth, mut level_end) = (0, 1);
        while position < claimed {
            if position == level_end {
                depth += 1;
                level_end = claimed;
            }
            let problem = |problem| ModelError::Node { tree, node: position, problem };
            if depth > limits::DEPTH_MAX {
                return Err(problem(NodeProblem::Depth));
            }
            if base + claimed > self.nodes_max {
                return Err(problem(NodeProblem::OutOfRange));
            }
            let node = if self.take(1)? == 1 {
                claimed += 2;
                self.inner_node(base + claimed - 2)?
            } else {
                self.leaf()?
            };
            self.nodes.push(node);
            position += 1;
        }
        self.sum_covers(base).map_err(|node| ModelError::Node { tree, node, problem: NodeProblem::Cover })?;
        Ok(Root { index: index(base), depth: u8::try_from(depth).unwrap_or(u8::MAX) })
    }

    fn inner_node(&mut self, left: usize) -> Result<Node, ModelError> {
        let place = self.place(self.splits.len())?;
        let (feature, threshold) =
            *self.splits.get(place).ok_or_else(|| self.malformed("a node refers to a split that is not there"))?;
        self.split_used[place] = true;
        let missing_left = self.take(1)? == 1;
        Ok(Node { number: threshold, cover: 0, left: index(left), feature, missing_left })
    }

    fn leaf(&mut self) -> Result<Node, ModelError> {
        let place = self.place(self.values.len())?;
        let value =
            *self.values.get(place).ok_or_else(|| self.malformed("a leaf refers to a value that is not there"))?;
        self.value_used[place] = true;
        // With so many bits before it no number is greater.
        let cover = u32::try_from(self.number(PREFIX)?).unwrap_or(u32::MAX);
        Ok(Node { number: value, cover, left: 0, feature: 0, missing_left: false })
    }

    /// Gives each inner node of the last tree the cover of its children together; otherwise where that is too large.
    fn sum_covers(&mut self, base: usize) -> Result<(), usize> {
        for position in (base..self.nodes.len()).rev() {
            let left = self.nodes[position].left as usize;
            if left != 0 {
                // Children were pushed after their parent.
                let cover = self.nodes[left].cover.checked_add(self.nodes[left + 1].cover);
                self.nodes[position].cover = cover.ok_or(position - base)?;
            }
        }
        Ok(())
    }

    fn finish(self, roots: Vec<Root>) -> Result<Forest, ModelError> {
        let malformed = |what| Err(ModelError::Malformed { section: Section::Trees, offset: self.offset, what });
        if self.nodes.len() != self.nodes_max {
            return malformed("there are fewer nodes than announced");
        }
        if self.split_used.iter().chain(&self.value_used).any(|used| !used) {
            return malformed("a split or a value is in no node");
        }
        if !self.bits.is_at_end() {
            return malformed("bits are left over");
        }
        Ok(Forest::new(roots, self.nodes))
    }

    fn take(&mut self, bits: u32) -> Result<u64, ModelError> {
        let taken = self.bits.take(bits);
        taken.ok_or_else(|| self.truncated())
    }

    fn number(&mut self, prefix: u32) -> Result<u64, ModelError> {
        let taken = self.bits.take_number(prefix);
        taken.ok_or_else(|| self.truncated())
    }

    /// A place in a table of so many entries; not proven to be one of them.
    fn place(&mut self, entries: usize) -> Result<usize, ModelError> {
        let place = self.take(width(entries))?;
        Ok(usize::try_from(place).unwrap_or(usize::MAX))
    }

    fn truncated(&self) -> ModelError {
        ModelError::Truncated { section: Section::Trees, offset: self.offset + self.bits.offset() }
    }

    fn malformed(&self, what: &'static str) -> ModelError {
        ModelError::Malformed { section: Section::Trees, offset: self.offset + self.bits.offset(), what }
    }
}

/// Node counts are at most [`limits::NODES_MAX`], far below `u32::MAX`.
fn index(position: usize) -> u32 {
    const { assert!(limits::NODES_MAX < u32::MAX as usize) };
    u32::try_from(position).unwrap_or(u32::MAX)
}
