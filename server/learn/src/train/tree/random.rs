//! Random splits: one threshold for each feature, drawn evenly over the values that the node's rows have; the best of
//! them is taken (Geurts, Ernst, Wehenkel, 2006).

use crate::random::SplitMix64;
use crate::train::tree::BinnedMatrix;
use crate::train::tree::bins::{MISSING_BIN, Spread};
use crate::train::tree::choice::{Best, Cut, Side};
use crate::train::tree::features::FeatureSampler;
use crate::train::tree::grow::{Limits, Node, Split, SplitFinder};
use crate::train::tree::spreads::Spreads;

/// Where values are missing, how often only "missing" is told from the rest: as if missing values lay below all others,
/// a twentieth of their span away. Of many drawn thresholds, few should be spent on it.
const MISSING_GAP: f64 = 1.0 / 20.0;

/// Draws a threshold for some features and takes the best.
pub(in crate::train) struct RandomSplits<'a> {
    matrix: &'a BinnedMatrix,
    /// Where most features are looked at for each split.
    spreads: Option<&'a Spreads>,
    /// Those of the node at hand.
    found: Vec<Option<Spread>>,
    limits: Limits,
    random: SplitMix64,
    features: FeatureSampler,
}

impl<'a> RandomSplits<'a> {
    pub(in crate::train) fn new(
        matrix: &'a BinnedMatrix,
        spreads: &'a Spreads,
        limits: Limits,
        features_per_split: usize,
        seed: u64,
    ) -> Self {
        let features = FeatureSampler::new(matrix.feature_count(), features_per_split);
        let spreads = (features_per_split >= matrix.feature_count() / 4).then_some(spreads);
        Self { matrix, spreads, found: Vec::new(), limits, random: SplitMix64::new(seed), features }
    }
}

impl SplitFinder for RandomSplits<'_> {
    fn find(&mut self, node: &Node<'_>) -> Option<Split> {
        let Self { matrix, spreads, found, limits, random, features } = self;
        if let Some(spreads) = spreads {
            spreads.find(node.rows, found);
        }
        let rows = u32::try_from(node.rows.len()).unwrap_or(u32::MAX);
        let mut best = Best::of(Side { sums: node.sums, rows }, limits.leaf_rows_min);
        let mut looked_at = features.begin();
        while let Some(feature) = looked_at.next(random) {
            let spread = found.get(feature).copied().unwrap_or_else(|| matrix.spread(feature, node.rows));
            let Some(spread) = spread else { continue };
            let (bin, threshold) = draw(matrix, feature, spread, random);
            let cut = cut(matrix.column(feature), node, bin, spread.has_missing);
            best.offer(feature, bin, &cut, || threshold);
            looked_at.counts();
        }
        best.split()
    }
}

/// A threshold between the lowest and the highest value, and the last bin that it leaves to the left.
fn draw(matrix: &BinnedMatrix, feature: usize, spread: Spread, random: &mut SplitMix64) -> (u8, f32) {
    let Spread { low, high, has_missing } = spread;
    let part = random.unit() * if has_missing { 1.0 + MISSING_GAP } else { 1.0 };
    if low == high || part >= 1.0 {
        // Values from missing ones.
        return (high, matrix.threshold(feature, high, 0.5));
    }
    between(matrix, feature, [low, high], part)
}

/// A threshold at so much of the way from the lowest to the highest value of bins, two or more, and the last bin that it
/// leaves to the left.
pub(super) fn between(matrix: &BinnedMatrix, feature: usize, [low, high]: [u8; 2], part: f64) -> (u8, f32) {
    let lowest = f64::from(matrix.range(feature, low).0);
    let highest = f64::from(matrix.range(feature, high).1);
    let value = (lowest + part * (highest - lowest)) as f32;
    let bin = matrix.last_at_most(feature, value).clamp(low, high - 1);
    (bin, value.clamp(matrix.threshold(feature, bin, 0.0), matrix.threshold(feature, bin, 1.0)))
}

/// Rows that are compared before they are summed up.
const ROWS_AT_ONCE: usize = 64;

/// What a threshold after `last` does to the rows of a node.
fn cut(column: &[u8], node: &Node<'_>, last: u8, has_missing: bool) -> Cut {
    // Missing values have the highest number less one.
    let left = side(column, node, |bin| bin.wrapping_sub(1) < last);
    let missing = if has_missing { side(column, node, |bin| bin == MISSING_BIN) } else { Side::default() };
    Cut { left, missing }
}

/// The rows whose bins are wanted. Whether they are is found for many rows before their sums are looked at: else the
/// processor would guess it for each of them, and a random threshold makes every second guess wrong.
fn side(column: &[u8], node: &Node<'_>, wanted: impl Fn(u8) -> bool) -> Side {
    let mut side = Side::default();
    let mut is_wanted = [0; ROWS_AT_ONCE];
    for (rows, weights) in node.rows.chunks(ROWS_AT_ONCE).zip(node.weights.chunks(ROWS_AT_ONCE)) {
        for (is_wanted, row) in is_wanted.iter_mut().zip(rows) {
            *is_wanted = u8::from(wanted(column[*row as usize]));
        }
        for (is_wanted, sums) in is_wanted.iter().zip(weights) {
            side.sums.add_times(*is_wanted, *sums);
            side.rows += u32::from(*is_wanted);
        }
    }
    side
}
