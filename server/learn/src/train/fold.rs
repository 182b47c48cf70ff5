//! Folds for validation inside the training part.
//!
//! **k-fold** (the default): every row is scored, by a model that learned from all other folds. **Rolling origin** (`rolling`):
//! blocks of time, each scored by a model that learned from earlier rows only; the earliest block has no score.
//!
//! Kin ([`TrainingSet::kin`]: groups, or near-duplicates) are never parted, and every fold gets some of both classes, so
//! that what a fold is scored with has learned from other attacks only. When a class has fewer than two such units that
//! cannot be: its rows are then dealt one by one, scores become too good, and [`Folds::grouped`] says so. Rows
//! without labels are one class.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_common::event::Timestamp;

use crate::random::SplitMix64;
use crate::train::{TrainError, TrainingSet};

mod rolling;

pub(crate) use crate::train::fold::rolling::is_before;

/// How the rows of a training part are divided for validation.
#[derive(Clone, Debug, PartialEq)]
pub enum Folding {
    /// Kin by lot into so many folds; as many as the number of rows allows without it.
    KFold {
        /// How many.
        folds: Option<usize>,
    },
    /// Blocks of time, each scored by what came before.
    RollingOrigin {
        /// How many blocks are scored.
        folds: usize,
        /// When each row was; one without a time is always learned from and never scored.
        times: Vec<Option<Timestamp>>,
        /// Rows closer than this before a block are not learned from by the model that scores it.
        embargo: Duration,
    },
}

impl Default for Folding {
    fn default() -> Self {
        Self::KFold { folds: None }
    }
}

impl Folding {
    /// Its name in commands and manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KFold { .. } => "k-fold",
            Self::RollingOrigin { .. } => "rolling-origin",
        }
    }

    /// That of some of the rows, in the order given.
    pub(super) fn subset(&self, rows: &[usize]) -> Self {
        match self {
            Self::KFold { folds } => Self::KFold { folds: *folds },
            Self::RollingOrigin { folds, times, embargo } => Self::RollingOrigin {
                folds: *folds,
                times: rows.iter().map(|row| times.get(*row).copied().flatten()).collect(),
                embargo: *embargo,
            },
        }
    }
}

/// Which fold each row is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    /// A fold for each row, from 0; nothing for a row that no model scores.
    pub fold_of_row: Vec<Option<usize>>,
    /// Number of folds, at least 2.
    pub count: usize,
    /// Whether no kin are in two folds.
    pub grouped: bool,
    /// For each fold the rows that its model learns from, where these are not all others.
    learned: Option<Vec<Vec<usize>>>,
}

impl Folds {
    /// Divides the rows of `set` as it says ([`TrainingSet::folding`]): into at most `folds_max` folds, unless it says how
    /// many.
    ///
    /// # Errors
    /// [`TrainError::NoRollingOrigin`].
    pub fn of(set: &TrainingSet, folds_max: usize, seed: u64) -> Result<Self, TrainError> {
        match set.folding() {
            Folding::KFold { folds } => Ok(Self::assign(set, folds.unwrap_or(folds_max), seed)),
            Folding::RollingOrigin { folds, times, embargo } => rolling::folds(set, *folds, times, *embargo),
        }
    }

    /// Deals the rows of `set` into at most `folds_max` folds (at least 2).
    pub fn assign(set: &TrainingSet, folds_max: usize, seed: u64) -> Self {
        let mut units: BTreeMap<u32, Unit> = BTreeMap::new();
        for (row, (kin, malicious)) in set.kin().iter().zip(set.malicious()).enumerate() {
            let unit = units.entry(*kin).or_default();
            unit.rows.push(row);
            unit.malicious |= malicious;
        }
        let (malicious, benign): (Vec<Unit>, Vec<Unit>) = units.into_values().partition(|unit| unit.malicious);
        let classes = if set.is_labelled() { vec![malicious, benign] } else { vec![benign] };
        let grouped = classes.iter().all(|units| units.len() >= 2);
        let classes: Vec<Vec<Unit>> =
            classes.into_iter().map(|units| if units.len() >= 2 { units } else { single_rows(units) }).collect();
        let smallest = classes.iter().map(Vec::len).min().unwrap_or(0);
        let count = folds_max.min(smallest).max(2);

        let mut fold_of_row = vec![None; set.len()];
        let mut random = SplitMix64::new(seed);
        for mut units in classes {
            // Largest first, each into the emptiest fold; the shuffle decides among equals.
            random.shuffle(&mut units);
            units.sort_by_key(|unit| std::cmp::Reverse(unit.rows.len()));
            let mut rows_in_fold = vec![0; count];
            for unit in units {
                let fold = (0..count).min_by_key(|fold| rows_in_fold[*fold]).unwrap_or(0);
                rows_in_fold[fold] += unit.rows.len();
                for row in unit.rows {
                    fold_of_row[row] = Some(fold);
                }
            }
        }
        Self { fold_of_row, count, grouped, learned: None }
    }

    /// The rows in a fold, and the rows that its model learns from.
    pub fn split(&self, fold: usize) -> (Vec<usize>, Vec<usize>) {
        let (held_out, others): (Vec<usize>, Vec<usize>) =
            (0..self.fold_of_row.len()).partition(|row| self.fold_of_row[*row] == Some(fold));
        let learned = self.learned.as_ref().and_then(|learned| learned.get(fold));
        (held_out, learned.cloned().unwrap_or(others))
    }

    /// The rows that a model scores, ascending.
    pub fn scored(&self) -> Vec<usize> {
        (0..self.fold_of_row.len()).filter(|row| self.fold_of_row[*row].is_some()).collect()
    }
}

#[derive(Default)]
struct Unit {
    malicious: bool,
    rows: Vec<usize>,
}

fn single_rows(units: Vec<Unit>) -> Vec<Unit> {
    units
        .into_iter()
        .flat_map(|unit| unit.rows.into_iter().map(move |row| Unit { malicious: unit.malicious, rows: vec![row] }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[(bool, u32)]) -> TrainingSet {
        let (labels, groups) = rows.iter().copied().unzip();
        TrainingSet::new(1, vec![0.0; rows.len()], labels, groups).unwrap()
    }

    #[test]
    fn groups_stay_whole_and_each_fold_has_both_classes() {
        let rows: Vec<_> = (0..300).map(|row| (row % 30 < 6, row % 30)).collect();
        let folds = Folds::assign(&set(&rows), 5, 1);
        assert!(folds.grouped);
        assert_eq!(folds.count, 5);
        for group in 0..30 {
            let mut of_group = (0..300).filter(|row| rows[*row].1 == group).map(|row| folds.fold_of_row[row]);
            let first = of_group.next().unwrap();
            assert!(of_group.all(|fold| fold == first));
        }
        for fold in 0..5 {
            let (inside, outside) = folds.split(fold);
            assert_eq!(inside.len() + outside.len(), 300);
            for part in [inside, outside] {
                assert!(part.iter().any(|row| rows[*row].0) && part.iter().any(|row| !rows[*row].0));
            }
        }
        assert_eq!(folds, Folds::assign(&set(&rows), 5, 1));
    }

    #[test]
    fn one_attack_is_dealt_by_row_and_said_so() {
        let rows: Vec<_> = (0..40).map(|row| if row < 5 { (true, 0) } else { (false, row) }).collect();
        let folds = Folds::assign(&set(&rows), 5, 1);
        assert!(!folds.grouped);
        assert_eq!(folds.count, 5);
        let mut folds_of_attack = folds.fold_of_row[..5].to_vec();
        folds_of_attack.sort_unstable();
        assert_eq!(folds_of_attack, [0, 1, 2, 3, 4].map(Some));
    }

    #[test]
    fn kin_stay_together_where_groups_are_rows() {
        let rows: Vec<_> = (0..300).map(|row| (row % 30 < 6, row)).collect();
        let kin: Vec<u32> = (0..300).map(|row| row % 30).collect();
        let folds = Folds::assign(&set(&rows).with_kin(kin).unwrap(), 5, 1);
        assert!(folds.grouped);
        for row in 30..300 {
            assert_eq!(folds.fold_of_row[row], folds.fold_of_row[row % 30], "{row}");
        }
        assert!(set(&rows).with_kin(vec![0; 299]).is_err());
    }

    #[test]
    fn rows_without_labels_are_dealt_by_group() {
        let groups: Vec<u32> = (0..300).map(|row| row % 30).collect();
        let folds = Folds::assign(&TrainingSet::unlabelled(1, vec![0.0; 300], groups).unwrap(), 10, 1);
        assert!(folds.grouped && folds.count == 10);
        assert!((30..300).all(|row| folds.fold_of_row[row] == folds.fold_of_row[row % 30]));
        let one = Folds::assign(&TrainingSet::unlabelled(1, vec![0.0; 300], vec![0; 300]).unwrap(), 10, 1);
        assert!(!one.grouped && one.count == 10);
    }

    #[test]
    fn few_groups_give_few_folds() {
        let rows: Vec<_> = (0..40).map(|row| (row < 20, row / 10)).collect();
        assert_eq!(Folds::assign(&set(&rows), 5, 9).count, 2);
    }
}
