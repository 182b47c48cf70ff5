//! What a model does on rows that nobody has labelled: how many it alerts, by what, and how they differ from those it
//! learned from. How good it is no figure here can say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evaluate::curve::Curve;
use crate::evaluate::{
    EvaluateError, HISTOGRAM_BINS, IMPORTANCES_MAX, Importance, Interval, bootstrap, count, histogram_bin, real,
};
use crate::random::SplitMix64;

pub mod page;
pub mod text;

/// Rows of each side that a drift is measured on; of more, these many, evenly spread.
const DRIFT_ROWS_MAX: usize = 20_000;
/// Fewest groups that an interval is given for.
const GROUPS_MIN: usize = 3;

/// A row that a model has scored.
#[derive(Clone, Copy, Debug)]
pub struct SurveyedRow<'a> {
    /// The model's score, 0..=1.
    pub score: f64,
    /// What it belongs to: rows of one group are not independent.
    pub group: &'a str,
}

/// What a model does on unlabelled rows. Keys are stable: other programs read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Rows looked at.
    pub rows: u64,
    /// A row is an alert from this score on.
    pub threshold: f64,
    /// Rows alerted.
    pub alerted: u64,
    /// Share of them.
    pub share_alerted: f64,
    /// 95 % percentile bootstrap interval of it, over groups; absent where those are too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_alerted_interval: Option<Interval>,
    /// The share alerted of the training rows, by models that had not seen them; absent when nobody told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_share_alerted: Option<f64>,
    /// Rows by score, in [`HISTOGRAM_BINS`] equal bins over 0..=1.
    pub score_histogram: Vec<u64>,
    /// Mean of the absolute contributions of each feature to these rows' scores, strongest first, at most
    /// [`IMPORTANCES_MAX`].
    pub importances: Vec<Importance>,
    /// How far each column tells these rows from the training rows, the farthest first, at most [`IMPORTANCES_MAX`].
    pub drift: Vec<ColumnShift>,
    /// What to mind when reading the figures.
    pub notes: Vec<String>,
}

/// How far a column tells new rows from old ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnShift {
    /// Its name.
    pub column: String,
    /// ROC-AUC by the order of its values, 0.5 (not at all) to 1; of several features the greatest.
    pub auc: f64,
}

/// Looks at scored rows.
///
/// # Errors
/// [`EvaluateError`], as for an evaluation.
pub fn survey(rows: &[SurveyedRow<'_>], threshold: f64, resamples: u32, seed: u64) -> Result<Survey, EvaluateError> {
    if rows.is_empty() {
        return Err(EvaluateError::NoRows);
    }
    if threshold.is_nan() {
        return Err(EvaluateError::ThresholdNotANumber);
    }
    if let Some(row) = rows.iter().position(|row| !row.score.is_finite()) {
        return Err(EvaluateError::ScoreNotFinite { row });
    }
    let mut score_histogram = vec![0; HISTOGRAM_BINS];
    rows.iter().for_each(|row| score_histogram[histogram_bin(row.score)] += 1);
    let alerted = count(rows.iter().filter(|row| row.score >= threshold).count());
    Ok(Survey {
        rows: count(rows.len()),
        threshold,
        alerted,
        share_alerted: real(alerted) / real(count(rows.len())),
        share_alerted_interval: interval(rows, threshold, resamples, seed),
        training_share_alerted: None,
        score_histogram,
        importances: Vec::new(),
        drift: Vec::new(),
        notes: vec![
            "the rows have no labels: how many of the alerts are right, and what was missed, is not known".into(),
        ],
    })
}

/// Resamples whole groups.
fn interval(rows: &[SurveyedRow<'_>], threshold: f64, resamples: u32, seed: u64) -> Option<Interval> {
    let mut groups: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for row in rows {
        let [all, alerted] = groups.entry(row.group).or_default();
        *all += 1;
        *alerted += u64::from(row.score >= threshold);
    }
    let groups: Vec<[u64; 2]> = groups.into_values().collect();
    if groups.len() < GROUPS_MIN {
        return None;
    }
    let mut random = SplitMix64::new(seed);
    let mut share = || {
        let drawn = (0..groups.len()).map(|_| groups[random.below(groups.len())]);
        let [all, alerted] = drawn.fold([0, 0], |sum, group| [sum[0] + group[0], sum[1] + group[1]]);
        real(alerted) / real(all)
    };
    bootstrap::interval((0..resamples).map(|_| share()).collect(), resamples)
}

/// How far features tell `new` rows from `old` ones, by name, the farthest first; features of one name count as one, those
/// without are left out. A missing value is below all others.
pub fn drift<'a>(
    names: &[Option<&str>],
    old: impl Iterator<Item = &'a [f32]> + Clone,
    new: impl Iterator<Item = &'a [f32]> + Clone,
) -> Vec<ColumnShift> {
    fn thinned<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone) -> Vec<&'a [f32]> {
        let step = rows.clone().count().div_ceil(DRIFT_ROWS_MAX).max(1);
        rows.step_by(step).collect()
    }
    let (old, new) = (thinned(old), thinned(new));
    let mut greatest: BTreeMap<&str, f64> = BTreeMap::new();
    for (feature, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let value =
            |row: &&[f32]| row.get(feature).filter(|value| !value.is_nan()).map_or(f64::MIN, |value| (*value).into());
        let rows = old.iter().map(|row| (value(row), false)).chain(new.iter().map(|row| (value(row), true)));
        if let Some(auc) = Curve::new(rows).roc_auc() {
            let entry = greatest.entry(name).or_insert(0.5);
            *entry = entry.max(auc).max(1.0 - auc);
        }
    }
    let mut shifts: Vec<ColumnShift> =
        greatest.into_iter().map(|(name, auc)| ColumnShift { column: name.to_owned(), auc }).collect();
    shifts.sort_by(|a, b| b.auc.total_cmp(&a.auc));
    shifts.truncate(IMPORTANCES_MAX);
    shifts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::page::{Card, CardSection};

    fn rows(groups: &[String]) -> Vec<SurveyedRow<'_>> {
        let score = |row: usize| row as f64 / 1000.0;
        groups.iter().enumerate().map(|(row, group)| SurveyedRow { score: score(row), group }).collect()
    }

    #[test]
    fn shares_and_intervals_are_told_and_nothing_that_takes_labels() {
        let groups: Vec<String> = (0..1000).map(|row| format!("g{}", row % 100)).collect();
        let survey = survey(&rows(&groups), 0.95, 200, 1).unwrap();
        assert_eq!((survey.rows, survey.alerted, survey.share_alerted), (1000, 50, 0.05));
        let interval = survey.share_alerted_interval.unwrap();
        assert!(interval.low < 0.05 && interval.high > 0.05 && interval.high < 0.08, "{interval:?}");
        assert_eq!((survey.score_histogram.iter().sum::<u64>(), survey.score_histogram[0]), (1000, 50));
        let json = serde_json::to_string(&survey).unwrap();
        for absent in ["recall", "malicious", "auc", "training_share_alerted"] {
            assert!(!json.contains(absent), "{absent}");
        }
        assert_eq!(serde_json::from_str::<Survey>(&json).unwrap(), survey);
        assert!(super::survey(&[], 0.5, 0, 1).is_err() && super::survey(&rows(&groups), f64::NAN, 0, 1).is_err());
        let alone: Vec<String> = vec!["g".to_owned(); 10];
        assert_eq!(super::survey(&rows(&alone), 0.5, 200, 1).unwrap().share_alerted_interval, None);
    }

    #[test]
    fn drift_names_the_columns_that_moved() {
        let mut random = SplitMix64::new(2);
        let mut side = |shift: f32| -> Vec<f32> {
            (0..2000).flat_map(|_| [random.unit() as f32, random.unit() as f32 + shift, f32::NAN, shift]).collect()
        };
        let (old, new) = (side(0.0), side(0.5));
        let names = [Some("same"), Some("moved"), Some("moved"), None];
        let shifts = drift(&names, old.chunks_exact(4), new.chunks_exact(4));
        assert_eq!(shifts.iter().map(|shift| shift.column.as_str()).collect::<Vec<_>>(), ["moved", "same"]);
        assert!(shifts[0].auc > 0.8 && shifts[1].auc < 0.55, "{shifts:?}");
    }

    #[test]
    fn text_and_page_show_it_escaped() {
        let groups: Vec<String> = (0..100).map(|row| format!("g{row}")).collect();
        let mut survey = survey(&rows(&groups), 0.05, 50, 1).unwrap();
        survey.drift = vec![ColumnShift { column: "<b>".to_owned(), auc: 0.9 }];
        survey.importances = vec![Importance { feature: "bytes".to_owned(), contribution: 0.4 }];
        survey.training_share_alerted = Some(0.01);
        let text = text::render(&survey);
        assert!(
            text.contains("50 of 100 rows alerted (50.00 %") && text.contains("1.00 % of the training rows"),
            "{text}"
        );
        assert!(text.contains("bytes") && text.contains("no labels") && !text.contains("recall"), "{text}");
        let section = CardSection { title: "How".to_owned(), facts: vec![("seed".to_owned(), "<7>".to_owned())] };
        let page = page::render(&survey, &Card { title: "Model".to_owned(), sections: vec![section] });
        for part in ["<h1>Model</h1>", "&lt;b&gt;", "&lt;7&gt;", "50.00 %", "</html>", "<svg"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<b>") && !page.contains("recall"));
    }
}
