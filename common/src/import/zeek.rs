//! Zeek's `conn.log` and `dns.log`, tab-separated with a header or one JSON object a line.
//!
//! `ssl.log` and others are about connections that `conn.log` has already: they are skipped.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use crate::event::limits::DNS_ANSWERS_MAX;
use crate::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, DnsAction, DnsActivity, EventBody, Protocol,
    Timestamp,
};
use crate::import::json_fields::{malformed, object};
use crate::import::{Draft, LineError, cookie, timestamp};

/// Most fields of a header.
const FIELDS_MAX: usize = 256;

/// What the header of a tab-separated log says.
#[derive(Debug)]
pub(super) struct ZeekReader {
    separator: char,
    set_separator: String,
    unset: String,
    empty: String,
    path: String,
    fields: Vec<String>,
}

/// A line, whichever way it is written.
enum Row<'a> {
    Tsv { reader: &'a ZeekReader, values: Vec<&'a str> },
    Json(Map<String, Value>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Connections,
    Dns,
    Other,
}

impl Default for ZeekReader {
    fn default() -> Self {
        Self {
            separator: '\t',
            set_separator: ",".to_owned(),
            unset: "-".to_owned(),
            empty: "(empty)".to_owned(),
            path: String::new(),
            fields: Vec::new(),
        }
    }
}

impl ZeekReader {
    /// Reads a line. `false`: no event is made of its kind.
    pub(super) fn line(&mut self, line: &str, out: &mut Vec<Draft>) -> Result<bool, LineError> {
        let begin = line.trim_start();
        if begin.starts_with('#') {
            self.header(begin);
            return Ok(true);
        }
        let row = if begin.starts_with('{') { Row::Json(object(line)?) } else { self.row(line)? };
        match row.log(&self.path) {
            Log::Connections => connection(&row, out),
            Log::Dns => dns(&row, out),
            Log::Other => Ok(false),
        }
    }

    fn header(&mut self, line: &str) {
        let Some((name, value)) = line.split_once([' ', '\t', self.separator]) else { return };
        match name {
            "#separator" => {
                let code = value.trim().strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex, 16).ok());
                self.separator = code.map_or('\t', char::from);
            }
            "#set_separator" => value.clone_into(&mut self.set_separator),
            "#unset_field" => value.clone_into(&mut self.unset),
            "#empty_field" => value.clone_into(&mut self.empty),
            "#path" => value.clone_into(&mut self.path),
            "#fields" => self.fields = value.split(self.separator).take(FIELDS_MAX).map(str::to_owned).collect(),
            _ => {}
        }
    }

    fn row<'a>(&'a self, line: &'a str) -> Result<Row<'a>, LineError> {
        if self.fields.is_empty() {
            return Err(LineError::NoHeader);
        }
        let found = line.split(self.separator).count();
        if found != self.fields.len() {
            return Err(LineError::FieldCount { found, expected: self.fields.len() });
        }
        Ok(Row::Tsv { reader: self, values: line.split(self.separator).collect() })
    }
}

impl Row<'_> {
    fn log(&self, path: &str) -> Log {
        match self {
            Self::Tsv { .. } => match path {
                "conn" => Log::Connections,
                "dns" => Log::Dns,
                _ => Log::Other,
            },
            Self::Json(object) => match object.get("_path").and_then(Value::as_str) {
                Some("conn") => Log::Connections,
                Some("dns") => Log::Dns,
                Some(_) => Log::Other,
                None if object.contains_key("conn_state") => Log::Connections,
                None if object.contains_key("trans_id") => Log::Dns,
                None => Log::Other,
            },
        }
    }

    /// A value that is set.
    fn get(&self, field: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Tsv { reader, values } => {
                let at = reader.fields.iter().position(|name| name == field)?;
                let value = *values.get(at)?;
                (value != reader.unset).then(|| if value == reader.empty { "".into() } else { value.into() })
            }
            Self::Json(object) => match object.get(field)? {
                Value::String(text) => Some(text.as_str().into()),
                Value::Number(number) => Some(number.to_string().into()),
                Value::Bool(yes) => Some(if *yes { "T" } else { "F" }.into()),
                _ => None,
            },
        }
    }

    /// The members of a set or vector, at most one more than `most`.
    fn list(&self, field: &str, most: usize) -> Vec<String> {
        match self {
            Self::Tsv { reader, .. } => {
                let text = self.get(field).unwrap_or_default();
                let members = text.split(reader.set_separator.as_str()).filter(|member| !member.is_empty());
                members.take(most + 1).map(str::to_owned).collect()
            }
            Self::Json(object) => {
                let members = object.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                members.iter().filter_map(Value::as_str).take(most + 1).map(str::to_owned).collect()
            }
        }
    }

    fn seconds(&self, field: &'static str) -> Result<Option<i64>, LineError> {
        let Some(text) = self.get(field) else { return Ok(None) };
        timestamp::seconds(&text).map(Some).ok_or(malformed(field, "a number of seconds"))
    }

    fn time(&self) -> Result<Timestamp, LineError> {
        let text = self.get("ts").ok_or(LineError::Missing("ts"))?;
        let time = timestamp::seconds(&text).map(Timestamp).or_else(|| timestamp::rfc3339(&text));
        time.ok_or(malformed("ts", "a time"))
    }

    fn number<T: TryFrom<u64>>(&self, field: &'static str) -> Result<Option<T>, LineError> {
        let Some(text) = self.get(field) else { return Ok(None) };
        let number = text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or(malformed(field, "a whole number in its range"))
    }

    fn socket(&self, address: &'static str, port: &'static str) -> Result<SocketAddr, LineError> {
        let text = self.get(address).ok_or(LineError::Missing(address))?;
        let ip: IpAddr = text.parse().map_err(|_| malformed(address, "an IP address"))?;
        Ok(SocketAddr::new(ip, self.number(port)?.ok_or(LineError::Missing(port))?))
    }

    /// Bytes of a host: `\xNN` is a byte in tab-separated logs.
    fn bytes(&self, field: &str) -> ByteString {
        let text = self.get(field).unwrap_or_default();
        match self {
            Self::Tsv { .. } => unescaped(&text),
            Self::Json(_) => ByteString::truncated(text.as_bytes()),
        }
    }

    fn protocol(&self) -> Option<Protocol> {
        match &*self.get("proto")? {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }
}

fn connection(row: &Row<'_>, out: &mut Vec<Draft>) -> Result<bool, LineError> {
    if row.get("proto").is_none() {
        return Err(LineError::Missing("proto"));
    }
    let Some(protocol) = row.protocol() else { return Ok(false) };
    let begin = row.time()?;
    let (originator, responder) = (row.socket("id.orig_h", "id.orig_p")?, row.socket("id.resp_h", "id.resp_p")?);
    let uid = row.get("uid").ok_or(LineError::Missing("uid"))?;
    let duration = row.seconds("duration")?;
    let (sent, received) = (row.number("orig_bytes")?, row.number("resp_bytes")?);
    let (packets_sent, packets_received) = (row.number("orig_pkts")?, row.number("resp_pkts")?);
    let inbound = row.get("local_orig").as_deref() == Some("F") && row.get("local_resp").as_deref() == Some("T");
    let (direction, local, remote) = if inbound {
        (Direction::Inbound, responder, originator)
    } else {
        (Direction::Outbound, originator, responder)
    };
    let swap = |sent, received| if inbound { (received, sent) } else { (sent, received) };
    let (bytes_sent, bytes_received) = swap(sent, received);
    let swap = |sent, received| if inbound { (received, sent) } else { (sent, received) };
    let (segments_sent, segments_received) = swap(packets_sent, packets_received);
    let close = ConnectionClose {
        connection: Connection {
            cookie: cookie(&uid),
            protocol,
            direction,
            local,
            remote,
            process: None,
            executable: ByteString::default(),
            user_id: None,
            cgroup_id: None,
        },
        bytes_sent,
        bytes_received,
        segments_sent,
        segments_received,
        duration_ns: duration.and_then(|duration| u64::try_from(duration).ok()),
        outcome: outcome(protocol, row.get("conn_state").as_deref().unwrap_or_default()),
    };
    let time = Timestamp(begin.0.saturating_add(duration.unwrap_or(0)));
    out.push(Draft { host: local.ip().to_string(), time, body: EventBody::ConnectionClose(Box::new(close)) });
    Ok(true)
}

fn outcome(protocol: Protocol, state: &str) -> ConnectionOutcome {
    match (protocol, state) {
        (_, "SF" | "S1" | "S2" | "S3") => ConnectionOutcome::Closed,
        (Protocol::Tcp, "S0" | "SH") => ConnectionOutcome::TimedOut,
        (Protocol::Tcp, "REJ") => ConnectionOutcome::Refused,
        (Protocol::Tcp, "RSTO" | "RSTR") => ConnectionOutcome::Reset,
        (Protocol::Tcp, "RSTOS0" | "RSTRH" | "SHR") => ConnectionOutcome::Failed,
        _ => ConnectionOutcome::Unknown,
    }
}

fn dns(row: &Row<'_>, out: &mut Vec<Draft>) -> Result<bool, LineError> {
    let Some(protocol) = row.protocol() else { return Ok(false) };
    let begin = row.time()?;
    let (client, server) = (row.socket("id.orig_h", "id.orig_p")?, row.socket("id.resp_h", "id.resp_p")?);
    let response_code = row.number("rcode")?;
    let rtt = row.seconds("rtt")?;
    let mut answers = row.list("answers", DNS_ANSWERS_MAX);
    let answers_truncated = answers.len() > DNS_ANSWERS_MAX;
    answers.truncate(DNS_ANSWERS_MAX);
    let activity = DnsActivity {
        action: if response_code.is_some() { DnsAction::Response } else { DnsAction::Query },
        name: row.bytes("query"),
        query_type: row.number("qtype")?.unwrap_or(0),
        response_code,
        answers: answers.iter().map(|answer| ByteString::truncated(answer.as_bytes())).collect(),
        answers_truncated,
        server: Some(server),
        protocol,
        transaction_id: row.number("trans_id")?.unwrap_or(0),
        process: None,
        executable: ByteString::default(),
        user_id: None,
        duration_ns: rtt.and_then(|rtt| u64::try_from(rtt).ok()),
    };
    let time = Timestamp(begin.0.saturating_add(rtt.unwrap_or(0)));
    out.push(Draft { host: client.ip().to_string(), time, body: EventBody::DnsActivity(Box::new(activity)) });
    Ok(true)
}

/// `\xNN` as a byte; anything else as it is.
fn unescaped(text: &str) -> ByteString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if let (b'\\', [b'x', high, low, after @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    ByteString::truncated(&bytes)
}
