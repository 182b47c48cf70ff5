//! Best splits: every threshold between the bins of some features, from histograms.

use crate::random::SplitMix64;
use crate::train::tree::bins::{MISSING_BIN, Spread};
use crate::train::tree::choice::{Best, Cut, Side};
use crate::train::tree::features::FeatureSampler;
use crate::train::tree::grow::{Limits, Node, Split, SplitFinder};
use crate::train::tree::{BinnedMatrix, Sums};

/// Bins of a histogram.
const BINS: usize = 256;
/// From so many rows on, looking through all bins costs less than looking through the rows for those they have.
const MANY_ROWS: usize = 512;

/// Looks at every threshold of some features. Rows count as often as they weigh ([`RowWeights::counted`]).
///
/// [`RowWeights::counted`]: crate::train::tree::RowWeights::counted
pub(in crate::train) struct BestSplits<'a> {
    matrix: &'a BinnedMatrix,
    limits: Limits,
    random: SplitMix64,
    features: FeatureSampler,
    histogram: Box<[Sums; BINS]>,
}

impl<'a> BestSplits<'a> {
    pub(in crate::train) fn new(
        matrix: &'a BinnedMatrix,
        limits: Limits,
        features_per_split: usize,
        seed: u64,
    ) -> Self {
        let features = FeatureSampler::new(matrix.feature_count(), features_per_split);
        let histogram = Box::new([Sums::default(); BINS]);
        Self { matrix, limits, random: SplitMix64::new(seed), features, histogram }
    }
}

impl SplitFinder for BestSplits<'_> {
    fn find(&mut self, node: &Node<'_>) -> Option<Split> {
        let Self { matrix, limits, random, features, histogram } = self;
        let mut best = Best::of(side(node.sums), limits.leaf_rows_min);
        let mut looked_at = features.begin();
        while let Some(feature) = looked_at.next(random) {
            let Some(spread) = fill(histogram, matrix, feature, node) else { continue };
            offer_all(&mut best, matrix, feature, histogram, spread);
            looked_at.counts();
        }
        best.split()
    }
}

/// Sums up the rows of each bin; which bins they have, if they differ. Bins between these hold sums, others anything.
fn fill(histogram: &mut [Sums; BINS], matrix: &BinnedMatrix, feature: usize, node: &Node<'_>) -> Option<Spread> {
    if node.rows.len() >= MANY_ROWS {
        histogram.fill(Sums::default());
        add(histogram, matrix.column(feature), node);
        return spread(histogram);
    }
    let spread = matrix.spread(feature, node.rows)?;
    histogram[usize::from(MISSING_BIN)] = Sums::default();
    histogram[usize::from(spread.low)..=usize::from(spread.high)].fill(Sums::default());
    add(histogram, matrix.column(feature), node);
    Some(spread)
}

fn add(histogram: &mut [Sums; BINS], column: &[u8], node: &Node<'_>) {
    for (row, sums) in node.rows.iter().zip(node.weights) {
        histogram[usize::from(column[*row as usize])] += *sums;
    }
}

/// As [`BinnedMatrix::spread`], from the sums of all bins: every row weighs something.
fn spread(histogram: &[Sums; BINS]) -> Option<Spread> {
    let (missing, values) = histogram.split_first()?;
    let has_rows = |sums: &Sums| *sums != Sums::default();
    let bin = |place: usize| u8::try_from(place + 1).ok();
    let low = bin(values.iter().position(has_rows)?)?;
    let high = bin(values.iter().rposition(has_rows)?)?;
    let has_missing = has_rows(missing);
    (low < high || has_missing).then_some(Spread { low, high, has_missing })
}

/// Offers every threshold.
fn offer_all(best: &mut Best, matrix: &BinnedMatrix, feature: usize, histogram: &[Sums; BINS], spread: Spread) {
    let Spread { low, high, has_missing } = spread;
    let missing = side(histogram[usize::from(MISSING_BIN)]);
    let mut left = Sums::default();
    // The last threshold tells values from missing ones.
    let last = if has_missing { high } else { high - 1 };
    for bin in low..=last {
        let here = histogram[usize::from(bin)];
        if here == Sums::default() {
            continue;
        }
        left += here;
        best.offer(feature, bin, &Cut { left: side(left), missing }, || middle(matrix, feature, bin, histogram, high));
    }
}

/// Half-way to the next value that the rows have, not just to the next bin.
fn middle(matrix: &BinnedMatrix, feature: usize, bin: u8, histogram: &[Sums; BINS], high: u8) -> f32 {
    let next = (bin..high).map(|bin| bin + 1).find(|bin| histogram[usize::from(*bin)] != Sums::default());
    let Some(next) = next else { return matrix.threshold(feature, bin, 0.5) };
    let (from, to) = (matrix.range(feature, bin).1, matrix.range(feature, next).0);
    let half_way = ((f64::from(from) + f64::from(to)) / 2.0) as f32;
    half_way.clamp(from, to.next_down().max(from))
}

fn side(sums: Sums) -> Side {
    Side { sums, rows: sums.weight() }
}
