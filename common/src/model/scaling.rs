//! Standardised values, for models that add up what they are given.

use crate::model::Vector;
use crate::model::limits::STANDARDISED_MAX;

/// How the values of one feature are standardised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Take sign(x) · ln(1 + |x|) of the value first: bytes, counts and durations span many powers of ten.
    pub signed_log: bool,
    /// Mean of the training rows, after the logarithm if there is one.
    pub mean: f64,
    /// 1 / standard deviation of the training rows; 0 for a constant feature.
    pub inverse_scale: f64,
}

impl Scaling {
    /// The standardised value: deviations from the mean, at most [`STANDARDISED_MAX`] to either side. A missing value (one
    /// that is not finite) stands at the mean.
    #[inline]
    pub fn apply(&self, value: f32) -> f32 {
        if !value.is_finite() {
            return 0.0;
        }
        let standardised = (self.transform(value) - self.mean) * self.inverse_scale;
        // At most 8 in magnitude: what is cut off are digits.
        standardised.clamp(-STANDARDISED_MAX, STANDARDISED_MAX) as f32
    }

    /// The value that mean and scale are of.
    #[inline]
    pub fn transform(&self, value: f32) -> f64 {
        let value = f64::from(value);
        if self.signed_log { libm::copysign(libm::log1p(value.abs()), value) } else { value }
    }

    /// [`Scaling::apply`] to a feature of a vector.
    #[inline]
    pub(super) fn of(&self, vector: Vector<'_>, feature: usize) -> f32 {
        vector.get(feature).map_or(0.0, |value| self.apply(value))
    }
}

pub(super) fn memory_bytes(scaling: &[Scaling]) -> usize {
    size_of_val(scaling)
}
