//! Evaluation: how good a model's scores are on rows it was not fitted on.
//!
//! Pure functions: scored rows in, a [`Report`] out, the same bits every time. A row is an alert when its score is
//! at least the threshold.
//!
//! * ROC-AUC is rank-based and gives ties half credit; PR-AUC is average precision (the sum of precision times the
//!   growth of recall over the distinct scores), not the trapezoid that flatters.
//! * Recall at a false-positive budget is the best recall of any threshold whose false-positive rate on these rows is
//!   within the budget; rows with equal scores are alerted together or not at all.
//! * A figure that the rows cannot give (only one class, nothing alerted) is absent and [`Report::undefined`] says
//!   why. It is never NaN and never a comfortable 1.
//! * Intervals are 95 % percentile bootstrap intervals over *groups* (one attack, one piece of work), because rows of
//!   one group are not independent.

use std::collections::{BTreeMap, BTreeSet};

use crate::evaluate::curve::Curve;
pub use crate::evaluate::report::{
    Baseline, CalibrationBin, Confusion, GroupTotals, Importance, Interval, PrecisionRecallPoint, Report, RocPoint,
    ScoreHistogram, TechniqueResult,
};
pub use crate::evaluate::survey::Survey;

pub mod curve;
pub mod importance;
pub mod page;
pub mod report;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod text;

pub(crate) mod bootstrap;
mod calibration;

/// False-positive budgets the report gives the recall for: 1 % and 0.1 %.
pub const FALSE_POSITIVE_BUDGETS: [f64; 2] = [0.01, 0.001];
/// Bins of the score histogram, over 0..=1.
pub const HISTOGRAM_BINS: usize = 20;
/// Most points of the ROC curve, and of the precision-recall curve, in a report.
pub const ROC_POINTS_MAX: usize = 64;
/// Most features whose importance a report tells.
pub const IMPORTANCES_MAX: usize = 20;
/// Most techniques listed one by one; rows of further ones still count in every total.
pub const TECHNIQUES_LISTED_MAX: usize = 1000;

/// A row that a model has scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRow<'a> {
    /// The model's score, 0..=1.
    pub score: f64,
    /// Whether the row is labelled malicious.
    pub malicious: bool,
    /// MITRE ATT&CK technique; empty when benign or unknown.
    pub technique: &'a str,
    /// The attack or piece of work the row is part of.
    pub group: &'a str,
}

/// How to evaluate.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// A row is an alert from this score on.
    pub threshold: f64,
    /// Techniques that the training part had, to report known and unseen ones apart.
    pub known_techniques: &'a BTreeSet<String>,
    /// Resamples for the intervals; 0 leaves them out.
    pub resamples: u32,
    /// Seed of the resampling.
    pub seed: u64,
}

/// What cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// There is nothing to evaluate on.
    #[error("no rows to evaluate on")]
    NoRows,
    /// A score is infinite or not a number.
    #[error("the score of row {row} is not a finite number")]
    ScoreNotFinite {
        /// Which row, from 0.
        row: usize,
    },
    /// The threshold is not a number.
    #[error("the threshold is not a number")]
    ThresholdNotANumber,
}

/// Evaluates scored rows.
///
/// # Errors
/// When there are no rows, or a score or the threshold is not a number.
pub fn evaluate(rows: &[ScoredRow<'_>], options: &Options<'_>) -> Result<Report, EvaluateError> {
    if rows.is_empty() {
        return Err(EvaluateError::NoRows);
    }
    if options.threshold.is_nan() {
        return Err(EvaluateError::ThresholdNotANumber);
    }
    if let Some(row) = rows.iter().position(|row| !row.score.is_finite()) {
        return Err(EvaluateError::ScoreNotFinite { row });
    }

    let curve = Curve::new(rows.iter().map(|row| (row.score, row.malicious)));
    let confusion = confusion(rows, options.threshold);
    let mut undefined = BTreeMap::new();
    let one_class = if curve.positives() == 0 { "no malicious rows" } else { "no benign rows" };
    let mut defined = |key: &str, value: Option<f64>, reason: &str| {
        if value.is_none() {
            undefined.insert(key.to_owned(), reason.to_owned());
        }
        value
    };
    let by_technique = techniques(rows, options);
    let bins = calibration::bins(rows);
    let report = Report {
        rows: count(rows.len()),
        positives: curve.positives(),
        threshold: options.threshold,
        accuracy: ratio(confusion.tp + confusion.tn, count(rows.len())),
        precision: defined("precision", ratio(confusion.tp, confusion.tp + confusion.fp), "nothing was alerted"),
        recall: defined("recall", ratio(confusion.tp, confusion.tp + confusion.fn_), "no malicious rows"),
        false_positive_rate: defined(
            "false_positive_rate",
            ratio(confusion.fp, confusion.fp + confusion.tn),
            "no benign rows",
        ),
        f1: defined(
            "f1",
            ratio(2 * confusion.tp, 2 * confusion.tp + confusion.fp + confusion.fn_),
            "no malicious rows and nothing was alerted",
        ),
        roc_auc: defined("roc_auc", curve.roc_auc(), one_class),
        pr_auc: defined("pr_auc", curve.average_precision(), "no malicious rows"),
        recall_at_1pct_fpr: defined(
            "recall_at_1pct_fpr",
            curve.recall_at_false_positive_rate(FALSE_POSITIVE_BUDGETS[0]),
            one_class,
        ),
        recall_at_01pct_fpr: defined(
            "recall_at_01pct_fpr",
            curve.recall_at_false_positive_rate(FALSE_POSITIVE_BUDGETS[1]),
            one_class,
        ),
        brier: Some(brier(rows)),
        expected_calibration_error: calibration::expected_error(&bins),
        confusion,
        notes: notes(&curve),
        intervals: bootstrap::intervals(rows, options.threshold, options.resamples, options.seed),
        groups: group_totals(rows, options.threshold),
        per_technique: by_technique.listed,
        known_techniques: by_technique.known,
        unseen_techniques: by_technique.unseen,
        baselines: baselines(&curve),
        score_histogram: histogram(rows),
        roc: curve.roc(ROC_POINTS_MAX),
        precision_recall: curve.precision_recall(ROC_POINTS_MAX),
        calibration: bins,
        importances: Vec::new(),
        undefined,
    };
    Ok(report)
}

fn confusion(rows: &[ScoredRow<'_>], threshold: f64) -> Confusion {
    let mut confusion = Confusion::default();
    for row in rows {
        let cell = match (row.malicious, row.score >= threshold) {
            (true, true) => &mut confusion.tp,
            (true, false) => &mut confusion.fn_,
            (false, true) => &mut confusion.fp,
            (false, false) => &mut confusion.tn,
        };
        *cell += 1;
    }
    confusion
}

fn brier(rows: &[ScoredRow<'_>]) -> f64 {
    let sum: f64 = rows.iter().map(|row| (row.score - f64::from(u8::from(row.malicious))).powi(2)).sum();
    sum / real(count(rows.len()))
}

fn notes(curve: &Curve) -> Vec<String> {
    let mut notes = Vec::new();
    for budget in FALSE_POSITIVE_BUDGETS {
        if curve.negatives() > 0 && real(curve.negatives()) * budget < 1.0 {
            notes.push(format!(
                "{} benign rows are too few to measure a false-positive rate of {} %: recall is given at no false positive",
                curve.negatives(),
                budget * 100.0
            ));
        }
    }
    notes
}

fn group_totals(rows: &[ScoredRow<'_>], threshold: f64) -> GroupTotals {
    #[derive(Default)]
    struct Group {
        malicious: bool,
        malicious_alerted: bool,
        alerted: bool,
    }
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for row in rows {
        let group = groups.entry(row.group).or_default();
        let alerted = row.score >= threshold;
        group.malicious |= row.malicious;
        group.alerted |= alerted;
        group.malicious_alerted |= row.malicious && alerted;
    }
    let mut totals = GroupTotals::default();
    for group in groups.values() {
        if group.malicious {
            totals.malicious += 1;
            totals.malicious_found += u64::from(group.malicious_alerted);
        } else {
            totals.benign += 1;
            totals.benign_alerted += u64::from(group.alerted);
        }
    }
    totals
}

struct ByTechnique {
    listed: BTreeMap<String, TechniqueResult>,
    known: TechniqueResult,
    unseen: TechniqueResult,
}

/// Malicious rows without a technique are in no technique's total: whether it was seen cannot be told.
fn techniques(rows: &[ScoredRow<'_>], options: &Options<'_>) -> ByTechnique {
    #[derive(Default)]
    struct Tally<'a> {
        rows: u64,
        found: u64,
        groups: BTreeMap<&'a str, bool>,
    }
    impl<'a> Tally<'a> {
        fn add(&mut self, group: &'a str, alerted: bool) {
            self.rows += 1;
            self.found += u64::from(alerted);
            *self.groups.entry(group).or_default() |= alerted;
        }
        fn result(&self) -> TechniqueResult {
            TechniqueResult {
                rows: self.rows,
                found: self.found,
                recall: ratio(self.found, self.rows),
                groups: count(self.groups.len()),
                groups_found: count(self.groups.values().filter(|found| **found).count()),
            }
        }
    }
    let mut listed: BTreeMap<&str, Tally<'_>> = BTreeMap::new();
    let (mut known, mut unseen) = (Tally::default(), Tally::default());
    for row in rows.iter().filter(|row| row.malicious && !row.technique.is_empty()) {
        let alerted = row.score >= options.threshold;
        let total = if options.known_techniques.contains(row.technique) { &mut known } else { &mut unseen };
        total.add(row.group, alerted);
        if listed.len() < TECHNIQUES_LISTED_MAX || listed.contains_key(row.technique) {
            listed.entry(row.technique).or_default().add(row.group, alerted);
        }
    }
    ByTechnique {
        listed: listed.into_iter().map(|(name, tally)| (name.to_owned(), tally.result())).collect(),
        known: known.result(),
        unseen: unseen.result(),
    }
}

/// The majority class for every row: what accuracy alone would praise.
fn baselines(curve: &Curve) -> BTreeMap<String, Baseline> {
    let rows = curve.positives() + curve.negatives();
    let says_malicious = curve.positives() > curve.negatives();
    let both = curve.positives() > 0 && curve.negatives() > 0;
    let majority = Baseline {
        accuracy: real(curve.positives().max(curve.negatives())) / real(rows),
        recall: (curve.positives() > 0).then_some(if says_malicious { 1.0 } else { 0.0 }),
        roc_auc: both.then_some(0.5),
        pr_auc: (curve.positives() > 0).then_some(real(curve.positives()) / real(rows)),
    };
    BTreeMap::from([("majority_class".to_owned(), majority)])
}

fn histogram(rows: &[ScoredRow<'_>]) -> ScoreHistogram {
    let mut histogram = ScoreHistogram { benign: vec![0; HISTOGRAM_BINS], malicious: vec![0; HISTOGRAM_BINS] };
    for row in rows {
        let bin = histogram_bin(row.score);
        let bins = if row.malicious { &mut histogram.malicious } else { &mut histogram.benign };
        bins[bin] += 1;
    }
    histogram
}

/// The bin of a score.
fn histogram_bin(score: f64) -> usize {
    // A score of exactly 1 belongs to the last bin. The cast saturates, so that no score can miss the array.
    ((score * real(count(HISTOGRAM_BINS))) as usize).min(HISTOGRAM_BINS - 1)
}

/// `part / whole`, absent when there is no whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| real(part) / real(whole))
}

/// Exact up to 2^53, far above any row count.
fn real(count: u64) -> f64 {
    count as f64
}

fn count(length: usize) -> u64 {
    length as u64
}
