//! Logistic regression on standardised values.

use crate::model::{Contribution, Vector};

/// One feature's part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) weight: f64,
    pub(super) mean: f64,
    pub(super) inverse_scale: f64,
}

impl Term {
    /// Its share of the log-odds; nothing when the value is missing.
    #[inline]
    fn log_odds(&self, value: Option<f32>) -> f64 {
        value.map_or(0.0, |value| self.weight * ((f64::from(value) - self.mean) * self.inverse_scale))
    }
}

/// A weighted sum through the logistic function. Built only by the reader, which has proven every number finite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    pub(super) bias: f64,
    pub(super) terms: Vec<Term>,
}

impl Linear {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        let mut log_odds = self.bias;
        for (feature, term) in self.terms.iter().enumerate() {
            log_odds += term.log_odds(vector.get(feature));
        }
        logistic(log_odds)
    }

    pub(super) fn baseline(&self) -> f64 {
        self.bias
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        for (entry, term) in into.iter_mut().zip(&self.terms) {
            entry.contribution = term.log_odds(vector.get(entry.feature));
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.terms.as_slice())
    }
}

/// `1 / (1 + e^-x)`, with the exponential of a non-positive number only, so that nothing overflows.
pub fn logistic(log_odds: f64) -> f64 {
    let exponential = libm::exp(-log_odds.abs());
    if log_odds >= 0.0 { 1.0 / (1.0 + exponential) } else { exponential / (1.0 + exponential) }
}
