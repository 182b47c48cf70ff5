//! What a ranking of rows by score can do at each threshold.

use crate::evaluate::{PrecisionRecallPoint, RocPoint, real};

/// Slack for `budget × rows` computed in floating point: 0.07 × 100 is 7.000000000000001.
const BUDGET_SLACK: f64 = 1e-9;

/// Rows ordered by falling score, rows of equal score together.
#[derive(Clone, Debug)]
pub struct Curve {
    steps: Vec<Step>,
    positives: u64,
    negatives: u64,
}

/// All rows with one score.
#[derive(Clone, Copy, Debug)]
struct Step {
    score: f64,
    positives: u64,
    negatives: u64,
}

/// What alerting from one score on gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// Alert from this score on.
    pub score: f64,
    /// Malicious rows alerted.
    pub true_positives: u64,
    /// Benign rows alerted.
    pub false_positives: u64,
}

impl Curve {
    /// The curve of rows given as (score, malicious). Scores are finite.
    pub fn new(rows: impl IntoIterator<Item = (f64, bool)>) -> Self {
        Self::weighted(rows.into_iter().map(|(score, malicious)| (score, malicious, 1)))
    }

    /// The curve of rows given as (score, malicious, how many times).
    pub fn weighted(rows: impl IntoIterator<Item = (f64, bool, u64)>) -> Self {
        let mut rows: Vec<_> = rows.into_iter().filter(|row| row.2 > 0).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self::from_sorted(rows)
    }

    /// As [`Self::weighted`], for rows that are in falling order of score already.
    pub(crate) fn from_sorted(rows: impl IntoIterator<Item = (f64, bool, u64)>) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let (mut positives, mut negatives) = (0, 0);
        for (score, malicious, times) in rows.into_iter().filter(|row| row.2 > 0) {
            let (positive, negative) = if malicious { (times, 0) } else { (0, times) };
            positives += positive;
            negatives += negative;
            match steps.last_mut() {
                // 0.0 and -0.0 are one score to every comparison, so they are one step here.
                Some(step) if step.score == score => {
                    step.positives += positive;
                    step.negatives += negative;
                }
                _ => steps.push(Step { score, positives: positive, negatives: negative }),
            }
        }
        Self { steps, positives, negatives }
    }

    /// Malicious rows.
    pub fn positives(&self) -> u64 {
        self.positives
    }

    /// Benign rows.
    pub fn negatives(&self) -> u64 {
        self.negatives
    }

    /// Every distinct score as a threshold, highest first.
    pub fn operating_points(&self) -> impl Iterator<Item = OperatingPoint> + '_ {
        self.steps.iter().scan((0, 0), |(true_positives, false_positives), step| {
            *true_positives += step.positives;
            *false_positives += step.negatives;
            Some(OperatingPoint {
                score: step.score,
                true_positives: *true_positives,
                false_positives: *false_positives,
            })
        })
    }

    /// Area under the ROC curve, ties at half credit. Absent unless both classes are there.
    pub fn roc_auc(&self) -> Option<f64> {
        if self.positives == 0 || self.negatives == 0 {
            return None;
        }
        let mut ranked_above = 0.0;
        let mut true_positives = 0;
        for step in &self.steps {
            ranked_above += real(step.negatives) * (real(true_positives) + 0.5 * real(step.positives));
            true_positives += step.positives;
        }
        Some(ranked_above / (real(self.positives) * real(self.negatives)))
    }

    /// Average precision. Absent without malicious rows.
    pub fn average_precision(&self) -> Option<f64> {
        if self.positives == 0 {
            return None;
        }
        let mut sum = 0.0;
        let mut before = 0;
        for point in self.operating_points() {
            let precision = real(point.true_positives) / real(point.true_positives + point.false_positives);
            sum += real(point.true_positives - before) * precision;
            before = point.true_positives;
        }
        Some(sum / real(self.positives))
    }

    /// Best recall with at most this share of benign rows alerted. Absent unless both classes are there.
    pub fn recall_at_false_positive_rate(&self, budget: f64) -> Option<f64> {
        if self.positives == 0 || self.negatives == 0 {
            return None;
        }
        let allowed = budget * real(self.negatives) + BUDGET_SLACK;
        let found = self
            .operating_points()
            .take_while(|point| real(point.false_positives) <= allowed)
            .last()
            .map_or(0, |point| point.true_positives);
        Some(real(found) / real(self.positives))
    }

    /// The ROC curve from (0, 0) to (1, 1) in at most `points_max` points. Empty unless both classes are there.
    pub fn roc(&self, points_max: usize) -> Vec<RocPoint> {
        if self.positives == 0 || self.negatives == 0 || points_max < 2 {
            return Vec::new();
        }
        let mut points = vec![RocPoint { fpr: 0.0, tpr: 0.0 }];
        points.extend(self.operating_points().map(|point| RocPoint {
            fpr: real(point.false_positives) / real(self.negatives),
            tpr: real(point.true_positives) / real(self.positives),
        }));
        thinned(&points, points_max)
    }

    /// Precision over recall, from the highest score on, in at most `points_max` points. Empty without malicious rows.
    pub fn precision_recall(&self, points_max: usize) -> Vec<PrecisionRecallPoint> {
        if self.positives == 0 || points_max < 2 {
            return Vec::new();
        }
        let points: Vec<_> = self
            .operating_points()
            .map(|point| PrecisionRecallPoint {
                recall: real(point.true_positives) / real(self.positives),
                precision: real(point.true_positives) / real(point.true_positives + point.false_positives),
            })
            .collect();
        thinned(&points, points_max)
    }
}

/// At most `points_max` (at least 2) of the points, evenly spread over the curve's length, ends included.
fn thinned<P: Copy>(points: &[P], points_max: usize) -> Vec<P> {
    if points.len() <= points_max {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..points_max).map(|index| points[index * last / (points_max - 1)]).collect()
}
