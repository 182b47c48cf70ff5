//! What there is to say of an epoch's batches: pure.

use picket_common::chain::{self, LostSpan};
use picket_common::id::Epoch;

use super::epoch::EpochChain;

/// Batches of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochReport {
    /// Which epoch.
    pub epoch: u64,
    /// Batches the agent says it has written, or the server has seen.
    pub batches: u64,
    /// Batches the server has.
    pub stored: u64,
    /// Batches the agent declared lost.
    pub declared_lost: u64,
    /// Batches still to come.
    pub waiting: u64,
    /// Neither stored, nor declared lost, nor waiting.
    pub missing: Vec<Missing>,
    /// Do not continue the batch before.
    pub altered: Vec<u64>,
    /// Batches whose links fit together.
    pub verified: u64,
    /// The epoch does not continue the one it should.
    pub begins_anew: bool,
    /// When the agent last stated something about it, seconds since 1970; 0: never.
    pub stated_unix_s: i64,
}

/// Batches that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first one's sequence number.
    pub first: u64,
    /// The last one's, inclusive.
    pub last: u64,
    /// How many of them.
    pub batches: u64,
}

/// A half-open range of sequence numbers.
type Range = (u64, u64);

/// Puts together what is known of an epoch. `stored` are the batches that are, in order (last inclusive); of batches
/// below `floor` nobody knows. `before` is the chain of the epoch this one should continue, if that is known, and
/// `is_first` says that nothing is known of any epoch before.
pub(super) fn report(
    epoch: u64,
    seen: &EpochChain,
    stored: &[(u64, u64)],
    floor: u64,
    before: Option<&EpochChain>,
    is_first: bool,
) -> EpochReport {
    let stored_count = stored.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    let stated = seen.head.as_ref().map_or(0, |head| head.batches);
    let batches = stored.last().map_or(stated, |(_, last)| stated.max(last.saturating_add(1)));
    let lost = seen.lost();
    let declared_lost = lost.iter().fold(0u64, |sum, span| sum.saturating_add(span.batches));
    let missing = missing(stored, &lost, seen.from.max(floor), seen.settled);
    let missing_count = missing.iter().map(|missing| missing.batches).sum::<u64>();
    let gone = stored_count.saturating_add(declared_lost).saturating_add(missing_count);
    let waiting =
        if seen.from > 0 || floor > 0 { stated.saturating_sub(seen.settled) } else { batches.saturating_sub(gone) };
    EpochReport {
        epoch,
        batches,
        stored: stored_count,
        declared_lost,
        waiting,
        missing,
        altered: seen.altered(),
        verified: seen.verified(),
        begins_anew: begins_anew(epoch, seen, before, is_first),
        stated_unix_s: seen.stated_unix_s,
    }
}

fn begins_anew(epoch: u64, seen: &EpochChain, before: Option<&EpochChain>, is_first: bool) -> bool {
    let Some(head) = &seen.head else { return false };
    if head.previous_epoch == 0 {
        return !is_first || seen.begins_elsewhere(chain::beginning(Epoch(epoch), None));
    }
    let before = before.and_then(|before| before.chain_head(head.previous_epoch));
    before.is_some_and(|before| seen.begins_elsewhere(chain::beginning(Epoch(epoch), Some(&before))))
}

/// Batches in `from..below` that are neither stored nor declared lost.
fn missing(stored: &[(u64, u64)], lost: &[LostSpan], from: u64, below: u64) -> Vec<Missing> {
    let mut gaps: Vec<Range> = if from < below { vec![(from, below)] } else { Vec::new() };
    for (first, last) in stored {
        gaps = cut(&gaps, (*first, last.saturating_add(1)));
    }
    let mut found = Vec::new();
    for span in lost {
        let range = (span.first, span.last.saturating_add(1));
        let inside: Vec<Range> = gaps.iter().filter_map(|gap| overlap(*gap, range)).collect();
        let unstored: u64 = inside.iter().map(|(first, end)| end - first).sum();
        if let (Some((first, _)), Some((_, end))) = (inside.first(), inside.last())
            && unstored > span.batches
        {
            found.push(Missing { first: *first, last: end - 1, batches: unstored - span.batches });
        }
        gaps = cut(&gaps, range);
    }
    found.extend(gaps.iter().map(|(first, end)| Missing { first: *first, last: end - 1, batches: end - first }));
    found.sort_unstable_by_key(|missing| missing.first);
    found
}

fn overlap(a: Range, b: Range) -> Option<Range> {
    let both = (a.0.max(b.0), a.1.min(b.1));
    (both.0 < both.1).then_some(both)
}

/// What is left of `gaps` without `range`.
fn cut(gaps: &[Range], range: Range) -> Vec<Range> {
    let left = |gap: &Range| overlap(*gap, (0, range.0));
    let right = |gap: &Range| overlap(*gap, (range.1, u64::MAX));
    gaps.iter().flat_map(|gap| [left(gap), right(gap)]).flatten().collect()
}
