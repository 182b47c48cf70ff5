//! What is in a table, and what to mind before learning from it.

use std::collections::BTreeMap;

use picket_common::table::Value;
use serde::Serialize;

use crate::table::frame::{Column, Counts, Table, Values};
use crate::table::key::Keys;
use crate::table::separation;
use crate::train::{Control, TrainError};

/// A column that alone tells the label this well is suspected to be the label in other words.
const LEAK_AUC: f64 = 0.99;
/// Early and late benign rows that are told apart this well have drifted.
const DRIFT_AUC: f64 = 0.75;
/// Share of missing values that is worth a word.
const MISSING_SHARE: f64 = 0.5;
/// Share of a class below which it is worth a word.
const RARE_CLASS_SHARE: f64 = 0.01;
/// Most frequent values that are shown.
const TOP_VALUES: usize = 5;
/// Longest value that is shown, in characters.
const VALUE_CHARACTERS_MAX: usize = 60;

/// See the module documentation. Keys are stable: other programs read them.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Labelled rows (all, without a label).
    pub rows: usize,
    /// What was left out.
    pub counts: Counts,
    /// Rows of each label value.
    pub labels: BTreeMap<String, u64>,
    /// Malicious rows; nothing without a label.
    pub malicious: Option<usize>,
    /// Rows that equal an earlier one in all features.
    pub duplicates: usize,
    /// Rows that equal one with the other label.
    pub contradictions: usize,
    /// The columns, in the table's order.
    pub columns: Vec<ColumnProfile>,
    /// How different late benign rows are from early ones.
    pub drift: Option<Drift>,
    /// What to mind, the gravest first.
    pub findings: Vec<Finding>,
}

/// A column.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnProfile {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: &'static str,
    /// Whether it is a feature.
    pub is_feature: bool,
    /// Missing values.
    pub missing: usize,
    /// Those of them that could not be read.
    pub unreadable: u64,
    /// Different values.
    pub distinct: usize,
    /// Least number.
    pub minimum: Option<f64>,
    /// Mean of the numbers.
    pub mean: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// The most frequent values, with their rows.
    pub top: Vec<(String, u64)>,
    /// ROC-AUC of the label by this column alone.
    pub label_auc: Option<f64>,
    /// ROC-AUC of late against early among benign rows by this column alone.
    pub drift_auc: Option<f64>,
}

/// How different late benign rows are from early ones.
#[derive(Clone, Debug, Serialize)]
pub struct Drift {
    /// `time`, or `row` where there are no times: then by the order of the file.
    pub by: &'static str,
    /// Benign rows compared.
    pub rows: usize,
    /// ROC-AUC of late against early by all columns together: 0.5 is no drift, 1 another world.
    pub auc: Option<f64>,
}

/// Something to mind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind it is.
    pub kind: FindingKind,
    /// Which column, if it is one.
    pub column: Option<String>,
    /// In words.
    pub text: String,
}

/// Kinds of findings, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A column is the label in other words.
    Leak,
    /// A column numbers the rows.
    Order,
    /// Equal rows have different labels.
    Contradiction,
    /// A class is not there, or rare.
    Imbalance,
    /// Many rows are the same.
    Duplicates,
    /// Late rows differ from early ones.
    Drift,
    /// A column has no value, or one.
    Constant,
    /// A column has few values, or such that cannot be read.
    Missing,
}

/// Looks at a table.
///
/// # Errors
/// [`TrainError::Cancelled`], [`TrainError::Engine`].
pub fn profile(table: &Table, control: &Control<'_>) -> Result<Profile, TrainError> {
    let all: Vec<usize> = (0..table.rows).collect();
    let looked_at = separation::thinned(&all);
    let (late, benign, by) = halves(table);
    let compared = separation::thinned(&benign);
    let mut columns = Vec::with_capacity(table.columns.len());
    for (place, column) in table.columns.iter().enumerate() {
        control.observer.progress("columns", place as u64, table.columns.len() as u64);
        let mut profile = describe(column, table.rows);
        profile.label_auc =
            table.malicious.as_ref().and_then(|labels| separation::of_column(column, &looked_at, labels));
        if column.kind != picket_common::table::ColumnKind::Time {
            profile.drift_auc = separation::of_column(column, &compared, &late);
        }
        columns.push(profile);
    }
    control.observer.progress("drift", 0, 1);
    let auc = separation::of_all_columns(table, &compared, &late, control)?;
    let (duplicates, contradictions) = repeats(table);
    let mut profile = Profile {
        rows: table.rows,
        counts: table.counts,
        labels: table.label_counts.clone(),
        malicious: table.malicious.as_ref().map(|labels| labels.iter().filter(|label| **label).count()),
        duplicates,
        contradictions,
        columns,
        drift: Some(Drift { by, rows: compared.len(), auc }),
        findings: Vec::new(),
    };
    profile.findings = findings(table, &profile);
    Ok(profile)
}

/// For each row whether it is in the later half of the benign ones; the benign rows; and by what they are ordered.
fn halves(table: &Table) -> (Vec<bool>, Vec<usize>, &'static str) {
    let is_benign = |row: &usize| table.malicious.as_ref().is_none_or(|labels| !labels[*row]);
    let mut benign: Vec<usize> = (0..table.rows).filter(is_benign).collect();
    let by = match table.times() {
        Some(times) => {
            benign.retain(|row| times[*row].is_some());
            benign.sort_by_key(|row| times[*row]);
            "time"
        }
        None => "row",
    };
    let mut late = vec![false; table.rows];
    benign.iter().skip(benign.len() / 2).for_each(|row| late[*row] = true);
    (late, benign, by)
}

fn describe(column: &Column, rows: usize) -> ColumnProfile {
    let mut profile = ColumnProfile {
        name: column.name.clone(),
        kind: column.kind.name(),
        is_feature: column.is_feature,
        missing: (0..rows).filter(|row| column.value(*row) == Value::Missing).count(),
        unreadable: column.unreadable,
        distinct: 0,
        minimum: None,
        mean: None,
        maximum: None,
        top: Vec::new(),
        label_auc: None,
        drift_auc: None,
    };
    match &column.values {
        Values::Numbers(numbers) => {
            let mut present: Vec<f64> = numbers.iter().copied().filter(|number| !number.is_nan()).collect();
            present.sort_by(f64::total_cmp);
            profile.minimum = present.first().copied();
            profile.maximum = present.last().copied();
            profile.mean = (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64);
            let runs = present.chunk_by(|a, b| a == b).map(|run| (run[0].to_string(), run.len() as u64));
            profile.set_values(runs.collect());
        }
        Values::Words(words) => {
            let mut counts = vec![0_u64; words.words.len()];
            words.codes.iter().for_each(|code| {
                if let Some(count) = counts.get_mut(*code as usize) {
                    *count += 1;
                }
            });
            let shown = |word: &str| word.chars().take(VALUE_CHARACTERS_MAX).collect::<String>();
            profile.set_values(words.words.iter().map(|word| shown(word)).zip(counts).collect());
        }
        Values::Times(times) => {
            let mut present: Vec<_> = times.iter().flatten().collect();
            present.sort_unstable();
            profile.distinct = present.chunk_by(|a, b| a == b).count();
            let seconds = |time: &picket_common::event::Timestamp| time.0 as f64 / 1e9;
            profile.minimum = present.first().map(|time| seconds(time));
            profile.maximum = present.last().map(|time| seconds(time));
        }
    }
    profile
}

impl ColumnProfile {
    fn set_values(&mut self, mut values: Vec<(String, u64)>) {
        self.distinct = values.len();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        values.truncate(TOP_VALUES);
        self.top = values;
    }
}

/// Rows that equal an earlier one, and rows that equal one with the other label.
fn repeats(table: &Table) -> (usize, usize) {
    let keys = Keys::of(table).exact;
    let label = |row: usize| table.malicious.as_ref().is_some_and(|labels| labels[row]);
    let mut rows: Vec<(u64, bool)> = keys.iter().enumerate().map(|(row, key)| (*key, label(row))).collect();
    rows.sort_unstable();
    let runs = || rows.chunk_by(|a, b| a.0 == b.0);
    let is_mixed = |run: &&[(u64, bool)]| run.first().map(|row| row.1) != run.last().map(|row| row.1);
    (rows.len() - runs().count(), runs().filter(is_mixed).map(<[_]>::len).sum())
}

fn findings(table: &Table, profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind, column: Option<&str>, text: String| {
        findings.push(Finding { kind, column: column.map(str::to_owned), text });
    };
    for (column, values) in profile.columns.iter().zip(&table.columns) {
        let name = Some(column.name.as_str());
        if let Some(auc) = column.label_auc.filter(|auc| *auc >= LEAK_AUC) {
            let text = format!("tells the label alone (AUC {auc:.4}): is it known before the verdict? Else ignore it");
            add(FindingKind::Leak, name, text);
        }
        if grows(values) {
            add(FindingKind::Order, name, "grows from row to row: it says where a row stands, ignore it".to_owned());
        }
        if column.missing == table.rows {
            add(FindingKind::Constant, name, "has no value".to_owned());
        } else if column.distinct == 1 && column.missing == 0 {
            add(FindingKind::Constant, name, "has one value in all rows".to_owned());
        } else if column.missing as f64 > MISSING_SHARE * table.rows as f64 {
            let share = 100.0 * column.missing as f64 / table.rows as f64;
            add(FindingKind::Missing, name, format!("is missing in {share:.0} % of the rows"));
        }
        if column.unreadable > 0 {
            let text = format!("{} values cannot be read as {} (or are infinite)", column.unreadable, column.kind);
            add(FindingKind::Missing, name, text);
        }
    }
    if profile.contradictions > 0 {
        let text = format!("{} rows equal one with the other label", profile.contradictions);
        add(FindingKind::Contradiction, None, text);
    }
    if profile.duplicates * 10 > table.rows {
        let share = 100.0 * profile.duplicates as f64 / table.rows as f64;
        let text = format!("{share:.0} % of the rows repeat an earlier one: never split them by lot");
        add(FindingKind::Duplicates, None, text);
    }
    if let Some(malicious) = profile.malicious {
        let share = malicious as f64 / table.rows as f64;
        if share.min(1.0 - share) < RARE_CLASS_SHARE {
            add(FindingKind::Imbalance, None, format!("{malicious} of {} rows are malicious", table.rows));
        }
    }
    let drift = profile.drift.as_ref().and_then(|drift| Some((drift.by, drift.auc?)));
    if let Some((by, auc)) = drift.filter(|(_, auc)| *auc >= DRIFT_AUC) {
        let text = format!("late benign rows differ from early ones (by {by}: AUC {auc:.3})");
        add(FindingKind::Drift, None, text);
    }
    findings.sort();
    findings
}

/// Whether each number is above that of the row before.
fn grows(column: &Column) -> bool {
    const ROWS_MIN: usize = 20;
    match &column.values {
        Values::Numbers(numbers) => numbers.len() >= ROWS_MIN && numbers.windows(2).all(|pair| pair[1] > pair[0]),
        _ => false,
    }
}
