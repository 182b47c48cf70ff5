//! Which batches of an epoch were declared lost: a handful of spans, with exact counts.

use picket_common::chain::{LOST_SPANS_MAX, LostSpan};

/// Bytes of the stored form.
pub(crate) const LOST_BATCHES_BYTES: usize = 8 + LOST_SPANS_MAX * 24;

/// At most [`LOST_SPANS_MAX`] spans in order, none touching another. Beyond that the two nearest are joined: the count
/// stays exact, the span says only where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostBatches {
    spans: [LostSpan; LOST_SPANS_MAX],
    used: usize,
}

impl LostBatches {
    /// The spans in order.
    pub fn spans(&self) -> &[LostSpan] {
        self.spans.get(..self.used).unwrap_or_default()
    }

    /// How many batches in all.
    pub fn total(&self) -> u64 {
        self.spans().iter().map(|span| span.batches).sum()
    }

    /// Adds batches; they must not be in it yet.
    pub fn add(&mut self, new: LostSpan) {
        let mut spans = self.spans().to_vec();
        spans.push(new);
        spans.sort_unstable_by_key(|span| span.first);
        let mut joined: Vec<LostSpan> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(before) if span.first <= before.last.saturating_add(1) => join(before, &span),
                _ => joined.push(span),
            }
        }
        while joined.len() > LOST_SPANS_MAX {
            let gap = |pair: &[LostSpan]| pair[1].first - pair[0].last;
            let Some(nearest) = (0..joined.len() - 1).min_by_key(|at| gap(&joined[*at..*at + 2])) else { break };
            let second = joined.remove(nearest + 1);
            join(&mut joined[nearest], &second);
        }
        *self = Self::default();
        self.used = joined.len();
        for (place, span) in self.spans.iter_mut().zip(joined) {
            *place = span;
        }
    }

    /// `batches` more of the first `written` ones are lost, and nobody knows which.
    pub fn add_unknown(&mut self, written: u64, batches: u64) {
        if let Some(last) = written.checked_sub(1).filter(|_| batches > 0) {
            let batches = self.total().saturating_add(batches);
            *self = Self::default();
            self.add(LostSpan { first: 0, last, batches });
        }
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.extend((self.used as u64).to_le_bytes());
        for span in &self.spans {
            for value in [span.first, span.last, span.batches] {
                into.extend(value.to_le_bytes());
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8; LOST_BATCHES_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let used = usize::try_from(words.next()?).ok().filter(|used| *used <= LOST_SPANS_MAX)?;
        let mut lost = Self { used, ..Self::default() };
        for span in &mut lost.spans {
            *span = LostSpan { first: words.next()?, last: words.next()?, batches: words.next()? };
        }
        Some(lost)
    }
}

fn join(before: &mut LostSpan, after: &LostSpan) {
    before.last = before.last.max(after.last);
    before.batches = before.batches.saturating_add(after.batches);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_become_one_span() {
        let mut lost = LostBatches::default();
        for sequence in [4, 2, 3, 9] {
            lost.add(LostSpan::one(sequence));
        }
        assert_eq!(lost.spans(), [LostSpan { first: 2, last: 4, batches: 3 }, LostSpan::one(9)]);
        lost.add_unknown(20, 5);
        assert_eq!(lost.spans(), [LostSpan { first: 0, last: 19, batches: 9 }]);
        lost.add_unknown(0, 5);
        assert_eq!(lost.total(), 9);
    }

    proptest! {
        #[test]
        fn counts_stay_exact_whatever_is_joined(sequences in prop::collection::btree_set(0u64..500, 0..120)) {
            let mut lost = LostBatches::default();
            for sequence in &sequences {
                lost.add(LostSpan::one(*sequence));
            }
            prop_assert_eq!(lost.total(), sequences.len() as u64);
            prop_assert!(lost.spans().len() <= LOST_SPANS_MAX);
            for span in lost.spans() {
                let inside: BTreeSet<_> = sequences.range(span.first..=span.last).collect();
                prop_assert_eq!(inside.len() as u64, span.batches);
            }
            let mut bytes = Vec::new();
            lost.encode(&mut bytes);
            let bytes: [u8; LOST_BATCHES_BYTES] = bytes.try_into().unwrap();
            prop_assert_eq!(LostBatches::decode(&bytes), Some(lost));
        }
    }
}
