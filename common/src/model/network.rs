//! Layers of weighted sums: a linear support vector machine (no hidden layer) or a neural network.

use crate::model::limits::UNITS_MAX;
use crate::model::linear::logistic;
use crate::model::scaling::{self, Scaling};
use crate::model::shapley::{Stepwise, explain};
use crate::model::{Contribution, Vector};

/// One layer. Every unit of a hidden layer is cut off below zero (a rectified linear unit).
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// One for each unit.
    pub biases: Vec<f32>,
    /// For each input one weight for each unit, input by input.
    pub weights: Vec<f32>,
}

/// What units hold.
pub(super) type Units = [f32; UNITS_MAX];

/// Standardised values through layers, the last of which has one unit, through the logistic function. Built only by the
/// reader, which has proven every shape and number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Network {
    pub(super) scaling: Vec<Scaling>,
    pub(super) first: Layer,
    /// Those after the first.
    pub(super) rest: Vec<Layer>,
}

impl Network {
    pub(super) fn score(&self, vector: Vector<'_>) -> f64 {
        let mut units = [0.0; UNITS_MAX];
        self.begin(&mut units);
        for (feature, scaling) in self.scaling.iter().enumerate() {
            self.step(&mut units, feature, 0.0, scaling.of(vector, feature));
        }
        logistic(self.finish(&units))
    }

    pub(super) fn baseline(&self) -> f64 {
        let mut units = [0.0; UNITS_MAX];
        self.begin(&mut units);
        self.finish(&units)
    }

    /// `into` holds one entry per feature, in order.
    pub(super) fn explain(&self, vector: Vector<'_>, into: &mut [Contribution]) {
        explain(self, &self.scaling, vector, into);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let layers = std::iter::once(&self.first).chain(&self.rest);
        let layer = |layer: &Layer| size_of_val(layer.biases.as_slice()) + size_of_val(layer.weights.as_slice());
        scaling::memory_bytes(&self.scaling) + layers.map(layer).sum::<usize>()
    }
}

impl Stepwise for Network {
    fn begin(&self, units: &mut Units) {
        for (unit, bias) in units.iter_mut().zip(&self.first.biases) {
            *unit = *bias;
        }
    }

    #[inline]
    fn step(&self, units: &mut Units, feature: usize, from: f32, to: f32) {
        if from != to {
            add(units, &self.first, feature, to - from);
        }
    }

    fn finish(&self, units: &Units) -> f64 {
        let mut units = *units;
        let mut width = self.first.biases.len();
        for layer in &self.rest {
            let inputs = units;
            for (unit, bias) in units.iter_mut().zip(&layer.biases) {
                *unit = *bias;
            }
            for (input, value) in inputs.iter().take(width).enumerate() {
                if *value > 0.0 {
                    add(&mut units, layer, input, *value);
                }
            }
            width = layer.biases.len();
        }
        f64::from(units[0])
    }
}

/// Adds what one input gives to the units of a layer.
#[inline]
fn add(units: &mut Units, layer: &Layer, input: usize, value: f32) {
    let width = layer.biases.len();
    let Some(weights) = layer.weights.get(input * width..(input + 1) * width) else { return };
    for (unit, weight) in units.iter_mut().zip(weights) {
        *unit += weight * value;
    }
}
