//! Logistic regression.

use std::cell::RefCell;

use picket_common::model::limits::COEFFICIENT_MAX;
use picket_common::model::{Algorithm, ModelBody, Scaling};
use smartcore::optimization::FunctionOrder;
use smartcore::optimization::first_order::FirstOrderOptimizer as _;
use smartcore::optimization::first_order::lbfgs::LBFGS;
use smartcore::optimization::line_search::Backtracking;

use crate::train::smartcore_tree::engine_error;
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, standard};

const ALGORITHM: Algorithm = Algorithm::LogisticRegression;
/// Steps of the optimiser.
const ITERATIONS_MAX: usize = 200;
/// The optimiser ends when two steps change the loss by less than this share.
const LOSS_TOLERANCE: f64 = 1e-7;
/// Passes over the rows until the optimiser ends, roughly.
const PASSES: u64 = 150;

/// A weighted sum of the standardised values through the logistic function.
///
/// Mean and standard deviation come from the present values of the training part. A missing value adds nothing, which is
/// the same as standing at the mean. A constant feature gets no weight.
///
/// smartcore's L-BFGS minimises the weighted log-loss plus half of `ridge` times the sum of the squared weights, the
/// bias left out. Its own regression is not used: it knows no row weights, and it goes on until the loss does not change
/// in the last bit, a hundred times longer than the decisions change.
pub(super) struct LogisticRegression;

impl Trainer for LogisticRegression {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [1.0, 10.0, 100.0]
            .into_iter()
            .filter_map(|ridge| ValidParams::new(Params::LogisticRegression { ridge }).ok())
            .collect()
    }

    fn cost(&self, set: &TrainingSet, _params: &ValidParams) -> u64 {
        2 * set.len() as u64 * set.feature_count() as u64 * PASSES
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
        let scaling = standard::learn_plain(set);
        let objective = Objective::new(set, &scaling, ridge, control);
        let start = vec![0.0; set.feature_count() + 1];
        let optimizer = LBFGS { max_iter: ITERATIONS_MAX, f_reltol: LOSS_TOLERANCE, g_atol: 1e-6, ..LBFGS::default() };
        let search = Backtracking { order: FunctionOrder::THIRD, ..Backtracking::default() };
        let found = optimizer.optimize(
            &|at: &Vec<f64>| objective.loss(at),
            &|gradient: &mut Vec<f64>, at: &Vec<f64>| objective.gradient(gradient, at),
            &start,
            &search,
        );
        control.check()?;
        let mut weights = found.x;
        let bias = weights.pop().unwrap_or_default();
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

/// The penalised loss over the rows. A point is the weights, then the bias.
struct Objective<'a> {
    feature_count: usize,
    /// Standardised, row by row.
    values: Vec<f64>,
    malicious: &'a [bool],
    row_weights: Vec<f64>,
    ridge: f64,
    control: &'a Control<'a>,
    /// The last point and what was found there: the optimiser asks for loss and gradient of a point apart.
    last: RefCell<Evaluation>,
}

#[derive(Default)]
struct Evaluation {
    at: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
}

impl<'a> Objective<'a> {
    fn new(set: &'a TrainingSet, scaling: &[Scaling], ridge: f64, control: &'a Control<'a>) -> Self {
        let standardised = |row: &'a [f32]| {
            row.iter().zip(scaling).map(|(value, scaling)| standardised(*value, *scaling)).collect::<Vec<_>>()
        };
        Self {
            feature_count: set.feature_count(),
            values: set.rows().flat_map(standardised).collect(),
            malicious: set.malicious(),
            row_weights: weights(set),
            ridge,
            control,
            last: RefCell::default(),
        }
    }

    fn loss(&self, at: &[f64]) -> f64 {
        self.evaluate(at);
        self.last.borrow().loss
    }

    fn gradient(&self, into: &mut Vec<f64>, at: &[f64]) {
        self.evaluate(at);
        into.clone_from(&self.last.borrow().gradient);
    }

    fn evaluate(&self, at: &[f64]) {
        let mut last = self.last.borrow_mut();
        if last.at == at {
            return;
        }
        let (weights, bias) = at.split_at(self.feature_count);
        let mut gradient: Vec<f64> = weights.iter().map(|weight| self.ridge * weight).collect();
        let mut bias_gradient = 0.0;
        let mut loss = 0.5 * self.ridge * weights.iter().map(|weight| weight * weight).sum::<f64>();
        // Nobody wants the result: a flat loss ends the search.
        let wanted = !self.control.observer.cancelled();
        let rows = self.values.chunks_exact(self.feature_count).zip(self.malicious).zip(&self.row_weights);
        for ((row, malicious), row_weight) in rows.filter(|_| wanted) {
            let log_odds = bias[0] + row.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>();
            let label = f64::from(u8::from(*malicious));
            // ln(1 + e^x) − label · x, with the exponential of a non-positive number only.
            let exponential = (-log_odds.abs()).exp();
            loss += row_weight * (log_odds.max(0.0) + exponential.ln_1p() - label * log_odds);
            let probability = if log_odds >= 0.0 { 1.0 } else { exponential } / (1.0 + exponential);
            let slope = row_weight * (probability - label);
            bias_gradient += slope;
            for (sum, value) in gradient.iter_mut().zip(row) {
                *sum += slope * value;
            }
        }
        gradient.push(bias_gradient);
        *last = Evaluation { at: at.to_vec(), loss, gradient };
    }
}

/// As the scorer has it; without the cut of [`Scaling::apply`], which this form of model lacks.
fn standardised(value: f32, scaling: Scaling) -> f64 {
    if value.is_nan() { 0.0 } else { (f64::from(value) - scaling.mean) * scaling.inverse_scale }
}
