//! One record of an audit log: `type=… msg=audit(1551485405.594:7507): key=value key="value" …`.

use crate::event::ByteString;
use crate::import::{LineError, timestamp};

/// Most fields of a record that are read.
const FIELDS_MAX: usize = 1_024;
/// Parts an enriched record from the raw one.
const GROUP_SEPARATOR: u8 = 0x1d;

/// A record.
pub(super) struct Record<'a> {
    /// The host; empty when the log does not say.
    pub(super) node: &'a [u8],
    /// `SYSCALL`, `EXECVE` …
    pub(super) kind: &'a [u8],
    /// Nanoseconds since 1970.
    pub(super) time_ns: i64,
    /// Names the event among those of one time.
    pub(super) serial: u64,
    /// What follows.
    pub(super) fields: Fields<'a>,
}

/// Fields in their order.
pub(super) struct Fields<'a>(Vec<(&'a [u8], Value<'a>)>);

/// A value as it stands there.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// Between quotation marks: it is what it says.
    Quoted(&'a [u8]),
    /// A number, a word, or a text in hexadecimal digits.
    Bare(&'a [u8]),
}

impl<'a> Record<'a> {
    /// Reads a line.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let mut rest = line.trim_ascii();
        let mut node = &b""[..];
        if let Some(after) = rest.strip_prefix(b"node=") {
            (node, rest) = split_once(after, b' ').ok_or(LineError::Missing("type"))?;
        }
        let after = rest.strip_prefix(b"type=").ok_or(LineError::Missing("type"))?;
        let (kind, after) = split_once(after, b' ').ok_or(LineError::Missing("msg"))?;
        let after = after.strip_prefix(b"msg=audit(").ok_or(LineError::Missing("msg"))?;
        let malformed = LineError::Malformed { field: "msg", expected: "audit(seconds.milliseconds:serial)" };
        let (stamp, after) = split_once(after, b')').ok_or(malformed.clone())?;
        let (seconds, serial) = split_once(stamp, b':').ok_or(malformed.clone())?;
        let text = |bytes: &'a [u8]| str::from_utf8(bytes).ok();
        let time_ns = text(seconds).and_then(timestamp::seconds).ok_or(malformed.clone())?;
        let serial = text(serial).and_then(|serial| serial.parse().ok()).ok_or(malformed)?;
        let fields = Fields::parse(after.strip_prefix(b":").unwrap_or(after));
        Ok(Self { node, kind, time_ns, serial, fields })
    }
}

impl<'a> Fields<'a> {
    fn parse(mut rest: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        while fields.len() < FIELDS_MAX {
            rest = trim_start(rest);
            let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { break };
            let (name, value) = (&rest[..equals], &rest[equals + 1..]);
            // Words without a value, such as `lport 22`, stand before the name.
            let name = name.rsplit(|byte| is_blank(*byte)).next().unwrap_or(name);
            let (value, after) = match value.first() {
                Some(mark @ (b'"' | b'\'')) => {
                    let inner = &value[1..];
                    let end = inner.iter().position(|byte| byte == mark).unwrap_or(inner.len());
                    (Value::Quoted(&inner[..end]), inner.get(end + 1..).unwrap_or_default())
                }
                _ => {
                    let end = value.iter().position(|byte| is_blank(*byte)).unwrap_or(value.len());
                    (Value::Bare(&value[..end]), &value[end..])
                }
            };
            fields.push((name, value));
            rest = after;
        }
        Self(fields)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        self.0.iter().copied()
    }

    /// A value as it stands there.
    pub(super) fn raw(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(other, _)| *other == name.as_bytes());
        found.map(|(_, value)| match value {
            Value::Quoted(bytes) | Value::Bare(bytes) => *bytes,
        })
    }

    /// A text of a host; empty when there is none.
    pub(super) fn text(&self, name: &str) -> ByteString {
        let found = self.0.iter().find(|(other, _)| *other == name.as_bytes());
        found.map(|(_, value)| ByteString::truncated(&value.decoded())).unwrap_or_default()
    }

    /// A number, or `None` when there is none.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u32>, LineError> {
        let Some(bytes) = self.raw(name) else { return Ok(None) };
        let number = str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or(LineError::Malformed { field: name, expected: "a whole number" })
    }

    /// The fields within `msg='…'`.
    pub(super) fn message(&self) -> Self {
        Self::parse(self.raw("msg").unwrap_or_default())
    }
}

impl Value<'_> {
    /// The bytes that are meant: hexadecimal digits stand for bytes that cannot be written between quotation marks.
    pub(super) fn decoded(&self) -> Vec<u8> {
        match self {
            Self::Quoted(bytes) => bytes.to_vec(),
            Self::Bare(b"(null)" | b"(none)" | b"?") => Vec::new(),
            Self::Bare(bytes) => decoded_hex(bytes).unwrap_or_else(|| bytes.to_vec()),
        }
    }
}

fn decoded_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..found], &bytes[found + 1..]))
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let Some((first, rest)) = bytes.split_first()
        && is_blank(*first)
    {
        bytes = rest;
    }
    bytes
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == GROUP_SEPARATOR
}
