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
//!
//! So chosen, the budget is kept on average over new rows: by chance a little more or less is alerted. The choice says how
//! much more it may be ([`conformal`]). Who asks for the budget to be kept with a [`Confidence`] gets a higher
//! threshold: of n rows as many may be alerted as leave that bound within the budget, and the first rule's exception
//! does not hold.
//!
//! Without labels the budget is a share of all rows ([`choose_share`]): the threshold is that quantile of the scores.

use serde::{Deserialize, Serialize};

use crate::evaluate::curve::Curve;
use crate::train::conformal;

/// Share of benign rows that may be alerted, unless asked otherwise.
pub const FALSE_POSITIVE_BUDGET: f64 = 0.01;
/// A budget lies below this: whoever alerts half of everything needs no model.
pub const FALSE_POSITIVE_BUDGET_MAX: f64 = 0.5;
/// Lowest threshold: a score under it is no evidence, however quiet the benign training rows were.
pub const THRESHOLD_MIN: f64 = 0.05;

/// Confidence of the bound that every choice tells.
pub const BOUND_CONFIDENCE: f64 = 0.95;

/// How surely a budget is to be kept: from 0.5 to below 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Confidence(f64);

/// A confidence out of its limits.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no confidence: expected at least 0.5 and less than 1")]
pub struct ConfidenceError(f64);

impl TryFrom<f64> for Confidence {
    type Error = ConfidenceError;

    fn try_from(value: f64) -> Result<Self, ConfidenceError> {
        if (0.5..1.0).contains(&value) { Ok(Self(value)) } else { Err(ConfidenceError(value)) }
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> Self {
        confidence.0
    }
}

/// A threshold and what it did on the out-of-fold scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChoice {
    /// Alert from this score on; 0 to 1.
    pub threshold: f64,
    /// The budget it was chosen for.
    pub false_positive_budget: f64,
    /// Benign rows that were allowed to be alerted; without labels, rows.
    pub false_positives_allowed: u64,
    /// Whether the budget was kept.
    pub budget_met: bool,
    /// Share of malicious rows alerted; absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Share of benign rows alerted; absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_positive_rate: Option<f64>,
    /// Of new benign rows like these at most so many will be alerted, with a confidence of [`BOUND_CONFIDENCE`]; absent
    /// without labels, and in choices of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_positive_rate_bound: Option<f64>,
    /// Share of all rows alerted; absent with labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_alerted: Option<f64>,
    /// As [`Self::false_positive_rate_bound`], of all rows; absent with labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_alerted_bound: Option<f64>,
}

/// Chooses a threshold for rows given as (score, malicious), for each of which `kin` has a number that near-duplicates
/// share. Both classes must be there.
pub fn choose(rows: &[(f64, bool)], kin: &[u32], budget: f64, confidence: Option<Confidence>) -> ThresholdChoice {
    let mut benign: Vec<f64> = rows.iter().filter(|row| !row.1).map(|row| row.0).collect();
    benign.sort_by(|a, b| b.total_cmp(a));
    let mut allowed = (budget * benign.len() as f64 + 1e-9) as usize;
    let usual = at(rows, &benign, allowed, budget);
    let Some(confidence) = confidence else {
        if allowed == 0 && found_above(rows, &benign, 1) >= 2 * found_above(rows, &benign, 0).max(1) {
            allowed = 1;
        }
        return bounded(at(rows, &benign, allowed, budget), rows, kin);
    };
    let effect = effect(rows, kin, usual.threshold);
    let (sure, keeps) = surely(allowed, (benign.len(), effect), budget, confidence);
    let choice = bounded(at(rows, &benign, sure, budget), rows, kin);
    ThresholdChoice { budget_met: choice.budget_met && keeps, ..choice }
}

/// Chooses a threshold without labels, for scores of which ⌊budget · n⌋ may be alerted; `kin` as for [`choose`]. It lies
/// half-way between the scores on its two sides, or right above the highest when nothing may be alerted.
pub fn choose_share(scores: &[f64], kin: &[u32], budget: f64, confidence: Option<Confidence>) -> ThresholdChoice {
    let mut falling = scores.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let mut allowed = (budget * falling.len() as f64 + 1e-9) as usize;
    let mut keeps = true;
    let effect = |threshold: f64| {
        conformal::design_effect(scores.iter().zip(kin).map(|(score, kin)| (*kin, *score >= threshold)))
    };
    if let Some(confidence) = confidence {
        let effect = effect(above(&falling, allowed));
        (allowed, keeps) = surely(allowed, (falling.len(), effect), budget, confidence);
    }
    let threshold = above(&falling, allowed).clamp(THRESHOLD_MIN, 1.0);
    let alerted = falling.partition_point(|score| *score >= threshold);
    let (rows, effect) = (falling.len() as f64, effect(threshold));
    ThresholdChoice {
        threshold,
        false_positive_budget: budget,
        false_positives_allowed: allowed as u64,
        budget_met: keeps && alerted <= allowed,
        recall: None,
        false_positive_rate: None,
        false_positive_rate_bound: None,
        share_alerted: Some(alerted as f64 / rows.max(1.0)),
        share_alerted_bound: Some(conformal::share_bound(alerted as f64 / effect, rows / effect, BOUND_CONFIDENCE)),
    }
}

/// A threshold that alerts so many of the scores (descending) at most.
fn above(falling: &[f64], allowed: usize) -> f64 {
    let silent = falling.get(allowed).copied().unwrap_or(0.0);
    let louder = falling.partition_point(|score| *score > silent);
    let next = louder.checked_sub(1).and_then(|place| falling.get(place)).copied().unwrap_or(silent);
    let middle = silent + (next - silent) / 2.0;
    // Two neighbouring numbers have no middle.
    if middle > silent { middle } else { next.max(silent.next_up()) }
}

/// How many of so many rows, which count for fewer by the design effect, may be alerted such that the bound is within the
/// budget, at most `allowed`; and whether it is.
fn surely(allowed: usize, (rows, effect): (usize, f64), budget: f64, confidence: Confidence) -> (usize, bool) {
    let keeps =
        |alerted: usize| conformal::share_bound(alerted as f64 / effect, rows as f64 / effect, confidence.0) <= budget;
    // The bound grows with what is alerted.
    let (mut low, mut high) = (0, allowed + 1);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if keeps(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low, keeps(low))
}

/// The threshold that alerts so many of the benign scores (descending) at most.
fn at(rows: &[(f64, bool)], benign: &[f64], allowed: usize, budget: f64) -> ThresholdChoice {
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
        recall: Some(share(true).1),
        false_positive_rate: Some(false_positive_rate),
        false_positive_rate_bound: None,
        share_alerted: None,
        share_alerted_bound: None,
    }
}

/// The choice with its bound.
fn bounded(choice: ThresholdChoice, rows: &[(f64, bool)], kin: &[u32]) -> ThresholdChoice {
    let benign = rows.iter().filter(|row| !row.1).count() as f64;
    let effect = effect(rows, kin, choice.threshold);
    let alerted = choice.false_positive_rate.unwrap_or(0.0) * benign;
    let bound = conformal::share_bound(alerted / effect, benign / effect, BOUND_CONFIDENCE);
    ThresholdChoice { false_positive_rate_bound: Some(bound), ..choice }
}

fn effect(rows: &[(f64, bool)], kin: &[u32], threshold: f64) -> f64 {
    let benign = rows.iter().zip(kin).filter(|(row, _)| !row.1);
    conformal::design_effect(benign.map(|(row, kin)| (*kin, row.0 >= threshold)))
}

/// Malicious rows that score above the benign row after the `allowed` highest ones.
fn found_above(rows: &[(f64, bool)], benign: &[f64], allowed: usize) -> usize {
    let silent = benign.get(allowed).copied().unwrap_or(0.0);
    rows.iter().filter(|row| row.1 && row.0 > silent).count()
}

/// What tuning compares: average precision and recall at the budget, half each. 0 when a class is missing.
pub fn tuning_score(rows: &[(f64, bool)], budget: f64) -> f64 {
    tuning_score_of(&Curve::new(rows.iter().copied()), budget)
}

/// As [`tuning_score`], of a curve.
pub(crate) fn tuning_score_of(curve: &Curve, budget: f64) -> f64 {
    let precision = curve.average_precision().unwrap_or(0.0);
    let recall = curve.recall_at_false_positive_rate(budget).unwrap_or(0.0);
    0.5 * (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of which each is its own.
    fn choose(rows: &[(f64, bool)], budget: f64) -> ThresholdChoice {
        let kin: Vec<u32> = (0..rows.len() as u32).collect();
        super::choose(rows, &kin, budget, None)
    }

    #[test]
    fn confidence_leaves_room_for_chance() {
        let mut rows = benign((0..10_000).map(|row| f64::from(row) / 10_000.0));
        rows.extend((0..100).map(|row| (0.9 + f64::from(row) / 1000.0 + 0.00001, true)));
        let kin: Vec<u32> = (0..rows.len() as u32).collect();
        let usual = choose(&rows, 0.01);
        let sure = super::choose(&rows, &kin, 0.01, Some(Confidence::try_from(0.95).unwrap()));
        assert_eq!((usual.false_positives_allowed, sure.false_positives_allowed), (100, 83));
        assert!(usual.false_positive_rate_bound.unwrap() > 0.0115 && sure.false_positive_rate_bound.unwrap() <= 0.01);
        assert!(sure.budget_met && sure.threshold > usual.threshold);
        // Ten near-duplicates of each row count as one.
        let kin: Vec<u32> = (0..rows.len() as u32).map(|row| row / 10).collect();
        let surer = super::choose(&rows, &kin, 0.01, Some(Confidence::try_from(0.95).unwrap()));
        assert!(surer.false_positives_allowed < 60, "{surer:?}");
        // Too few rows to promise anything.
        let few: Vec<(f64, bool)> = rows.iter().rev().step_by(100).copied().collect();
        assert!(!super::choose(&few, &kin, 0.01, Some(Confidence::try_from(0.95).unwrap())).budget_met);
        assert!(Confidence::try_from(1.0).is_err() && Confidence::try_from(f64::NAN).is_err());
    }

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
        assert_eq!((choice.recall, choice.false_positive_rate, choice.budget_met), (Some(1.0), Some(0.0), true));
    }

    #[test]
    fn budget_is_kept_when_classes_overlap() {
        let mut rows = benign((0..1000).map(|row| f64::from(row) / 1000.0));
        rows.extend((0..100).map(|row| (0.5 + f64::from(row) / 200.0 + 0.0001, true)));
        let choice = choose(&rows, 0.01);
        assert!(choice.budget_met && choice.false_positive_rate <= Some(0.01), "{choice:?}");
        assert!(choice.threshold > 0.989 && choice.recall > Some(0.0), "{choice:?}");
    }

    #[test]
    fn one_odd_benign_row_does_not_silence_a_small_set() {
        let mut rows = benign([0.95, 0.1, 0.05, 0.0, 0.0, 0.2]);
        rows.extend([(0.9, true), (0.8, true), (0.7, true)]);
        let choice = choose(&rows, 0.01);
        assert_eq!(choice.false_positives_allowed, 1);
        assert!((choice.threshold - 0.45).abs() < 1e-12, "{choice:?}");
        assert_eq!(choice.recall, Some(1.0));
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
        assert_eq!((choice.threshold, choice.false_positive_rate, choice.recall), (0.75, Some(0.0), Some(0.0)));
        let rows = [(1.0, false), (1.0, false), (0.3, true)];
        assert_eq!(choose(&rows, 0.01).threshold, 1.0);
    }

    #[test]
    fn a_model_that_cannot_keep_the_budget_still_alerts() {
        let mut rows = benign(std::iter::repeat_n(1.0, 50).chain(std::iter::repeat_n(0.0, 950)));
        rows.extend(std::iter::repeat_n((1.0, true), 20));
        let choice = choose(&rows, 0.01);
        assert_eq!((choice.threshold, choice.budget_met, choice.recall), (1.0, false, Some(1.0)));
        assert!((choice.false_positive_rate.unwrap() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn without_labels_the_budget_is_a_share_of_all_rows() {
        let scores: Vec<f64> = (0..1000).map(|row| f64::from(row) / 1000.0).collect();
        let kin: Vec<u32> = (0..1000).collect();
        let choice = choose_share(&scores, &kin, 0.01, None);
        assert_eq!((choice.threshold, choice.share_alerted, choice.budget_met), (0.9895, Some(0.01), true));
        assert!((choice.recall, choice.false_positive_rate, choice.false_positive_rate_bound) == (None, None, None));
        assert!(choice.share_alerted_bound.unwrap() > 0.01);
        let sure = choose_share(&scores, &kin, 0.01, Some(Confidence::try_from(0.95).unwrap()));
        assert!(sure.share_alerted_bound.unwrap() <= 0.01 && sure.threshold > choice.threshold && sure.budget_met);
        // Rows of one score are alerted together or not at all; too few rows: none of them.
        let ties: Vec<f64> = scores.iter().map(|score| score.min(0.9)).collect();
        let choice = choose_share(&ties, &kin, 0.01, None);
        assert!(choice.threshold > 0.9 && choice.threshold < 0.901 && choice.share_alerted == Some(0.0), "{choice:?}");
        let few = choose_share(&[0.4, 0.7, 0.5], &[0, 1, 2], 0.01, None);
        assert!(few.threshold > 0.7 && few.threshold < 0.701 && few.share_alerted == Some(0.0), "{few:?}");
        assert_eq!(choose_share(&[0.0; 200], &kin[..200], 0.01, None).threshold, THRESHOLD_MIN);
    }
}
