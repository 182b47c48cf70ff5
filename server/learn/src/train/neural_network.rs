//! The neural network: one or two hidden layers.
//!
//! Own code rather than `candle` or `burn`: what is learned is a few thousand weights, the scorer has to be our own
//! anyway (no allocation, the same bits everywhere), and so are its sums, whose order a library would have to promise on
//! every processor and with any number of threads.

use picket_common::model::calibration::logistic;
use picket_common::model::{Algorithm, Layer, ModelBody};

use crate::random::SplitMix64;
use crate::train::fold::Folds;
use crate::train::linear_svm::weight_of;
use crate::train::platt::log_loss;
use crate::train::smartcore_tree::engine_error;
use crate::train::weight::weights;
use crate::train::{
    Control, FittedModel, NetworkParams, Params, TrainError, Trainer, TrainingSet, ValidParams, standard,
};

use adam::Adam;
use dense::{Dense, Trace};

mod adam;
mod dense;

const ALGORITHM: Algorithm = Algorithm::NeuralNetwork;
/// Rows of one step.
const BATCH: usize = 64;
/// Fewest steps, so that few rows are learned from, too.
const STEPS_MIN: usize = 3_000;
/// Of so many parts of the groups, one is held out to see when to stop.
const HELD_OUT_PARTS: usize = 8;
/// What the step size falls to, as a share.
const LAST_RATE: f64 = 0.1;

/// Standardised values through rectified linear units, the weighted log-loss made small by Adam (Kingma and Ba 2015) with
/// decoupled decay (Loshchilov and Hutter 2019). It keeps the weights after the pass in which the held-out groups' loss was
/// least. Rows are taken one after the other, so that every sum has one order.
pub(super) struct NeuralNetwork;

impl Trainer for NeuralNetwork {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }

    fn candidates(&self, _feature_count: usize) -> Vec<ValidParams> {
        [(64, 32), (32, 0), (128, 64)]
            .into_iter()
            .filter_map(|(units, second_units)| {
                let network = NetworkParams { units, second_units, ..NetworkParams::default() };
                ValidParams::new(Params::NeuralNetwork(network)).ok()
            })
            .collect()
    }

    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64 {
        let Params::NeuralNetwork(network) = *params.get() else { return 0 };
        let (units, second) = (u64::from(network.units), u64::from(network.second_units));
        let weights = units * (set.feature_count() as u64 + 1) + second * (units + 1) + units.max(second);
        let rows = (passes(set.len(), &network) * set.len()) as u64;
        // Forward, backward, and the change.
        3 * weights * rows / 4
    }

    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError> {
        let Params::NeuralNetwork(network) = *params.get() else {
            return Err(engine_error(ALGORITHM, "parameters of another algorithm"));
        };
        let scaling = standard::learn(set);
        let rows = Rows {
            width: set.feature_count(),
            values: standard::matrix(set, &scaling),
            malicious: set.malicious(),
            weights: weights(set),
        };
        let (held_out, mut kept) = if network.early_stopping_passes == 0 {
            (Vec::new(), (0..set.len()).collect())
        } else {
            Folds::assign(set, HELD_OUT_PARTS, seed).split(0)
        };
        let layers = learn(&rows, &mut kept, &held_out, &network, seed, control)?;
        let layers = layers.into_iter().map(|layer| Layer {
            biases: layer.biases().iter().map(|bias| weight_of(f64::from(*bias))).collect(),
            weights: layer.weights().iter().map(|weight| weight_of(f64::from(*weight))).collect(),
        });
        Ok(FittedModel { body: ModelBody::Network { scaling, layers: layers.collect() } })
    }
}

/// Passes over the rows.
fn passes(rows: usize, network: &NetworkParams) -> usize {
    usize::from(network.passes).max(STEPS_MIN.div_ceil(rows.div_ceil(BATCH).max(1)))
}

struct Rows<'a> {
    width: usize,
    values: Vec<f32>,
    malicious: &'a [bool],
    weights: Vec<f64>,
}

impl Rows<'_> {
    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

fn learn(
    rows: &Rows<'_>,
    kept: &mut [usize],
    held_out: &[usize],
    network: &NetworkParams,
    seed: u64,
    control: &Control<'_>,
) -> Result<Vec<Dense>, TrainError> {
    let mut random = SplitMix64::new(seed);
    let mut widths = vec![rows.width, network.units.into(), network.second_units.into(), 1];
    widths.retain(|width| *width > 0);
    let mut layers: Vec<Dense> = widths.windows(2).map(|pair| Dense::random(pair[0], pair[1], &mut random)).collect();
    let mut gradients = layers.clone();
    let mut adams: Vec<Adam> = layers.iter().map(|layer| Adam::new(layer.parameters.len())).collect();
    let mut trace = Trace::new(&layers);
    let passes = passes(kept.len(), network);
    let mut best = (f64::INFINITY, 0, layers.clone());
    for pass in 0..passes {
        random.shuffle(kept);
        let share = pass as f64 / passes as f64;
        let rate = network.learning_rate * (1.0 - (1.0 - LAST_RATE) * share);
        for batch in kept.chunks(BATCH) {
            control.check()?;
            gradients.iter_mut().for_each(|gradient| gradient.parameters.fill(0.0));
            for row in batch {
                let log_odds = trace.forward(&layers, rows.row(*row));
                let error = logistic(log_odds.into()) - f64::from(u8::from(rows.malicious[*row]));
                let slope = rows.weights[*row] * error / batch.len() as f64;
                trace.backward(&layers, &mut gradients, rows.row(*row), slope as f32);
            }
            for ((layer, gradient), adam) in layers.iter_mut().zip(&gradients).zip(&mut adams) {
                adam.step(layer, gradient, rate, network.decay);
            }
        }
        if held_out.is_empty() {
            continue;
        }
        let loss = loss_of(rows, held_out, &layers, &mut trace);
        if loss < best.0 {
            best = (loss, pass, layers.clone());
        } else if pass - best.1 >= usize::from(network.early_stopping_passes).max(passes / 8) {
            break;
        }
    }
    Ok(if best.0.is_finite() { best.2 } else { layers })
}

fn loss_of(rows: &Rows<'_>, of: &[usize], layers: &[Dense], trace: &mut Trace) -> f64 {
    of.iter()
        .map(|row| {
            let log_odds = f64::from(trace.forward(layers, rows.row(*row)));
            rows.weights[*row] * log_loss(log_odds, f64::from(u8::from(rows.malicious[*row])))
        })
        .sum()
}
