//! How much each row counts.
//!
//! 1. A malicious row counts 1/n, where n is the number of malicious rows in its group: every attack counts the same, so
//!    that a port scan of a thousand connections does not drown an upload that took one. A benign row counts 1/√n: more
//!    of the same work is more evidence, but not in proportion.
//! 2. Then both classes are scaled to the same total, each half of the number of rows.
//!
//! A tree takes these weights in its impurity, a forest draws its bootstrap samples with them, logistic regression takes
//! them in its loss.

use std::collections::BTreeMap;

use crate::train::TrainingSet;

/// A weight for each row; their sum is the number of rows.
pub fn weights(set: &TrainingSet) -> Vec<f64> {
    let mut group_rows: BTreeMap<(bool, u32), usize> = BTreeMap::new();
    let keys = || set.malicious().iter().copied().zip(set.groups().iter().copied());
    for key in keys() {
        *group_rows.entry(key).or_default() += 1;
    }
    let raw: Vec<f64> = keys()
        .map(|key| {
            let rows = group_rows.get(&key).copied().unwrap_or(1) as f64;
            1.0 / if key.0 { rows } else { rows.sqrt() }
        })
        .collect();
    let total = |class: bool| -> f64 {
        raw.iter().zip(set.malicious()).filter(|(_, malicious)| **malicious == class).map(|(weight, _)| weight).sum()
    };
    let half = set.len() as f64 / 2.0;
    let scale = [half / total(false), half / total(true)];
    raw.iter().zip(set.malicious()).map(|(weight, malicious)| weight * scale[usize::from(*malicious)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(labels: &[bool], groups: &[u32]) -> TrainingSet {
        TrainingSet::new(1, vec![0.0; labels.len()], labels.to_vec(), groups.to_vec()).unwrap()
    }

    #[test]
    fn classes_weigh_the_same_and_large_groups_less_by_row() {
        let labels = [true, true, true, true, true, false, false, false, false, false, false, false];
        let groups = [1, 1, 1, 1, 2, 3, 3, 3, 3, 7, 8, 9];
        let weights = weights(&set(&labels, &groups));
        let malicious: f64 = weights[..5].iter().sum();
        let benign: f64 = weights[5..].iter().sum();
        assert!((malicious - 6.0).abs() < 1e-12 && (benign - 6.0).abs() < 1e-12);
        // Four rows of one attack count together what the single row of the other attack counts, four rows of one
        // piece of work twice as much as the single row of another.
        assert!((weights[0] * 4.0 - weights[4]).abs() < 1e-12);
        assert!((weights[5] * 2.0 - weights[9]).abs() < 1e-12);
    }
}
