//! From scores to probabilities: a monotone map after the model.

pub use crate::model::linear::logistic;

/// A monotone map of the model's own score, learned on rows that it had not seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Calibration {
    /// `logistic(slope · log-odds of the score + offset)` (Platt 1999).
    Platt {
        /// Above 0.
        slope: f64,
        /// Added to the log-odds.
        offset: f64,
    },
    /// Straight lines between (score, probability) points (isotonic regression by pooling adjacent violators): the first
    /// at score 0, the last at score 1, scores strictly ascending, probabilities not descending.
    Isotonic {
        /// The points: 2 to [`limits::KNOTS_MAX`](super::limits::KNOTS_MAX).
        knots: Vec<(f64, f64)>,
    },
}

/// A score that is nearer to 0 or 1 counts as this near: its log-odds are at most about 36.
const SCORE_MIN: f64 = 2.220_446_049_250_313e-16;

impl Calibration {
    /// The probability for a score between 0 and 1.
    pub fn apply(&self, score: f64) -> f64 {
        match self {
            Self::Platt { slope, offset } => logistic(slope * log_odds(score) + offset),
            Self::Isotonic { knots } => {
                let above = knots.partition_point(|knot| knot.0 < score);
                let Some(high) = knots.get(above) else { return knots.last().map_or(score, |knot| knot.1) };
                let Some(low) = above.checked_sub(1).and_then(|below| knots.get(below)) else { return high.1 };
                let share = (score - low.0) / (high.0 - low.0);
                (low.1 + share * (high.1 - low.1)).clamp(low.1, high.1)
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Platt { .. } => 0,
            Self::Isotonic { knots } => size_of_val(knots.as_slice()),
        }
    }
}

/// `ln(p / (1 − p))`, at most about 36 in magnitude.
pub fn log_odds(score: f64) -> f64 {
    let score = score.clamp(SCORE_MIN, 1.0 - SCORE_MIN);
    libm::log(score) - libm::log1p(-score)
}
