//! Scores the rows of a table with a table model.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use picket_common::table::{ColumnReason, Record, RowScorer, TableModel, TableModelError, TableReader};
use serde_json::json;

use super::{ScoreArguments, ScoreError, ScoreOutput};

/// Longest field that a reason shows, in characters.
const FIELD_CHARACTERS_MAX: usize = 60;

/// Scores every row; returns the number of findings.
pub(super) fn score(
    arguments: &ScoreArguments,
    model: &[u8],
    trusted: Option<&[VerifyingKey]>,
    out: impl Write,
) -> Result<u64, ScoreError> {
    let model = match trusted {
        Some(trusted) => TableModel::verify(model, trusted),
        None => TableModel::parse(model),
    };
    let model = model.map_err(|source| ScoreError::TableModel { path: arguments.model.clone(), source })?;
    let of_table = |source| ScoreError::TableModel { path: arguments.input.clone(), source };
    let read_error = |source| ScoreError::Table { path: arguments.input.clone(), source };
    let mut rows = open(&arguments.input, &model)?;
    let mut scorer = RowScorer::new(&model, rows.columns()).map_err(of_table)?;
    let mut verdicts = RowVerdicts { output: arguments.output, out, written: 0, scored: 0, findings: 0 };
    let mut record = Record::default();
    while rows.next(&mut record).map_err(read_error)? {
        let score = scorer.score(&record);
        let is_finding = score >= model.threshold();
        verdicts.scored += 1;
        verdicts.findings += u64::from(is_finding);
        if is_finding || !arguments.findings_only {
            let reasons = scorer.reasons(&record, usize::from(arguments.reasons));
            verdicts.write(&model, score, is_finding, &reasons).map_err(ScoreError::Write)?;
        }
    }
    verdicts.finish().map_err(ScoreError::Write)?;
    scorer.check_fields().map_err(of_table)?;
    if let Some(column) = rows.unseen().next().filter(|_| verdicts.scored > 0) {
        return Err(of_table(TableModelError::AbsentKey { column: column.to_owned() }));
    }
    if scorer.unreadable() > 0 {
        eprintln!("picket-agent: {} fields could not be read and count as missing", scorer.unreadable());
    }
    Ok(verdicts.findings)
}

/// A table: JSON lines when the first byte is a brace, else CSV; `.zst` is unpacked.
fn open(path: &Path, model: &TableModel) -> Result<TableReader<Box<dyn BufRead>>, ScoreError> {
    let read_error = |source| ScoreError::Read { path: path.to_owned(), source };
    let mut input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(read_error)?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("zst") => Box::new(BufReader::new(zstd::Decoder::new(file).map_err(read_error)?)),
            Some("gz" | "parquet") => {
                let text = "is read by picketctl model score only; unpacked, or as CSV, by the agent, too";
                return Err(read_error(io::Error::new(io::ErrorKind::Unsupported, text)));
            }
            _ => Box::new(BufReader::new(file)),
        }
    };
    let is_json = input.fill_buf().map_err(read_error)?.trim_ascii_start().first() == Some(&b'{');
    if is_json {
        let columns = model.preparation().columns.iter().map(|column| column.name.clone()).collect();
        return Ok(TableReader::json_lines(input, columns));
    }
    TableReader::csv(input).map_err(|source| ScoreError::Table { path: path.to_owned(), source })
}

/// Writes verdicts in the wanted form.
struct RowVerdicts<W> {
    output: ScoreOutput,
    out: W,
    written: u64,
    scored: u64,
    findings: u64,
}

impl<W: Write> RowVerdicts<W> {
    fn write(&mut self, model: &TableModel, score: f64, is_finding: bool, reasons: &[ColumnReason]) -> io::Result<()> {
        let first = self.written == 0;
        self.written += 1;
        let verdict = if is_finding { "finding" } else { "ok" };
        if self.output == ScoreOutput::Table {
            if first {
                writeln!(self.out, "{:<8} {:>6} {:>9}  REASONS", "VERDICT", "SCORE", "ROW")?;
            }
            let said: Vec<String> = reasons.iter().map(words).collect();
            return writeln!(self.out, "{verdict:<8} {score:>6.3} {:>9}  {}", self.scored, said.join("; "));
        }
        let reasons: Vec<_> = reasons
            .iter()
            .map(|reason| json!({"column": reason.column, "value": reason.field, "contribution": reason.contribution}))
            .collect();
        let object = json!({
            "row": self.scored,
            "verdict": verdict,
            "score": score,
            "threshold": model.threshold(),
            "model_digest": model.id().to_string(),
            "reasons": reasons,
        });
        match self.output {
            ScoreOutput::Json => write!(self.out, "{}\n  {object}", if first { "[" } else { "," }),
            _ => writeln!(self.out, "{object}"),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self.output {
            ScoreOutput::Json if self.written == 0 => writeln!(self.out, "[]")?,
            ScoreOutput::Json => writeln!(self.out, "\n]")?,
            ScoreOutput::Table => writeln!(self.out, "{} scored, {} findings", self.scored, self.findings)?,
            ScoreOutput::Ndjson => {}
        }
        self.out.flush()
    }
}

/// A reason for people: the field, with what a terminal would act on taken out, and how far it moved the score.
fn words(reason: &ColumnReason) -> String {
    let clean = |text: &str| -> String {
        text.chars().take(FIELD_CHARACTERS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    let field = if reason.field.is_empty() { "missing".to_owned() } else { clean(&reason.field) };
    format!("{}={field} ({:+.3})", clean(&reason.column), reason.contribution)
}
