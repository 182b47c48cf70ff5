//! Isolation forests (Liu, Ting, Zhou, Isolation Forest, 2008): how few random splits set a row apart from others.

use crate::model::forest::Forest;
use crate::model::{Contribution, Vector};

/// Trees whose leaves hold path lengths, and the mean path length of a search tree of as many rows as each learned from.
/// Built only by the reader, which has proven every number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Isolation {
    /// At least 1, so that a path can be divided by it.
    pub(super) normaliser: f64,
    pub(super) trees: Forest,
}

impl Isolation {
    /// `2^(−mean path length / normaliser)`: above 0 and at most 1, as no path length is below 0 or beyond its limit.
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        libm::exp2(-self.trees.score(vector) / self.normaliser)
    }

    /// The mean path length of the training rows, negative: short paths are towards an alert.
    pub(super) fn baseline(&self) -> f64 {
        -self.trees.expected()
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        self.trees.explain(vector, into);
        for entry in into {
            entry.contribution = -entry.contribution;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.trees.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
