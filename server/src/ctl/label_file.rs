//! Files of labels: CSV with a header, or JSON lines.
//!
//! Columns or keys: `event_id` and `verdict` (required), `technique`, `group`, `source`. Everything is checked before
//! anything is sent; errors name their line.

use std::io::{BufRead, Read};

use picket_common::id::EventId;
use serde_json::Value;

use crate::ctl::arguments::LabelFormat;
use crate::label::{Label, LabelParts};

/// Most labels of a file.
pub const LABELS_MAX: usize = 1_000_000;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Lines in error that are named.
const ERRORS_NAMED_MAX: usize = 20;

const COLUMNS: [&str; 5] = ["event_id", "verdict", "technique", "group", "source"];
const REQUIRED: [&str; 2] = ["event_id", "verdict"];

/// Why a file of labels cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFileError {
    /// It cannot be read.
    #[error("line {line}: {reason}")]
    Read {
        /// How far it could be read.
        line: u64,
        /// Why not further.
        reason: String,
    },
    /// A column is missing or unknown.
    #[error("{0}")]
    Header(String),
    /// Lines are wrong.
    #[error("{}", lines_text(.0))]
    Lines(Vec<(u64, String)>),
    /// There are too many.
    #[error("more than {LABELS_MAX} labels: split the file")]
    TooMany,
    /// There are none.
    #[error("there are no labels in it")]
    Empty,
    /// Neither the name nor an argument tells the form.
    #[error("cannot tell the form of {0}: give --format csv or --format jsonl")]
    UnknownFormat(String),
}

fn lines_text(errors: &[(u64, String)]) -> String {
    let named: Vec<String> =
        errors.iter().take(ERRORS_NAMED_MAX).map(|(line, error)| format!("line {line}: {error}")).collect();
    match errors.len().saturating_sub(ERRORS_NAMED_MAX) {
        0 => named.join("\n"),
        more => format!("{}\nand {more} more lines in error", named.join("\n")),
    }
}

/// The form of a file by its name.
///
/// # Errors
/// [`LabelFileError::UnknownFormat`].
pub fn format_of(name: &str) -> Result<LabelFormat, LabelFileError> {
    match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref() {
        Some("csv") => Ok(LabelFormat::Csv),
        Some("jsonl" | "ndjson") => Ok(LabelFormat::Jsonl),
        _ => Err(LabelFileError::UnknownFormat(name.to_owned())),
    }
}

/// Reads all labels of a file. Those without a source get `source`.
///
/// # Errors
/// [`LabelFileError`]; all wrong lines at once.
pub fn read(input: impl Read, format: LabelFormat, source: &str) -> Result<Vec<Label>, LabelFileError> {
    let mut collector = Collector { source, labels: Vec::new(), errors: Vec::new() };
    match format {
        LabelFormat::Csv => read_csv(input, &mut collector)?,
        LabelFormat::Jsonl => read_jsonl(std::io::BufReader::new(input), &mut collector)?,
    }
    match (collector.errors.is_empty(), collector.labels.is_empty()) {
        (false, _) => Err(LabelFileError::Lines(collector.errors)),
        (true, true) => Err(LabelFileError::Empty),
        (true, false) => Ok(collector.labels),
    }
}

struct Collector<'a> {
    source: &'a str,
    labels: Vec<Label>,
    errors: Vec<(u64, String)>,
}

impl Collector<'_> {
    /// Takes a line's values in the order of [`COLUMNS`].
    fn take(&mut self, line: u64, values: Result<[String; 5], String>) -> Result<(), LabelFileError> {
        if self.labels.len() + self.errors.len() >= LABELS_MAX {
            return Err(LabelFileError::TooMany);
        }
        match values.and_then(|values| label(&values, self.source)) {
            Ok(label) => self.labels.push(label),
            Err(error) => self.errors.push((line, error)),
        }
        Ok(())
    }
}

fn label([event, verdict, technique, group, source]: &[String; 5], default_source: &str) -> Result<Label, String> {
    let event: EventId = event.parse().map_err(|error| format!("event_id {event:?}: {error}"))?;
    let verdict = verdict.parse().map_err(|error| format!("verdict: {error}"))?;
    let source = if source.is_empty() { default_source } else { source };
    Label::new(LabelParts { event, verdict, technique, group, source }).map_err(|error| error.to_string())
}

fn read_csv(input: impl Read, collector: &mut Collector<'_>) -> Result<(), LabelFileError> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).flexible(true).from_reader(input);
    let failed = |error: csv::Error| LabelFileError::Read {
        line: error.position().map_or(1, csv::Position::line),
        reason: error.to_string(),
    };
    let header = reader.headers().map_err(failed)?.clone();
    let mut places: [Option<usize>; 5] = [None; 5];
    for (place, name) in header.iter().enumerate() {
        match COLUMNS.iter().position(|column| *column == name) {
            Some(column) if places[column].is_none() => places[column] = Some(place),
            Some(_) => return Err(LabelFileError::Header(format!("line 1: the column {name} is there twice"))),
            None => return Err(LabelFileError::Header(format!("line 1: {}", unknown("column", name)))),
        }
    }
    for name in REQUIRED {
        if !header.iter().any(|column| column == name) {
            return Err(LabelFileError::Header(format!("line 1: the column {name} is missing")));
        }
    }
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(0, csv::Position::line);
        let values = if record.len() == header.len() {
            Ok(places.map(|place| place.and_then(|place| record.get(place)).unwrap_or_default().to_owned()))
        } else {
            Err(format!("{} values, the header has {} columns", record.len(), header.len()))
        };
        collector.take(line, values)?;
    }
    Ok(())
}

fn read_jsonl(mut input: impl BufRead, collector: &mut Collector<'_>) -> Result<(), LabelFileError> {
    let mut line = 0;
    let mut text = String::new();
    loop {
        text.clear();
        line += 1;
        let read = (&mut input).take(LINE_BYTES_MAX).read_line(&mut text);
        let read = read.map_err(|error| LabelFileError::Read { line, reason: error.to_string() })?;
        match read as u64 {
            0 => return Ok(()),
            LINE_BYTES_MAX if !text.ends_with('\n') => {
                let reason = format!("it is longer than {LINE_BYTES_MAX} bytes");
                return Err(LabelFileError::Read { line, reason });
            }
            _ if text.trim().is_empty() => {}
            _ => collector.take(line, json_values(&text))?,
        }
    }
}

fn json_values(text: &str) -> Result<[String; 5], String> {
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("not a JSON object".to_owned()),
        Err(error) => return Err(format!("not JSON: {error}")),
    };
    let mut values: [String; 5] = std::array::from_fn(|_| String::new());
    for (key, value) in object {
        let place = COLUMNS.iter().position(|column| *column == key).ok_or_else(|| unknown("key", &key))?;
        values[place] = match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => return Err(format!("{key} is {other}, expected text")),
        };
    }
    match REQUIRED.iter().zip(&values).find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(format!("{name} is missing")),
        None => Ok(values),
    }
}

fn unknown(what: &str, name: &str) -> String {
    format!("unknown {what} {name:?}, known are {}", COLUMNS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Verdict;

    const EVENT: &str = "0190b5c0-7c1d-4a5e-9c39-8a8f2d0f6a11/1800000000000000000/42";

    fn csv(text: &str) -> Result<Vec<Label>, LabelFileError> {
        read(text.as_bytes(), LabelFormat::Csv, "import")
    }

    fn jsonl(text: &str) -> Result<Vec<Label>, LabelFileError> {
        read(text.as_bytes(), LabelFormat::Jsonl, "import")
    }

    #[test]
    fn both_forms_say_the_same() {
        let from_csv = csv(&format!(
            "verdict, event_id,technique,group\nmalicious,{EVENT},T1046,scan-1\n# a remark\nbenign,{EVENT},,\"work, 1\"\n"
        ))
        .unwrap();
        let from_json = jsonl(&format!(
            "{{\"event_id\":\"{EVENT}\",\"verdict\":\"malicious\",\"technique\":\"T1046\",\"group\":\"scan-1\"}}\n\n\
             {{\"event_id\":\"{EVENT}\",\"verdict\":\"benign\",\"technique\":null,\"group\":\"work, 1\"}}"
        ))
        .unwrap();
        assert_eq!(from_csv, from_json);
        assert_eq!(from_csv.len(), 2);
        assert_eq!((from_csv[0].verdict(), from_csv[0].technique()), (Verdict::Malicious, "T1046"));
        assert_eq!((from_csv[1].group(), from_csv[1].source()), (Some("work, 1"), "import"));
    }

    #[test]
    fn every_wrong_line_is_named() {
        let error = csv(&format!(
            "event_id,verdict,technique\n{EVENT},benign,\nnonsense,benign,\n{EVENT},evil,\n{EVENT},malicious,scan\n\
             {EVENT},benign\n{EVENT},benign,T1046\n"
        ))
        .unwrap_err();
        let LabelFileError::Lines(lines) = &error else { panic!("{error:?}") };
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        let text = error.to_string();
        for part in ["line 3: event_id \"nonsense\"", "line 4: verdict", "T1046 or T1059.004", "line 6: 2 values"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn headers_and_keys_are_checked() {
        assert!(csv("event,verdict\n").unwrap_err().to_string().contains("unknown column \"event\""));
        assert!(csv("event_id,colour\n").unwrap_err().to_string().contains("known are event_id"));
        assert!(csv("event_id\n").unwrap_err().to_string().contains("verdict is missing"));
        assert!(csv("event_id,verdict,verdict\n").unwrap_err().to_string().contains("twice"));
        for (line, reason) in [
            (
                format!("{{\"event_id\":\"{EVENT}\",\"verdict\":\"benign\",\"tecnique\":\"\"}}"),
                "unknown key \"tecnique\"",
            ),
            (format!("{{\"event_id\":\"{EVENT}\"}}"), "verdict is missing"),
            (format!("{{\"event_id\":\"{EVENT}\",\"verdict\":1}}"), "expected text"),
            ("[]".to_owned(), "not a JSON object"),
            ("{".to_owned(), "not JSON"),
        ] {
            let error = jsonl(&line).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_file_of_labels_is_refused() {
        assert_eq!(csv("event_id,verdict\n"), Err(LabelFileError::Empty));
        assert_eq!(jsonl("\n\n"), Err(LabelFileError::Empty));
        assert!(matches!(jsonl(&"x".repeat(70_000)), Err(LabelFileError::Read { line: 1, .. })));
        let binary = read(&[0xff, 0xfe, b'\n'][..], LabelFormat::Jsonl, "import");
        assert!(matches!(binary, Err(LabelFileError::Read { line: 1, .. })));
        let many = csv(&format!("event_id,verdict\n{}", "x,y\n".repeat(60))).unwrap_err().to_string();
        assert!(many.contains("and 40 more lines in error"), "{many}");
    }

    #[test]
    fn the_form_is_told_by_the_name() {
        assert_eq!(format_of("labels.CSV"), Ok(LabelFormat::Csv));
        assert_eq!(format_of("a.b.jsonl"), Ok(LabelFormat::Jsonl));
        assert!(format_of("labels.txt").is_err() && format_of("-").is_err());
    }
}
