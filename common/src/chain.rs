//! The hash chain over an agent's batches.
//!
//! Each epoch is a chain of links, one for each batch that was written:
//! ```text
//! beginning of an epoch = SHA-256("picket chain epoch v1\0" · epoch · epoch before · its batches · its last link)
//! link of a batch       = SHA-256("picket chain batch v1\0" · link before · epoch · sequence · lost · SHA-256(frame))
//! ```
//! (numbers 8 bytes, little-endian; a first epoch has zeros for the one before). `lost` is how many batches of the
//! epoch the agent had declared lost by then, so that a list of losses cannot be shortened later.
//!
//! The agent keeps the last link beside the buffer, sends with each batch the link before it, and signs its chain's heads
//! with the host's key at each upload. The server computes the links again. A batch that was changed, left out, or put in
//! breaks the chain at its place.
//!
//! What it does not show: whoever has the host's key and can write the state folder can make a new end of the chain from
//! the last batch on that the server has seen. What was signed before stays signed.

use crate::id::{BatchSequence, Digest, Epoch, HostId};

const EPOCH_CONTEXT: &[u8] = b"picket chain epoch v1\0";
const BATCH_CONTEXT: &[u8] = b"picket chain batch v1\0";
const STATEMENT_CONTEXT: &[u8] = b"picket chain statement v1\0";

/// Most epochs of one statement.
pub const HEADS_MAX: usize = 64;
/// Most spans of lost batches of one epoch.
pub const LOST_SPANS_MAX: usize = 16;
/// Largest encoded statement, bytes.
pub const STATEMENT_BYTES_MAX: usize = 32 * 1024;

/// The end of an epoch's chain so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Which epoch.
    pub epoch: Epoch,
    /// Batches written: the next sequence number.
    pub batches: u64,
    /// The last one's link, or the epoch's beginning.
    pub link: Digest,
}

/// Where a batch stands in its epoch's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPlace {
    /// The batch's number.
    pub sequence: BatchSequence,
    /// The link before it.
    pub previous: Digest,
    /// Batches of the epoch that were declared lost before it was written.
    pub batches_lost: u64,
}

impl ChainPlace {
    /// The place of a batch that is not in the chain yet.
    pub fn unlinked(sequence: BatchSequence) -> Self {
        Self { sequence, previous: Digest::from_bytes([0; 32]), batches_lost: 0 }
    }
}

/// Batches that were declared lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostSpan {
    /// The first one's sequence number.
    pub first: u64,
    /// The last one's, inclusive.
    pub last: u64,
    /// How many: all of them, or fewer when spans had to be joined.
    pub batches: u64,
}

impl LostSpan {
    /// One batch.
    pub fn one(sequence: u64) -> Self {
        Self { first: sequence, last: sequence, batches: 1 }
    }

    /// How many sequence numbers it spans.
    pub fn width(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Whether every one of them was lost.
    pub fn is_exact(&self) -> bool {
        self.batches >= self.width()
    }
}

/// What an epoch's chain begins with. `previous` is the end of the epoch before it, if there was one.
pub fn beginning(epoch: Epoch, previous: Option<&ChainHead>) -> Digest {
    let (number, batches, link) =
        previous.map_or((0, 0, [0; 32]), |head| (head.epoch.0, head.batches, *head.link.as_bytes()));
    let mut bytes = Vec::with_capacity(EPOCH_CONTEXT.len() + 56);
    bytes.extend_from_slice(EPOCH_CONTEXT);
    for value in [epoch.0, number, batches] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&link);
    Digest::of(&bytes)
}

/// The link of a batch.
pub fn link(epoch: Epoch, place: &ChainPlace, frame: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(BATCH_CONTEXT.len() + 88);
    bytes.extend_from_slice(BATCH_CONTEXT);
    bytes.extend_from_slice(place.previous.as_bytes());
    for value in [epoch.0, place.sequence.0, place.batches_lost] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(Digest::of(frame).as_bytes());
    Digest::of(&bytes)
}

/// The bytes a host signs: its encoded statement, bound to what it is and whose it is.
pub fn signed_bytes(host: HostId, statement: &[u8]) -> Vec<u8> {
    [STATEMENT_CONTEXT, host.as_bytes(), statement].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sequence: u64, previous: Digest, batches_lost: u64) -> ChainPlace {
        ChainPlace { sequence: BatchSequence(sequence), previous, batches_lost }
    }

    #[test]
    fn links_are_the_same_for_ever() {
        let beginning = beginning(Epoch(7), None);
        assert_eq!(beginning.to_string(), "7a5ea49effca4a9246b8a77bbf186acd494af8dbc513a94ea740e0aa532e7ec0");
        let first = link(Epoch(7), &place(0, beginning, 0), b"frame");
        assert_eq!(first.to_string(), "760c68f9e1d5104aabfd282f8a359fd22ce0d4129825c117c2bf938a53d05532");
    }

    #[test]
    fn every_part_of_a_link_counts() {
        let begin = beginning(Epoch(7), None);
        let base = link(Epoch(7), &place(1, begin, 2), b"frame");
        for other in [
            link(Epoch(8), &place(1, begin, 2), b"frame"),
            link(Epoch(7), &place(2, begin, 2), b"frame"),
            link(Epoch(7), &place(1, Digest::of(b""), 2), b"frame"),
            link(Epoch(7), &place(1, begin, 3), b"frame"),
            link(Epoch(7), &place(1, begin, 2), b"frames"),
        ] {
            assert_ne!(other, base);
        }
        let head = ChainHead { epoch: Epoch(7), batches: 2, link: base };
        assert_ne!(beginning(Epoch(8), Some(&head)), beginning(Epoch(8), None));
        assert_ne!(beginning(Epoch(8), Some(&head)), beginning(Epoch(8), Some(&ChainHead { batches: 3, ..head })));
    }

    #[test]
    fn spans_know_whether_they_are_exact() {
        assert!(LostSpan::one(5).is_exact());
        assert!(!LostSpan { first: 1, last: 4, batches: 3 }.is_exact());
        assert_eq!(LostSpan { first: 0, last: u64::MAX, batches: 1 }.width(), u64::MAX);
    }
}
