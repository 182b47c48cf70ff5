//! Naive Bayes: what each value says by itself, added up.

use crate::model::linear::logistic;
use crate::model::{Contribution, Vector};

/// What the values of one feature say: a step function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// Where steps are, strictly ascending. A value less than or equal to the first stands on the first step.
    pub edges: Vec<f32>,
    /// Log-odds on each step: one more than there are edges, or none at all for a feature that says nothing.
    pub log_odds: Vec<f32>,
}

impl Steps {
    /// What a value says; nothing when it is missing.
    #[inline]
    pub fn log_odds(&self, value: Option<f32>) -> f64 {
        let Some(value) = value else { return 0.0 };
        let step = self.edges.partition_point(|edge| value > *edge);
        self.log_odds.get(step).map_or(0.0, |log_odds| f64::from(*log_odds))
    }
}

/// A sum of step functions through the logistic function. Built only by the reader, which has proven every number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Additive {
    pub(super) bias: f64,
    pub(super) features: Vec<Steps>,
}

impl Additive {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        let mut log_odds = self.bias;
        for (feature, steps) in self.features.iter().enumerate() {
            log_odds += steps.log_odds(vector.get(feature));
        }
        logistic(log_odds)
    }

    pub(super) fn baseline(&self) -> f64 {
        self.bias
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        for (entry, steps) in into.iter_mut().zip(&self.features) {
            entry.contribution = steps.log_odds(vector.get(entry.feature));
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let steps = |steps: &Steps| size_of_val(steps.edges.as_slice()) + size_of_val(steps.log_odds.as_slice());
        size_of_val(self.features.as_slice()) + self.features.iter().map(steps).sum::<usize>()
    }
}
