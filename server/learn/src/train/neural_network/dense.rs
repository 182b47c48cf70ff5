//! Layers, forward and backward.

use crate::random::SplitMix64;

/// A layer's numbers: one bias for each unit, then for each input one weight for each unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dense {
    inputs: usize,
    units: usize,
    pub(super) parameters: Vec<f32>,
}

impl Dense {
    /// Weights of He et al. (2015), uniform: the variance is 2 / inputs. Biases are zero.
    pub(super) fn random(inputs: usize, units: usize, random: &mut SplitMix64) -> Self {
        let range = (6.0 / inputs as f64).sqrt();
        let weights = (0..inputs * units).map(|_| (range * (2.0 * random.unit() - 1.0)) as f32);
        let parameters = std::iter::repeat_n(0.0, units).chain(weights).collect();
        Self { inputs, units, parameters }
    }

    pub(super) fn biases(&self) -> &[f32] {
        &self.parameters[..self.units]
    }

    pub(super) fn weights(&self) -> &[f32] {
        &self.parameters[self.units..]
    }

    fn weights_of(&self, input: usize) -> &[f32] {
        let start = (input + 1) * self.units;
        &self.parameters[start..start + self.units]
    }

    fn forward(&self, inputs: &[f32], into: &mut [f32]) {
        into.copy_from_slice(self.biases());
        for (input, value) in inputs.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            for (unit, weight) in into.iter_mut().zip(self.weights_of(input)) {
                *unit += weight * value;
            }
        }
    }

    /// Adds the slopes of the parameters, given those of the units.
    fn add_slopes(&mut self, inputs: &[f32], slopes: &[f32]) {
        let (biases, weights) = self.parameters.split_at_mut(self.units);
        for (sum, slope) in biases.iter_mut().zip(slopes) {
            *sum += slope;
        }
        for (sums, value) in weights.chunks_exact_mut(self.units).zip(inputs).filter(|(_, value)| **value != 0.0) {
            for (sum, slope) in sums.iter_mut().zip(slopes) {
                *sum += value * slope;
            }
        }
    }
}

/// What the units hold while a row goes forward, and their slopes on the way back.
pub(super) struct Trace {
    /// Of each layer; those of hidden ones cut off below zero.
    units: Vec<Vec<f32>>,
    slopes: Vec<Vec<f32>>,
}

impl Trace {
    pub(super) fn new(layers: &[Dense]) -> Self {
        let zeros: Vec<Vec<f32>> = layers.iter().map(|layer| vec![0.0; layer.units]).collect();
        Self { units: zeros.clone(), slopes: zeros }
    }

    /// The log-odds of a row.
    pub(super) fn forward(&mut self, layers: &[Dense], row: &[f32]) -> f32 {
        for (place, layer) in layers.iter().enumerate() {
            let (before, rest) = self.units.split_at_mut(place);
            let inputs = before.last().map_or(row, Vec::as_slice);
            let Some(units) = rest.first_mut() else { continue };
            layer.forward(inputs, units);
            if place + 1 < layers.len() {
                units.iter_mut().for_each(|unit| *unit = unit.max(0.0));
            }
        }
        self.units.last().and_then(|units| units.first()).copied().unwrap_or_default()
    }

    /// Adds the slopes of all parameters, given that of the log-odds. The row has just gone forward.
    pub(super) fn backward(&mut self, layers: &[Dense], gradients: &mut [Dense], row: &[f32], slope: f32) {
        if let Some(slopes) = self.slopes.last_mut() {
            slopes.fill(slope);
        }
        for place in (0..layers.len()).rev() {
            let inputs = place.checked_sub(1).map_or(row, |before| self.units[before].as_slice());
            gradients[place].add_slopes(inputs, &self.slopes[place]);
            let (before, rest) = self.slopes.split_at_mut(place);
            let (Some(before), Some(slopes)) = (before.last_mut(), rest.first()) else { continue };
            for (input, (slope, unit)) in before.iter_mut().zip(inputs).enumerate() {
                *slope = if *unit > 0.0 { product(layers[place].weights_of(input), slopes) } else { 0.0 };
            }
        }
    }
}

/// In eight sums; their order is fixed.
fn product(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slope is what changing the parameter a little changes.
    #[test]
    fn slopes_are_those_of_the_log_odds() {
        let mut random = SplitMix64::new(7);
        let mut layers: Vec<Dense> =
            [(5, 24), (24, 12), (12, 1)].map(|(inputs, units)| Dense::random(inputs, units, &mut random)).to_vec();
        let row: Vec<f32> = (0..5).map(|_| random.unit() as f32 - 0.3).collect();
        let mut trace = Trace::new(&layers);
        let mut gradients = layers.clone();
        gradients.iter_mut().for_each(|gradient| gradient.parameters.fill(0.0));
        trace.forward(&layers, &row);
        trace.backward(&layers, &mut gradients, &row, 1.0);
        let mut checked = 0;
        for place in 0..layers.len() {
            for parameter in 0..layers[place].parameters.len() {
                let before = layers[place].parameters[parameter];
                let mut at = |change: f32| {
                    layers[place].parameters[parameter] = before + change;
                    trace.forward(&layers, &row)
                };
                let found = (at(1e-2) - at(-1e-2)) / 2e-2;
                at(0.0);
                let expected = gradients[place].parameters[parameter];
                assert!((found - expected).abs() < 1e-2, "{place} {parameter}: {found} {expected}");
                checked += usize::from(expected.abs() > 1e-3);
            }
        }
        assert!(checked > 50, "only {checked} parameters count");
    }
}
