//! Bits that form no trees.

use super::*;
use crate::model::bits::{BitWriter, width};
use crate::model::cursor::Cursor;
use crate::model::error::NodeProblem;
use crate::model::forest::Forest;
use crate::model::order::key;
use crate::model::{ModelError, NodeDraft, TreeDraft, limits};

const FEATURES: usize = 3;

/// A section as it is written, from what it says.
struct Text {
    counts: [u32; 4],
    /// Gaps and prefixes.
    tables: Vec<(u64, u32)>,
    nodes: Vec<Entry>,
}

#[derive(Clone, Copy)]
enum Entry {
    Inner { place: u64, missing_left: bool },
    Leaf { place: u64, cover: u64 },
}

impl Text {
    /// One tree, splits (0, 1.5) and (1, −2), values 0, 0.75 and 1.
    fn good() -> Self {
        let split = |feature: u64, threshold: f32| feature << KEY_BITS | u64::from(key(threshold));
        let value = |value: f32| u64::from(key(value));
        Self {
            counts: [1, 5, 2, 3],
            tables: vec![
                (split(0, 1.5) + 1, SPLIT_PREFIX),
                (split(1, -2.0) - split(0, 1.5), SPLIT_PREFIX),
                (value(0.0) + 1, PREFIX),
                (value(0.75) - value(0.0), PREFIX),
                (value(1.0) - value(0.75), PREFIX),
            ],
            nodes: vec![
                Entry::Inner { place: 0, missing_left: false },
                Entry::Inner { place: 1, missing_left: true },
                Entry::Leaf { place: 2, cover: 7 },
                Entry::Leaf { place: 0, cover: 1 },
                Entry::Leaf { place: 1, cover: 300 },
            ],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        let mut bits = BitWriter::default();
        self.tables.iter().for_each(|(gap, prefix)| bits.put_number(*gap, *prefix));
        let [_, _, splits, values] = self.counts.map(|count| width(count as usize));
        for node in &self.nodes {
            match *node {
                Entry::Inner { place, missing_left } => {
                    bits.put(1, 1);
                    bits.put(place, splits);
                    bits.put(missing_left.into(), 1);
                }
                Entry::Leaf { place, cover } => {
                    bits.put(0, 1);
                    bits.put(place, values);
                    bits.put_number(cover, PREFIX);
                }
            }
        }
        bytes.extend(bits.finish());
        bytes
    }

    fn read(&self) -> Result<Forest, ModelError> {
        read(&self.bytes())
    }

    fn malformed(&self) -> &'static str {
        match self.read() {
            Err(ModelError::Malformed { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    fn problem(&self) -> (usize, NodeProblem) {
        match self.read() {
            Err(ModelError::Node { node, problem, .. }) => (node, problem),
            other => panic!("{other:?}"),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Forest, ModelError> {
    read_trees(&mut Cursor::new(bytes), FEATURES, &(0.0..=1.0))
}

/// The same by the writer, from a draft in another order.
fn draft() -> TreeDraft {
    TreeDraft {
        nodes: vec![
            NodeDraft::inner(0, 1.5, false, [1, 4]),
            NodeDraft::inner(1, -2.0, true, [2, 3]),
            NodeDraft::leaf(0.0, 1),
            NodeDraft::leaf(0.75, 300),
            NodeDraft::leaf(1.0, 7),
        ],
    }
}

#[test]
fn what_is_written_is_what_the_format_says() {
    let mut bytes = Vec::new();
    write_trees(&mut bytes, &[draft()], FEATURES, &(0.0..=1.0)).unwrap();
    assert_eq!(bytes, Text::good().bytes());
    let forest = read(&bytes).unwrap();
    assert_eq!(forest.nodes.iter().map(|node| node.cover).collect::<Vec<_>>(), [308, 301, 7, 1, 300]);
    assert_eq!(forest.roots.iter().map(|root| (root.index, root.depth)).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(forest.expected_sum(), (7.0 + 300.0 * 0.75) / 308.0);
    let mut negative_zero = draft();
    negative_zero.nodes[2].value = -0.0;
    let mut again = Vec::new();
    write_trees(&mut again, &[negative_zero], FEATURES, &(0.0..=1.0)).unwrap();
    assert_eq!(again, bytes, "both zeros are one");
}

#[test]
fn tables_that_are_none_are_refused() {
    let mut text = Text::good();
    text.tables[1].0 += 2 << KEY_BITS;
    assert_eq!(text.malformed(), "a split tests a feature beyond the vector");
    let mut text = Text::good();
    text.tables[1].0 = u64::from(key(f32::MAX)) - u64::from(key(1.5)) + 1;
    assert_eq!(text.malformed(), "a threshold is not finite");
    let mut text = Text::good();
    text.tables[0].0 = u64::from(key(0.0));
    assert_eq!(text.malformed(), "a threshold is not finite", "the negative zero has no key");
    let mut text = Text::good();
    text.tables[4].0 += 1;
    assert!(text.malformed().starts_with("a leaf's value is not"));
    // The same split or value again would be a gap of zero, which has no encoding. One too many is in no node.
    let mut text = Text::good();
    text.nodes[1] = Entry::Inner { place: 0, missing_left: true };
    assert_eq!(text.malformed(), "a split or a value is in no node");
    let mut text = Text::good();
    text.nodes[2] = Entry::Leaf { place: 0, cover: 7 };
    assert_eq!(text.malformed(), "a split or a value is in no node");
}

#[test]
fn nodes_that_form_no_tree_are_refused() {
    let mut text = Text::good();
    text.nodes[2] = Entry::Inner { place: 0, missing_left: false };
    assert_eq!(text.problem(), (3, NodeProblem::OutOfRange), "more children than nodes");
    let mut text = Text::good();
    text.nodes[1] = Entry::Leaf { place: 0, cover: 7 };
    assert_eq!(text.malformed(), "there are fewer nodes than announced");
    let mut text = Text::good();
    text.nodes[2] = Entry::Leaf { place: 3, cover: 7 };
    assert_eq!(text.malformed(), "a leaf refers to a value that is not there");
    let mut text = Text::good();
    text.counts = [1, 7, 3, 3];
    text.tables.insert(2, (5 << KEY_BITS >> 3, SPLIT_PREFIX));
    text.nodes[1] = Entry::Inner { place: 3, missing_left: true };
    assert_eq!(text.malformed(), "a node refers to a split that is not there");
    let mut text = Text::good();
    text.nodes[4] = Entry::Leaf { place: 1, cover: u32::MAX.into() };
    assert_eq!(text.problem(), (1, NodeProblem::Cover), "the sum is too large");
    let mut text = Text::good();
    text.counts[0] = 2;
    assert_eq!(text.malformed(), "so many nodes do not form so many trees");
    let mut text = Text::good();
    text.counts[0] = 3;
    assert!(text.read().is_err());
}

#[test]
fn nothing_may_follow() {
    let mut bytes = Text::good().bytes();
    let bits_used = {
        let mut longest = bytes.clone();
        *longest.last_mut().unwrap() |= 0x80;
        read(&longest)
    };
    assert!(bits_used.is_err(), "the last byte is filled up with zeros");
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(ModelError::Malformed { what: "bits are left over", .. })));
    bytes.truncate(bytes.len() - 2);
    assert!(matches!(read(&bytes), Err(ModelError::Truncated { .. })));
}

/// What is announced must be there before room is made for it.
#[test]
fn announced_nodes_must_fit_the_bytes() {
    for (counts, what) in [
        ([1, limits::NODES_MAX as u32 - 1, 0, 1], "nodes"),
        ([1, 99_999, 49_999, 1], "splits"),
        ([1, 99_999, 1, 50_000], "leaf values"),
    ] {
        let mut bytes = Text::good().bytes();
        for (place, count) in counts.iter().enumerate() {
            bytes[4 * place..4 * place + 4].copy_from_slice(&count.to_le_bytes());
        }
        assert!(matches!(read(&bytes), Err(ModelError::Truncated { .. })), "{what}");
    }
    for place in 0..4 {
        let mut bytes = Text::good().bytes();
        bytes[4 * place..4 * place + 4].fill(0xff);
        assert!(matches!(read(&bytes), Err(ModelError::Limit { .. })), "{place}");
    }
}
