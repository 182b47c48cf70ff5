//! The vector being filled.

use crate::feature::MISSING;

/// A vector in which everything is missing until it is set.
#[derive(Debug)]
pub(super) struct Row {
    values: Box<[f32]>,
}

impl Row {
    pub(super) fn new(features: usize) -> Self {
        Self { values: vec![MISSING; features].into() }
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn clear(&mut self) {
        self.values.fill(MISSING);
    }

    /// The one place where values enter: whatever is not finite is missing, and minus zero is zero.
    pub(super) fn number(&mut self, feature: impl Into<usize>, value: f64) {
        let value = value as f32;
        if let Some(slot) = self.values.get_mut(feature.into()) {
            *slot = if value.is_finite() { value + 0.0 } else { MISSING };
        }
    }

    pub(super) fn flag(&mut self, feature: impl Into<usize>, value: bool) {
        self.number(feature, f64::from(u8::from(value)));
    }

    pub(super) fn flag_if_known(&mut self, feature: impl Into<usize>, value: Option<bool>) {
        if let Some(value) = value {
            self.flag(feature, value);
        }
    }

    pub(super) fn count(&mut self, feature: impl Into<usize>, value: usize) {
        self.number(feature, value as f64);
    }

    /// ln(1 + value).
    pub(super) fn logarithm(&mut self, feature: impl Into<usize>, value: u64) {
        self.number(feature, f64::from(libm::log1pf(value as f32)));
    }

    pub(super) fn logarithm_if_known(&mut self, feature: impl Into<usize>, value: Option<u64>) {
        if let Some(value) = value {
            self.logarithm(feature, value);
        }
    }

    /// ln(1 + value) of a quantity that need not be whole.
    pub(super) fn logarithm_of(&mut self, feature: impl Into<usize>, value: f64) {
        self.number(feature, f64::from(libm::log1pf(value as f32)));
    }

    /// ln(1 + value), rounded to the nearest multiple of ln 4.
    pub(super) fn magnitude(&mut self, feature: impl Into<usize>, value: u64) {
        self.magnitude_of(feature, value as f64);
    }

    pub(super) fn magnitude_if_known(&mut self, feature: impl Into<usize>, value: Option<u64>) {
        if let Some(value) = value {
            self.magnitude(feature, value);
        }
    }

    /// The same of a quantity that need not be whole.
    pub(super) fn magnitude_of(&mut self, feature: impl Into<usize>, value: f64) {
        /// ln 4.
        const STEP: f64 = 2.0 * std::f64::consts::LN_2;
        let steps = f64::from(libm::log1pf(value as f32)) / STEP;
        self.number(feature, libm::round(steps) * STEP);
    }

    /// part / whole; missing when there is no whole.
    pub(super) fn fraction(&mut self, feature: impl Into<usize>, part: u64, whole: u64) {
        if whole > 0 {
            self.number(feature, part as f64 / whole as f64);
        }
    }
}
