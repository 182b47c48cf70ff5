//! From drafts of trees to bits.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::model::bits::{BitWriter, width};
use crate::model::cursor::limit;
use crate::model::error::NodeProblem;
use crate::model::order::key;
use crate::model::trees::{KEY_BITS, PREFIX, SPLIT_PREFIX};
use crate::model::{ModelError, NodeDraft, Section, TreeDraft, limits};

/// Appends the trees of a vector of so many `features`. `values` is what a leaf's value may be.
pub(in crate::model) fn write_trees(
    out: &mut Vec<u8>,
    trees: &[TreeDraft],
    features: usize,
    values: &RangeInclusive<f64>,
) -> Result<(), ModelError> {
    let nodes = trees.iter().map(|tree| tree.nodes.len()).sum();
    for (what, count, most) in [("trees", trees.len(), limits::TREES_MAX), ("nodes", nodes, limits::NODES_MAX)] {
        if count > most {
            return Err(limit(what, count, most, Section::Trees));
        }
    }
    let (mut splits, mut leaf_values) = (BTreeSet::new(), BTreeSet::new());
    for (tree, draft) in trees.iter().enumerate() {
        for (node, entry) in draft.nodes.iter().enumerate() {
            check(entry, features, values).map_err(|problem| ModelError::Node { tree, node, problem })?;
            if entry.is_leaf() {
                leaf_values.insert(u64::from(key(entry.value)));
            } else {
                splits.insert(split(entry));
            }
        }
    }
    for count in [trees.len(), nodes, splits.len(), leaf_values.len()] {
        // All are at most the nodes.
        out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }
    let mut bits = BitWriter::default();
    let tables =
        Tables { splits: table(&mut bits, splits, SPLIT_PREFIX), values: table(&mut bits, leaf_values, PREFIX) };
    for (tree, draft) in trees.iter().enumerate() {
        write_nodes(&mut bits, draft, &tables).map_err(|(node, problem)| ModelError::Node { tree, node, problem })?;
    }
    out.extend(bits.finish());
    Ok(())
}

/// What nodes refer to, in order.
struct Tables {
    splits: Vec<u64>,
    values: Vec<u64>,
}

/// The number of a node's split.
fn split(node: &NodeDraft) -> u64 {
    u64::from(node.feature) << KEY_BITS | u64::from(key(node.threshold))
}

fn check(node: &NodeDraft, features: usize, values: &RangeInclusive<f64>) -> Result<(), NodeProblem> {
    if node.is_leaf() {
        return match node {
            _ if !values.contains(&f64::from(node.value)) => Err(NodeProblem::Value),
            NodeDraft { cover: 0, .. } => Err(NodeProblem::Cover),
            _ => Ok(()),
        };
    }
    if usize::from(node.feature) >= features {
        return Err(NodeProblem::Feature);
    }
    if node.threshold.is_finite() { Ok(()) } else { Err(NodeProblem::Threshold) }
}

fn table(bits: &mut BitWriter, entries: BTreeSet<u64>, prefix: u32) -> Vec<u64> {
    let mut next = 0;
    for entry in &entries {
        bits.put_number(entry - next + 1, prefix);
        next = entry + 1;
    }
    entries.into_iter().collect()
}

/// Writes the nodes breadth first. Every child comes after its parent in the draft, so this ends.
fn write_nodes(bits: &mut BitWriter, tree: &TreeDraft, tables: &Tables) -> Result<(), (usize, NodeProblem)> {
    let mut order = vec![0usize];
    let mut reached = vec![false; tree.nodes.len()];
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        let node = tree.nodes.get(index).ok_or((index, NodeProblem::OutOfRange))?;
        if node.is_leaf() {
            bits.put(0, 1);
            put_place(bits, &tables.values, u64::from(key(node.value)));
            bits.put_number(u64::from(node.cover), PREFIX);
            continue;
        }
        bits.put(1, 1);
        put_place(bits, &tables.splits, split(node));
        bits.put(u64::from(node.missing_left), 1);
        for child in [node.left as usize, node.right as usize] {
            if child <= index {
                return Err((index, NodeProblem::Cycle));
            }
            let reached = reached.get_mut(child).ok_or((index, NodeProblem::OutOfRange))?;
            if std::mem::replace(reached, true) {
                return Err((index, NodeProblem::Shared));
            }
            order.push(child);
        }
    }
    match reached.iter().skip(1).position(|reached| !reached) {
        Some(before) => Err((before + 1, NodeProblem::Unreachable)),
        None => Ok(()),
    }
}

/// The tables hold what all nodes refer to.
fn put_place(bits: &mut BitWriter, table: &[u64], entry: u64) {
    let place = table.binary_search(&entry).unwrap_or_default();
    bits.put(place as u64, width(table.len()));
}
