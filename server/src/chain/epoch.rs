//! The chain of one epoch as it was seen: pure.

use super::StatedEpoch;
use picket_common::chain::{self, ChainHead, ChainPlace, LostSpan};
use picket_common::id::{BatchSequence, Digest, Epoch};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most runs of linked batches kept of one epoch; beyond that the oldest is forgotten and counts as not verified.
pub const RUNS_MAX: usize = 64;
/// Most altered batches named of one epoch.
pub const ALTERED_MAX: usize = 64;

/// What is known of one epoch's chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochChain {
    /// What the agent last stated.
    pub(super) head: Option<StatedHead>,
    /// When that was, seconds since 1970; 0: never.
    pub(super) stated_unix_s: i64,
    /// Batches below this are no business of this host id: they were written before it was enrolled.
    pub(super) from: u64,
    /// Batches below this do not wait any more.
    pub(super) settled: u64,
    /// Batches whose links fit together, in order.
    runs: Vec<Run>,
    /// Batches that do not continue the one before.
    altered: Vec<u64>,
}

/// The end of the chain, as stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StatedHead {
    pub(super) batches: u64,
    pub(super) link: Link,
    pub(super) previous_epoch: u64,
    /// First, last, how many of them.
    pub(super) lost: Vec<(u64, u64, u64)>,
}

/// Batches that follow each other, with nothing written in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first: u64,
    last: u64,
    batches: u64,
    previous: Link,
    link: Link,
}

/// A link as hexadecimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) Digest);

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

impl From<&StatedEpoch> for StatedHead {
    fn from(stated: &StatedEpoch) -> Self {
        Self {
            batches: stated.head.batches,
            link: Link(stated.head.link),
            previous_epoch: stated.previous_epoch,
            lost: stated.lost.iter().map(|span| (span.first, span.last, span.batches)).collect(),
        }
    }
}

impl StatedHead {
    fn lost_total(&self) -> u64 {
        self.lost.iter().fold(0, |sum, (_, _, batches)| sum.saturating_add(*batches))
    }
}

impl EpochChain {
    /// Takes what the agent states. What a later statement takes back is kept: the agent repeats itself after a crash.
    pub(super) fn state(&mut self, mut head: StatedHead, now_unix_s: i64) {
        if let Some(known) = &self.head {
            if known.lost_total() > head.lost_total() {
                head.lost.clone_from(&known.lost);
            }
            if known.batches > head.batches {
                (head.batches, head.link) = (known.batches, known.link);
            }
        }
        self.head = Some(head);
        self.stated_unix_s = now_unix_s;
    }

    /// Takes a batch that is stored.
    pub(super) fn insert(&mut self, epoch: Epoch, place: &ChainPlace, frame: &[u8]) {
        let BatchSequence(sequence) = place.sequence;
        let after = self.runs.partition_point(|run| run.first <= sequence);
        if after.checked_sub(1).and_then(|before| self.runs.get(before)).is_some_and(|run| sequence <= run.last) {
            return;
        }
        let link = Link(chain::link(epoch, place, frame));
        let run = Run { first: sequence, last: sequence, batches: 1, previous: Link(place.previous), link };
        self.runs.insert(after, run);
        self.join(after + 1);
        self.join(after);
        if self.runs.len() > RUNS_MAX {
            self.runs.remove(0);
        }
    }

    /// Joins a run to the one before it when it continues that one, and notes it when it should and does not.
    fn join(&mut self, at: usize) {
        let Some(before_at) = at.checked_sub(1) else { return };
        let (Some(before), Some(run)) = (self.runs.get(before_at), self.runs.get(at)) else { return };
        if run.previous == before.link {
            let run = self.runs.remove(at);
            let before = &mut self.runs[before_at];
            (before.last, before.link) = (run.last, run.link);
            before.batches += run.batches;
        } else if before.last.checked_add(1) == Some(run.first) {
            let first = run.first;
            self.note_altered(first);
        }
    }

    fn note_altered(&mut self, sequence: u64) {
        if !self.altered.contains(&sequence) && self.altered.len() < ALTERED_MAX {
            self.altered.push(sequence);
            self.altered.sort_unstable();
        }
    }

    /// The end of the chain as stated.
    pub(super) fn chain_head(&self, epoch: u64) -> Option<ChainHead> {
        self.head.as_ref().map(|head| ChainHead { epoch: Epoch(epoch), batches: head.batches, link: head.link.0 })
    }

    pub(super) fn lost(&self) -> Vec<LostSpan> {
        let lost = self.head.iter().flat_map(|head| &head.lost);
        lost.map(|(first, last, batches)| LostSpan { first: *first, last: *last, batches: *batches }).collect()
    }

    /// Batches whose links fit together.
    pub(super) fn verified(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.batches))
    }

    /// The altered ones, the last one too when it is not what was stated.
    pub(super) fn altered(&self) -> Vec<u64> {
        let mut altered = self.altered.clone();
        if let (Some(head), Some(run)) = (&self.head, self.runs.last())
            && run.last.checked_add(1) == Some(head.batches)
            && run.link != head.link
            && !altered.contains(&run.last)
        {
            altered.push(run.last);
        }
        altered
    }

    /// Whether its first batch does not follow `beginning`. `false` as well when the first batch is not known.
    pub(super) fn begins_elsewhere(&self, beginning: Digest) -> bool {
        self.runs.first().is_some_and(|run| run.first == 0 && run.previous.0 != beginning)
    }
}
