//! Rolling origin: folds in the order of time.
//!
//! The rows are divided into blocks of time of about equally many rows, one more than there are folds. Each but the
//! earliest is scored by a model that learned from earlier rows only, as a model in use is (Tashman, Out-of-sample tests of
//! forecasting accuracy, 2000). Rows of one moment are never parted.
//!
//! * Rows closer than the *embargo* before a block are not learned from: what happens shortly before is like what follows.
//! * Neither are kin of a block's rows, so that no attack, and no near-duplicate, is on both sides. Where that would leave
//!   too little of a class, they are learned from all the same, and [`Folds::grouped`] says so.
//! * A block before which a class has too few rows (without labels: too few rows in all) is not scored, like the earliest: thresholds, calibration and tuning
//!   rest on the others.

use std::collections::BTreeSet;
use std::time::Duration;

use picket_common::event::Timestamp;

use crate::train::fold::Folds;
use crate::train::{ROWS_MIN, ROWS_PER_CLASS_MIN, TrainError, TrainingSet};

/// Fewest blocks with a score.
const FOLDS_MIN: usize = 2;

/// Divides the rows by their `times` into at most `wanted` scored blocks.
///
/// # Errors
/// [`TrainError::NoRollingOrigin`].
pub(super) fn folds(
    set: &TrainingSet,
    wanted: usize,
    times: &[Option<Timestamp>],
    embargo: Duration,
) -> Result<Folds, TrainError> {
    let origins = origins(times, wanted);
    let mut folds = Folds { fold_of_row: vec![None; set.len()], count: 0, grouped: true, learned: None };
    let mut learned = Vec::new();
    for (place, origin) in origins.iter().enumerate() {
        let ends = origins.get(place + 1);
        let is_in = |time: &Timestamp| time >= origin && ends.is_none_or(|end| time < end);
        let (block, others): (Vec<usize>, Vec<usize>) =
            (0..set.len()).partition(|row| times[*row].as_ref().is_some_and(is_in));
        let early: Vec<usize> =
            others.into_iter().filter(|row| times[*row].is_none_or(|time| is_before(time, *origin, embargo))).collect();
        let kin: BTreeSet<u32> = block.iter().map(|row| set.kin()[*row]).collect();
        let apart: Vec<usize> = early.iter().copied().filter(|row| !kin.contains(&set.kin()[*row])).collect();
        let rows = match (is_enough(set, &apart), is_enough(set, &early)) {
            (true, _) => apart,
            (false, true) => {
                folds.grouped = false;
                early
            }
            (false, false) => continue,
        };
        block.into_iter().for_each(|row| folds.fold_of_row[row] = Some(folds.count));
        learned.push(rows);
        folds.count += 1;
    }
    if folds.count < FOLDS_MIN || !is_enough(set, &folds.scored()) {
        return Err(TrainError::NoRollingOrigin { folds: wanted, found: folds.count });
    }
    Ok(Folds { learned: Some(learned), ..folds })
}

/// Whether a row is so early that a model of what begins at `origin` may learn from it.
pub(crate) fn is_before(time: Timestamp, origin: Timestamp, embargo: Duration) -> bool {
    // The difference of two times does not always fit into 64 bits.
    let gap = i128::from(origin.0) - i128::from(time.0);
    gap > 0 && gap >= i128::try_from(embargo.as_nanos()).unwrap_or(i128::MAX)
}

/// The first moments of the blocks that may be scored, ascending.
fn origins(times: &[Option<Timestamp>], folds: usize) -> Vec<Timestamp> {
    let mut known: Vec<Timestamp> = times.iter().copied().flatten().collect();
    known.sort_unstable();
    let place = |block: usize| known.get(block * known.len() / (folds + 1)).copied();
    let mut origins: Vec<Timestamp> = (1..=folds).filter_map(place).collect();
    origins.dedup();
    origins.retain(|origin| known.first().is_some_and(|first| first < origin));
    origins
}

fn is_enough(set: &TrainingSet, rows: &[usize]) -> bool {
    if !set.is_labelled() {
        return rows.len() >= ROWS_MIN;
    }
    let malicious = rows.iter().filter(|row| set.malicious()[**row]).count();
    malicious >= ROWS_PER_CLASS_MIN && rows.len() - malicious >= ROWS_PER_CLASS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::fold::Folding;

    /// One row a second, every third malicious, of the kin that `kin` says.
    fn set(rows: i64, kin: impl Fn(i64) -> u32) -> TrainingSet {
        let malicious = (0..rows).map(|row| row % 3 == 0).collect();
        let set = TrainingSet::new(1, vec![0.0; rows as usize], malicious, (0..rows as u32).collect()).unwrap();
        set.with_kin((0..rows).map(kin).collect()).unwrap()
    }

    fn times(rows: i64) -> Vec<Option<Timestamp>> {
        (0..rows).map(|row| Some(Timestamp(row * 1_000_000_000))).collect()
    }

    fn rolling(
        set: TrainingSet,
        folds: usize,
        times: Vec<Option<Timestamp>>,
        seconds: u64,
    ) -> Result<Folds, TrainError> {
        let embargo = Duration::from_secs(seconds);
        Folds::of(&set.with_folding(Folding::RollingOrigin { folds, times, embargo })?, 10, 1)
    }

    #[test]
    fn every_block_is_scored_by_earlier_rows_only() {
        let mut times = times(120);
        times[119] = None;
        let folds = rolling(set(120, |row| row as u32), 4, times, 5).unwrap();
        assert!((folds.count, folds.grouped) == (4, true));
        let scored = folds.scored();
        assert_eq!((scored.first(), scored.last(), scored.len()), (Some(&23), Some(&118), 96));
        let mut before = 0;
        for fold in 0..4 {
            let (block, learned) = folds.split(fold);
            let first = block[0];
            // Five seconds before the block are left out; the row without a time is learned from.
            assert_eq!(learned[..learned.len() - 1], (0..=first - 5).collect::<Vec<_>>());
            assert_eq!(learned.last(), Some(&119));
            assert!(learned.len() > before);
            before = learned.len();
        }
    }

    #[test]
    fn kin_and_rows_of_one_moment_are_not_on_both_sides() {
        // The last row of each block has a near-duplicate in the next one.
        let kin = |row: i64| (if (row + 1) % 30 < 2 { 1000 + (row + 1) / 30 } else { row }) as u32;
        let set = set(120, kin);
        let mut times = times(120);
        for row in 90..100 {
            times[row] = times[90];
        }
        let folds = rolling(set.clone(), 3, times, 0).unwrap();
        assert!(folds.grouped);
        for fold in 0..folds.count {
            let (block, learned) = folds.split(fold);
            assert!(!learned.contains(&(block[0] - 1)) && learned.contains(&(block[0] - 2)));
            let of_block: BTreeSet<u32> = block.iter().map(|row| set.kin()[*row]).collect();
            assert!(learned.iter().all(|row| !of_block.contains(&set.kin()[*row])), "{fold}");
        }
        assert!((90..100).all(|row| folds.fold_of_row[row] == folds.fold_of_row[90]));
    }

    #[test]
    fn where_kin_are_everywhere_they_are_learned_from_and_that_is_said() {
        let folds = rolling(set(60, |row| (row % 3) as u32), 2, times(60), 0).unwrap();
        assert!(!folds.grouped);
        assert_eq!(folds.split(0).1.len(), 20);
    }

    #[test]
    fn what_has_no_order_in_time_is_refused() {
        let error = |times, seconds| rolling(set(60, |row| row as u32), 3, times, seconds).unwrap_err().to_string();
        assert!(error(vec![None; 60], 0).contains("rolling-origin validation"));
        assert!(error(vec![Some(Timestamp(7)); 60], 0).contains("--validation k-fold"));
        // A gap longer than the table.
        assert!(error(times(60), 3600).contains("--embargo"));
        assert!(matches!(rolling(set(60, |row| row as u32), 3, times(59), 0), Err(TrainError::Shape { .. })));
        assert!(is_before(Timestamp(i64::MIN), Timestamp(i64::MAX), Duration::from_secs(1)));
        assert!(!is_before(Timestamp(1), Timestamp(i64::MAX), Duration::MAX));
    }
}
