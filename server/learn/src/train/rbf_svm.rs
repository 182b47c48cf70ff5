//! The support vector machine with a radial basis function.

use picket_common::model::limits::{LOG_ODDS_MAX, UNITS_MAX};
use picket_common::model::{Algorithm, ModelBody, Scaling};

use crate::random::SplitMix64;
use crate::train::margin::{Rows, WidestMargin, product, widest};
use crate::train::platt::{self, Line, Margin};
use crate::train::smartcore_tree::engine_error;
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, parallel, standard};

const ALGORITHM: Algorithm = Algorithm::RbfSvm;
/// Most rows that are learned from: of more, so many are drawn, of each class its share. Their nearness to all centres is
/// kept in memory, 1 KB a row for 256 centres.
const ROWS_MAX: usize = 50_000;
/// Rows whose nearness one job computes.
const ROWS_OF_A_JOB: usize = 1_000;
/// Added to each centre's nearness to itself, so that centres that are nearly the same have finite coefficients.
const RIDGE: f64 = 1e-4;

/// The widest margin in the space that nearness to some rows, the centres, spans (Nyström; Williams and Seeger 2001).
///
/// A machine of all rows (smartcore's) needs time and memory for the square of them, and keeps thousands as support
/// vectors, each of which a score must visit. With centres the model is as large as it is told to be, and what is learned
/// is the linear machine of [`widest`]. Centres are drawn by the rows' weights, so that half of them are malicious.
pub(super) struct RbfSvm;

impl Trainer for RbfSvm {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [(10.0, 1.0), (10.0, 3.0), (1.0, 0.3)]
            .into_iter()
            .filter_map(|(cost, gamma)| ValidParams::new(Params::RbfSvm { cost, gamma, centres: 256 }).ok())
            .collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let Params::RbfSvm { centres, .. } = *params.get() else { return 0 };
        let (rows, centres) = (set.len().min(ROWS_MAX) as u64, u64::from(centres));
        // Nearness, its projection, and the passes of four fits.
        4 * rows * centres * (set.feature_count() as u64 + centres / 2 + 16 + 2 * super::margin::PASSES)
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let Params::RbfSvm { cost, gamma, centres } = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        let drawn = drawn(set, seed);
        let set = drawn.as_ref().unwrap_or(set);
        let gamma = gamma / set.feature_count() as f64;
        let body = platt::fit_scaled(set, seed, control, |set, control| {
            let scaling = standard::learn(set);
            let values = standard::matrix(set, &scaling);
            let row_weights = weights(set);
            let space = Space::around(&centres_of(set, &values, &row_weights, centres.into(), seed), set, gamma);
            let projected = space.project_all(&values, control)?;
            let costs: Vec<f64> = row_weights.into_iter().map(|weight| cost * weight).collect();
            let width = space.count;
            let rows = Rows { width, values: &projected, malicious: set.malicious(), costs: &costs };
            Ok(Surface { scaling, margin: widest(rows, seed, control)?, space })
        })?;
        Ok(FittedModel { body })
    }
}

/// Fewer rows, if there are too many: of each class its share.
fn drawn(set: &TrainingSet, seed: u64) -> Option<TrainingSet> {
    if set.len() <= ROWS_MAX {
        return None;
    }
    let mut random = SplitMix64::for_job(seed, 1);
    let mut kept = Vec::with_capacity(ROWS_MAX);
    for class in [false, true] {
        let mut rows: Vec<usize> = (0..set.len()).filter(|row| set.malicious()[*row] == class).collect();
        random.shuffle(&mut rows);
        let share = (rows.len() as u128 * ROWS_MAX as u128).div_ceil(set.len() as u128);
        rows.truncate(usize::try_from(share).unwrap_or(usize::MAX));
        kept.extend(rows);
    }
    kept.sort_unstable();
    Some(set.subset(&kept))
}

/// Rows drawn by their weights, each at most once, row by row.
fn centres_of(set: &TrainingSet, values: &[f32], row_weights: &[f64], count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64::for_job(seed, 2);
    // The smallest of exponential times, each as fast as its row weighs (Efraimidis and Spirakis 2006).
    let mut times: Vec<(f64, usize)> = row_weights
        .iter()
        .enumerate()
        .map(|(row, weight)| (-libm::log(1.0 - random.unit()) / weight.max(f64::MIN_POSITIVE), row))
        .collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let width = set.feature_count();
    let rows = times.into_iter().take(count.min(UNITS_MAX)).map(|(_, row)| row);
    rows.flat_map(|row| values[row * width..(row + 1) * width].iter().copied()).collect()
}

/// What nearness to the centres spans: the Cholesky factor of their nearness to each other makes its axes upright.
struct Space {
    gamma: f64,
    features: usize,
    count: usize,
    /// Feature by feature, as they are scored with.
    centres: Vec<f32>,
    /// The lower triangle, row by row: row *k* has *k* + 1 entries.
    factor: Vec<f64>,
}

impl Space {
    fn around(rows: &[f32], set: &TrainingSet, gamma: f64) -> Self {
        let features = set.feature_count();
        let count = rows.len() / features;
        let centres = (0..features).flat_map(|feature| rows.iter().copied().skip(feature).step_by(features)).collect();
        let mut space = Self { gamma, features, count, centres, factor: Vec::new() };
        let mut nearness = vec![0.0; count];
        for (row, values) in rows.chunks_exact(features).enumerate() {
            space.nearness(values, &mut nearness);
            nearness[row] += RIDGE;
            let entries = space.solve(&nearness[..row]);
            let squares: f64 = entries.iter().map(|entry| entry * entry).sum();
            let diagonal = (nearness[row] - squares).max(0.5 * RIDGE).sqrt();
            space.factor.extend(entries.into_iter().chain([diagonal]));
        }
        space
    }

    /// How near a row is to each centre, as the scorer has it.
    fn nearness(&self, row: &[f32], into: &mut [f64]) {
        let mut distances = [0.0_f32; UNITS_MAX];
        for (value, centres) in row.iter().zip(self.centres.chunks_exact(self.count)) {
            for (distance, centre) in distances.iter_mut().zip(centres) {
                *distance += (value - centre) * (value - centre);
            }
        }
        for (near, distance) in into.iter_mut().zip(distances) {
            *near = libm::exp(-self.gamma * f64::from(distance));
        }
    }

    /// Forward substitution with the first rows of the factor.
    fn solve(&self, nearness: &[f64]) -> Vec<f64> {
        let mut solved = Vec::with_capacity(nearness.len());
        let mut start = 0;
        for (row, near) in nearness.iter().enumerate() {
            let entries = &self.factor[start..=start + row];
            let known = product(&entries[..row], &solved);
            solved.push((near - known) / entries[row]);
            start += row + 1;
        }
        solved
    }

    fn project(&self, row: &[f32]) -> Vec<f32> {
        let mut nearness = vec![0.0; self.count];
        self.nearness(row, &mut nearness);
        self.solve(&nearness).into_iter().map(|entry| entry as f32).collect()
    }

    fn project_all(&self, values: &[f32], control: &Control<'_>) -> Result<Vec<f32>, TrainError> {
        let jobs: Vec<&[f32]> = values.chunks(ROWS_OF_A_JOB * self.features).collect();
        let projected = parallel::try_map(jobs.len(), control.threads, |job| {
            control.check()?;
            Ok::<_, TrainError>(
                jobs[job].chunks_exact(self.features).flat_map(|row| self.project(row)).collect::<Vec<f32>>(),
            )
        })?;
        Ok(projected.concat())
    }

    /// What each centre's nearness counts for in a weighted sum of projections: backward substitution.
    fn coefficients(&self, weights: &[f64]) -> Vec<f64> {
        let mut coefficients = weights.to_vec();
        for row in (0..self.count).rev() {
            let start = row * (row + 1) / 2;
            let entries = &self.factor[start..=start + row];
            let value = coefficients[row] / entries[row];
            coefficients[row] = value;
            for (other, entry) in coefficients[..row].iter_mut().zip(entries) {
                *other -= entry * value;
            }
        }
        coefficients
    }
}

struct Surface {
    scaling: Vec<Scaling>,
    space: Space,
    margin: WidestMargin,
}

impl Margin for Surface {
    fn margin(&self, row: &[f32]) -> f64 {
        self.margin.of(&self.space.project(&standard::row(row, &self.scaling)))
    }

    fn into_body(self, line: Line) -> ModelBody {
        let limited = |number: f64| number.clamp(-LOG_ODDS_MAX, LOG_ODDS_MAX);
        let coefficients = self.space.coefficients(&self.margin.weights);
        ModelBody::Kernel {
            scaling: self.scaling,
            gamma: self.space.gamma,
            bias: limited(line.slope * self.margin.bias + line.offset),
            coefficients: coefficients.into_iter().map(|coefficient| limited(line.slope * coefficient)).collect(),
            centres: self.space.centres,
        }
    }
}
