//! How many benign rows a threshold will alert of those nobody has seen yet.
//!
//! The threshold lies between two of n benign scores that were given by models which had not seen their rows. If new
//! benign rows come from where these came from (are exchangeable with them), the share of new rows that score higher
//! than all but k of n is distributed as Beta(k + 1, n − k): the (k + 1)-th order statistic of n uniform numbers, as in
//! split conformal prediction (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; the bound is that of
//! Clopper and Pearson, 1934). A quantile of it is a bound that holds with that confidence, whatever the scores look like.
//!
//! Rows of one group, and near-duplicates, are alerted together: n counts for fewer. By how much is the *design effect*
//! (Kish, Survey Sampling, 1965): the variance of the share of alerted rows when whole kin are drawn, over that when
//! single rows are.
//!
//! Nothing here foresees a change of what is ordinary: such rows are not exchangeable.

use std::collections::BTreeMap;

/// Halvings of the interval that a quantile lies in: to 2^-50.
const HALVINGS: u32 = 50;
/// Most terms of the continued fraction; it needs some √n of them.
const TERMS_MAX: u32 = 20_000;

/// The share of new rows that will be alerted is at most this, with so much confidence, when `alerted` of `rows` were.
pub fn share_bound(alerted: f64, rows: f64, confidence: f64) -> f64 {
    if rows <= alerted || rows <= 0.0 {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if beta_distribution(middle, alerted + 1.0, rows - alerted) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// For how many rows drawn one by one a row counts less: at least 1. Takes for each benign row the number of its kin and
/// whether it is alerted.
pub fn design_effect(rows: impl Iterator<Item = (u32, bool)>) -> f64 {
    let mut kin: BTreeMap<u32, [f64; 2]> = BTreeMap::new();
    let mut all = [0.0; 2];
    for (number, alerted) in rows {
        for sum in [kin.entry(number).or_default(), &mut all] {
            sum[0] += 1.0;
            sum[1] += f64::from(u8::from(alerted));
        }
    }
    let [rows, alerted] = all;
    if kin.len() < 2 {
        return rows.max(1.0);
    }
    if alerted == 0.0 || alerted == rows {
        // Nothing tells how alike kin are: as if all of them were the same.
        return (kin.values().map(|[rows, _]| rows * rows).sum::<f64>() / rows).max(1.0);
    }
    let share = alerted / rows;
    let spread: f64 = kin.values().map(|[rows, alerted]| (alerted - share * rows) * (alerted - share * rows)).sum();
    let units = kin.len() as f64;
    (spread * units / (units - 1.0) / (rows * share * (1.0 - share))).max(1.0)
}

/// The distribution function of Beta(a, b) at x: the regularised incomplete beta function, by its continued fraction
/// (Lentz's method; DLMF 8.17.22).
fn beta_distribution(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front =
        libm::exp(libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * libm::log(x) + b * libm::log1p(-x));
    // The fraction converges fast on this side of the mean only; the other side is its mirror image.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(x, a, b) / a
    } else {
        1.0 - front * continued_fraction(1.0 - x, b, a) / b
    }
}

fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let not_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut numerator, mut denominator) = (1.0, 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut result = denominator;
    for term in 1..=TERMS_MAX {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = result;
        for coefficient in [even, odd] {
            denominator = 1.0 / not_zero(1.0 + coefficient * denominator);
            numerator = not_zero(1.0 + coefficient / numerator);
            result *= denominator * numerator;
        }
        if (result - before).abs() <= 1e-14 * result.abs() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn bounds_are_those_of_clopper_and_pearson() {
        // One-sided 95 % bounds. None of n: 1 − 0.05^(1/n), exactly.
        for rows in [1.0, 10.0, 299.0, 100_000.0] {
            let exact = 1.0 - libm::pow(0.05, 1.0 / rows);
            assert!((share_bound(0.0, rows, 0.95) - exact).abs() < 1e-9, "{rows}");
        }
        // All but one of n: 0.95^(1/n) solves 1 − x^n = 0.05.
        assert!((share_bound(9.0, 10.0, 0.95) - libm::pow(0.95, 0.1)).abs() < 1e-9);
        // Near the normal approximation where there is much.
        let bound = share_bound(10_000.0, 1_000_000.0, 0.95);
        assert!((bound - (0.01 + 1.645 * (0.01_f64 * 0.99 / 1e6).sqrt())).abs() < 3e-6, "{bound}");
        assert_eq!((share_bound(5.0, 5.0, 0.95), share_bound(0.0, 0.0, 0.95)), (1.0, 1.0));
    }

    #[test]
    fn the_bound_holds_as_often_as_it_says() {
        // Scores are uniform: the share above the (k + 1)-th highest of n is one minus that score.
        let mut random = SplitMix64::new(3);
        let (rows, alerted, times) = (400, 4, 2000);
        let bound = share_bound(4.0, 400.0, 0.9);
        let mut kept = 0;
        for _ in 0..times {
            let mut scores: Vec<f64> = (0..rows).map(|_| random.unit()).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            kept += usize::from(1.0 - scores[alerted] <= bound);
        }
        let share = kept as f64 / times as f64;
        assert!((share - 0.9).abs() < 0.025, "{share}");
    }

    #[test]
    fn kin_that_are_alerted_together_count_once() {
        let lone = (0..1000).map(|row| (row, row % 100 == 0));
        assert!(design_effect(lone) < 1.05);
        // Ten copies of each row: one in ten of the rows says something.
        let copied = (0..10_000).map(|row| (row / 10, row / 10 % 100 == 0));
        assert!((design_effect(copied) - 10.0).abs() < 0.1);
        assert_eq!(design_effect((0..50).map(|row| (row / 5, false))), 5.0);
        assert_eq!(design_effect((0..50).map(|_| (1, false))), 50.0);
        assert_eq!(design_effect(std::iter::empty()), 1.0);
    }
}
