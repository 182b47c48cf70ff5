//! Bodies that are not trees, and the calibration: to bytes and back.

use crate::model::cursor::Cursor;
use crate::model::error::{ModelError, Section};
use crate::model::kernel::Kernel;
use crate::model::limits;
use crate::model::network::Network;
use crate::model::steps::Additive;
use crate::model::write::{draft, length};
use crate::model::{Calibration, Layer, Scaling, Steps};

#[cfg(test)]
mod tests;

/// Instead of an edge count: a feature that says nothing.
const NO_STEPS: u16 = u16::MAX;

pub(super) fn write_steps(out: &mut Vec<u8>, bias: f64, features: &[Steps]) -> Result<(), ModelError> {
    out.extend(bias.to_le_bytes());
    for steps in features {
        if steps.log_odds.is_empty() && steps.edges.is_empty() {
            out.extend(NO_STEPS.to_le_bytes());
            continue;
        }
        if steps.log_odds.len() != steps.edges.len() + 1 || steps.edges.len() > limits::EDGES_MAX {
            return Err(draft("a feature needs one step more than edges, or none, and not too many"));
        }
        out.extend(u16::try_from(steps.edges.len()).unwrap_or(NO_STEPS).to_le_bytes());
        write_numbers(out, &steps.edges);
        write_numbers(out, &steps.log_odds);
    }
    Ok(())
}

pub(super) fn read_steps(reader: &mut Cursor<'_>, count: usize) -> Result<Additive, ModelError> {
    let bias = log_odds(reader)?;
    let mut features = Vec::with_capacity(count);
    for _ in 0..count {
        let edge_count = reader.u16()?;
        if edge_count == NO_STEPS {
            features.push(Steps::default());
            continue;
        }
        let edge_count = usize::from(edge_count);
        if edge_count > limits::EDGES_MAX {
            return Err(reader.malformed("a feature has too many edges"));
        }
        let edges = numbers(reader, edge_count, f32::MAX)?;
        if !edges.is_sorted_by(|a, b| a < b) {
            return Err(reader.malformed("edges are not ascending"));
        }
        features.push(Steps { edges, log_odds: numbers(reader, edge_count + 1, limits::WEIGHT_MAX)? });
    }
    reader.finish(Section::Steps)?;
    Ok(Additive { bias, features })
}

pub(super) fn write_network(out: &mut Vec<u8>, scaling: &[Scaling], layers: &[Layer]) -> Result<(), ModelError> {
    write_scaling(out, scaling);
    out.extend(length(layers.len(), "layers", Section::Network)?);
    let mut inputs = scaling.len();
    for layer in layers {
        if layer.weights.len() != inputs * layer.biases.len() {
            return Err(draft("a layer needs one weight for each input and unit"));
        }
        out.extend(length(layer.biases.len(), "units", Section::Network)?);
        write_numbers(out, &layer.biases);
        write_numbers(out, &layer.weights);
        inputs = layer.biases.len();
    }
    Ok(())
}

pub(super) fn read_network(
    reader: &mut Cursor<'_>,
    features: usize,
    hidden_layers_max: usize,
) -> Result<Network, ModelError> {
    let scaling = read_scaling(reader, features)?;
    let layers = reader.count("layers", 1, hidden_layers_max + 1)?;
    let mut rest = Vec::with_capacity(layers);
    let mut inputs = features;
    for _ in 0..layers {
        let units = reader.count("units", 1, limits::UNITS_MAX)?;
        let biases = numbers(reader, units, limits::WEIGHT_MAX)?;
        rest.push(Layer { biases, weights: numbers(reader, inputs * units, limits::WEIGHT_MAX)? });
        inputs = units;
    }
    if inputs != 1 {
        return Err(reader.malformed("the last layer has more than one unit"));
    }
    reader.finish(Section::Network)?;
    let first = rest.remove(0);
    Ok(Network { scaling, first, rest })
}

pub(super) fn write_kernel(
    out: &mut Vec<u8>,
    scaling: &[Scaling],
    gamma_and_bias: [f64; 2],
    coefficients: &[f64],
    centres: &[f32],
) -> Result<(), ModelError> {
    if centres.len() != coefficients.len() * scaling.len() {
        return Err(draft("a centre needs one value for each feature and one coefficient"));
    }
    write_scaling(out, scaling);
    out.extend(gamma_and_bias.iter().flat_map(|number| number.to_le_bytes()));
    out.extend(length(coefficients.len(), "centres", Section::Kernel)?);
    out.extend(coefficients.iter().flat_map(|number| number.to_le_bytes()));
    write_numbers(out, centres);
    Ok(())
}

pub(super) fn read_kernel(reader: &mut Cursor<'_>, features: usize) -> Result<Kernel, ModelError> {
    let scaling = read_scaling(reader, features)?;
    let gamma = reader.f64()?;
    if !(f64::MIN_POSITIVE..=limits::GAMMA_MAX).contains(&gamma) {
        return Err(reader.malformed("gamma is not above zero, or too large"));
    }
    let bias = log_odds(reader)?;
    let count = reader.count("centres", 1, limits::UNITS_MAX)?;
    reader.need(count * size_of::<f64>())?;
    let coefficients = (0..count).map(|_| log_odds(reader)).collect::<Result<_, _>>()?;
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let centres = numbers(reader, count * features, limits::STANDARDISED_MAX as f32)?;
    reader.finish(Section::Kernel)?;
    Ok(Kernel { scaling, gamma, bias, coefficients, centres })
}

pub(super) fn write_calibration(out: &mut Vec<u8>, calibration: &Calibration) -> Result<(), ModelError> {
    match calibration {
        Calibration::Platt { slope, offset } => {
            out.extend([0; 4]);
            out.extend([slope, offset].iter().flat_map(|number| number.to_le_bytes()));
        }
        Calibration::Isotonic { knots } => {
            if knots.is_empty() {
                return Err(draft("an isotonic calibration needs knots"));
            }
            out.extend(length(knots.len(), "knots", Section::Calibration)?);
            out.extend(knots.iter().flat_map(|knot| [knot.0, knot.1]).flat_map(f64::to_le_bytes));
        }
    }
    Ok(())
}

pub(super) fn read_calibration(reader: &mut Cursor<'_>) -> Result<Calibration, ModelError> {
    let count = reader.count("knots", 0, limits::KNOTS_MAX)?;
    if count == 0 {
        let slope = log_odds(reader)?;
        let offset = log_odds(reader)?;
        if slope < f64::MIN_POSITIVE {
            return Err(reader.malformed("the slope of a calibration is not above zero"));
        }
        reader.finish(Section::Calibration)?;
        return Ok(Calibration::Platt { slope, offset });
    }
    reader.expect_remaining(count * 2 * size_of::<f64>())?;
    let mut knots = Vec::with_capacity(count);
    for _ in 0..count {
        knots.push((reader.f64()?, reader.f64()?));
    }
    let ascending = knots.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
    let inside = knots.iter().all(|knot| (0.0..=1.0).contains(&knot.0) && (0.0..=1.0).contains(&knot.1));
    let ends = [knots.first(), knots.last()].map(|knot| knot.map(|knot| knot.0));
    if count < 2 || !ascending || !inside || ends != [Some(0.0), Some(1.0)] {
        return Err(reader.malformed("a calibration's knots do not ascend from 0 to 1"));
    }
    reader.finish(Section::Calibration)?;
    Ok(Calibration::Isotonic { knots })
}

fn write_scaling(out: &mut Vec<u8>, scaling: &[Scaling]) {
    for scaling in scaling {
        out.push(u8::from(scaling.signed_log));
        out.extend([scaling.mean, scaling.inverse_scale].iter().flat_map(|number| number.to_le_bytes()));
    }
}

fn read_scaling(reader: &mut Cursor<'_>, features: usize) -> Result<Vec<Scaling>, ModelError> {
    let mut scaling = Vec::with_capacity(features);
    for _ in 0..features {
        let signed_log = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.malformed("a scaling is neither plain nor logarithmic")),
        };
        let (mean, inverse_scale) = (reader.coefficient()?, reader.coefficient()?);
        if inverse_scale < 0.0 {
            return Err(reader.malformed("an inverse scale is negative"));
        }
        scaling.push(Scaling { signed_log, mean, inverse_scale });
    }
    Ok(scaling)
}

fn write_numbers(out: &mut Vec<u8>, numbers: &[f32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// So many numbers of at most this magnitude.
fn numbers(reader: &mut Cursor<'_>, count: usize, magnitude: f32) -> Result<Vec<f32>, ModelError> {
    reader.need(count * size_of::<f32>())?;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let number = reader.f32()?;
        if !(-magnitude..=magnitude).contains(&number) {
            return Err(reader.malformed("a number is not finite, or too large"));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn log_odds(reader: &mut Cursor<'_>) -> Result<f64, ModelError> {
    let number = reader.f64()?;
    if number.abs() <= limits::LOG_ODDS_MAX {
        Ok(number)
    } else {
        Err(reader.malformed("a number is not finite, or too large a share of the log-odds"))
    }
}
