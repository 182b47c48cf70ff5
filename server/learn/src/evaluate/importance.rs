//! Which features a model's scores rest on.

use std::collections::BTreeMap;

use picket_common::model::Model;

use crate::evaluate::{IMPORTANCES_MAX, Importance, count, real};

/// Most rows that are explained; of more, these many are taken, evenly spread. Explaining one
/// takes some milliseconds when trees are many and deep.
const ROWS_MAX: usize = 1_000;

/// Mean of the absolute contributions ([`Model::explain`]) over `rows`, by name, strongest first, at most
/// [`IMPORTANCES_MAX`]. `names` are those of the features, in their order; features of one name count as one. What moves
/// nothing is left out.
pub fn mean_contributions<'a>(
    model: &Model,
    names: &[&str],
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
) -> Vec<Importance> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let mut contributions = Vec::new();
    let mut seen = 0;
    let step = rows.len().div_ceil(ROWS_MAX).max(1);
    for row in rows.step_by(step) {
        model.explain(row, &mut contributions);
        let mut of_row: BTreeMap<&str, f64> = BTreeMap::new();
        for entry in &contributions {
            if let Some(name) = names.get(entry.feature) {
                *of_row.entry(name).or_default() += entry.contribution;
            }
        }
        for (name, contribution) in of_row {
            *sums.entry(name).or_default() += contribution.abs();
        }
        seen += 1;
    }
    let mut importances: Vec<Importance> = sums
        .into_iter()
        .filter(|(_, sum)| *sum > 0.0)
        .map(|(name, sum)| Importance { feature: name.to_owned(), contribution: sum / real(count(seen)) })
        .collect();
    importances.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
    importances.truncate(IMPORTANCES_MAX);
    importances
}
