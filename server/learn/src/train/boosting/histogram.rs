//! Histograms of gradients, exact in any order.
//!
//! A row's gradient and curvature are whole numbers of 16 bits. A bin sums both in the halves of one 64-bit number, so
//! that a row costs one addition a feature, and the sums of a node less those of one child are those of the other, to the
//! last bit.
//!
//! The bins of a row lie together, feature block by feature block: the histograms of a block (2 KiB a feature) fit the
//! first-level cache, one read fetches the bins of a whole block, and blocks are what threads share the work by.

use crate::train::tree::BinnedMatrix;

/// Bins of a feature, the one of missing values included.
pub(super) const BINS: usize = 256;
/// Most features of a block.
const BLOCK_FEATURES_MAX: usize = 20;
/// Rows that are fetched before they are added up: reads of scattered rows then wait for memory together, not one after
/// the other.
const FETCHED: usize = 64;

/// Gradient and curvature of one row: the gradient in the upper 16 bits, signed, the curvature in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowSlope(u32);

impl RowSlope {
    /// The greatest magnitude of a row's gradient.
    pub(super) const GRADIENT_MAX: f64 = 32_000.0;
    /// The greatest curvature of a row.
    pub(super) const CURVATURE_MAX: f64 = 65_000.0;

    /// `gradient` in −32,768 to 32,767, `curvature` in 0 to 65,535.
    #[inline]
    pub(super) fn new(gradient: i32, curvature: u32) -> Self {
        Self((gradient as u32) << 16 | (curvature & 0xffff))
    }

    /// As a sum of one row.
    #[inline]
    pub(super) fn sum(self) -> Slope {
        Slope(((((self.0 as i32) >> 16) as u32 as u64) << 32) | u64::from(self.0 & 0xffff))
    }
}

/// Sums of gradients and of curvatures: the gradient in the upper 32 bits, signed, the curvature in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slope(u64);

impl Slope {
    /// The greatest magnitude of either sum.
    pub(super) const SUM_MAX: f64 = i32::MAX as f64;

    /// Sum of the gradients.
    #[inline]
    pub(super) fn gradient(self) -> i32 {
        (self.0 >> 32) as i32
    }

    /// Sum of the curvatures.
    #[inline]
    pub(super) fn curvature(self) -> i32 {
        self.0 as i32
    }
}

impl std::ops::Add for Slope {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl std::ops::AddAssign for Slope {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::Sub for Slope {
    type Output = Self;
    #[inline]
    fn sub(self, part: Self) -> Self {
        Self(self.0.wrapping_sub(part.0))
    }
}

impl std::iter::Sum for Slope {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        rows.fold(Self::default(), |sum, row| sum + row)
    }
}

/// The bins of one feature.
pub(super) type FeatureHistogram = [Slope; BINS];
/// The bins of the features of one block.
pub(super) type Histogram = Vec<FeatureHistogram>;

/// The bins of every row, block by block.
pub(super) struct RowBlocks {
    blocks: Vec<Block>,
}

/// Some features that follow each other.
struct Block {
    first_feature: usize,
    features: usize,
    rows: Box<dyn Rows>,
}

/// The bins of some features, row by row.
trait Rows: Send + Sync {
    /// Adds rows `base + row` with their slopes; `histogram` has as many features as [`width`].
    fn add(&self, base: usize, rows: &[u16], slopes: &[RowSlope], histogram: &mut [FeatureHistogram]);
}

impl<const WIDTH: usize> Rows for Vec<[u8; WIDTH]> {
    #[inline(never)]
    fn add(&self, base: usize, rows: &[u16], slopes: &[RowSlope], histogram: &mut [FeatureHistogram]) {
        let Ok(histogram) = <&mut [FeatureHistogram; WIDTH]>::try_from(histogram) else { return };
        let all = &self[base..base + slopes.len()];
        let mut fetched = [(Slope::default(), [0; WIDTH]); FETCHED];
        for rows in rows.chunks(FETCHED) {
            for (place, row) in fetched.iter_mut().zip(rows) {
                *place = (slopes[usize::from(*row)].sum(), all[usize::from(*row)]);
            }
            for (slope, bins) in &fetched[..rows.len()] {
                for (feature, bin) in histogram.iter_mut().zip(bins) {
                    feature[usize::from(*bin)] += *slope;
                }
            }
        }
    }
}

/// Widths that blocks come in.
fn width(features: usize) -> usize {
    features.next_multiple_of(2).max(2)
}

impl RowBlocks {
    /// Lays out the bins of all features.
    pub(super) fn new(matrix: &BinnedMatrix) -> Self {
        let features = matrix.feature_count();
        let count = features.div_ceil(BLOCK_FEATURES_MAX);
        let blocks = (0..count).map(|block| {
            let (first, end) = (block * features / count, (block + 1) * features / count);
            let columns: Vec<&[u8]> = (first..end).map(|feature| matrix.column(feature)).collect();
            Block { first_feature: first, features: end - first, rows: rows(&columns) }
        });
        Self { blocks: blocks.collect() }
    }

    /// Number of blocks.
    pub(super) fn count(&self) -> usize {
        self.blocks.len()
    }

    /// The features of a block.
    pub(super) fn features(&self, block: usize) -> std::ops::Range<usize> {
        let Block { first_feature, features, .. } = self.blocks[block];
        first_feature..first_feature + features
    }

    /// An empty histogram for a block.
    pub(super) fn histogram(&self, block: usize) -> Histogram {
        vec![[Slope::default(); BINS]; width(self.blocks[block].features)]
    }

    /// Adds rows `base + row` to the histogram of a block; `slopes` begins with that of row `base`.
    pub(super) fn add(&self, block: usize, base: usize, rows: &[u16], slopes: &[RowSlope], histogram: &mut Histogram) {
        self.blocks[block].rows.add(base, rows, slopes, histogram);
    }
}

fn rows(columns: &[&[u8]]) -> Box<dyn Rows> {
    fn of<const WIDTH: usize>(columns: &[&[u8]]) -> Box<dyn Rows> {
        let count = columns.first().map_or(0, |column| column.len());
        let mut rows = vec![[0; WIDTH]; count];
        for (place, column) in columns.iter().enumerate() {
            for (row, bin) in rows.iter_mut().zip(*column) {
                row[place] = *bin;
            }
        }
        Box::new(rows)
    }
    match width(columns.len()) {
        2 => of::<2>(columns),
        4 => of::<4>(columns),
        6 => of::<6>(columns),
        8 => of::<8>(columns),
        10 => of::<10>(columns),
        12 => of::<12>(columns),
        14 => of::<14>(columns),
        16 => of::<16>(columns),
        18 => of::<18>(columns),
        _ => of::<20>(columns),
    }
}
