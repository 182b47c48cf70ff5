//! Sums over rows, in integers.

/// Weight and weighted label of some rows: labels in the upper 32 bits, weights in the lower. Adding two of them is one
/// addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::train) struct Sums(u64);

/// Highest total of the weights of a set: the lower half of [`Sums`] never overflows into the upper.
const TOTAL_MAX: f64 = (1u64 << 31) as f64;
/// The greatest weight of a row.
const WEIGHT_MAX: f64 = 65_535.0;

impl Sums {
    /// One row.
    pub(in crate::train) fn row(weight: u32, malicious: bool) -> Self {
        Self(u64::from(weight) | if malicious { u64::from(weight) << 32 } else { 0 })
    }

    /// Adds `other` once or, when `times` is 0, not at all; without a branch.
    #[inline]
    pub(in crate::train) fn add_times(&mut self, times: u8, other: Self) {
        self.0 = self.0.wrapping_add(other.0 & u64::from(times).wrapping_neg());
    }

    /// Sum of the weights.
    pub(in crate::train) fn weight(self) -> u32 {
        self.0 as u32
    }

    /// Sum of the weights of malicious rows.
    pub(in crate::train) fn malicious(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Weighted mean label, 0 to 1; 0 of nothing.
    pub(in crate::train) fn mean(self) -> f64 {
        f64::from(self.malicious()) / f64::from(self.weight().max(1))
    }

    /// Only rows of one class.
    pub(in crate::train) fn is_pure(self) -> bool {
        self.malicious() == 0 || self.malicious() == self.weight()
    }

    /// What these rows explain of the squared labels when each is predicted by the mean. The sum over two parts, less
    /// that of the whole, is what a split gains: the weighted decrease of the squared error, which for two classes is
    /// half that of the Gini impurity.
    pub(in crate::train) fn explained(self) -> f64 {
        let malicious = f64::from(self.malicious());
        malicious * malicious / f64::from(self.weight().max(1))
    }
}

impl std::ops::Add for Sums {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl std::ops::AddAssign for Sums {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::Sub for Sums {
    type Output = Self;
    fn sub(self, part: Self) -> Self {
        Self(self.0.wrapping_sub(part.0))
    }
}

impl std::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        rows.fold(Self::default(), |sum, row| sum + row)
    }
}

/// For each row its weight and label.
pub(in crate::train) struct RowWeights(Vec<Sums>);

impl RowWeights {
    /// Scales `weights` to whole numbers; no row that weighs something comes to weigh nothing.
    pub(in crate::train) fn scaled(weights: &[f64], malicious: &[bool]) -> Self {
        let total: f64 = weights.iter().sum();
        let greatest = weights.iter().copied().fold(0.0, f64::max);
        // Rounding up to 1 adds at most one for each row.
        let room = TOTAL_MAX - weights.len() as f64;
        let scale = if total > 0.0 { (room / total).min(WEIGHT_MAX / greatest) } else { 0.0 };
        let whole = |weight: f64| if weight > 0.0 { (weight * scale).round().max(1.0) as u32 } else { 0 };
        Self(weights.iter().zip(malicious).map(|(weight, label)| Sums::row(whole(*weight), *label)).collect())
    }

    /// Rows that count as often as they were drawn.
    pub(in crate::train) fn counted(counts: &[u32], malicious: &[bool]) -> Self {
        Self(counts.iter().zip(malicious).map(|(count, label)| Sums::row(*count, *label)).collect())
    }

    /// One row.
    pub(in crate::train) fn row(&self, row: u32) -> Sums {
        self.0[row as usize]
    }

    /// The rows that weigh something.
    pub(in crate::train) fn rows(&self) -> Vec<u32> {
        let rows = self.0.iter().enumerate().filter(|(_, sums)| sums.weight() > 0);
        rows.filter_map(|(row, _)| u32::try_from(row).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_in_any_order() {
        let weights = [0.001, 700.0, 3.0, 0.5, 1e-9, 0.0];
        let malicious = [true, false, true, true, false, true];
        let rows = RowWeights::scaled(&weights, &malicious);
        assert_eq!(rows.rows(), [0, 1, 2, 3, 4], "only what weighs nothing is left out");
        let forwards: Sums = (0..6).map(|row| rows.row(row)).sum();
        let backwards: Sums = (0..6).rev().map(|row| rows.row(row)).sum();
        assert_eq!(forwards, backwards);
        assert_eq!(forwards - rows.row(1), (0..6).filter(|row| *row != 1).map(|row| rows.row(row)).sum());
        assert_eq!(rows.row(1).weight(), 65_535);
        assert_eq!(rows.row(2).weight(), 281);
    }

    #[test]
    fn a_million_rows_do_not_overflow() {
        let weights = vec![1.0; 1_000_000];
        let malicious: Vec<bool> = (0..weights.len()).map(|row| row % 4 != 0).collect();
        let rows = RowWeights::scaled(&weights, &malicious);
        let sums: Sums = (0..1_000_000).map(|row| rows.row(row)).sum();
        assert!((sums.mean() - 0.75).abs() < 1e-9);
    }
}
