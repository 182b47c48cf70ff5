//! The agent's alerts, as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use picket_common::id::{Epoch, EventKey, Sequence};
use serde_json::Value;

use super::console::Console;

/// Alerts shown one by one; of further ones only the number.
const SHOWN_MAX: usize = 60;

/// Characters shown of a command line or connection.
const LOOK_CHARACTERS_MAX: usize = 90;

/// Reasons shown of an alert.
const REASONS_SHOWN: usize = 3;

/// Follows an alert file.
pub struct AlertFollower {
    path: PathBuf,
    offset: u64,
    /// Alerts so far.
    pub alerted: BTreeSet<EventKey>,
    /// How many of each look have come: the first of each is shown.
    looks: BTreeMap<String, usize>,
    shown: usize,
}

impl AlertFollower {
    /// Follows `path` from its beginning.
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, alerted: BTreeSet::new(), looks: BTreeMap::new(), shown: 0 }
    }

    /// Takes the alerts that have come since the last call. Shows those unlike the ones before.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not an alert.
    pub fn follow(&mut self, console: &Console) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // No alert yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                // Nothing, or a line that is still being written.
                return Ok(());
            }
            self.offset += line.len() as u64;
            let alert: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
            let key = event_key(&alert).ok_or_else(|| io::Error::other(format!("an alert without a key: {alert}")))?;
            self.alerted.insert(key);
            self.show(console, &alert);
        }
    }

    fn show(&mut self, console: &Console, alert: &Value) {
        let (look, text) = describe(alert);
        let count = self.looks.entry(look).or_default();
        *count += 1;
        if *count == 1 && self.shown < SHOWN_MAX {
            self.shown += 1;
            console.line(&text);
        }
    }

    /// How many alerts were not shown one by one.
    pub fn not_shown(&self) -> usize {
        self.alerted.len().saturating_sub(self.shown)
    }
}

fn event_key(alert: &Value) -> Option<EventKey> {
    let number = |key: &str| alert.get(key).and_then(Value::as_u64);
    Some(EventKey { epoch: Epoch(number("epoch")?), sequence: Sequence(number("sequence")?) })
}

/// What makes an alert look like another one, and what is shown of it.
fn describe(alert: &Value) -> (String, String) {
    let text = |pointer: &str| alert.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let number = |pointer: &str| alert.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let process = alert.pointer("/event/process").map_or_else(String::new, Value::to_string);
    let what = match text("/subject") {
        "connection" => {
            let end = |side: &str| {
                format!("{}:{}", text(&format!("/event/{side}/ip")), number(&format!("/event/{side}/port")))
            };
            let owner = match text("/event/executable") {
                "" => "somebody",
                path => file_name(path),
            };
            format!("{owner} {} → {}", end("local"), end("remote"))
        }
        _ => command_line(alert),
    };
    let reasons: Vec<&str> = alert
        .get("reasons")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|reason| reason.get("words")?.as_str())
        .take(REASONS_SHOWN)
        .collect();
    let shown = format!(
        "⚠ {:.2} {:<13} {}\n         {}",
        number("/score"),
        text("/subject"),
        shortened(&what, LOOK_CHARACTERS_MAX),
        reasons.join("; ")
    );
    let look = match text("/subject") {
        // One scan is one look, however many ports.
        "connection" => format!("connection {} {process}", text("/event/executable")),
        subject => format!("{subject} {what}"),
    };
    (look, shown)
}

fn command_line(alert: &Value) -> String {
    let arguments = alert.pointer("/event/arguments").and_then(Value::as_array);
    let words: Vec<&str> = arguments.into_iter().flatten().filter_map(Value::as_str).collect();
    let executable = alert.pointer("/event/executable").and_then(Value::as_str).unwrap_or_default();
    if words.is_empty() { executable.to_owned() } else { format!("{} ({})", words.join(" "), file_name(executable)) }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(std::iter::once('…')).collect()
}
