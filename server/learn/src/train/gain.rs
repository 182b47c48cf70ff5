//! What a split explains, in the order in which splits are made or taken back.

use std::cmp::Ordering;

/// A gain, which is never NaN.
#[derive(PartialEq)]
pub(super) struct Gain(pub(super) f64);

impl Eq for Gain {}

impl PartialOrd for Gain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Gain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
