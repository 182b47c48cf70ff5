//! From scores to probabilities, learned from scores of rows that the model had not seen.
//!
//! Trainings weigh both classes alike, so that scores are too high for what is rare, and some algorithms say too much or
//! too little. A calibration maps scores to the share of malicious rows among rows of such a score, as often as they
//! occur in the training part. It is monotone: the order of scores, and with it what a budget finds, stays as it is.

use std::str::FromStr;

use picket_common::model::Calibration;
use picket_common::model::calibration::log_odds;
use picket_common::model::limits::KNOTS_MAX;
use serde::{Deserialize, Serialize};

use crate::train::platt::{self, Point};

/// How to calibrate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationMethod {
    /// Scores stay as the algorithm gives them.
    #[default]
    None,
    /// A line in the log-odds: few rows are enough, and what lies between the rows is smooth.
    Platt,
    /// Any rising line: needs a few thousand rows, and follows them wherever they lead.
    Isotonic,
}

impl CalibrationMethod {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::None, Self::Platt, Self::Isotonic];

    /// Its name in commands and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Platt => "platt",
            Self::Isotonic => "isotonic",
        }
    }

    /// The map from (score, malicious) rows, which were scored by models that had not seen them.
    pub fn learn(self, rows: &[(f64, bool)]) -> Option<Calibration> {
        match self {
            Self::None => None,
            Self::Platt => {
                let point = |row: &(f64, bool)| Point { margin: log_odds(row.0), malicious: row.1, weight: 1.0 };
                let line = platt::line(&rows.iter().map(point).collect::<Vec<_>>());
                Some(Calibration::Platt { slope: line.slope, offset: line.offset })
            }
            Self::Isotonic => Some(Calibration::Isotonic { knots: isotonic(rows) }),
        }
    }
}

impl FromStr for CalibrationMethod {
    type Err = UnknownCalibration;

    fn from_str(text: &str) -> Result<Self, UnknownCalibration> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or(UnknownCalibration)
    }
}

/// A name that is no [`CalibrationMethod`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown calibration: expected none, platt or isotonic")]
pub struct UnknownCalibration;

/// Means that differ by less are the same, but for rounding.
const SAME_MEAN: f64 = 1e-9;

/// Neighbouring rows whose shares do not rise, pooled.
#[derive(Clone, Copy, Debug)]
struct Pool {
    rows: f64,
    /// Sums over the rows.
    scores: f64,
    labels: f64,
}

impl Pool {
    fn mean(self) -> f64 {
        self.labels / self.rows
    }

    fn with(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, scores: self.scores + other.scores, labels: self.labels + other.labels }
    }

    /// How much worse the squares are when both are one (Ward 1963).
    fn cost(self, other: Self) -> f64 {
        let difference = self.mean() - other.mean();
        self.rows * other.rows / (self.rows + other.rows) * difference * difference
    }
}

/// Pooling adjacent violators (Ayer et al. 1955). The labels count a little less than 0 and 1, as for Platt's line, so that
/// no score is a certainty; lines between the pools' middles keep the order of scores within a pool.
fn isotonic(rows: &[(f64, bool)]) -> Vec<(f64, f64)> {
    let positive = rows.iter().filter(|row| row.1).count() as f64;
    let targets = [1.0 / (rows.len() as f64 - positive + 2.0), (positive + 1.0) / (positive + 2.0)];
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut pools: Vec<Pool> = Vec::new();
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let labels = equal.iter().map(|row| targets[usize::from(row.1)]).sum();
        let count = equal.len() as f64;
        let mut pool = Pool { rows: count, scores: equal[0].0 * count, labels };
        while let Some(last) = pools.last().copied().filter(|last| last.mean() > pool.mean() - SAME_MEAN) {
            pool = last.with(pool);
            pools.pop();
        }
        pools.push(pool);
    }
    thin(&mut pools);
    knots(&pools)
}

/// Pools the two neighbours that differ least, until the knots fit into a model.
fn thin(pools: &mut Vec<Pool>) {
    while pools.len() > KNOTS_MAX - 2 {
        let costs = pools.windows(2).map(|pair| pair[0].cost(pair[1])).enumerate();
        let Some((place, _)) = costs.min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        pools[place] = pools[place].with(pools[place + 1]);
        pools.remove(place + 1);
    }
}

fn knots(pools: &[Pool]) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (pools.first(), pools.last()) else { return vec![(0.0, 0.0), (1.0, 1.0)] };
    let mut knots = vec![(0.0, first.mean() / 2.0)];
    for pool in pools {
        let knot = ((pool.scores / pool.rows).clamp(0.0, 1.0), pool.mean());
        match knots.last_mut() {
            // Pools so near that their middles are the same number, or at 0 itself.
            Some(before) if before.0 >= knot.0 => before.1 = knot.1,
            _ => knots.push(knot),
        }
    }
    if knots.last().is_some_and(|knot| knot.0 < 1.0) {
        knots.push((1.0, 1.0 - (1.0 - last.mean()) / 2.0));
    }
    knots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Scores whose true probability is their square.
    fn rows(count: usize) -> Vec<(f64, bool)> {
        let mut random = SplitMix64::new(8);
        (0..count)
            .map(|_| {
                let score = random.unit();
                (score, random.unit() < score * score)
            })
            .collect()
    }

    #[test]
    fn probabilities_are_found() {
        for (method, near) in [(CalibrationMethod::Isotonic, 0.05), (CalibrationMethod::Platt, 0.1)] {
            let calibration = method.learn(&rows(20_000)).unwrap();
            for score in [0.05, 0.2, 0.4, 0.6, 0.8, 0.95] {
                let found = calibration.apply(score);
                assert!((found - score * score).abs() < near, "{method:?}: {score} {found}");
            }
        }
        assert_eq!(CalibrationMethod::None.learn(&rows(10)), None);
    }

    #[test]
    fn order_stays_and_knots_are_few() {
        for rows in [rows(50_000), rows(7), vec![(0.0, false), (0.0, true), (1.0, true)], vec![(0.5, true); 4]] {
            for method in [CalibrationMethod::Platt, CalibrationMethod::Isotonic] {
                let calibration = method.learn(&rows).unwrap();
                let mut scores: Vec<f64> = rows.iter().map(|row| row.0).chain([0.0, 1.0]).collect();
                scores.sort_by(f64::total_cmp);
                scores.dedup();
                let mapped: Vec<f64> = scores.iter().map(|score| calibration.apply(*score)).collect();
                assert!(mapped.is_sorted_by(|a, b| a < b), "{method:?}: different scores stay different");
                assert!(mapped.iter().all(|score| (0.0..=1.0).contains(score)));
                if let Calibration::Isotonic { knots } = calibration {
                    assert!((2..=KNOTS_MAX).contains(&knots.len()), "{}", knots.len());
                    assert!(knots[0].0 == 0.0 && knots[knots.len() - 1].0 == 1.0);
                }
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for method in CalibrationMethod::ALL {
            assert_eq!(method.name().parse(), Ok(method));
        }
        assert!("sigmoid".parse::<CalibrationMethod>().is_err());
    }
}
