//! `picketctl dataset profile` and `dataset diff`: what is in files.

use picket_learn::table::{ColumnDifference, Difference, Profile, difference, page, profile as profile_of};
use picket_learn::train::Control;
use serde_json::Value;

use crate::ctl::arguments::{ColumnArguments, Format, TableArguments};
use crate::ctl::command::model::write_file;
use crate::ctl::command::object;
use crate::ctl::command::table::{Shown, loader};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Column, Output, Row, columns, safe, table};
use crate::table::{Loader, TableFileError};

/// Columns of a difference that a table shows; JSON has all.
const COLUMNS_SHOWN_MAX: usize = 25;

/// `picketctl dataset profile`.
pub(super) fn profile(arguments: &TableArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let TableArguments { input, columns, to, force } = arguments;
    let observer = Shown::new();
    let loaded = Loader { keep_ignored: true, ..loader(columns)? }.load(input, &observer)?;
    let profile = profile_of(&loaded.table, &Control::observed(&observer)).map_err(learning)?;
    drop(observer);
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let mut text = profile_text(&profile);
    if let Some(to) = to {
        write_file(to, page::render(&profile, &format!("Profile of {name}")).as_bytes(), *force)?;
        text.push_str(&format!("{} written\n", safe(&to.display().to_string())));
    }
    match serde_json::to_value(&profile) {
        Ok(Value::Object(object)) => output.one(&text, object),
        _ => output.text(&text),
    }
}

fn profile_text(profile: &Profile) -> String {
    let shown = columns([
        ("column", "name"),
        ("holds", "kind"),
        ("feature", "is_feature"),
        ("missing", "missing"),
        ("values", "distinct"),
        ("label AUC", "label_auc"),
        ("drift AUC", "drift_auc"),
        ("most frequent", "most_frequent"),
    ]);
    let row = |column: &picket_learn::table::ColumnProfile| {
        let mut row = as_row(serde_json::to_value(column));
        let top: Vec<String> = column.top.iter().take(3).map(|(value, rows)| format!("{value} ({rows})")).collect();
        row.insert("most_frequent".to_owned(), top.join(", ").into());
        row
    };
    let rows: Vec<Row> = profile.columns.iter().map(row).collect();
    let mut text = table(&shown, &rows);
    text.push_str(&format!(
        "\n{} rows{}; {} repeat an earlier one, {} equal one with the other label\n",
        profile.rows,
        profile.malicious.map_or_else(String::new, |malicious| format!(", {malicious} malicious")),
        profile.duplicates,
        profile.contradictions
    ));
    if let Some((drift, auc)) = profile.drift.as_ref().and_then(|drift| Some((drift, drift.auc?))) {
        text.push_str(&format!("late against early benign rows, by {}: AUC {auc:.3} (0.5 is no drift)\n", drift.by));
    }
    for finding in &profile.findings {
        let column = finding.column.as_deref().map_or_else(String::new, |name| format!("{}: ", safe(name)));
        text.push_str(&format!("mind: {column}{}\n", safe(&finding.text)));
    }
    text
}

/// `picketctl dataset diff`.
pub(super) fn diff(
    paths: [&std::path::PathBuf; 2],
    arguments: &ColumnArguments,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    let observer = Shown::new();
    let both = loader(arguments)?.load_both(paths.map(|path| path.as_path()), &observer)?;
    let found = difference(&both.table, both.boundary, &Control::observed(&observer)).map_err(learning)?;
    drop(observer);
    if output.format() != Format::Table {
        let mut whole = as_row(serde_json::to_value(&found));
        let [of_first, of_second] = both.only_in;
        whole.extend(object([("columns_gone", of_first.into()), ("columns_new", of_second.into())]));
        return output.one("", whole);
    }
    output.text(&difference_text(&found, &both.only_in))
}

fn difference_text(found: &Difference, only_in: &[Vec<String>; 2]) -> String {
    let rows: Vec<Row> = found.columns.iter().take(COLUMNS_SHOWN_MAX).map(difference_row).collect();
    let mut text = table(&difference_columns(), &rows);
    if found.columns.len() > COLUMNS_SHOWN_MAX {
        text.push_str(&format!("and {} columns that differ less\n", found.columns.len() - COLUMNS_SHOWN_MAX));
    }
    text.push_str(&format!(
        "\n{} and {} rows; {} of the second equal one of the first\n",
        found.rows[0], found.rows[1], found.rows_in_both
    ));
    if let Some([first, second]) = found.malicious {
        text.push_str(&format!("malicious: {first} and {second}\n"));
    }
    if let Some(auc) = found.auc {
        text.push_str(&format!("all columns together tell the files apart with AUC {auc:.3} (0.5 is not at all)\n"));
    }
    for (names, which) in only_in.iter().zip(["first", "second"]).filter(|(names, _)| !names.is_empty()) {
        text.push_str(&format!("only the {which} has: {}\n", safe(&names.join(", "))));
    }
    text
}

fn difference_columns() -> Vec<Column> {
    columns([
        ("column", "name"),
        ("holds", "kind"),
        ("AUC", "auc"),
        ("missing", "missing_first"),
        ("then", "missing_second"),
        ("mean", "mean_first"),
        ("then", "mean_second"),
        ("new values", "new"),
        ("gone values", "gone"),
    ])
}

fn difference_row(column: &ColumnDifference) -> Row {
    let list = |(count, names): &(usize, Vec<String>)| match count {
        0 => String::new(),
        count => format!("{count}: {}", names.iter().take(3).cloned().collect::<Vec<_>>().join(", ")),
    };
    object([
        ("name", column.name.as_str().into()),
        ("kind", column.kind.into()),
        ("auc", column.auc.into()),
        ("missing_first", column.missing[0].into()),
        ("missing_second", column.missing[1].into()),
        ("mean_first", column.mean.map(|mean| mean[0]).into()),
        ("mean_second", column.mean.map(|mean| mean[1]).into()),
        ("new", list(&column.new_values).into()),
        ("gone", list(&column.gone_values).into()),
    ])
}

fn as_row(value: serde_json::Result<Value>) -> Row {
    match value {
        Ok(Value::Object(row)) => row,
        _ => Row::new(),
    }
}

fn learning(error: picket_learn::train::TrainError) -> TableFileError {
    TableFileError::Train(error.into())
}
