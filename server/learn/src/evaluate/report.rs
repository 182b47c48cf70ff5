//! What an evaluation says, for programs: JSON with stable keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The evaluation of one model. Keys are stable: other programs read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Rows evaluated on.
    pub rows: u64,
    /// Malicious rows among them.
    pub positives: u64,
    /// A row is an alert from this score on.
    pub threshold: f64,
    /// Share of rows that were judged rightly.
    pub accuracy: Option<f64>,
    /// Share of alerts that were malicious.
    pub precision: Option<f64>,
    /// Share of malicious rows that were alerted.
    pub recall: Option<f64>,
    /// Share of benign rows that were alerted.
    pub false_positive_rate: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Probability that a malicious row scores higher than a benign one.
    pub roc_auc: Option<f64>,
    /// Average precision.
    pub pr_auc: Option<f64>,
    /// Best recall with at most 1 % of benign rows alerted.
    pub recall_at_1pct_fpr: Option<f64>,
    /// Best recall with at most 0.1 % of benign rows alerted.
    pub recall_at_01pct_fpr: Option<f64>,
    /// Mean squared difference between score and label.
    pub brier: Option<f64>,
    /// Mean difference between score and share of malicious rows over the bins of [`Report::calibration`], by their rows.
    #[serde(default)]
    pub expected_calibration_error: Option<f64>,
    /// Rows by label and verdict.
    pub confusion: Confusion,
    /// Why a figure is absent, by its key.
    pub undefined: BTreeMap<String, String>,
    /// What to mind when reading the figures.
    pub notes: Vec<String>,
    /// 95 % intervals, by the figure's key.
    pub intervals: BTreeMap<String, Interval>,
    /// Attacks and pieces of work as a whole.
    pub groups: GroupTotals,
    /// Malicious rows by technique.
    pub per_technique: BTreeMap<String, TechniqueResult>,
    /// Malicious rows of techniques that the training part had.
    pub known_techniques: TechniqueResult,
    /// Malicious rows of techniques that the training part had not.
    pub unseen_techniques: TechniqueResult,
    /// What needs no learning, for comparison.
    pub baselines: BTreeMap<String, Baseline>,
    /// How scores are spread over 0..=1.
    pub score_histogram: ScoreHistogram,
    /// The ROC curve, from (0, 0) to (1, 1), thinned to [`ROC_POINTS_MAX`](super::ROC_POINTS_MAX) points.
    pub roc: Vec<RocPoint>,
    /// Precision over recall, thinned in the same way; empty in evaluations of earlier builds.
    #[serde(default)]
    pub precision_recall: Vec<PrecisionRecallPoint>,
    /// What scores are worth as probabilities; empty in evaluations of earlier builds.
    #[serde(default)]
    pub calibration: Vec<CalibrationBin>,
    /// Mean of the absolute contributions of each feature to these rows' scores, strongest first, at most
    /// [`IMPORTANCES_MAX`](super::IMPORTANCES_MAX); empty when nobody took them.
    #[serde(default)]
    pub importances: Vec<Importance>,
}

/// A figure as people read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    /// Its key in [`Report::intervals`].
    pub(super) key: &'static str,
    pub(super) value: Option<f64>,
    /// The larger class's, where it has one.
    pub(super) baseline: Option<f64>,
}

impl Report {
    /// The figures, the most telling first.
    pub(super) fn figures(&self) -> [Figure; 11] {
        let majority = self.baselines.get("majority_class");
        let figure = |name, key, value, baseline| Figure { name, key, value, baseline };
        [
            figure("recall at 1 % FPR", "recall_at_1pct_fpr", self.recall_at_1pct_fpr, None),
            figure("recall at 0.1 % FPR", "recall_at_01pct_fpr", self.recall_at_01pct_fpr, None),
            figure("PR-AUC", "pr_auc", self.pr_auc, majority.and_then(|baseline| baseline.pr_auc)),
            figure("ROC-AUC", "roc_auc", self.roc_auc, majority.and_then(|baseline| baseline.roc_auc)),
            figure("recall", "recall", self.recall, majority.and_then(|baseline| baseline.recall)),
            figure("false-positive rate", "false_positive_rate", self.false_positive_rate, None),
            figure("precision", "precision", self.precision, None),
            figure("F1", "f1", self.f1, None),
            figure("accuracy", "accuracy", self.accuracy, majority.map(|baseline| baseline.accuracy)),
            figure("Brier score", "brier", self.brier, None),
            figure("calibration error", "expected_calibration_error", self.expected_calibration_error, None),
        ]
    }
}

/// Rows by label and verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Malicious and alerted.
    pub tp: u64,
    /// Benign and alerted.
    pub fp: u64,
    /// Benign and not alerted.
    pub tn: u64,
    /// Malicious and not alerted.
    #[serde(rename = "fn")]
    pub fn_: u64,
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile of the resamples.
    pub low: f64,
    /// 97.5th percentile of the resamples.
    pub high: f64,
}

/// Attacks and pieces of work as a whole: one counts as found when any of its rows is alerted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTotals {
    /// Groups with a malicious row.
    pub malicious: u64,
    /// Those with an alerted malicious row.
    pub malicious_found: u64,
    /// Groups with benign rows only.
    pub benign: u64,
    /// Those with an alerted row.
    pub benign_alerted: u64,
}

/// Malicious rows of one technique, or of some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TechniqueResult {
    /// Malicious rows.
    pub rows: u64,
    /// Those alerted.
    pub found: u64,
    /// Share of them alerted; absent without rows.
    pub recall: Option<f64>,
    /// Attacks with such rows.
    pub groups: u64,
    /// Attacks with an alerted one.
    pub groups_found: u64,
}

/// A verdict that needs no learning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Share of rows judged rightly.
    pub accuracy: f64,
    /// Share of malicious rows alerted.
    pub recall: Option<f64>,
    /// 0.5 when both classes are there: it ranks nothing.
    pub roc_auc: Option<f64>,
    /// The share of malicious rows: what a blind ranking gets.
    pub pr_auc: Option<f64>,
}

/// Rows by score, in [`HISTOGRAM_BINS`](super::HISTOGRAM_BINS) equal bins over 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Benign rows.
    pub benign: Vec<u64>,
    /// Malicious rows.
    pub malicious: Vec<u64>,
}

/// A point of the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// False-positive rate.
    pub fpr: f64,
    /// True-positive rate.
    pub tpr: f64,
}

/// A point of the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecallPoint {
    /// Share of malicious rows alerted.
    pub recall: f64,
    /// Share of alerts that were malicious.
    pub precision: f64,
}

/// Rows of about one score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Mean score.
    pub score: f64,
    /// Share of them that was malicious.
    pub malicious: f64,
    /// How many.
    pub rows: u64,
}

/// How much a feature moves scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Its name.
    pub feature: String,
    /// Mean absolute contribution, in the unit of [`Model::explain`](picket_common::model::Model::explain).
    pub contribution: f64,
}
