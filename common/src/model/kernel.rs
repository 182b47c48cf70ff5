//! A support vector machine with a radial basis function: how near a row is to each of some centres.

use crate::model::limits::UNITS_MAX;
use crate::model::linear::logistic;
use crate::model::network::Units;
use crate::model::scaling::{self, Scaling};
use crate::model::shapley::{Stepwise, explain};
use crate::model::{Contribution, Vector};

/// `logistic(bias + Σ coefficient · e^(−gamma · squared distance))` of standardised values. Built only by the reader,
/// which has proven every shape and number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kernel {
    pub(super) scaling: Vec<Scaling>,
    pub(super) gamma: f64,
    pub(super) bias: f64,
    /// One for each centre; at most [`UNITS_MAX`].
    pub(super) coefficients: Vec<f64>,
    /// For each feature one standardised value for each centre, feature by feature.
    pub(super) centres: Vec<f32>,
}

impl Kernel {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        let mut distances = [0.0; UNITS_MAX];
        for (feature, scaling) in self.scaling.iter().enumerate() {
            let value = scaling.of(vector, feature);
            for (distance, centre) in distances.iter_mut().zip(self.centres_of(feature)) {
                *distance += (value - centre) * (value - centre);
            }
        }
        logistic(self.finish(&distances))
    }

    pub(super) fn baseline(&self) -> f64 {
        let mut distances = [0.0; UNITS_MAX];
        self.begin(&mut distances);
        self.finish(&distances)
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        explain(self, &self.scaling, vector, into);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        scaling::memory_bytes(&self.scaling)
            + size_of_val(self.coefficients.as_slice())
            + size_of_val(self.centres.as_slice())
    }

    #[inline]
    fn centres_of(&self, feature: usize) -> &[f32] {
        let count = self.coefficients.len();
        self.centres.get(feature * count..(feature + 1) * count).unwrap_or_default()
    }
}

impl Stepwise for Kernel {
    fn begin(&self, distances: &mut Units) {
        for feature in 0..self.scaling.len() {
            for (distance, centre) in distances.iter_mut().zip(self.centres_of(feature)) {
                *distance += centre * centre;
            }
        }
    }

    fn step(&self, distances: &mut Units, feature: usize, from: f32, to: f32) {
        for (distance, centre) in distances.iter_mut().zip(self.centres_of(feature)) {
            *distance += (to - centre) * (to - centre) - (from - centre) * (from - centre);
        }
    }

    fn finish(&self, distances: &Units) -> f64 {
        let mut log_odds = self.bias;
        for (distance, coefficient) in distances.iter().zip(&self.coefficients) {
            log_odds += coefficient * libm::exp((-self.gamma * f64::from(*distance)).min(0.0));
        }
        log_odds
    }
}
