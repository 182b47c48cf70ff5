//! Minimum redundancy, maximum relevance (Peng, Long, Ding, Feature selection based on mutual information, 2005).
//!
//! Columns are put in order one after the other: next comes the one whose mutual information with the label, divided by its
//! mean mutual information with those before it, is highest (the quotient, MIQ). Information has a floor in the divisor, so
//! that a column that has nothing in common with the others, and little with the label, does not win by that alone.
//!
//! The greedy order costs pairs of columns: beyond the most relevant ones, columns follow by relevance alone.

use crate::select::Ranking;
use crate::select::binned::Binned;
use crate::select::mutual_information::{bits, with_label};
use crate::train::{Control, TrainError, parallel};

/// Columns that are put in order by the quotient.
const RANKED_MAX: usize = 256;
/// Rows that pairs are compared on; of more, these many, evenly spread.
const ROWS_MAX: usize = 20_000;
/// Least redundancy of a column, in bits.
const REDUNDANCY_MIN: f64 = 0.02;

/// The columns of `among` in order; the measure of each is its relevance.
///
/// # Errors
/// [`TrainError::Cancelled`].
pub(super) fn ranking(
    columns: &[Binned],
    malicious: &[bool],
    among: &[usize],
    control: &Control<'_>,
) -> Result<Ranking, TrainError> {
    let measures = with_label(columns, malicious);
    let mut left = among.to_vec();
    // A sort that keeps the order of equals: that of the table.
    left.sort_by(|a, b| measures[*b].total_cmp(&measures[*a]));
    let rest = left.split_off(left.len().min(RANKED_MAX));
    let step = malicious.len().div_ceil(ROWS_MAX).max(1);
    let thinned: Vec<Vec<u8>> =
        left.iter().map(|place| columns[*place].0.iter().step_by(step).copied().collect()).collect();
    let mut open: Vec<usize> = (0..left.len()).collect();
    let mut redundancy = vec![0.0; left.len()];
    let mut order: Vec<usize> = Vec::with_capacity(among.len());
    while !open.is_empty() {
        control.check()?;
        let quotient = |place: usize| {
            let mean = redundancy[place] / order.len().max(1) as f64;
            measures[left[place]] / if order.is_empty() { 1.0 } else { mean.max(REDUNDANCY_MIN) }
        };
        // Of equals the more relevant one, which comes first.
        let next = (0..open.len()).rev().max_by(|a, b| quotient(open[*a]).total_cmp(&quotient(open[*b])));
        let Some(next) = next else { break };
        let next = open.remove(next);
        order.push(left[next]);
        let shared = parallel::try_map(open.len(), control.threads, |place| {
            Ok::<_, TrainError>(bits(&thinned[open[place]], &thinned[next]))
        })?;
        open.iter().zip(shared).for_each(|(place, shared)| redundancy[*place] += shared);
    }
    order.extend(rest);
    Ok(Ranking { order, measures, reason: "validation is as good without it" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use crate::train::Unobserved;

    #[test]
    fn copies_come_after_what_is_new() {
        let mut random = SplitMix64::new(8);
        let bits: Vec<[u8; 2]> = (0..4000).map(|_| [random.below(8) as u8, random.below(8) as u8]).collect();
        let malicious: Vec<bool> = bits.iter().map(|[a, b]| a + b > 9).collect();
        let noise = |random: &mut SplitMix64| Binned((0..4000).map(|_| random.below(8) as u8).collect());
        let first = Binned(bits.iter().map(|[a, _]| *a).collect());
        let copy = Binned(bits.iter().map(|[a, _]| 7 - a).collect());
        let second = Binned(bits.iter().map(|[_, b]| b / 2).collect());
        let columns = [noise(&mut random), first, copy, second, noise(&mut random)];
        let found = |threads| {
            let control = Control { threads, observer: &Unobserved };
            ranking(&columns, &malicious, &[0, 1, 2, 3, 4], &control).unwrap().order
        };
        let order = found(1);
        // The coarse second part is less relevant than the copy of the first, but the copy is nothing new.
        assert_eq!(order[1], 3);
        assert!(order[..3] == [1, 3, 2] || order[..3] == [2, 3, 1], "{order:?}");
        assert_eq!(order, found(3));
        let control = Control::unobserved();
        assert_eq!(ranking(&columns, &malicious, &[3, 2], &control).unwrap().order, [2, 3]);
    }
}
