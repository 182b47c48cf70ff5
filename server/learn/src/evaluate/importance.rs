//! Which features a model's scores rest on.

use picket_common::feature::FeatureSpec;
use picket_common::model::Model;

use crate::evaluate::{IMPORTANCES_MAX, Importance, count, real};

/// Most rows that are explained; of more, these many are taken, evenly spread. Explaining one takes some ten microseconds.
const ROWS_MAX: usize = 10_000;

/// Mean of the absolute contributions ([`Model::explain`]) of each feature over `rows`, strongest first, at most
/// [`IMPORTANCES_MAX`]. Features that move nothing are left out.
pub fn mean_contributions<'a>(model: &Model, rows: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<Importance> {
    let spec = FeatureSpec::v1(model.metadata().subject);
    let mut sums = vec![0.0; spec.features.len()];
    let mut contributions = Vec::new();
    let mut seen = 0;
    let step = rows.len().div_ceil(ROWS_MAX).max(1);
    for row in rows.step_by(step) {
        model.explain(row, &mut contributions);
        for entry in &contributions {
            if let Some(sum) = sums.get_mut(entry.feature) {
                *sum += entry.contribution.abs();
            }
        }
        seen += 1;
    }
    let mut importances: Vec<Importance> = spec
        .features
        .iter()
        .zip(sums)
        .filter(|(_, sum)| *sum > 0.0)
        .map(|(feature, sum)| Importance { feature: feature.name.to_owned(), contribution: sum / real(count(seen)) })
        .collect();
    importances.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
    importances.truncate(IMPORTANCES_MAX);
    importances
}
