//! Logs of other programs as events: Zeek (`conn.log`, `dns.log`; tab-separated or JSON), Suricata EVE (flow, alert, dns),
//! raw auditd logs (`execve`, logins), and Picket's own JSON lines. No I/O: lines in, events out.
//!
//! Strict and bounded: a line that is not what it has to be is an error that says why, and the next line is read all the
//! same. Lines that are well-formed and about something else are skipped and counted. What a log does not know (the
//! process behind a flow, the parent of a program that was started before the log began) is unknown in the event too.
//!
//! Events get running sequence numbers, and the epoch of the reader. A network log is seen from each of its
//! originators: that end is `local`, unless the log says that only the responder is local.

use crate::event::json::JsonError;
use crate::event::{Event, EventBody, LimitError, Origin, Timestamp};
use crate::id::{Epoch, EventKey, Sequence};
use crate::import::auditd::AuditdReader;
use crate::import::zeek::ZeekReader;

mod auditd;
mod json_fields;
mod suricata;
#[cfg(test)]
mod tests;
mod timestamp;
mod zeek;

/// Longest line that is read, bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// The epoch of events of other programs' logs.
const EPOCH: Epoch = Epoch(1);

/// Which program wrote a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Picket's own JSON lines ([`crate::event::json`]).
    Events,
    /// Zeek: `conn.log` and `dns.log`, tab-separated or JSON. Its other logs are skipped.
    Zeek,
    /// Suricata's `eve.json`: flow, alert and dns records. Others are skipped.
    Suricata,
    /// Linux audit, as written to `audit.log`.
    Auditd,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Events, Self::Zeek, Self::Suricata, Self::Auditd];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Zeek => "zeek",
            Self::Suricata => "suricata",
            Self::Auditd => "auditd",
        }
    }

    /// What a line looks like.
    pub fn detect(line: &[u8]) -> Option<Self> {
        let line = line.trim_ascii();
        if line.starts_with(b"#separator") || line.starts_with(b"#fields") {
            return Some(Self::Zeek);
        }
        if line.starts_with(b"type=") || line.starts_with(b"node=") {
            return Some(Self::Auditd);
        }
        let serde_json::Value::Object(object) = serde_json::from_slice(line).ok()? else { return None };
        if object.contains_key("class") && object.contains_key("time_unix_ns") {
            Some(Self::Events)
        } else if object.contains_key("event_type") {
            Some(Self::Suricata)
        } else if object.contains_key("ts") && (object.contains_key("uid") || object.contains_key("_path")) {
            Some(Self::Zeek)
        } else {
            None
        }
    }
}

/// An event from a log.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedEvent {
    /// Whose it is: the host id of Picket's own events, an address of a network log, a node of an audit log. May be
    /// empty.
    pub host: String,
    /// The event.
    pub event: Event,
}

/// Why a line gave no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// See [`LINE_BYTES_MAX`].
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// JSON and Zeek's logs are UTF-8.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// None of the formats.
    #[error("of no known format")]
    UnknownFormat,
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A field that must be there is not.
    #[error("has no {0}")]
    Missing(&'static str),
    /// A field is not what it has to be.
    #[error("{field} is not {expected}")]
    Malformed {
        /// Which field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A row before Zeek's header.
    #[error("a row before the line #fields")]
    NoHeader,
    /// A row of another number of fields than Zeek's header.
    #[error("{found} fields, the header has {expected}")]
    FieldCount {
        /// In the row.
        found: usize,
        /// In the header.
        expected: usize,
    },
    /// One of Picket's own lines.
    #[error(transparent)]
    Event(#[from] JsonError),
    /// The event exceeds a limit.
    #[error(transparent)]
    OverLimit(#[from] LimitError),
}

/// Reads a log line by line.
#[derive(Debug)]
pub struct Importer {
    reader: Option<Reader>,
    next_sequence: u64,
    skipped: u64,
}

#[derive(Debug)]
enum Reader {
    Events,
    Zeek(ZeekReader),
    Suricata,
    Auditd(Box<AuditdReader>),
}

/// What an importer makes of a line: an event without its number.
struct Draft {
    host: String,
    time: Timestamp,
    body: EventBody,
}

impl Importer {
    /// For a log of `format`; `None`: of the format of its first line that has one.
    pub fn new(format: Option<LogFormat>) -> Self {
        Self { reader: format.map(Reader::new), next_sequence: 0, skipped: 0 }
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<LogFormat> {
        Some(match self.reader.as_ref()? {
            Reader::Events => LogFormat::Events,
            Reader::Zeek(_) => LogFormat::Zeek,
            Reader::Suricata => LogFormat::Suricata,
            Reader::Auditd(_) => LogFormat::Auditd,
        })
    }

    /// Well-formed lines so far that are about something no event is made of.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Reads a line, with or without its end; puts the events it completes into `out`.
    ///
    /// # Errors
    /// [`LineError`]; nothing came of this line, the next can be read.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<ImportedEvent>) -> Result<(), LineError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.reader.is_none() {
            self.reader = LogFormat::detect(line).map(Reader::new);
        }
        let mut drafts = Vec::new();
        let is_of_use = match self.reader.as_mut().ok_or(LineError::UnknownFormat)? {
            Reader::Events => {
                out.push(picket_event(line)?);
                return Ok(());
            }
            Reader::Zeek(reader) => reader.line(text(line)?, &mut drafts)?,
            Reader::Suricata => suricata::line(text(line)?, &mut drafts)?,
            Reader::Auditd(reader) => reader.line(line, &mut drafts)?,
        };
        if !is_of_use {
            self.skipped += 1;
        }
        self.finish_drafts(drafts, out)
    }

    /// The log has ended: gives out what waited for more lines.
    pub fn finish(&mut self, out: &mut Vec<ImportedEvent>) {
        let mut drafts = Vec::new();
        if let Some(Reader::Auditd(reader)) = &mut self.reader {
            reader.finish(&mut drafts);
        }
        // Built within the limits.
        self.finish_drafts(drafts, out).ok();
    }

    fn finish_drafts(&mut self, drafts: Vec<Draft>, out: &mut Vec<ImportedEvent>) -> Result<(), LineError> {
        let origin = match self.reader {
            Some(Reader::Suricata) => Origin::Suricata,
            Some(Reader::Auditd(_)) => Origin::Auditd,
            _ => Origin::Zeek,
        };
        for Draft { host, time, body } in drafts {
            let key = EventKey { epoch: EPOCH, sequence: Sequence(self.next_sequence) };
            let event = Event { key, time, origin, body };
            event.size()?;
            self.next_sequence += 1;
            out.push(ImportedEvent { host, event });
        }
        Ok(())
    }
}

impl Reader {
    fn new(format: LogFormat) -> Self {
        match format {
            LogFormat::Events => Self::Events,
            LogFormat::Zeek => Self::Zeek(ZeekReader::default()),
            LogFormat::Suricata => Self::Suricata,
            LogFormat::Auditd => Self::Auditd(Box::default()),
        }
    }
}

fn picket_event(line: &[u8]) -> Result<ImportedEvent, LineError> {
    let value: serde_json::Value = serde_json::from_str(text(line)?).map_err(not_json)?;
    let event = crate::event::json::from_json(&value)?;
    let host = value.get("host_id").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(ImportedEvent { host, event })
}

fn text(line: &[u8]) -> Result<&str, LineError> {
    str::from_utf8(line).map_err(|_| LineError::NotUtf8)
}

fn not_json(error: serde_json::Error) -> LineError {
    LineError::NotJson(error.to_string())
}

/// A name for a connection, from the one a log has for it.
fn cookie(name: &str) -> u64 {
    let digest = crate::id::Digest::of(name.as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |cookie, byte| cookie << 8 | u64::from(*byte))
}
