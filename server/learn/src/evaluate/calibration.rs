//! What scores are worth as probabilities: a reliability diagram's points (DeGroot and Fienberg, The Comparison and
//! Evaluation of Forecasters, 1983).

use crate::evaluate::{CalibrationBin, ScoredRow, count, real};

/// Bins of about equally many rows; by equal width most would be nearly empty.
const BINS_MAX: usize = 10;

/// Rows in the order of their scores, cut into at most [`BINS_MAX`] parts. Equal scores are never cut, so parts may be
/// fewer and larger.
pub(super) fn bins(rows: &[ScoredRow<'_>]) -> Vec<CalibrationBin> {
    let mut sorted: Vec<(f64, bool)> = rows.iter().map(|row| (row.score, row.malicious)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let per_bin = sorted.len().div_ceil(BINS_MAX).max(1);
    let mut bins = Vec::new();
    let mut rest = sorted.as_slice();
    while !rest.is_empty() {
        let last = rest[per_bin.min(rest.len()) - 1].0;
        let (bin, after) = rest.split_at(rest.partition_point(|row| row.0 <= last));
        let all = real(count(bin.len()));
        bins.push(CalibrationBin {
            score: bin.iter().map(|row| row.0).sum::<f64>() / all,
            malicious: real(count(bin.iter().filter(|row| row.1).count())) / all,
            rows: count(bin.len()),
        });
        rest = after;
    }
    bins
}

/// How far scores are from the share of malicious rows, on the mean over rows (Naeini, Cooper, Hauskrecht 2015, with bins
/// of equally many rows).
pub(super) fn expected_error(bins: &[CalibrationBin]) -> Option<f64> {
    let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
    let off: f64 = bins.iter().map(|bin| real(bin.rows) * (bin.score - bin.malicious).abs()).sum();
    (rows > 0).then(|| off / real(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(scores: impl IntoIterator<Item = (f64, bool)>) -> Vec<ScoredRow<'static>> {
        scores.into_iter().map(|(score, malicious)| ScoredRow { score, malicious, technique: "", group: "" }).collect()
    }

    #[test]
    fn bins_hold_about_equally_many_rows_in_order() {
        let bins = bins(&rows((0..95).map(|row| (f64::from(row) / 100.0, row >= 90))));
        assert_eq!(bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [10, 10, 10, 10, 10, 10, 10, 10, 10, 5]);
        assert!(bins.windows(2).all(|pair| pair[0].score < pair[1].score));
        assert_eq!((bins[8].malicious, bins[9].malicious), (0.0, 1.0));
    }

    #[test]
    fn equal_scores_stay_together() {
        let bins = bins(&rows((0..100).map(|row| (if row < 60 { 0.0 } else { 1.0 }, row >= 70))));
        let found: Vec<_> = bins.iter().map(|bin| (bin.score, bin.malicious, bin.rows)).collect();
        assert_eq!(found, [(0.0, 0.0, 60), (1.0, 0.75, 40)]);
        assert!(super::bins(&[]).is_empty());
        // 60 rows that score what they are, 40 whose score is a quarter too high.
        assert_eq!(expected_error(&bins), Some(0.1));
        assert_eq!(expected_error(&[]), None);
    }
}
