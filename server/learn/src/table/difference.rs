//! What sets two tables apart.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::table::frame::{Table, Values, Words};
use crate::table::key::Keys;
use crate::table::separation;
use crate::train::{Control, TrainError};

/// Values of a column that are listed as new, or as gone.
const LISTED_MAX: usize = 10;

/// See the module documentation. Keys are stable: other programs read them.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Rows of the first table and of the second.
    pub rows: [usize; 2],
    /// Malicious rows of each; nothing without a label.
    pub malicious: Option<[usize; 2]>,
    /// Rows of the second that equal one of the first in all features.
    pub rows_in_both: usize,
    /// ROC-AUC by which all columns together tell the tables apart: 0.5 is not at all.
    pub auc: Option<f64>,
    /// The columns, those that differ most first.
    pub columns: Vec<ColumnDifference>,
}

/// A column in both tables.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnDifference {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: &'static str,
    /// ROC-AUC by which it alone tells the tables apart, 0.5 to 1.
    pub auc: Option<f64>,
    /// Share of missing values in each.
    pub missing: [f64; 2],
    /// Mean of the numbers in each.
    pub mean: Option<[f64; 2]>,
    /// Values that only the second has: how many, and the first of them.
    pub new_values: (usize, Vec<String>),
    /// Values that only the first has: how many, and the first of them.
    pub gone_values: (usize, Vec<String>),
}

/// Compares the first `boundary` rows of a table with the others.
///
/// # Errors
/// [`TrainError::Cancelled`], [`TrainError::Engine`].
pub fn difference(table: &Table, boundary: usize, control: &Control<'_>) -> Result<Difference, TrainError> {
    let boundary = boundary.min(table.rows);
    let is_second: Vec<bool> = (0..table.rows).map(|row| row >= boundary).collect();
    let all: Vec<usize> = (0..table.rows).collect();
    let rows = separation::thinned(&all);
    let keys = Keys::of(table).exact;
    let first: BTreeSet<u64> = keys.iter().take(boundary).copied().collect();
    let mut columns = Vec::with_capacity(table.columns.len());
    for (place, column) in table.columns.iter().enumerate().filter(|(_, column)| column.is_feature) {
        control.observer.progress("columns", place as u64, table.columns.len() as u64);
        let share = |missing: usize, rows: usize| missing as f64 / rows.max(1) as f64;
        let missing = |rows: std::ops::Range<usize>| {
            let length = rows.len();
            share(rows.filter(|row| column.value(*row) == picket_common::table::Value::Missing).count(), length)
        };
        let [new_values, gone_values] = match &column.values {
            Values::Words(words) => only_in(words, boundary),
            _ => Default::default(),
        };
        columns.push(ColumnDifference {
            name: column.name.clone(),
            kind: column.kind.name(),
            auc: separation::of_column(column, &rows, &is_second),
            missing: [missing(0..boundary), missing(boundary..table.rows)],
            mean: match &column.values {
                Values::Numbers(numbers) => Some([mean(&numbers[..boundary]), mean(&numbers[boundary..])]),
                _ => None,
            },
            new_values,
            gone_values,
        });
    }
    columns.sort_by(|a, b| b.auc.unwrap_or(0.0).total_cmp(&a.auc.unwrap_or(0.0)));
    let count = |labels: &[bool]| labels.iter().filter(|label| **label).count();
    Ok(Difference {
        rows: [boundary, table.rows - boundary],
        malicious: table.malicious.as_ref().map(|labels| [count(&labels[..boundary]), count(&labels[boundary..])]),
        rows_in_both: keys.iter().skip(boundary).filter(|key| first.contains(key)).count(),
        auc: separation::of_all_columns(table, &rows, &is_second, control)?,
        columns,
    })
}

fn mean(numbers: &[f64]) -> f64 {
    let present = || numbers.iter().filter(|number| !number.is_nan());
    present().sum::<f64>() / present().count().max(1) as f64
}

/// Values of the rows from the boundary on that no earlier row has, and the other way round.
fn only_in(words: &Words, boundary: usize) -> [(usize, Vec<String>); 2] {
    let seen = |codes: &[u32]| codes.iter().copied().filter(|code| *code != Words::NONE).collect::<BTreeSet<u32>>();
    let (first, second) = (seen(&words.codes[..boundary]), seen(&words.codes[boundary..]));
    let list = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| {
        let only: Vec<u32> = a.difference(b).copied().collect();
        let names = only.iter().take(LISTED_MAX).map(|code| words.words[*code as usize].to_string());
        (only.len(), names.collect())
    };
    [list(&second, &first), list(&first, &second)]
}
