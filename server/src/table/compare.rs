//! Two table models on the same labelled rows, and whether the second may take the place of the first.

use std::collections::BTreeSet;
use std::path::Path;

use picket_learn::compare::{Comparison, PairedRow, compare as compare_rows};
use picket_learn::evaluate::{self, Report, ScoredRow};
use picket_learn::gate::{self, Decision, Policy};
use picket_learn::table::{Table, TableTrainError, row_groups, scores};
use picket_learn::train::Observer;

use crate::table::score::read_model;
use crate::table::{Loader, TableFileError};

/// Resamples for the intervals.
const RESAMPLES: u32 = 200;
/// Rows with so many resamples would take minutes: beyond, fewer.
const RESAMPLED_ROWS_MAX: usize = 20_000_000;

/// What comparing gave.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Both beside each other.
    pub comparison: Comparison,
    /// Whether the second may take the place of the first.
    pub decision: Decision,
    /// SHA-256 of each model's file.
    pub models: [String; 2],
}

/// Compares the models in two files on a labelled table that neither should have learned from.
///
/// # Errors
/// [`TableFileError`].
pub fn compare(
    models: [&Path; 2],
    input: &Path,
    loader: &Loader,
    (policy, seed): (&Policy, u64),
    observer: &dyn Observer,
) -> Result<Compared, TableFileError> {
    let models = [read_model(models[0])?, read_model(models[1])?];
    let loaded = loader.load(input, observer)?;
    let table = &loaded.table;
    let malicious = table.labels().map_err(TableTrainError::from)?;
    let rows: Vec<usize> = (0..table.rows).collect();
    let groups = row_groups(table);
    let [first, second] = [0, 1].map(|model| scores(&models[model], table, &rows));
    let paired: Vec<PairedRow<'_>> = rows
        .iter()
        .map(|row| PairedRow { scores: [first[*row], second[*row]], malicious: malicious[*row], group: &groups[*row] })
        .collect();
    let thresholds = [models[0].threshold(), models[1].threshold()];
    let resamples = u32::try_from(RESAMPLED_ROWS_MAX / table.rows.max(1)).unwrap_or(u32::MAX).min(RESAMPLES);
    let comparison = compare_rows(&paired, thresholds, resamples, seed);
    let in_force = report(table, malicious, &groups, (&first, thresholds[0]))?;
    let candidate = report(table, malicious, &groups, (&second, thresholds[1]))?;
    Ok(Compared {
        comparison,
        decision: gate::decide(&candidate, Some(&in_force), policy),
        models: models.map(|model| model.id().to_string()),
    })
}

fn report(
    table: &Table,
    malicious: &[bool],
    groups: &[String],
    (scores, threshold): (&[f64], f64),
) -> Result<Report, TableFileError> {
    let row =
        |row: usize| ScoredRow { score: scores[row], malicious: malicious[row], technique: "", group: &groups[row] };
    let rows: Vec<ScoredRow<'_>> = (0..table.rows).map(row).collect();
    let known = BTreeSet::new();
    let options = evaluate::Options { threshold, known_techniques: &known, resamples: 0, seed: 0 };
    Ok(evaluate::evaluate(&rows, &options).map_err(TableTrainError::from)?)
}
