//! How trees stand in a model file: tables of what recurs, then nodes as places in those tables.
//!
//! ```text
//! u32 trees, u32 nodes, u32 splits, u32 leaf values        counts
//! split …       number < 2^48: feature × 2^32 + key        ascending, as gaps
//! leaf value …  number < 2^32: key                         ascending, as gaps
//! node …        1, split, missing left | 0, value, cover   tree by tree, breadth first
//! ```
//!
//! Everything after the counts is bits, lowest first, filled up with zeros to a byte.
//!
//! * A *key* is a whole number for each finite value, in the order of the values ([`order`](super::order)); the negative
//!   zero has none.
//! * A *number* above zero is the place of its highest bit (in 6 bits for splits, in 5 for others), then the bits below.
//! * A table is strictly ascending: of each entry the gap to the one before it is written as a number (of the first, itself
//!   and one more), so that order and uniqueness need no proof. Every entry is in some node.
//! * An inner node is a one, the place of its split in as many bits as all splits need, and one bit for whether a missing
//!   value goes left. A value up to the split's goes left.
//! * A leaf is a zero, the place of its value in as many bits as all values need, and its cover as a number.
//! * The children of the *k*-th inner node of a tree are its nodes 2*k* + 1 and 2*k* + 2: a tree is a tree by arithmetic,
//!   without cycles, sharing or unreachable nodes, and ends when all of its children are there.

pub(super) use crate::model::trees::read::read_trees;
pub(super) use crate::model::trees::write::write_trees;

mod read;
mod write;

/// Bits for the place of the highest bit of a gap between splits …
const SPLIT_PREFIX: u32 = 6;
/// … and of a gap between values or of a cover.
const PREFIX: u32 = 5;
/// Bits of a key: a split's feature is above them.
const KEY_BITS: u32 = 32;

#[cfg(test)]
mod tests;
