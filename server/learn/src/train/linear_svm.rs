//! The linear support vector machine.

use picket_common::model::limits::WEIGHT_MAX;
use picket_common::model::{Algorithm, Layer, ModelBody, Scaling};

use crate::train::margin::{self, Rows, WidestMargin, widest};
use crate::train::platt::{self, Line, Margin};
use crate::train::smartcore_tree::engine_error;
use crate::train::weight::weights;
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, standard};

const ALGORITHM: Algorithm = Algorithm::LinearSvm;

/// A weighted sum of the standardised values with the widest margin between the classes; a line fitted to margins of rows
/// that were not learned from makes log-odds of it ([`platt`]).
pub(super) struct LinearSvm;

impl Trainer for LinearSvm {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [1.0, 0.1, 0.01].into_iter().filter_map(|cost| ValidParams::new(Params::LinearSvm { cost }).ok()).collect()
    }

    fn cost(&self, set: &TrainingSet, _params: &ValidParams) -> u64 {
        // A product and a change for each row and pass, of four fits.
        4 * 2 * set.len() as u64 * set.feature_count() as u64 * margin::PASSES
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let Params::LinearSvm { cost } = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        let body = platt::fit_scaled(set, seed, control, |set, control| {
            let scaling = standard::learn(set);
            let costs: Vec<f64> = weights(set).into_iter().map(|weight| cost * weight).collect();
            let rows = Rows {
                width: set.feature_count(),
                values: &standard::matrix(set, &scaling),
                malicious: set.malicious(),
                costs: &costs,
            };
            Ok(Plane { margin: widest(rows, seed, control)?, scaling })
        })?;
        Ok(FittedModel { body })
    }
}

struct Plane {
    scaling: Vec<Scaling>,
    margin: WidestMargin,
}

impl Margin for Plane {
    fn margin(&self, row: &[f32]) -> f64 {
        self.margin.of(&standard::row(row, &self.scaling))
    }

    fn into_body(self, line: Line) -> ModelBody {
        let weights = self.margin.weights.iter().map(|weight| weight_of(line.slope * weight)).collect();
        let bias = weight_of(line.slope * self.margin.bias + line.offset);
        ModelBody::Network { scaling: self.scaling, layers: vec![Layer { biases: vec![bias], weights }] }
    }
}

/// A number of a layer.
pub(super) fn weight_of(number: f64) -> f32 {
    (number as f32).clamp(-WEIGHT_MAX, WEIGHT_MAX)
}
