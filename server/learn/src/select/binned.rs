//! A column as one variable of few values.
//!
//! A number is binned: a half of the edges are quantiles of the rows, the other half quantiles of the different values, so
//! that a tail of few rows is told apart, too. A column of several features (a text, a category, a time) is first summed up
//! by the log-likelihood ratio that naive Bayes gives its binned features, learned for each row from other folds: its own
//! label must not be in it.

use crate::train::TrainingSet;
use crate::train::fold::Folds;

/// Edges of each kind.
const EDGES: usize = 16;
/// Most bins: those between edges, and one for what is missing.
pub(super) const BINS_MAX: usize = 2 * EDGES + 2;
/// Folds that likelihood ratios are learned on.
pub(super) const FOLDS: usize = 5;
/// Rows of the mean that a bin's share is mixed with.
const PRIOR_ROWS: f64 = 1.0;

/// For each row its bin, below [`BINS_MAX`]; 0 when the value is missing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binned(pub(super) Vec<u8>);

impl Binned {
    /// Of a column with these features.
    pub(super) fn of(set: &TrainingSet, features: &[usize], folds: &Folds) -> Self {
        match features {
            [feature] => Self::of_values(&set.column(*feature).map(f64::from).collect::<Vec<_>>()),
            _ => {
                let mut ratios = vec![0.0; set.len()];
                for feature in features {
                    let bins = Self::of_values(&set.column(*feature).map(f64::from).collect::<Vec<_>>());
                    bins.add_ratios(set.malicious(), folds, &mut ratios);
                }
                Self::of_values(&ratios)
            }
        }
    }

    /// Of numbers; NaN when missing.
    fn of_values(values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let mut edges = quantiles(&sorted);
        sorted.dedup();
        edges.extend(quantiles(&sorted));
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let bin = |value: &f64| {
            let below = edges.partition_point(|edge| edge < value);
            if value.is_nan() { 0 } else { u8::try_from(1 + below).unwrap_or(u8::MAX) }
        };
        Self(values.iter().map(bin).collect())
    }

    /// Adds to each row's sum how much more frequent its bin is in malicious rows of the other folds.
    fn add_ratios(&self, malicious: &[bool], folds: &Folds, sums: &mut [f64]) {
        let fold_of = |row: usize| folds.fold_of_row[row].unwrap_or(0);
        let mut counts = vec![[[0.0_f64; 2]; BINS_MAX]; folds.count];
        for (row, bin) in self.0.iter().enumerate() {
            counts[fold_of(row)][usize::from(*bin)][usize::from(malicious[row])] += 1.0;
        }
        let ratios: Vec<[f64; BINS_MAX]> = (0..folds.count)
            .map(|without| {
                let mut of_bins = [[0.0_f64; 2]; BINS_MAX];
                for (_, of_fold) in counts.iter().enumerate().filter(|(fold, _)| *fold != without) {
                    for (sum, count) in of_bins.iter_mut().zip(of_fold) {
                        *sum = [sum[0] + count[0], sum[1] + count[1]];
                    }
                }
                let totals = [0, 1].map(|class| of_bins.iter().map(|bin| bin[class]).sum::<f64>());
                let all = (totals[0] + totals[1]).max(1.0);
                of_bins.map(|bin| {
                    let share = (bin[0] + bin[1]) / all;
                    let smoothed = [0, 1].map(|class| (bin[class] + PRIOR_ROWS * share) / (totals[class] + PRIOR_ROWS));
                    // A bin that the other folds have not says nothing.
                    if share > 0.0 { libm::log(smoothed[1] / smoothed[0]) } else { 0.0 }
                })
            })
            .collect();
        for (row, (sum, bin)) in sums.iter_mut().zip(&self.0).enumerate() {
            *sum += ratios[fold_of(row)][usize::from(*bin)];
        }
    }
}

/// Values below which equal shares of the sorted ones lie, without the largest: it ends nothing.
fn quantiles(sorted: &[f64]) -> Vec<f64> {
    let place = |edge: usize| edge * sorted.len() / (EDGES + 1);
    let edges = (1..=EDGES).filter_map(|edge| sorted.get(place(edge)).copied());
    edges.filter(|edge| Some(edge) != sorted.last()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn tails_have_bins_and_equal_values_one() {
        let mut values = vec![0.0; 990];
        values.extend((1..=10).map(f64::from));
        values.push(f64::NAN);
        let bins = Binned::of_values(&values).0;
        assert!(bins[..990].iter().all(|bin| *bin == bins[0]));
        let mut tail = bins[989..1000].to_vec();
        assert!(tail.is_sorted());
        tail.dedup();
        assert!(tail.len() >= 8, "{tail:?}");
        assert_eq!(bins[1000], 0);
        assert!(bins.iter().all(|bin| usize::from(*bin) < BINS_MAX));
        assert!(Binned::of_values(&[f64::NAN; 3]).0.iter().all(|bin| *bin == 0));
        let constant = Binned::of_values(&[7.0; 30]).0;
        assert!(constant.iter().all(|bin| *bin == constant[0]));
    }

    #[test]
    fn features_that_say_nothing_alone_sum_up_without_their_own_labels() {
        // A value of its own in each row: with its own label it would say everything.
        let mut random = SplitMix64::new(2);
        let rows = 600;
        let values: Vec<f32> = (0..rows).flat_map(|row| [row as f32, random.unit() as f32]).collect();
        let malicious: Vec<bool> = (0..rows).map(|_| random.below(2) == 1).collect();
        let set = TrainingSet::new(2, values, malicious.clone(), (0..rows as u32).collect()).unwrap();
        let folds = Folds::assign(&set, FOLDS, 1);
        let bins = Binned::of(&set, &[0, 1], &folds);
        let bits = crate::select::mutual_information::bits(&bins.0, &labels(&malicious));
        assert!(bits < 0.03, "{bits}");
        let telling: Vec<f32> = malicious.iter().flat_map(|m| [f32::from(u8::from(*m)), 0.5]).collect();
        let set = TrainingSet::new(2, telling, malicious.clone(), (0..rows as u32).collect()).unwrap();
        let bits = crate::select::mutual_information::bits(&Binned::of(&set, &[0, 1], &folds).0, &labels(&malicious));
        assert!(bits > 0.95, "{bits}");
    }

    fn labels(malicious: &[bool]) -> Vec<u8> {
        malicious.iter().map(|malicious| u8::from(*malicious)).collect()
    }
}
