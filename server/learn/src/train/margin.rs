//! The widest margin, by dual coordinate descent.
//!
//! Hsieh, Chang, Lin, Keerthi and Sundararajan (2008): one pass changes the multiplier of one row after the other, in a
//! random order, each to its best value given all others. It needs memory for one number a row beside the rows
//! themselves, where a solver for any kernel (smartcore's) needs time and memory for the square of them.

use crate::random::SplitMix64;
use crate::train::{Control, TrainError};

/// Passes over the rows.
const PASSES_MAX: usize = 100;
/// Passes until it converges, roughly.
pub(super) const PASSES: u64 = 60;
/// It ends when no multiplier's slope differs from the others' by more than this.
const TOLERANCE: f64 = 0.02;
/// Sums that a product is added up in.
const LANES: usize = 8;

/// A weighted sum of a row's values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WidestMargin {
    pub(super) weights: Vec<f64>,
    pub(super) bias: f64,
}

impl WidestMargin {
    pub(super) fn of(&self, row: &[f32]) -> f64 {
        self.bias + product(&self.weights, row)
    }
}

/// What is to be told apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) width: usize,
    /// Row by row, standardised.
    pub(super) values: &'a [f32],
    pub(super) malicious: &'a [bool],
    /// What a row within the margin costs.
    pub(super) costs: &'a [f64],
}

/// Minimises half of the squared weights plus, for each row, its cost times its squared distance from the right side of
/// the margin.
pub(super) fn widest(rows: Rows<'_>, seed: u64, control: &Control<'_>) -> Result<WidestMargin, TrainError> {
    let count = rows.malicious.len();
    let row = |index: usize| &rows.values[index * rows.width..(index + 1) * rows.width];
    // The bias is the weight of a value that is always 1; so is it penalised, which matters little.
    let curvatures: Vec<f64> = (0..count).map(|index| 1.0 + squares(row(index)) + slack(rows.costs[index])).collect();
    let mut multipliers = vec![0.0; count];
    let mut found = WidestMargin { weights: vec![0.0; rows.width], bias: 0.0 };
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = SplitMix64::new(seed);
    for _ in 0..PASSES_MAX {
        control.check()?;
        random.shuffle(&mut order);
        let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
        for &index in &order {
            let values = row(index);
            let side = if rows.malicious[index] { 1.0 } else { -1.0 };
            let before: f64 = multipliers[index];
            let slope = side * found.of(values) - 1.0 + slack(rows.costs[index]) * before;
            let projected = if before == 0.0 { slope.min(0.0) } else { slope };
            lowest = lowest.min(projected);
            highest = highest.max(projected);
            if projected == 0.0 {
                continue;
            }
            let after = (before - slope / curvatures[index]).max(0.0);
            multipliers[index] = after;
            let change = (after - before) * side;
            for (weight, value) in found.weights.iter_mut().zip(values) {
                *weight += change * f64::from(*value);
            }
            found.bias += change;
        }
        if highest - lowest <= TOLERANCE {
            break;
        }
    }
    Ok(found)
}

/// Rows of small cost may lie far on the wrong side.
fn slack(cost: f64) -> f64 {
    0.5 / cost.max(f64::MIN_POSITIVE)
}

fn squares(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum()
}

/// In eight sums, so that it need not wait for each addition; their order is fixed.
pub(super) fn product<T: Copy + Into<f64>>(weights: &[f64], row: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (weight_chunks, row_chunks) = (weights.chunks_exact(LANES), row.chunks_exact(LANES));
    let rest = weight_chunks.remainder().iter().zip(row_chunks.remainder());
    for (weights, values) in weight_chunks.zip(row_chunks) {
        for ((lane, weight), value) in lanes.iter_mut().zip(weights).zip(values) {
            *lane += weight * (*value).into();
        }
    }
    let rest: f64 = rest.map(|(weight, value)| weight * (*value).into()).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_of_products() {
        for length in [0, 1, 7, 8, 9, 40] {
            let weights: Vec<f64> = (0..length).map(|index| f64::from(index) - 3.5).collect();
            let row: Vec<f32> = (0..length).map(|index| (index * index % 7) as f32).collect();
            let expected: f64 = weights.iter().zip(&row).map(|(weight, value)| weight * f64::from(*value)).sum();
            assert!((product(&weights, &row) - expected).abs() < 1e-9);
        }
    }

    /// The optimum of a problem that can be solved by hand: two rows at ±2 with large costs have the margin between.
    #[test]
    fn the_margin_is_as_wide_as_can_be() {
        let rows = Rows { width: 1, values: &[-2.0, 2.0], malicious: &[false, true], costs: &[1e6; 2] };
        let found = widest(rows, 1, &Control::unobserved()).unwrap();
        assert!((found.weights[0] - 0.5).abs() < 1e-2 && found.bias.abs() < 1e-2, "{found:?}");
        // A cheap row on the wrong side moves it only a little.
        let values = [-2.0, 2.0, 2.0];
        let rows = Rows { width: 1, values: &values, malicious: &[false, true, false], costs: &[1e6, 1e6, 1e-3] };
        let moved = widest(rows, 1, &Control::unobserved()).unwrap();
        assert!((moved.weights[0] - found.weights[0]).abs() < 1e-2, "{moved:?}");
    }

    /// At the optimum of the squared hinge loss the penalty's slope is that of the losses.
    #[test]
    fn the_slope_vanishes_at_the_optimum() {
        let mut random = SplitMix64::new(5);
        let malicious: Vec<bool> = (0..400).map(|row| row % 3 == 0).collect();
        let values: Vec<f32> = malicious
            .iter()
            .flat_map(|malicious| [0.0, 0.5, 1.0].map(|shift| if *malicious { shift } else { 0.0 }))
            .map(|shift| shift + (random.unit() + random.unit() - 1.0) as f32)
            .collect();
        let costs = vec![0.3; 400];
        let rows = Rows { width: 3, values: &values, malicious: &malicious, costs: &costs };
        let found = widest(rows, 1, &Control::unobserved()).unwrap();
        let mut slope = found.weights.clone();
        for (row, malicious) in values.chunks_exact(3).zip(&malicious) {
            let side = if *malicious { 1.0 } else { -1.0 };
            let short = (1.0 - side * found.of(row)).max(0.0);
            for (slope, value) in slope.iter_mut().zip(row) {
                *slope -= 2.0 * 0.3 * short * side * f64::from(*value);
            }
        }
        let scale: f64 = found.weights.iter().map(|weight| weight.abs()).sum();
        assert!(scale > 1.0 && slope.iter().all(|slope| slope.abs() < 0.05 * scale), "{slope:?} {found:?}");
    }
}
