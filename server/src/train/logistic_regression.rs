//! Logistic regression.

use picket_common::model::limits::COEFFICIENT_MAX;
use picket_common::model::{Algorithm, ModelBody};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{
    LogisticRegression as EngineRegression, LogisticRegressionParameters, LogisticRegressionSolverName,
};

use crate::train::smartcore_tree::engine_error;
use crate::train::weight::repetitions;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams};

const ALGORITHM: Algorithm = Algorithm::LogisticRegression;
/// A feature whose standard deviation is smaller than this share of its mean is a constant with rounding errors.
const CONSTANT_DEVIATION: f64 = 1e-9;

/// A weighted sum of the standardised values through the logistic function.
///
/// Mean and standard deviation come from the present values of the training part. A missing value adds nothing, which is
/// the same as standing at the mean. A constant feature gets no weight.
pub(super) struct LogisticRegression;

impl Trainer for LogisticRegression {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [1.0, 0.1, 10.0, 100.0]
            .into_iter()
            .filter_map(|ridge| ValidParams::new(Params::LogisticRegression { ridge }).ok())
            .collect()
    }

    fn cost(&self, set: &TrainingSet, _params: &ValidParams) -> u64 {
        /// Evaluations of the objective and its gradient until it converges, roughly.
        const EVALUATIONS: u64 = 200;
        2 * set.len() as u64 * set.feature_count() as u64 * EVALUATIONS
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        _seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        control.check()?;
        let Params::LogisticRegression { ridge } = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        let scaling: Vec<Scaling> = (0..set.feature_count()).map(|feature| Scaling::of(set.column(feature))).collect();
        let mut values = Vec::new();
        let mut labels: Vec<u32> = Vec::new();
        for ((row, malicious), times) in set.rows().zip(set.malicious()).zip(repetitions(set)) {
            for _ in 0..times {
                values.extend(row.iter().zip(&scaling).map(|(value, scaling)| scaling.standardise(*value)));
                labels.push(u32::from(*malicious));
            }
        }
        let matrix = DenseMatrix::new(labels.len(), set.feature_count(), values, false)
            .map_err(|error| engine_error(ALGORITHM, error))?;
        let parameters = LogisticRegressionParameters { solver: LogisticRegressionSolverName::LBFGS, alpha: ridge };
        let fitted =
            EngineRegression::fit(&matrix, &labels, parameters).map_err(|error| engine_error(ALGORITHM, error))?;

        // The engine's second class is the one whose probability it models; classes are in rising order.
        if fitted.classes() != &[0, 1] {
            return Err(engine_error(ALGORITHM, "the classes are not benign and malicious"));
        }
        let weights: Vec<f64> =
            (0..set.feature_count()).map(|feature| *fitted.coefficients().get((0, feature))).collect();
        let bias = *fitted.intercept().get((0, 0));
        if weights.iter().chain([&bias]).any(|weight| !weight.is_finite() || weight.abs() > COEFFICIENT_MAX) {
            return Err(engine_error(ALGORITHM, "it did not converge"));
        }
        Ok(FittedModel {
            body: ModelBody::Linear {
                weights,
                bias,
                mean: scaling.iter().map(|scaling| scaling.mean).collect(),
                inverse_scale: scaling.iter().map(|scaling| scaling.inverse_scale).collect(),
            },
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Scaling {
    mean: f64,
    inverse_scale: f64,
}

impl Scaling {
    fn of(column: impl Iterator<Item = f32> + Clone) -> Self {
        let present = || column.clone().filter(|value| !value.is_nan()).map(f64::from);
        let rows = present().count().max(1) as f64;
        let mean = present().sum::<f64>() / rows;
        let deviation = (present().map(|value| (value - mean).powi(2)).sum::<f64>() / rows).sqrt();
        let constant = deviation <= CONSTANT_DEVIATION * mean.abs() || deviation < f64::MIN_POSITIVE;
        let inverse_scale = if constant { 0.0 } else { (1.0 / deviation).min(COEFFICIENT_MAX) };
        Self { mean, inverse_scale }
    }

    fn standardise(self, value: f32) -> f64 {
        if value.is_nan() { 0.0 } else { (f64::from(value) - self.mean) * self.inverse_scale }
    }
}
