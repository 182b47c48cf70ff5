//! Which rows of an attack show it.
//!
//! An attack is labelled as a whole, but not each of its rows differs from ordinary work: the first call of a beacon is
//! one request like any other. A model that must explain such rows too learns what is peculiar to these few attacks
//! instead (their size, their hour). This is multiple-instance learning (Dietterich, Lathrop, Lozano-Pérez 1997): a bag
//! is malicious when one of its instances is; as in MI-SVM (Andrews, Tsochantaridis, Hofmann 2003), models learn from
//! the instances that bear witness.
//!
//! Witnesses are found inside the training part alone: rows are scored by models that learned from other groups, and of
//! each attack the upper half stays. Benign rows all stay.

use std::collections::BTreeMap;

use crate::train::TrainingSet;

/// Folds for the scores that witnesses are chosen by.
pub(super) const WITNESS_FOLDS: usize = 3;
/// Share of an attack's rows that stays, rounded up; rows with the same score as one that stays do too.
const WITNESS_SHARE: f64 = 0.5;

/// Whether an attack has so many rows that some of them may be bystanders.
pub(super) fn may_be_chosen(set: &TrainingSet) -> bool {
    malicious_groups(set).values().any(|rows| rows.len() > 1)
}

/// The rows to learn from, in order: benign ones, and of each attack those with the highest `scores` (one for each row
/// of the set).
pub(super) fn choose(set: &TrainingSet, scores: &[f64]) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..set.len()).filter(|row| !set.malicious()[*row]).collect();
    for rows in malicious_groups(set).into_values() {
        let mut ranked: Vec<f64> = rows.iter().map(|row| scores[*row]).collect();
        ranked.sort_by(|a, b| b.total_cmp(a));
        let stay = ((rows.len() as f64 * WITNESS_SHARE).ceil() as usize).clamp(1, rows.len());
        let lowest = ranked[stay - 1];
        chosen.extend(rows.into_iter().filter(|row| scores[*row] >= lowest));
    }
    chosen.sort_unstable();
    chosen
}

fn malicious_groups(set: &TrainingSet) -> BTreeMap<u32, Vec<usize>> {
    let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, group) in set.groups().iter().enumerate().filter(|(row, _)| set.malicious()[*row]) {
        groups.entry(*group).or_default().push(row);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[(bool, u32)]) -> TrainingSet {
        let (labels, groups) = rows.iter().copied().unzip();
        TrainingSet::new(1, vec![0.0; rows.len()], labels, groups).unwrap()
    }

    #[test]
    fn the_upper_half_of_each_attack_and_all_benign_rows_stay() {
        let rows = [(false, 1), (true, 2), (true, 2), (true, 2), (false, 1), (true, 3), (false, 4), (false, 5)];
        let set = set(&rows);
        assert!(may_be_chosen(&set));
        // Of the three rows of attack 2 two stay, of attack 3 its only one, however low it scores.
        let scores = [0.9, 0.2, 0.7, 0.6, 0.0, 0.01, 0.5, 0.5];
        assert_eq!(choose(&set, &scores), [0, 2, 3, 4, 5, 6, 7]);
        // Equal scores are treated alike.
        assert_eq!(choose(&set, &[0.5; 8]), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn attacks_of_one_row_have_no_bystanders() {
        let rows = [(false, 1), (false, 1), (false, 1), (false, 1), (true, 2), (true, 3), (true, 4), (true, 5)];
        assert!(!may_be_chosen(&set(&rows)));
    }
}
