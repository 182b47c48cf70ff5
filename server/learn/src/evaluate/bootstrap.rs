//! Intervals by resampling whole groups.

use std::collections::BTreeMap;

use crate::evaluate::curve::Curve;
use crate::evaluate::{FALSE_POSITIVE_BUDGETS, Interval, ScoredRow, ratio};
use crate::random::SplitMix64;

/// Fewest groups of each class that intervals are given for; fewer say nothing.
const GROUPS_MIN: usize = 3;
/// Share of resamples that must have given a figure for its interval to be shown.
const DEFINED_SHARE_MIN: f64 = 0.9;

/// The groups of some rows.
///
/// Groups with and without malicious rows are drawn apart (stratified), so that each resample has as many of both as
/// the rows have.
pub(crate) struct Groups {
    /// The group of each row.
    pub(crate) of_row: Vec<usize>,
    /// Those with and those without malicious rows.
    strata: [Vec<usize>; 2],
}

impl Groups {
    /// Takes the group's name (or number) of each row, and whether the row is malicious.
    pub(crate) fn of<N: Ord>(rows: impl Iterator<Item = (N, bool)>) -> Self {
        let mut numbers: BTreeMap<N, usize> = BTreeMap::new();
        let (mut of_row, mut malicious) = (Vec::new(), Vec::new());
        for (name, is_malicious) in rows {
            let number = *numbers.entry(name).or_insert(malicious.len());
            if number == malicious.len() {
                malicious.push(false);
            }
            malicious[number] |= is_malicious;
            of_row.push(number);
        }
        let strata =
            [true, false].map(|class| (0..malicious.len()).filter(|group| malicious[*group] == class).collect());
        Self { of_row, strata }
    }

    pub(crate) fn len(&self) -> usize {
        self.strata.iter().map(Vec::len).sum()
    }

    /// How often each group is drawn, resample after resample; none when there are too few groups.
    pub(crate) fn draws(&self, resamples: u32, seed: u64) -> impl Iterator<Item = Vec<u64>> + '_ {
        let enough = self.strata.iter().all(|stratum| stratum.len() >= GROUPS_MIN);
        let mut random = SplitMix64::new(seed);
        (0..if enough { resamples } else { 0 }).map(move |_| {
            let mut times = vec![0; self.len()];
            for stratum in &self.strata {
                for _ in 0..stratum.len() {
                    times[stratum[random.below(stratum.len())]] += 1;
                }
            }
            times
        })
    }
}

/// The 95 % percentile interval of what a figure was in so many resamples, some of which may not have given it.
pub(crate) fn interval(mut values: Vec<f64>, resamples: u32) -> Option<Interval> {
    let last = values.len().checked_sub(1)?;
    if (values.len() as f64) < f64::from(resamples) * DEFINED_SHARE_MIN {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(last as f64 * share).round() as usize];
    Some(Interval { low: at(0.025), high: at(0.975) })
}

/// 95 % percentile intervals of the main figures, by their key. Empty when there are too few groups.
pub(super) fn intervals(
    rows: &[ScoredRow<'_>],
    threshold: f64,
    resamples: u32,
    seed: u64,
) -> BTreeMap<String, Interval> {
    let groups = Groups::of(rows.iter().map(|row| (row.group, row.malicious)));
    let mut sorted: Vec<(f64, bool, usize)> =
        rows.iter().zip(&groups.of_row).map(|(row, group)| (row.score, row.malicious, *group)).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));

    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for times in groups.draws(resamples, seed) {
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
    samples.into_iter().filter_map(|(key, values)| Some((key.to_owned(), interval(values, resamples)?))).collect()
}
