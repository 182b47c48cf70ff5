//! Results on stdout: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use crate::ctl::arguments::Format;
use crate::ctl::error::CtlError;

/// Widest cell, in characters; longer ones are cut. JSON has everything.
const CELL_CHARACTERS_MAX: usize = 120;
/// What stands for nothing in a cell.
const NOTHING: &str = "-";

/// A result row: keys are stable, programs read them.
pub type Row = Map<String, Value>;

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// What stands above it.
    pub title: String,
    /// The row's key it shows.
    pub key: String,
}

impl Column {
    /// A column.
    pub fn new(title: impl Into<String>, key: impl Into<String>) -> Self {
        Self { title: title.into(), key: key.into() }
    }
}

/// Columns from (title, key) pairs.
pub fn columns<const N: usize>(pairs: [(&str, &str); N]) -> Vec<Column> {
    pairs.iter().map(|(title, key)| Column::new(*title, *key)).collect()
}

/// Where results go.
pub struct Output<'a> {
    format: Format,
    out: Box<dyn Write + 'a>,
}

impl<'a> Output<'a> {
    /// Results in this format.
    pub fn new(format: Format, out: Box<dyn Write + 'a>) -> Self {
        Self { format, out }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows: a table with these columns, a JSON array, or one JSON object a line.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn rows(&mut self, columns: &[Column], rows: Vec<Row>) -> Result<(), CtlError> {
        match self.format {
            Format::Table => self.text(&table(columns, &rows)),
            Format::Json => self.json(&Value::Array(rows.into_iter().map(Value::Object).collect())),
            Format::Ndjson => rows.into_iter().try_for_each(|row| self.json_line(&Value::Object(row))),
        }
    }

    /// One thing: `text` for people, the object for programs.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn one(&mut self, text: &str, object: Row) -> Result<(), CtlError> {
        match self.format {
            Format::Table => self.text(text),
            Format::Json => self.json(&Value::Object(object)),
            Format::Ndjson => self.json_line(&Value::Object(object)),
        }
    }

    /// An object on a line of its own, whatever the format.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn json_line(&mut self, value: &Value) -> Result<(), CtlError> {
        self.text(&safe_json(&value.to_string()))
    }

    /// Lines for people.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn text(&mut self, text: &str) -> Result<(), CtlError> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(self.out, "{text}{end}").map_err(CtlError::Output)
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// [`CtlError::Output`].
    pub fn flush(&mut self) -> Result<(), CtlError> {
        self.out.flush().map_err(CtlError::Output)
    }

    fn json(&mut self, value: &Value) -> Result<(), CtlError> {
        let text = serde_json::to_string_pretty(value).map_err(|error| CtlError::Output(error.into()))?;
        self.text(&safe_json(&text))
    }
}

/// Rows as a table.
pub fn table(columns: &[Column], rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| Cell::new(safe(&column.title))));
    for row in rows {
        table.add_row(columns.iter().map(|column| {
            let value = row.get(&column.key).unwrap_or(&Value::Null);
            let cell = Cell::new(cell_text(value));
            if value.is_number() { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
    }
    format!("{table}\n")
}

fn cell_text(value: &Value) -> String {
    let text = match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => safe(text),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |real| format!("{real:.4}"))
        }
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => safe(&other.to_string()),
    };
    if text.chars().count() <= CELL_CHARACTERS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARACTERS_MAX - 1).chain(['…']).collect()
}

/// Whether a terminal would act on this character, or show others in another order because of it.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with everything a terminal would act on written as `\u{…}`.
pub fn safe(text: &str) -> String {
    text.chars()
        .map(
            |character| {
                if is_unsafe(character) { character.escape_unicode().to_string() } else { character.to_string() }
            },
        )
        .collect()
}

/// JSON whose strings keep their meaning but hold nothing a terminal would act on. serde_json escapes only what JSON
/// requires, which leaves the C1 controls and marks that reorder text.
pub fn safe_json(json: &str) -> String {
    json.chars()
        .map(|character| match character {
            '\n' => "\n".to_owned(),
            character if is_unsafe(character) => format!("\\u{:04x}", u32::from(character)),
            character => character.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(format: Format, rows: Value) -> String {
        let mut bytes = Vec::new();
        let mut output = Output::new(format, Box::new(&mut bytes));
        let rows = rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect();
        output.rows(&columns([("host", "host"), ("events", "events"), ("score", "score")]), rows).unwrap();
        drop(output);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_same_rows_in_every_format() {
        let rows = json!([{"host": "a", "events": 12, "score": 0.5}, {"host": "", "events": null}]);
        let table = rendered(Format::Table, rows.clone());
        assert!(table.contains("host") && table.contains("0.5000") && table.contains('-'), "{table}");
        assert_eq!(serde_json::from_str::<Value>(&rendered(Format::Json, rows.clone())).unwrap(), rows);
        let lines = rendered(Format::Ndjson, rows);
        assert_eq!(lines.lines().count(), 2);
        assert!(rendered(Format::Json, json!([])).starts_with("[]"));
    }

    #[test]
    fn nothing_a_terminal_would_act_on_gets_through() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}b\nc\\";
        for format in [Format::Table, Format::Json, Format::Ndjson] {
            let text = rendered(format, json!([{"host": hostile, "events": 1, "score": 1}]));
            assert!(!text.chars().any(|character| character != '\n' && is_unsafe(character)), "{text:?}");
            if format != Format::Table {
                let back: Value = serde_json::from_str(&text).unwrap();
                let row = if format == Format::Json { &back[0] } else { &back };
                assert_eq!(row["host"], hostile);
            }
        }
    }

    #[test]
    fn long_cells_are_cut() {
        let table = rendered(Format::Table, json!([{"host": "x".repeat(5000)}]));
        assert!(table.lines().all(|line| line.chars().count() < 200));
        assert!(table.contains('…'));
    }
}
