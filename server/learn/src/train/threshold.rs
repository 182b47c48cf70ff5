//! The score from which on a row is an alert.
//!
//! Chosen on out-of-fold scores of the training part, under a false-positive budget:
//!
//! 1. Of n benign rows, ⌊budget · n⌋ may be alerted. When that is none (fewer than 100 benign rows at 1 %), a single
//!    benign row may still be alerted if that at least doubles the recall: one odd or wrongly labelled row must not
//!    silence a model.
//! 2. The threshold lies above the highest benign score that may not be alerted, half-way to the next malicious score
//!    (or to 1 when there is none above): of all thresholds with the same alerts among these rows, the one farthest
//!    from both.
//! 3. It is never below [`THRESHOLD_MIN`].
//! 4. When benign rows beyond the budget share the highest score of all with malicious ones, no threshold would ever
//!    alert within the budget. The highest score becomes the threshold and `budget_met` is false.

use serde::{Deserialize, Serialize};

use crate::evaluate::curve::Curve;

/// Share of benign rows that may be alerted, unless asked otherwise.
pub const FALSE_POSITIVE_BUDGET: f64 = 0.01;
/// A budget lies below this: whoever alerts half of everything needs no model.
pub const FALSE_POSITIVE_BUDGET_MAX: f64 = 0.5;
/// Lowest threshold: a score under it is no evidence, however quiet the benign training rows were.
pub const THRESHOLD_MIN: f64 = 0.05;

/// A threshold and what it did on the out-of-fold scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChoice {
    /// Alert from this score on; 0 to 1.
    pub threshold: f64,
    /// The budget it was chosen for.
    pub false_positive_budget: f64,
    /// Benign rows that were allowed to be alerted.
    pub false_positives_allowed: u64,
    /// Whether the budget was kept.
    pub budget_met: bool,
    /// Share of malicious rows alerted.
    pub recall: f64,
    /// Share of benign rows alerted.
    pub false_positive_rate: f64,
}

/// Chooses a threshold for rows given as (score, malicious). Both classes must be there.
pub fn choose(rows: &[(f64, bool)], budget: f64) -> ThresholdChoice {
    let mut benign: Vec<f64> = rows.iter().filter(|row| !row.1).map(|row| row.0).collect();
    benign.sort_by(|a, b| b.total_cmp(a));
    let mut allowed = (budget * benign.len() as f64 + 1e-9) as usize;
    if allowed == 0 && found_above(rows, &benign, 1) >= 2 * found_above(rows, &benign, 0).max(1) {
        allowed = 1;
    }

    let highest = rows.iter().map(|row| row.0).fold(0.0, f64::max);
    let silent = benign.get(allowed).copied().unwrap_or(0.0);
    let threshold = if silent >= highest && rows.iter().any(|row| row.1 && row.0 >= highest) {
        highest
    } else {
        let next = rows.iter().filter(|row| row.1 && row.0 > silent).map(|row| row.0).fold(1.0, f64::min);
        let middle = silent + (next - silent) / 2.0;
        // Two neighbouring numbers have no middle.
        if middle > silent { middle } else { next }
    };
    let threshold = threshold.clamp(THRESHOLD_MIN, 1.0);

    let share = |class: bool| {
        let all = rows.iter().filter(|row| row.1 == class).count();
        let alerted = rows.iter().filter(|row| row.1 == class && row.0 >= threshold).count();
        (alerted, alerted as f64 / all.max(1) as f64)
    };
    let (false_positives, false_positive_rate) = share(false);
    ThresholdChoice {
        threshold,
        false_positive_budget: budget,
        false_positives_allowed: allowed as u64,
        budget_met: false_positives <= allowed,
        recall: share(true).1,
        false_positive_rate,
    }
}

/// Malicious rows that score above the benign row after the `allowed` highest ones.
fn found_above(rows: &[(f64, bool)], benign: &[f64], allowed: usize) -> usize {
    let silent = benign.get(allowed).copied().unwrap_or(0.0);
    rows.iter().filter(|row| row.1 && row.0 > silent).count()
}

/// What tuning compares: average precision and recall at the budget, half each. 0 when a class is missing.
pub fn tuning_score(rows: &[(f64, bool)], budget: f64) -> f64 {
    let curve = Curve::new(rows.iter().copied());
    let precision = curve.average_precision().unwrap_or(0.0);
    let recall = curve.recall_at_false_positive_rate(budget).unwrap_or(0.0);
    0.5 * (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn benign(scores: impl IntoIterator<Item = f64>) -> Vec<(f64, bool)> {
        scores.into_iter().map(|score| (score, false)).collect()
    }

    #[test]
    fn lies_in_the_middle_of_the_gap() {
        let mut rows = benign((0..1000).map(|row| f64::from(row) * 0.0002));
        rows.extend([(0.9, true), (0.6, true), (0.8, true)]);
        // Ten may be alerted, so the eleventh highest (0.1978) is the last silent one.
        let choice = choose(&rows, 0.01);
        assert_eq!(choice.false_positives_allowed, 10);
        assert!((choice.threshold - (0.1978 + 0.6) / 2.0).abs() < 1e-9, "{choice:?}");
        assert_eq!((choice.recall, choice.false_positive_rate, choice.budget_met), (1.0, 0.0, true));
    }

    #[test]
    fn budget_is_kept_when_classes_overlap() {
        let mut rows = benign((0..1000).map(|row| f64::from(row) / 1000.0));
        rows.extend((0..100).map(|row| (0.5 + f64::from(row) / 200.0 + 0.0001, true)));
        let choice = choose(&rows, 0.01);
        assert!(choice.budget_met && choice.false_positive_rate <= 0.01, "{choice:?}");
        assert!(choice.threshold > 0.989 && choice.recall > 0.0, "{choice:?}");
    }

    #[test]
    fn one_odd_benign_row_does_not_silence_a_small_set() {
        let mut rows = benign([0.95, 0.1, 0.05, 0.0, 0.0, 0.2]);
        rows.extend([(0.9, true), (0.8, true), (0.7, true)]);
        let choice = choose(&rows, 0.01);
        assert_eq!(choice.false_positives_allowed, 1);
        assert!((choice.threshold - 0.45).abs() < 1e-12, "{choice:?}");
        assert_eq!(choice.recall, 1.0);
        // Without the need there is no forgiveness.
        let mut rows = benign([0.75, 0.1, 0.05]);
        rows.extend([(0.9, true), (0.8, true), (0.7, true)]);
        assert_eq!(choose(&rows, 0.01).false_positives_allowed, 0);
    }

    #[test]
    fn never_below_the_floor_nor_above_one() {
        let rows = [(0.0, false), (0.0, false), (0.01, true)];
        assert_eq!(choose(&rows, 0.01).threshold, THRESHOLD_MIN);
        // Upside down: nothing malicious above what must stay silent, so nothing is alerted.
        let rows = [(0.5, false), (0.4, false), (0.3, false), (0.2, true), (0.1, true)];
        let choice = choose(&rows, 0.01);
        assert_eq!((choice.threshold, choice.false_positive_rate, choice.recall), (0.75, 0.0, 0.0));
        let rows = [(1.0, false), (1.0, false), (0.3, true)];
        assert_eq!(choose(&rows, 0.01).threshold, 1.0);
    }

    #[test]
    fn a_model_that_cannot_keep_the_budget_still_alerts() {
        let mut rows = benign(std::iter::repeat_n(1.0, 50).chain(std::iter::repeat_n(0.0, 950)));
        rows.extend(std::iter::repeat_n((1.0, true), 20));
        let choice = choose(&rows, 0.01);
        assert_eq!((choice.threshold, choice.budget_met, choice.recall), (1.0, false, 1.0));
        assert!((choice.false_positive_rate - 0.05).abs() < 1e-12);
    }
}
