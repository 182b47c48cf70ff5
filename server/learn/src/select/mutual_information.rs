//! Mutual information of binned columns, in bits.
//!
//! Counts of few rows look dependent by chance alone: the plug-in estimate is too high by about (cells − rows of the table −
//! columns of the table + 1) / 2n, counting those that have rows (Miller 1955). That is taken off. Rows count one by one,
//! also near-duplicates, so that the correction is too small where those are many.

use crate::select::Ranking;
use crate::select::binned::{BINS_MAX, Binned};

/// By so many standard deviations a column says more than chance would.
const DEVIATIONS: f64 = 2.0;

/// Columns by their mutual information with the label.
pub(super) fn ranking(columns: &[Binned], malicious: &[bool]) -> Ranking {
    let measures = with_label(columns, malicious);
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|a, b| measures[*b].total_cmp(&measures[*a]));
    Ranking { order, measures, reason: "says no more about the label than chance" }
}

/// Mutual information of each column with the label, corrected.
pub(super) fn with_label(columns: &[Binned], malicious: &[bool]) -> Vec<f64> {
    let labels = labels(malicious);
    columns.iter().map(|column| bits(&column.0, &labels)).collect()
}

/// Whether each column says more about the label than chance would: 2n times the estimate is distributed as χ² where it says
/// nothing (Wilks 1938).
pub(super) fn above_chance(columns: &[Binned], malicious: &[bool]) -> Vec<bool> {
    let labels = labels(malicious);
    let is_above = |column: &Binned| {
        let Estimate { nats, freedom, rows } = estimate(&column.0, &labels);
        2.0 * rows * nats > freedom + DEVIATIONS * (2.0 * freedom).sqrt()
    };
    columns.iter().map(is_above).collect()
}

/// Mutual information of two binned variables, corrected; not negative.
pub(super) fn bits(a: &[u8], b: &[u8]) -> f64 {
    let Estimate { nats, freedom, rows } = estimate(a, b);
    ((nats - freedom / (2.0 * rows)) / std::f64::consts::LN_2).max(0.0)
}

/// The plug-in estimate.
struct Estimate {
    nats: f64,
    /// Degrees of freedom: cells − rows − columns + 1 of the table of counts.
    freedom: f64,
    rows: f64,
}

fn estimate(a: &[u8], b: &[u8]) -> Estimate {
    let mut counts = [[0_u32; BINS_MAX]; BINS_MAX];
    for (a, b) in a.iter().zip(b) {
        counts[usize::from(*a).min(BINS_MAX - 1)][usize::from(*b).min(BINS_MAX - 1)] += 1;
    }
    let of_a = counts.map(|row| row.iter().map(|count| f64::from(*count)).sum::<f64>());
    let mut of_b = [0.0_f64; BINS_MAX];
    for row in &counts {
        for (sum, count) in of_b.iter_mut().zip(row) {
            *sum += f64::from(*count);
        }
    }
    let rows = of_a.iter().sum::<f64>().max(1.0);
    let (mut sum, mut cells) = (0.0, 0.0);
    for (row, of_a) in counts.iter().zip(of_a) {
        for (count, of_b) in row.iter().zip(of_b).filter(|(count, _)| **count > 0) {
            let count = f64::from(*count);
            sum += count * libm::log(count * rows / (of_a * of_b));
            cells += 1.0;
        }
    }
    let occupied = |sums: [f64; BINS_MAX]| sums.into_iter().filter(|sum| *sum > 0.0).count() as f64;
    Estimate { nats: (sum / rows).max(0.0), freedom: (cells - occupied(of_a) - occupied(of_b) + 1.0).max(0.0), rows }
}

fn labels(malicious: &[bool]) -> Vec<u8> {
    malicious.iter().map(|malicious| u8::from(*malicious)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn bits_are_those_of_known_distributions() {
        let a: Vec<u8> = (0..4000).map(|row| (row % 4) as u8).collect();
        let half: Vec<u8> = a.iter().map(|a| a / 2).collect();
        // Four equal values: two bits; which half they are in: one. No cell is by chance, so that little is taken off.
        assert!((bits(&a, &a) - 2.0).abs() < 2e-3 && (bits(&a, &half) - 1.0).abs() < 2e-3);
        assert_eq!(bits(&a, &vec![1; 4000]), 0.0);
        // A channel that errs in a tenth: 1 − H(0.1).
        let erring: Vec<u8> = half.iter().enumerate().map(|(row, half)| half ^ u8::from(row / 4 % 10 == 0)).collect();
        let exact = 1.0 + 0.1 * 0.1_f64.log2() + 0.9 * 0.9_f64.log2();
        assert!((bits(&half, &erring) - exact).abs() < 2e-3);
    }

    #[test]
    fn what_chance_gives_is_taken_off() {
        let mut random = SplitMix64::new(4);
        let (mut plain, mut corrected, mut above) = (0.0, 0.0, 0);
        let times = 40;
        for _ in 0..times {
            let noise = Binned((0..2000).map(|_| random.below(30) as u8).collect());
            let malicious: Vec<bool> = (0..2000).map(|_| random.below(5) == 0).collect();
            plain += estimate(&noise.0, &labels(&malicious)).nats / std::f64::consts::LN_2;
            corrected += with_label(std::slice::from_ref(&noise), &malicious)[0];
            above += usize::from(above_chance(&[noise], &malicious)[0]);
        }
        assert!(plain / f64::from(times) > 0.009, "{plain}");
        assert!(corrected / f64::from(times) < 0.3 * plain / f64::from(times), "{corrected} of {plain}");
        assert!(above <= 5, "{above}");
    }
}
