//! Rows of CSV and of JSON lines.
//!
//! * **CSV** as in RFC 4180: quoted fields may hold delimiters, line ends and doubled quotation marks. The first line names the
//!   columns; the delimiter is that of `,` `;` tab `|` which it has most of. Names lose surrounding blanks; a name that
//!   was there already gets `.1`, `.2` … A row with another number of fields is an error: what follows could not be trusted.
//! * **JSON lines**: an object's members by name, those of objects in it as `outer.inner`. Lists are their elements with
//!   blanks between. `null` and what is not there are missing. Blank lines are skipped.
//!
//! Bytes that are no UTF-8 become U+FFFD. No row takes more than [`limits::ROW_BYTES_MAX`], whatever the file holds.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use serde_json::Value;

use crate::table::error::TableReadError;
use crate::table::limits;

/// Depth to which objects in objects are looked into; deeper ones are their JSON.
const DEPTH_MAX: usize = 4;
/// What may separate fields; of equally frequent ones the last.
const DELIMITERS: [u8; 4] = *b"|\t;,";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The fields of one row, as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    text: String,
    ends: Vec<usize>,
}

impl Record {
    /// A field; empty beyond the end.
    pub fn field(&self, place: usize) -> &str {
        let start = if place == 0 { Some(0) } else { self.ends.get(place - 1).copied() };
        match (start, self.ends.get(place)) {
            (Some(start), Some(end)) => &self.text[start..*end],
            _ => "",
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes all fields away.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Appends a field.
    pub fn push(&mut self, field: &str) {
        self.text.push_str(field);
        self.ends.push(self.text.len());
    }

    fn push_bytes(&mut self, field: &[u8]) {
        self.push(&String::from_utf8_lossy(field));
    }
}

/// Reads a table row by row.
pub struct TableReader<R> {
    input: R,
    columns: Vec<String>,
    form: Form,
    /// Lines read.
    line: u64,
    row: Vec<u8>,
    field: Vec<u8>,
}

enum Form {
    Csv { delimiter: u8 },
    JsonLines { place_of: BTreeMap<String, usize>, seen: Vec<bool>, fields: Vec<String> },
}

/// Where in a field a byte of CSV is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Plain,
    Quoted,
}

impl Field {
    /// A quotation mark opens a field only at its beginning; doubled ones close it and open it again.
    fn after(self, byte: u8, delimiters: &[u8]) -> Self {
        match (self, byte) {
            (Self::Start, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Start,
            (Self::Quoted, _) => Self::Quoted,
            (_, byte) if delimiters.contains(&byte) => Self::Start,
            _ => Self::Plain,
        }
    }
}

impl<R: BufRead> TableReader<R> {
    /// Reads CSV; its first line names the columns.
    ///
    /// # Errors
    /// [`TableReadError`].
    pub fn csv(input: R) -> Result<Self, TableReadError> {
        let form = Form::Csv { delimiter: b',' };
        let mut reader = Self { input, columns: Vec::new(), form, line: 0, row: Vec::new(), field: Vec::new() };
        let mut header = Record::default();
        if !reader.read_csv_row()? {
            return Err(TableReadError::Empty);
        }
        if reader.row.starts_with(BYTE_ORDER_MARK) {
            reader.row.drain(..BYTE_ORDER_MARK.len());
        }
        let count = |delimiter: &u8| reader.row.iter().filter(|byte| *byte == delimiter).count();
        let delimiter = DELIMITERS.into_iter().max_by_key(count).unwrap_or(b',');
        reader.form = Form::Csv { delimiter };
        reader.split_csv_row(delimiter, &mut header);
        reader.columns = column_names((0..header.len()).map(|place| header.field(place)))?;
        Ok(reader)
    }

    /// Reads JSON lines; of each object these members.
    pub fn json_lines(input: R, columns: Vec<String>) -> Self {
        let place_of = columns.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let form =
            Form::JsonLines { place_of, seen: vec![false; columns.len()], fields: vec![String::new(); columns.len()] };
        Self { input, columns, form, line: 0, row: Vec::new(), field: Vec::new() }
    }

    /// The names of the columns, in the order of a record's fields.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The columns of which no row so far had anything (JSON lines; of CSV there are none).
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        let seen = match &self.form {
            Form::Csv { .. } => [].as_slice(),
            Form::JsonLines { seen, .. } => seen,
        };
        self.columns.iter().zip(seen).filter(|(_, seen)| !**seen).map(|(name, _)| name.as_str())
    }

    /// Replaces `record` by the next row; `false` at the end.
    ///
    /// # Errors
    /// [`TableReadError`], with the line.
    pub fn next(&mut self, record: &mut Record) -> Result<bool, TableReadError> {
        record.clear();
        match self.form {
            Form::Csv { delimiter } => self.next_csv(delimiter, record),
            Form::JsonLines { .. } => self.next_json(record),
        }
    }

    fn next_csv(&mut self, delimiter: u8, record: &mut Record) -> Result<bool, TableReadError> {
        loop {
            let line = self.line + 1;
            if !self.read_csv_row()? {
                return Ok(false);
            }
            // A blank line is no row, unless there is one column whose value may be missing.
            if self.row.is_empty() && self.columns.len() > 1 {
                continue;
            }
            self.split_csv_row(delimiter, record);
            if record.len() != self.columns.len() {
                return Err(TableReadError::FieldCount { line, found: record.len(), expected: self.columns.len() });
            }
            return Ok(true);
        }
    }

    /// Reads the bytes of a row, without its line end; `false` at the end.
    fn read_csv_row(&mut self) -> Result<bool, TableReadError> {
        self.row.clear();
        let first = self.line + 1;
        let mut state = Field::Start;
        loop {
            let begin = self.row.len();
            if !read_line(&mut self.input, &mut self.row, first)? {
                if self.row.is_empty() {
                    return Ok(false);
                }
                return Err(TableReadError::OpenQuote { line: first });
            }
            self.line += 1;
            state = self.row[begin..].iter().fold(state, |state, byte| state.after(*byte, self.delimiters()));
            if state != Field::Quoted {
                break;
            }
        }
        while self.row.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.row.pop();
        }
        Ok(true)
    }

    /// What separates fields: of the header, which tells it, each that may.
    fn delimiters(&self) -> &[u8] {
        match &self.form {
            Form::Csv { delimiter } if !self.columns.is_empty() => std::slice::from_ref(delimiter),
            _ => &DELIMITERS,
        }
    }

    fn split_csv_row(&mut self, delimiter: u8, record: &mut Record) {
        let mut rest = self.row.as_slice();
        loop {
            if rest.first() == Some(&b'"') {
                self.field.clear();
                let mut place = 1;
                while let Some(byte) = rest.get(place) {
                    match (byte, rest.get(place + 1)) {
                        (b'"', Some(b'"')) => place += 1,
                        (b'"', _) => break,
                        _ => {}
                    }
                    self.field.push(rest[place]);
                    place += 1;
                }
                // What follows the closing mark belongs to the field as it stands there.
                rest = rest.get(place + 1..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
                self.field.extend_from_slice(&rest[..end]);
                record.push_bytes(&self.field);
                rest = &rest[end..];
            } else {
                let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
                record.push_bytes(&rest[..end]);
                rest = &rest[end..];
            }
            match rest.split_first() {
                Some((_, after)) => rest = after,
                None => return,
            }
        }
    }

    fn next_json(&mut self, record: &mut Record) -> Result<bool, TableReadError> {
        let line = loop {
            self.row.clear();
            if !read_line(&mut self.input, &mut self.row, self.line + 1)? {
                return Ok(false);
            }
            self.line += 1;
            if !self.row.trim_ascii().is_empty() {
                break self.line;
            }
        };
        if line == 1 && self.row.starts_with(BYTE_ORDER_MARK) {
            self.row.drain(..BYTE_ORDER_MARK.len());
        }
        let Form::JsonLines { place_of, seen, fields } = &mut self.form else { return Ok(false) };
        fields.iter_mut().for_each(String::clear);
        json_fields(&self.row, line, &mut |name, value| {
            if let Some(place) = place_of.get(name) {
                fields[*place].push_str(value);
                seen[*place] = true;
            }
        })?;
        fields.iter().for_each(|field| record.push(field));
        Ok(true)
    }
}

/// The names of columns as they are used: without surrounding blanks, each once.
///
/// # Errors
/// [`TableReadError::TooManyColumns`], [`TableReadError::LongName`].
pub(crate) fn column_names<'a>(header: impl ExactSizeIterator<Item = &'a str>) -> Result<Vec<String>, TableReadError> {
    if header.len() > limits::COLUMNS_MAX {
        return Err(TableReadError::TooManyColumns { found: header.len() });
    }
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = Vec::with_capacity(header.len());
    for (place, name) in header.enumerate() {
        let name = match name.trim() {
            "" => format!("column {}", place + 1),
            name => name.to_owned(),
        };
        if name.len() + 8 > limits::NAME_BYTES_MAX {
            return Err(TableReadError::LongName { column: place + 1 });
        }
        let mut unique = name.clone();
        while times.contains_key(&unique) {
            let time = times.entry(name.clone()).or_default();
            *time += 1;
            unique = format!("{name}.{time}");
        }
        times.insert(unique.clone(), 0);
        names.push(unique);
    }
    Ok(names)
}

/// Hands the members of a JSON object to `visit`, by name and as texts; `line` is for the error.
///
/// # Errors
/// [`TableReadError::NotAnObject`].
pub fn json_fields(object: &[u8], line: u64, visit: &mut dyn FnMut(&str, &str)) -> Result<(), TableReadError> {
    let error = |reason: String| TableReadError::NotAnObject { line, reason };
    match serde_json::from_slice(&lossy(object)) {
        Ok(Value::Object(members)) => {
            for (name, value) in &members {
                visit_member(name.trim(), value, 0, visit);
            }
            Ok(())
        }
        Ok(_) => Err(error("something else".to_owned())),
        Err(found) => Err(error(found.to_string())),
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match str::from_utf8(bytes) {
        Ok(_) => bytes.into(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned().into_bytes().into(),
    }
}

fn visit_member(name: &str, value: &Value, depth: usize, visit: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::Null => visit(name, ""),
        Value::String(text) => visit(name, text),
        Value::Object(members) if depth < DEPTH_MAX => {
            for (inner, value) in members {
                visit_member(&format!("{name}.{inner}"), value, depth + 1, visit);
            }
        }
        Value::Array(elements) => {
            let mut text = String::new();
            for element in elements {
                if !text.is_empty() {
                    text.push(' ');
                }
                match element {
                    Value::String(element) => text.push_str(element),
                    element => text.push_str(&element.to_string()),
                }
            }
            visit(name, &text);
        }
        other => visit(name, &other.to_string()),
    }
}

/// Appends a line with its end, `row` staying within its limit; `false` at the end of the input.
fn read_line(input: &mut impl BufRead, row: &mut Vec<u8>, line: u64) -> Result<bool, TableReadError> {
    let room = (limits::ROW_BYTES_MAX + 2).saturating_sub(row.len()) as u64;
    let taken = input.by_ref().take(room).read_until(b'\n', row)?;
    if row.len() > limits::ROW_BYTES_MAX + 1 {
        return Err(TableReadError::LongRow { line });
    }
    Ok(taken > 0)
}
