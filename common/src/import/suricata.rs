//! Suricata's `eve.json`, one object a line.
//!
//! A `flow` record is the end of a connection. An `alert` is a connection seen at that time (its flow record follows when
//! it ends). A `dns` record is a query or a response.

use serde_json::{Map, Value};

use crate::event::limits::DNS_ANSWERS_MAX;
use crate::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, DnsAction, DnsActivity, EventBody, Protocol,
    Timestamp,
};
use crate::import::json_fields::{bytes, inner, malformed, number, object, optional_text, socket, text};
use crate::import::{Draft, LineError, cookie, timestamp};

/// Reads a record. `false`: no event is made of its kind.
pub(super) fn line(line: &str, out: &mut Vec<Draft>) -> Result<bool, LineError> {
    let record = object(line)?;
    let kind = text(&record, "event_type")?;
    if !matches!(kind, "flow" | "alert" | "dns") {
        return Ok(false);
    }
    let time = time(&record, "timestamp")?.ok_or(LineError::Missing("timestamp"))?;
    let protocol = match text(&record, "proto")? {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return Ok(false),
    };
    let connection = connection(&record, protocol)?;
    let host = connection.local.ip().to_string();
    let (time, body) = match kind {
        "flow" => flow(&record, connection, time)?,
        "alert" => (time, EventBody::ConnectionOpen(Box::new(connection))),
        _ => (time, EventBody::DnsActivity(Box::new(dns(&record, &connection)?))),
    };
    out.push(Draft { host, time, body });
    Ok(true)
}

fn time(object: &Map<String, Value>, field: &'static str) -> Result<Option<Timestamp>, LineError> {
    let Some(text) = optional_text(object, field)? else { return Ok(None) };
    timestamp::rfc3339(text).map(Some).ok_or(malformed(field, "a time"))
}

fn connection(record: &Map<String, Value>, protocol: Protocol) -> Result<Connection, LineError> {
    let name = number(record, "flow_id")?.map(|id| id.to_string()).unwrap_or_default();
    Ok(Connection {
        cookie: cookie(&name),
        protocol,
        direction: Direction::Outbound,
        local: socket(record, "src_ip", "src_port")?,
        remote: socket(record, "dest_ip", "dest_port")?,
        process: None,
        executable: ByteString::default(),
        user_id: None,
        cgroup_id: None,
    })
}

/// The record's own time is when it was written; the flow says when it began and ended.
fn flow(
    record: &Map<String, Value>,
    connection: Connection,
    written: Timestamp,
) -> Result<(Timestamp, EventBody), LineError> {
    let flow = inner(record, "flow")?.ok_or(LineError::Missing("flow"))?;
    let (begin, end) = (time(flow, "start")?, time(flow, "end")?);
    let duration = begin.zip(end).map(|(begin, end)| end.0.saturating_sub(begin.0));
    let packets =
        |field| Ok::<_, LineError>(number(flow, field)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)));
    let segments_received = packets("pkts_toclient")?;
    let close = ConnectionClose {
        bytes_sent: number(flow, "bytes_toserver")?,
        bytes_received: number(flow, "bytes_toclient")?,
        segments_sent: packets("pkts_toserver")?,
        segments_received,
        duration_ns: duration.and_then(|duration| u64::try_from(duration).ok()),
        outcome: outcome(record, flow, connection.protocol, segments_received)?,
        connection,
    };
    Ok((end.unwrap_or(written), EventBody::ConnectionClose(Box::new(close))))
}

fn outcome(
    record: &Map<String, Value>,
    flow: &Map<String, Value>,
    protocol: Protocol,
    segments_received: Option<u32>,
) -> Result<ConnectionOutcome, LineError> {
    let state = optional_text(flow, "state")?.unwrap_or_default();
    let tcp = inner(record, "tcp")?;
    let has = |flag| tcp.and_then(|tcp| tcp.get(flag)).and_then(Value::as_bool) == Some(true);
    Ok(match (protocol, state) {
        (_, "new") if segments_received == Some(0) => match protocol {
            Protocol::Tcp => ConnectionOutcome::TimedOut,
            Protocol::Udp => ConnectionOutcome::Unknown,
        },
        (Protocol::Tcp, "new" | "closed") if has("rst") && !has("psh") && !has("fin") => ConnectionOutcome::Refused,
        (Protocol::Tcp, "closed") if has("rst") => ConnectionOutcome::Reset,
        (_, "established" | "closed") => ConnectionOutcome::Closed,
        _ => ConnectionOutcome::Unknown,
    })
}

fn dns(record: &Map<String, Value>, connection: &Connection) -> Result<DnsActivity, LineError> {
    let dns = inner(record, "dns")?.ok_or(LineError::Missing("dns"))?;
    let action = match text(dns, "type")? {
        "query" | "request" => DnsAction::Query,
        "answer" | "response" => DnsAction::Response,
        _ => return Err(malformed("dns.type", "query or answer")),
    };
    // Version 3 of the record has the question in a list.
    let first =
        dns.get("queries").and_then(Value::as_array).and_then(|queries| queries.first()).and_then(Value::as_object);
    let question = first.unwrap_or(dns);
    let list = dns.get("answers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let answers = list.iter().filter_map(|answer| answer.get("rdata").and_then(Value::as_str));
    Ok(DnsActivity {
        action,
        name: bytes(question, "rrname")?,
        query_type: optional_text(question, "rrtype")?.and_then(type_code).unwrap_or(0),
        response_code: optional_text(dns, "rcode")?.and_then(response_code),
        answers: answers.take(DNS_ANSWERS_MAX).map(|text| ByteString::truncated(text.as_bytes())).collect(),
        answers_truncated: list.len() > DNS_ANSWERS_MAX,
        server: Some(match action {
            // A response comes from the server, in versions 1 and 2 of the record.
            DnsAction::Response if connection.local.port() == 53 => connection.local,
            _ => connection.remote,
        }),
        protocol: connection.protocol,
        transaction_id: number(dns, "id")?.and_then(|id| u16::try_from(id).ok()).unwrap_or(0),
        process: None,
        executable: ByteString::default(),
        user_id: None,
        duration_ns: None,
    })
}

/// Types with a name that matter; others are 0.
fn type_code(name: &str) -> Option<u16> {
    Some(match name {
        "A" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "SOA" => 6,
        "PTR" => 12,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        "SRV" => 33,
        "NAPTR" => 35,
        "DS" => 43,
        "RRSIG" => 46,
        "DNSKEY" => 48,
        "SVCB" => 64,
        "HTTPS" => 65,
        "ANY" => 255,
        _ => return None,
    })
}

fn response_code(name: &str) -> Option<u16> {
    let names = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    names.iter().position(|other| *other == name).and_then(|code| u16::try_from(code).ok())
}
