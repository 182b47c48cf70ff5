//! Two models on the same rows: is one better, or is it chance?
//!
//! * **McNemar's test** (1947; exact, two-sided) of the verdicts: of the rows that only one model judges rightly, as many
//!   should be the one's as the other's. Benign and malicious rows are tested apart, since a model may buy one with the other.
//!   Rows of one group are not independent: where groups are large the test is too sure of itself, and the intervals count.
//! * **Paired bootstrap**: groups are drawn with replacement, the same for both models, and the differences of the figures
//!   are taken; 95 % percentile intervals. A difference whose interval holds 0 may be chance.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::evaluate::bootstrap::{Groups, interval};
use crate::evaluate::curve::Curve;
use crate::evaluate::{FALSE_POSITIVE_BUDGETS, Interval};

/// A row that two models have scored.
#[derive(Clone, Copy, Debug)]
pub struct PairedRow<'a> {
    /// The scores of the first and the second model.
    pub scores: [f64; 2],
    /// Whether the row is malicious.
    pub malicious: bool,
    /// What it is part of.
    pub group: &'a str,
}

/// Rows that only one of the models judges rightly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Disagreement {
    /// Rows of the class.
    pub rows: u64,
    /// Rows that only the first judges rightly.
    pub only_first: u64,
    /// Rows that only the second does.
    pub only_second: u64,
    /// Chance of so great an imbalance, or a greater one, among models that err alike.
    pub p_value: f64,
}

/// A figure of both models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The first model's.
    pub first: f64,
    /// The second's.
    pub second: f64,
    /// Second less first.
    pub difference: f64,
    /// 95 % interval of the difference, groups drawn anew; absent where there are too few groups.
    pub interval: Option<Interval>,
}

/// How two models compare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Rows compared on.
    pub rows: u64,
    /// Verdicts on malicious rows.
    pub malicious: Disagreement,
    /// Verdicts on benign rows.
    pub benign: Disagreement,
    /// Figures, by their key in evaluations.
    pub figures: BTreeMap<&'static str, Difference>,
}

/// Compares two models, each alerting from its own threshold on.
pub fn compare(rows: &[PairedRow<'_>], thresholds: [f64; 2], resamples: u32, seed: u64) -> Comparison {
    let mut samples: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let paired = Paired::of(rows);
    let whole = paired.figures(&vec![1; paired.groups.len()]);
    for times in paired.groups.draws(resamples, seed) {
        for (key, [first, second]) in paired.figures(&times) {
            samples.entry(key).or_default().push(second - first);
        }
    }
    let figures = whole.into_iter().map(|(key, [first, second])| {
        let interval = samples.remove(key).and_then(|differences| interval(differences, resamples));
        (key, Difference { first, second, difference: second - first, interval })
    });
    Comparison {
        rows: rows.len() as u64,
        malicious: disagreement(rows, thresholds, true),
        benign: disagreement(rows, thresholds, false),
        figures: figures.collect(),
    }
}

fn disagreement(rows: &[PairedRow<'_>], thresholds: [f64; 2], malicious: bool) -> Disagreement {
    let (mut of_class, mut only) = (0, [0_u64; 2]);
    for row in rows.iter().filter(|row| row.malicious == malicious) {
        of_class += 1;
        let right = [0, 1].map(|model| (row.scores[model] >= thresholds[model]) == malicious);
        for model in [0, 1] {
            only[model] += u64::from(right[model] && !right[1 - model]);
        }
    }
    Disagreement { rows: of_class, only_first: only[0], only_second: only[1], p_value: mcnemar(only[0], only[1]) }
}

/// Chance that of so many fair throws at least as many fall to one side: the exact test of McNemar.
pub fn mcnemar(first: u64, second: u64) -> f64 {
    let (throws, fewer) = ((first + second) as f64, first.min(second));
    // Twice the lower tail of Binomial(throws, 1/2); terms by their logarithms.
    let log_half = -throws * std::f64::consts::LN_2;
    let mut log_choose = 0.0;
    let mut tail = 0.0;
    for successes in 0..=fewer {
        tail += libm::exp(log_choose + log_half);
        let successes = successes as f64;
        log_choose += libm::log((throws - successes).max(1.0)) - libm::log(successes + 1.0);
    }
    (2.0 * tail).min(1.0)
}

/// Rows by the scores of each model, and their groups.
struct Paired {
    /// For each model (score, malicious, group), highest score first.
    sorted: [Vec<(f64, bool, usize)>; 2],
    groups: Groups,
}

impl Paired {
    fn of(rows: &[PairedRow<'_>]) -> Self {
        let groups = Groups::of(rows.iter().map(|row| (row.group, row.malicious)));
        let sorted = [0, 1].map(|model| {
            let of_row = rows.iter().zip(&groups.of_row);
            let mut sorted: Vec<_> = of_row.map(|(row, group)| (row.scores[model], row.malicious, *group)).collect();
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
            sorted
        });
        Self { sorted, groups }
    }

    /// The figures of both models, each group taken so many times.
    fn figures(&self, times: &[u64]) -> BTreeMap<&'static str, [f64; 2]> {
        let curves = [0, 1].map(|model| {
            Curve::from_sorted(self.sorted[model].iter().map(|(score, class, group)| (*score, *class, times[*group])))
        });
        let both = |figure: &dyn Fn(&Curve) -> Option<f64>| Some([figure(&curves[0])?, figure(&curves[1])?]);
        [
            ("roc_auc", both(&Curve::roc_auc)),
            ("pr_auc", both(&Curve::average_precision)),
            ("recall_at_1pct_fpr", both(&|curve| curve.recall_at_false_positive_rate(FALSE_POSITIVE_BUDGETS[0]))),
            ("recall_at_01pct_fpr", both(&|curve| curve.recall_at_false_positive_rate(FALSE_POSITIVE_BUDGETS[1]))),
        ]
        .into_iter()
        .filter_map(|(key, figures)| Some((key, figures?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn mcnemar_is_the_exact_binomial_test() {
        // 1 of 10: 2 · (1 + 10) / 1024.
        assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar(9, 1) - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!((mcnemar(0, 0), mcnemar(5, 5)), (1.0, 1.0));
        assert!((mcnemar(0, 6) - 2.0 / 64.0).abs() < 1e-12);
        // Normal approximation, corrected for continuity: z = 199 / √10,000.
        assert!((mcnemar(4_900, 5_100) - 0.0466).abs() < 1e-4, "{}", mcnemar(4_900, 5_100));
    }

    /// Two models of 400 groups of three rows: the second's scores are the first's with less noise.
    fn rows(names: &[String], noise: [f64; 2]) -> Vec<PairedRow<'_>> {
        let mut random = SplitMix64::new(4);
        let row = |(place, group)| {
            let malicious = place % 4 == 0;
            let truth = if malicious { 0.6 } else { 0.4 };
            let throw = random.unit() - 0.5;
            PairedRow { scores: noise.map(|noise| truth + noise * throw), malicious, group }
        };
        names.iter().enumerate().flat_map(|named| [named; 3]).map(|(at, name)| (at, name.as_str())).map(row).collect()
    }

    #[test]
    fn the_better_model_is_told_from_chance() {
        let names: Vec<String> = (0..400).map(|group| format!("g{group}")).collect();
        let rows = rows(&names, [0.8, 0.3]);
        let found = compare(&rows, [0.5, 0.5], 200, 1);
        let auc = found.figures["roc_auc"];
        assert!(auc.difference > 0.05 && auc.interval.unwrap().low > 0.0, "{auc:?}");
        assert!(found.malicious.only_second > found.malicious.only_first && found.malicious.p_value < 0.01);
        assert_eq!((found.rows, found.malicious.rows, found.benign.rows), (1200, 300, 900));
        assert_eq!(found, compare(&rows, [0.5, 0.5], 200, 1));
    }

    #[test]
    fn a_model_beside_itself_is_the_same() {
        let names: Vec<String> = (0..40).map(|group| format!("g{group}")).collect();
        let found = compare(&rows(&names, [0.5, 0.5]), [0.5, 0.5], 50, 1);
        assert!(found.figures.values().all(|figure| figure.difference == 0.0));
        assert_eq!(found.figures["roc_auc"].interval, Some(Interval { low: 0.0, high: 0.0 }));
        assert_eq!((found.benign.p_value, found.malicious.only_first), (1.0, 0));
        // Two groups of a class say nothing about chance.
        let few = compare(&rows(&names[..8], [0.5, 0.4]), [0.5, 0.5], 50, 1);
        assert_eq!(few.figures["roc_auc"].interval, None);
    }
}
