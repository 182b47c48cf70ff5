//! Log-odds of the rows and the slopes of their loss.

use crate::train::boosting::histogram::{RowSlope, Slope};

/// Rows of a segment at most: a row's place in its segment has 16 bits.
pub(super) const SEGMENT_ROWS_MAX: usize = 1 << 16;

/// How many units gradients and curvatures are counted in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// Units of a gradient of 1.
    pub(super) gradient: f64,
    /// Units of a curvature of 1.
    pub(super) curvature: f64,
}

impl Scale {
    /// As fine as the sums over all rows allow: a row's gradient is at most its weight, its curvature at most a quarter.
    pub(super) fn of(weights: &[f64], boost: f64) -> Self {
        let total: f64 = weights.iter().sum::<f64>() * boost;
        let greatest = weights.iter().copied().fold(0.0, f64::max) * boost;
        // Rounding adds at most one for each row.
        let room = Slope::SUM_MAX - 2.0 * weights.len() as f64;
        Self {
            gradient: (RowSlope::GRADIENT_MAX / greatest).min(room / total),
            curvature: (4.0 * RowSlope::CURVATURE_MAX / greatest).min(4.0 * room / total),
        }
    }
}

/// Some rows that follow each other: what is known of each of them.
pub(super) struct Segment {
    /// Number of its first row.
    pub(super) base: usize,
    /// Log-odds so far.
    pub(super) scores: Vec<f32>,
    /// For the next tree.
    pub(super) slopes: Vec<RowSlope>,
    /// Weight, positive for malicious rows, negative for benign ones.
    signed_weights: Vec<f32>,
}

impl Segment {
    /// Rows from `base` on, all at the same log-odds.
    pub(super) fn new(base: usize, weights: &[f64], malicious: &[bool], score: f32) -> Self {
        let signed = |(weight, malicious): (&f64, &bool)| if *malicious { *weight as f32 } else { -*weight as f32 };
        Self {
            base,
            scores: vec![score; weights.len()],
            slopes: vec![RowSlope::default(); weights.len()],
            signed_weights: weights.iter().zip(malicious).map(signed).collect(),
        }
    }

    /// Computes the slopes of all rows at their log-odds.
    ///
    /// Rounding is dithered: each row is rounded up or down by its place in a sequence that is spread evenly over the
    /// rows and shifted by `shift`, so that what is far below one unit still counts in sums.
    pub(super) fn update_slopes(&mut self, scale: Scale, shift: u32) {
        /// 2^32 divided by the golden ratio: multiples of it are spread evenly.
        const GRADIENT_STEP: u32 = 0x9e37_79b9;
        /// 2^32 times the fraction of the square root of two.
        const CURVATURE_STEP: u32 = 0x6a09_e667;
        let (gradient_scale, curvature_scale) = (scale.gradient as f32, scale.curvature as f32);
        let first = (self.base as u32).wrapping_mul(GRADIENT_STEP).wrapping_add(shift);
        let first_curvature = (self.base as u32).wrapping_mul(CURVATURE_STEP).wrapping_add(shift.rotate_left(16));
        let (mut place, mut curvature_place) = (first, first_curvature);
        for ((score, weight), slope) in self.scores.iter().zip(&self.signed_weights).zip(&mut self.slopes) {
            let margin = if *weight < 0.0 { -*score } else { *score };
            // How far the probability is from the label.
            let miss = 1.0 / (1.0 + exp(margin));
            let gradient = -*weight * miss * gradient_scale;
            let curvature = weight.abs() * miss * (1.0 - miss) * curvature_scale;
            *slope = RowSlope::new(round(gradient, place), round(curvature, curvature_place) as u32);
            place = place.wrapping_add(GRADIENT_STEP);
            curvature_place = curvature_place.wrapping_add(CURVATURE_STEP);
        }
    }

    /// Weighted log-loss of some of its rows.
    pub(super) fn log_loss(&self, rows: &[u16]) -> f64 {
        let loss = |row: &u16| {
            let (score, weight) = (f64::from(self.scores[usize::from(*row)]), self.signed_weights[usize::from(*row)]);
            let margin = if weight < 0.0 { -score } else { score };
            f64::from(weight.abs()) * (libm::log1p(libm::exp(-margin.abs())) + (-margin).max(0.0))
        };
        rows.iter().map(loss).sum()
    }

    /// Makes a row stand for `times` as many.
    pub(super) fn amplify(&mut self, row: u16, times: f64) {
        let slope = &mut self.slopes[usize::from(row)];
        let sum = slope.sum();
        let times = |part: i32| (f64::from(part) * times).round();
        *slope = RowSlope::new(times(sum.gradient()) as i32, times(sum.curvature()) as u32);
    }

    /// A row's gradient, in units.
    pub(super) fn gradient(&self, row: u16) -> i32 {
        self.slopes[usize::from(row)].sum().gradient()
    }
}

/// Rounds to one of the two whole numbers beside `value`; `place` says which.
#[inline]
fn round(value: f32, place: u32) -> i32 {
    /// Numbers from 2^23 to 2^24 have no fraction.
    const NO_FRACTION: f32 = 12_582_912.0;
    let part = f32::from_bits(place >> 9 | 1.0_f32.to_bits()) - 1.5;
    ((value + part) + NO_FRACTION).to_bits().wrapping_sub(NO_FRACTION.to_bits()) as i32
}

/// `e^x` to a relative error of 3e-7, the same bits on every machine: only additions and multiplications. Values are cut
/// to ±87.
#[inline]
fn exp(x: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let whole = x * std::f32::consts::LOG2_E + NO_FRACTION;
    let power = whole.to_bits().wrapping_sub(NO_FRACTION.to_bits());
    let whole = whole - NO_FRACTION;
    // ln 2 in two parts, the first with few bits, so that the product is exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let terms = [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5];
    let mut sum = terms[0];
    for term in &terms[1..] {
        sum = sum * rest + term;
    }
    let fraction = sum * rest * rest + rest + 1.0;
    f32::from_bits(fraction.to_bits().wrapping_add(power << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close() {
        for step in -8_700..=8_700 {
            let x = step as f32 / 100.0;
            let (found, expected) = (f64::from(exp(x)), libm::exp(f64::from(x)));
            assert!((found / expected - 1.0).abs() < 3e-7, "{x}: {found} {expected}");
        }
        assert_eq!(exp(1e30), exp(87.0));
    }

    #[test]
    fn rounding_is_right_on_average() {
        for value in [0.0_f32, 0.3, -0.7, 12.25, -31_999.9, 64_999.5, 0.001] {
            let sum: i64 = (0..100_000_u32).map(|row| i64::from(round(value, row.wrapping_mul(0x9e37_79b9)))).sum();
            let mean = sum as f64 / 100_000.0;
            assert!((mean - f64::from(value)).abs() < 4e-3, "{value}: {mean}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_log_loss() {
        let weights = [1.0, 2.0, 0.5, 1.0, 3.0];
        let malicious = [true, false, true, false, true];
        let scale = Scale::of(&weights, 1.0);
        let mut segment = Segment::new(0, &weights, &malicious, 0.0);
        segment.scores = vec![0.3, -2.0, 5.0, 9.0, -40.0];
        segment.update_slopes(scale, 77);
        for row in 0..weights.len() {
            let slope = segment.slopes[row].sum();
            let probability = 1.0 / (1.0 + libm::exp(-f64::from(segment.scores[row])));
            let gradient = weights[row] * (probability - f64::from(u8::from(malicious[row])));
            let curvature = weights[row] * probability * (1.0 - probability);
            assert!((f64::from(slope.gradient()) - gradient * scale.gradient).abs() <= 1.1, "{row}");
            assert!((f64::from(slope.curvature()) - curvature * scale.curvature).abs() <= 1.1, "{row}");
        }
    }
}
