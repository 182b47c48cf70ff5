//! Steps whose size each parameter's own slopes set.

use crate::train::neural_network::dense::Dense;

const MEAN_DECAY: f32 = 0.9;
const SQUARE_DECAY: f32 = 0.999;
const EPSILON: f32 = 1e-7;

/// What is remembered of the slopes of a layer.
pub(super) struct Adam {
    means: Vec<f32>,
    squares: Vec<f32>,
    /// Powers of the decays.
    mean_power: f64,
    square_power: f64,
}

impl Adam {
    pub(super) fn new(parameters: usize) -> Self {
        Self { means: vec![0.0; parameters], squares: vec![0.0; parameters], mean_power: 1.0, square_power: 1.0 }
    }

    /// Biases decay like weights: their share is small, and a network without it is no better.
    pub(super) fn step(&mut self, layer: &mut Dense, gradient: &Dense, rate: f64, decay: f64) {
        self.mean_power *= f64::from(MEAN_DECAY);
        self.square_power *= f64::from(SQUARE_DECAY);
        let correction = (1.0 - self.square_power).sqrt() / (1.0 - self.mean_power);
        let (size, kept) = ((rate * correction) as f32, (1.0 - rate * decay) as f32);
        let remembered = self.means.iter_mut().zip(&mut self.squares);
        for ((parameter, slope), (mean, square)) in
            layer.parameters.iter_mut().zip(&gradient.parameters).zip(remembered)
        {
            *mean = MEAN_DECAY * *mean + (1.0 - MEAN_DECAY) * slope;
            *square = SQUARE_DECAY * *square + (1.0 - SQUARE_DECAY) * slope * slope;
            *parameter = *parameter * kept - size * *mean / (square.sqrt() + EPSILON);
        }
    }
}
