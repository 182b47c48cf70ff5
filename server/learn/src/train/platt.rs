//! From margins to log-odds (Platt 1999), with the targets and the safe Newton steps of Lin, Lin and Weng (2007).

use picket_common::model::ModelBody;

use crate::train::fold::Folds;
use crate::train::weight::weights;
use crate::train::{Control, TrainError, TrainingSet, parallel};

/// Folds for the margins that the line is fitted to.
const FOLDS: usize = 3;
/// Newton steps.
const STEPS_MAX: usize = 100;
/// Halvings of one step.
const HALVINGS_MAX: u32 = 20;
/// Smallest slope: higher margins always mean higher scores, even where a model is no better than chance.
const SLOPE_MIN: f64 = 1e-3;
/// Largest slope and offset.
const COEFFICIENT_MAX: f64 = 1e4;

/// A line from margins to log-odds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) slope: f64,
    pub(super) offset: f64,
}

/// A model that gives margins: the higher, the more likely malicious, on no scale of its own.
pub(super) trait Margin: Sync + Send {
    /// The margin of a row.
    fn margin(&self, row: &[f32]) -> f64;

    /// The model whose log-odds are `slope · margin + offset`.
    fn into_body(self, line: Line) -> ModelBody;
}

/// Fits to all rows; the line is fitted to margins of rows whose groups the model had not seen.
pub(super) fn fit_scaled<M: Margin>(
    set: &TrainingSet,
    seed: u64,
    control: &Control<'_>,
    fit: impl Fn(&TrainingSet, &Control<'_>) -> Result<M, TrainError> + Sync,
) -> Result<ModelBody, TrainError> {
    let folds = Folds::assign(set, FOLDS, seed);
    let margins = parallel::try_map(folds.count, control.threads, |fold| {
        control.check()?;
        let (held_out, kept) = folds.split(fold);
        let model = fit(&set.subset(&kept), &control.single_threaded())?;
        Ok::<_, TrainError>(held_out.into_iter().map(|row| (row, model.margin(set.row(row)))).collect::<Vec<_>>())
    })?;
    let mut of_row = vec![0.0; set.len()];
    for (row, margin) in margins.into_iter().flatten() {
        of_row[row] = margin;
    }
    let weights = weights(set);
    let rows: Vec<Point> = of_row
        .into_iter()
        .zip(set.malicious())
        .zip(weights)
        .map(|((margin, malicious), weight)| Point { margin, malicious: *malicious, weight })
        .collect();
    control.check()?;
    Ok(fit(set, control)?.into_body(line(&rows)))
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) margin: f64,
    pub(super) malicious: bool,
    pub(super) weight: f64,
}

/// The line of the highest likelihood. Targets lie a little inside 0 and 1, by the number of rows, so that classes that
/// are told apart perfectly give a finite slope.
pub(super) fn line(rows: &[Point]) -> Line {
    let total = |class: bool| -> f64 { rows.iter().filter(|row| row.malicious == class).map(|row| row.weight).sum() };
    let (negative, positive) = (total(false), total(true));
    let targets = [1.0 / (negative + 2.0), (positive + 1.0) / (positive + 2.0)];
    let mut at = Line { slope: 0.0, offset: libm::log((positive + 1.0) / (negative + 1.0)) };
    let mut loss = loss_of(rows, targets, at);
    for _ in 0..STEPS_MAX {
        let (step, decrease) = newton_step(rows, targets, at);
        let mut share = 1.0;
        let mut found = None;
        for _ in 0..HALVINGS_MAX {
            let next = Line { slope: at.slope + share * step.slope, offset: at.offset + share * step.offset };
            let next_loss = loss_of(rows, targets, next);
            if next_loss < loss - 1e-4 * share * decrease {
                found = Some((next, next_loss));
                break;
            }
            share /= 2.0;
        }
        let Some((next, next_loss)) = found else { break };
        let gained = loss - next_loss;
        (at, loss) = (next, next_loss);
        if gained < 1e-9 * loss.abs() {
            break;
        }
    }
    Line {
        slope: at.slope.clamp(SLOPE_MIN, COEFFICIENT_MAX),
        offset: at.offset.clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX),
    }
}

fn loss_of(rows: &[Point], targets: [f64; 2], at: Line) -> f64 {
    let loss = |row: &Point| log_loss(at.slope * row.margin + at.offset, targets[usize::from(row.malicious)]);
    rows.iter().map(|row| row.weight * loss(row)).sum()
}

/// What log-odds cost a row whose probability should be `target`.
pub(super) fn log_loss(log_odds: f64, target: f64) -> f64 {
    log_odds.max(0.0) + libm::log1p(libm::exp(-log_odds.abs())) - target * log_odds
}

/// The step, and how fast the loss falls along it.
fn newton_step(rows: &[Point], targets: [f64; 2], at: Line) -> (Line, f64) {
    // The curvature stays invertible where a model says the same of all rows.
    let (mut slope_slope, mut offset_offset, mut slope_offset) = (1e-9, 1e-9, 0.0);
    let (mut slope, mut offset) = (0.0, 0.0);
    for row in rows {
        let log_odds = at.slope * row.margin + at.offset;
        let exponential = libm::exp(-log_odds.abs());
        let probability = if log_odds >= 0.0 { 1.0 } else { exponential } / (1.0 + exponential);
        let curvature = row.weight * exponential / ((1.0 + exponential) * (1.0 + exponential));
        slope_slope += curvature * row.margin * row.margin;
        offset_offset += curvature;
        slope_offset += curvature * row.margin;
        let error = row.weight * (probability - targets[usize::from(row.malicious)]);
        slope += error * row.margin;
        offset += error;
    }
    let determinant = slope_slope * offset_offset - slope_offset * slope_offset;
    let step = Line {
        slope: -(offset_offset * slope - slope_offset * offset) / determinant,
        offset: -(slope_slope * offset - slope_offset * slope) / determinant,
    };
    (step, -(slope * step.slope + offset * step.offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn rows(slope: f64, offset: f64, count: usize) -> Vec<Point> {
        let mut random = SplitMix64::new(4);
        (0..count)
            .map(|_| {
                let margin = 6.0 * random.unit() - 3.0;
                let malicious = random.unit() < 1.0 / (1.0 + libm::exp(-(slope * margin + offset)));
                Point { margin, malicious, weight: 1.0 }
            })
            .collect()
    }

    #[test]
    fn the_line_that_made_the_rows_is_found() {
        for (slope, offset) in [(1.0, 0.0), (2.5, -1.0), (0.3, 2.0)] {
            let line = line(&rows(slope, offset, 20_000));
            assert!((line.slope - slope).abs() < 0.1 && (line.offset - offset).abs() < 0.1, "{line:?}");
        }
    }

    #[test]
    fn odd_rows_give_a_finite_rising_line() {
        let point = |margin, malicious| Point { margin, malicious, weight: 1.0 };
        let apart: Vec<Point> = (0..20).map(|row| point(f64::from(row), row >= 10)).collect();
        let upside_down: Vec<Point> = (0..20).map(|row| point(-f64::from(row), row >= 10)).collect();
        let alike: Vec<Point> = (0..20).map(|row| point(1.0, row >= 10)).collect();
        let one_class: Vec<Point> = (0..20).map(|row| point(f64::from(row), false)).collect();
        let huge: Vec<Point> = (0..20).map(|row| point(1e12 * f64::from(row), row >= 10)).collect();
        for rows in [apart, upside_down, alike, one_class, huge, Vec::new()] {
            let line = line(&rows);
            assert!(line.slope >= SLOPE_MIN && line.slope.is_finite() && line.offset.is_finite(), "{line:?}");
        }
    }
}
