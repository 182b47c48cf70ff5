//! Permutation importance (Breiman, Random Forests, 2001): how much the tuning score falls when the values of a column are
//! those of other rows.
//!
//! Models of the folds score rows that they had not seen; a column's features are permuted together, among the rows of a
//! fold. Columns that say the same can stand in for each other, so that none of them looks important: dropping all of them
//! at once costs more than each alone, which is why [`elimination`](super::elimination) measures again after a few.

use crate::random::SplitMix64;
use crate::select::judge::{Fitted, Judge};
use crate::select::{Ranking, Step, all};
use crate::train::{TrainError, parallel};

/// Permutations of each column.
const REPEATS: usize = 3;
/// Scores that the permutations of all columns may take: of more rows, a part is looked at, evenly spread.
const SCORES_MAX: usize = 2_000_000;

/// The step of all columns, these by their importance, and the standard error of each.
pub(super) fn ranking(judge: &Judge<'_>) -> Result<(Step, Ranking, Vec<f64>), TrainError> {
    let places = all(judge.columns());
    let (first, fitted) = judge.step_and_models(&places, &[])?;
    let importances = importances(judge, &fitted, &places, REPEATS)?;
    let (measures, errors): (Vec<f64>, Vec<f64>) = importances.into_iter().unzip();
    let mut order = places;
    order.sort_by(|a, b| measures[*b].total_cmp(&measures[*a]));
    Ok((first, Ranking { order, measures, reason: "models of folds do as well without it" }, errors))
}

/// For each of the columns at some places its importance and the standard error of that over so many permutations.
pub(super) fn importances(
    judge: &Judge<'_>,
    fitted: &Fitted,
    places: &[usize],
    repeats: usize,
) -> Result<Vec<(f64, f64)>, TrainError> {
    let (folds, control, seed) = (judge.folds(), judge.control(), judge.options().seed);
    let scored = folds.scored();
    let step = (scored.len() * places.len() * repeats).div_ceil(SCORES_MAX).max(1);
    let mut of_folds: Vec<Vec<usize>> = vec![Vec::new(); folds.count];
    for row in scored.into_iter().step_by(step) {
        folds.fold_of_row[row].into_iter().for_each(|fold| of_folds[fold].push(row));
    }
    let rows: Vec<usize> = of_folds.iter().flatten().copied().collect();
    // Job 0 permutes nothing.
    let jobs = 1 + places.len() * repeats;
    let scores = parallel::try_map(jobs, control.threads, |job| {
        control.check()?;
        let features: Vec<usize> = match job.checked_sub(1) {
            Some(job) => {
                (0..fitted.of_feature.len()).filter(|f| fitted.of_feature[*f] == places[job / repeats]).collect()
            }
            None => Vec::new(),
        };
        let mut random = SplitMix64::for_job(seed, job as u64);
        let mut scores = Vec::with_capacity(rows.len());
        let mut vector = Vec::new();
        for (rows, model) in of_folds.iter().zip(&fitted.models) {
            let mut others = rows.clone();
            if !features.is_empty() {
                random.shuffle(&mut others);
            }
            for (row, other) in rows.iter().zip(others) {
                vector.clear();
                vector.extend_from_slice(fitted.set.row(*row));
                features.iter().for_each(|feature| vector[*feature] = fitted.set.row(other)[*feature]);
                scores.push((model.score(&vector), fitted.set.malicious()[*row]));
            }
        }
        Ok::<_, TrainError>(scores)
    })?;
    let scores: Vec<f64> = scores.iter().map(|scores| judge.tuning_score(&rows, scores)).collect();
    let Some((whole, permuted)) = scores.split_first() else { return Ok(Vec::new()) };
    Ok(permuted.chunks(repeats.max(1)).map(|scores| mean_and_error(*whole, scores)).collect())
}

/// How much lower the scores are than `whole`.
fn mean_and_error(whole: f64, scores: &[f64]) -> (f64, f64) {
    let count = scores.len() as f64;
    let mean = scores.iter().map(|score| whole - score).sum::<f64>() / count.max(1.0);
    let squares: f64 = scores.iter().map(|score| (whole - score - mean) * (whole - score - mean)).sum();
    (mean, (squares / (count * (count - 1.0)).max(1.0)).sqrt())
}
