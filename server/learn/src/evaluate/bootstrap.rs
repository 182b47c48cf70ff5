//! Intervals by resampling whole groups.

use std::collections::BTreeMap;

use crate::evaluate::curve::Curve;
use crate::evaluate::{FALSE_POSITIVE_BUDGETS, Interval, ScoredRow, ratio};
use crate::random::SplitMix64;

/// Fewest groups of each class that intervals are given for; fewer say nothing.
const GROUPS_MIN: usize = 3;
/// Share of resamples that must have given a figure for its interval to be shown.
const DEFINED_SHARE_MIN: f64 = 0.9;

/// 95 % percentile intervals of the main figures, by their key.
///
/// Groups with and without malicious rows are drawn apart (stratified), so that each resample has as many of both as
/// the rows have. Empty when there are too few groups.
pub(super) fn intervals(
    rows: &[ScoredRow<'_>],
    threshold: f64,
    resamples: u32,
    seed: u64,
) -> BTreeMap<String, Interval> {
    let mut group_of_name: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let next = group_of_name.len();
        group_of_name.entry(row.group).or_insert(next);
    }
    let mut malicious = vec![false; group_of_name.len()];
    let mut sorted: Vec<(f64, bool, usize)> = Vec::with_capacity(rows.len());
    for row in rows {
        let group = group_of_name.get(row.group).copied().unwrap_or_default();
        malicious[group] |= row.malicious;
        sorted.push((row.score, row.malicious, group));
    }
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let strata = [true, false]
        .map(|class| malicious.iter().enumerate().filter(|group| *group.1 == class).map(|group| group.0).collect());
    let strata: [Vec<usize>; 2] = strata;
    if strata.iter().any(|stratum| stratum.len() < GROUPS_MIN) {
        return BTreeMap::new();
    }

    let mut random = SplitMix64::new(seed);
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut times = vec![0u64; malicious.len()];
    for _ in 0..resamples {
        times.fill(0);
        for stratum in &strata {
            for _ in 0..stratum.len() {
                times[stratum[random.below(stratum.len())]] += 1;
            }
        }
        let drawn = || sorted.iter().map(|(score, malicious, group)| (*score, *malicious, times[*group]));
        let curve = Curve::from_sorted(drawn());
        let alerted =
            |class: bool| -> u64 { drawn().filter(|row| row.1 == class && row.0 >= threshold).map(|row| row.2).sum() };
        let figures = [
            ("roc_auc", curve.roc_auc()),
            ("pr_auc", curve.average_precision()),
            ("recall_at_1pct_fpr", curve.recall_at_false_positive_rate(FALSE_POSITIVE_BUDGETS[0])),
            ("recall", ratio(alerted(true), curve.positives())),
            ("false_positive_rate", ratio(alerted(false), curve.negatives())),
        ];
        for (key, value) in figures {
            samples.entry(key).or_default().extend(value);
        }
    }

    let enough = f64::from(resamples) * DEFINED_SHARE_MIN;
    samples
        .into_iter()
        .filter(|(_, values)| !values.is_empty() && values.len() as f64 >= enough)
        .map(|(key, mut values)| {
            values.sort_by(f64::total_cmp);
            let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
            (key.to_owned(), Interval { low: at(0.025), high: at(0.975) })
        })
        .collect()
}
