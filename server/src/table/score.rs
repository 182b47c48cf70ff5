//! Scores a file of rows with a table model.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;

use picket_common::table::limits::TABLE_MODEL_BYTES_MAX;
use picket_common::table::{ColumnReason, Record, RowScorer, TableModel, TableModelError};

use crate::table::{Input, TableFileError};

/// Longest field that a reason shows, in characters.
const FIELD_CHARACTERS_MAX: usize = 60;

/// What was scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scored {
    /// Rows.
    pub rows: u64,
    /// Those at or above the threshold.
    pub findings: u64,
    /// Fields that could not be read, and were missing therefore.
    pub unreadable_fields: u64,
}

/// Reads a table model's file.
///
/// # Errors
/// [`TableFileError::File`], [`TableFileError::Model`].
pub fn read_model(path: &Path) -> Result<TableModel, TableFileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(TableFileError::file(path))?;
    file.take(TABLE_MODEL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(TableFileError::file(path))?;
    TableModel::parse(&bytes).map_err(|source| TableFileError::Model { path: path.to_owned(), source })
}

/// Scores each row of `input` and writes CSV to `output`: row number from 1, score, verdict (`finding` or `ok`), and up to
/// so many reasons. The file gets its name when all rows are scored.
///
/// # Errors
/// [`TableFileError`]; then there is no output.
pub fn score(
    model: &TableModel,
    input: &Path,
    output: &Path,
    (reasons, replace): (usize, bool),
    mut progress: impl FnMut(u64, u64),
) -> Result<Scored, TableFileError> {
    let error = TableFileError::file(output);
    if !replace && output.exists() {
        let text = "is there already: give another file, or --force to replace it";
        return Err(error(io::Error::new(io::ErrorKind::AlreadyExists, text)));
    }
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = output.with_file_name(name);
    let scored = File::create(&partial).map_err(&error).and_then(|file| {
        let scored = write_scores(model, input, BufWriter::new(file), (output, reasons), &mut progress)?;
        fs::rename(&partial, output).map_err(&error)?;
        Ok(scored)
    });
    if scored.is_err() {
        // Best effort: the error that counts is the first one.
        drop(fs::remove_file(&partial));
    }
    scored
}

fn write_scores(
    model: &TableModel,
    input: &Path,
    out: impl Write,
    (output, reasons): (&Path, usize),
    progress: &mut impl FnMut(u64, u64),
) -> Result<Scored, TableFileError> {
    const PROGRESS_ROWS: u64 = 10_000;
    let error = TableFileError::file(output);
    let of_table = |source: TableModelError| TableFileError::Model { path: input.to_owned(), source };
    let wanted: Vec<String> = model.preparation().columns.iter().map(|column| column.name.clone()).collect();
    let mut rows = Input::open(input, Some(&wanted))?;
    let mut scorer = RowScorer::new(model, rows.columns()).map_err(of_table)?;
    let mut out = csv::Writer::from_writer(out);
    let write_error = |source: csv::Error| error(io::Error::other(source));
    out.write_record(["row", "score", "verdict", "reasons"]).map_err(write_error)?;
    let (mut record, mut scored) = (Record::default(), Scored::default());
    while rows.next(&mut record)? {
        let score = scorer.score(&record);
        let is_finding = score >= model.threshold();
        scored.rows += 1;
        scored.findings += u64::from(is_finding);
        let said: Vec<String> = scorer.reasons(&record, reasons).iter().map(words).collect();
        let verdict = if is_finding { "finding" } else { "ok" };
        let fields = [scored.rows.to_string(), score.to_string(), verdict.to_owned(), said.join("; ")];
        out.write_record(fields).map_err(write_error)?;
        if scored.rows % PROGRESS_ROWS == 0 {
            progress(scored.rows, rows.rows_estimate().max(scored.rows));
        }
    }
    scorer.check_fields().map_err(of_table)?;
    if let Some(column) = rows.unseen().into_iter().next().filter(|_| scored.rows > 0) {
        return Err(of_table(TableModelError::AbsentKey { column }));
    }
    out.flush().map_err(&error)?;
    scored.unreadable_fields = scorer.unreadable();
    Ok(scored)
}

/// Scores each row of `input` and hands it to `judge` with the place of `column` in it.
///
/// # Errors
/// [`TableFileError`], or what `judge` gives.
pub fn compare<E: From<TableFileError>>(
    model: &TableModel,
    input: &Path,
    column: &str,
    mut judge: impl FnMut(&Record, usize, f64) -> Result<(), E>,
) -> Result<(), E> {
    let of_table = |source: TableModelError| TableFileError::Model { path: input.to_owned(), source };
    let mut rows = Input::open(input, None)?;
    let mut scorer = RowScorer::new(model, rows.columns()).map_err(of_table)?;
    let absent = || of_table(TableModelError::MissingColumns { count: 1, names: column.to_owned() });
    let place = rows.columns().iter().position(|name| name == column).ok_or_else(absent)?;
    let mut record = Record::default();
    while rows.next(&mut record)? {
        let score = scorer.score(&record);
        judge(&record, place, score)?;
    }
    Ok(())
}

/// A reason in words: the field, and how far it moved the score.
pub fn words(reason: &ColumnReason) -> String {
    let mut field: String = reason.field.chars().take(FIELD_CHARACTERS_MAX).collect();
    if field.len() < reason.field.len() {
        field.push('…');
    }
    let field = if field.is_empty() { "missing".to_owned() } else { field };
    format!("{}={} ({:+.3})", reason.column, field, reason.contribution)
}
