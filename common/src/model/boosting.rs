//! Gradient boosting: trees that are added up, through the logistic function.

use crate::model::forest::Forest;
use crate::model::linear::logistic;
use crate::model::{Contribution, Vector};

/// A base score and trees, all in log-odds. Built only by the reader, which has proven every number finite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Boosting {
    pub(super) base_score: f64,
    pub(super) trees: Forest,
}

impl Boosting {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        logistic(self.base_score + self.trees.sum(vector))
    }

    pub(super) fn baseline(&self) -> f64 {
        self.base_score + self.trees.expected_sum()
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        self.trees.explain_sum(vector, into);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.trees.memory_bytes()
    }
}
