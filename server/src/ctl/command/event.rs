//! `picketctl event …`

use picket_proto::v1;
use serde_json::Value;
use tonic::Code;

use crate::ctl::arguments::{EventVerb, Format};
use crate::ctl::client::Client;
use crate::ctl::error::CtlError;
use crate::ctl::output::{Column, Output, Row, safe};

pub(super) async fn run(client: &mut Client, verb: &EventVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    match verb {
        EventVerb::Query { sql, limit } => query(client, sql, *limit, output).await,
        EventVerb::Tail { host, count } => {
            let host_id = host.clone().unwrap_or_default();
            tokio::select! {
                result = tail(client, host_id, count.unwrap_or(u64::MAX), output) => result,
                // Interrupted: that is how it ends.
                signal = tokio::signal::ctrl_c() => signal.map_err(CtlError::Runtime),
            }
        }
    }
}

async fn query(client: &mut Client, sql: &str, limit: u32, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::QueryEventsRequest { sql: sql.to_owned(), row_limit: limit };
    let mut answers = client.query_events(request).await?.into_inner();
    let mut columns: Vec<Column> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut truncated = false;
    while let Some(answer) = answers.message().await? {
        columns.extend(answer.columns.into_iter().map(|column| Column::new(column.name.clone(), column.name)));
        truncated |= answer.truncated;
        for line in answer.rows_ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let row: Row = serde_json::from_slice(line).map_err(|error| CtlError::Answer(error.to_string()))?;
            if output.format() == Format::Ndjson {
                output.json_line(&Value::Object(row))?;
            } else {
                rows.push(row);
            }
        }
    }
    if output.format() != Format::Ndjson {
        output.rows(&columns, rows)?;
    }
    output.flush()?;
    if truncated {
        note(&format!("cut at {limit} rows: ask for less, or raise --limit"));
    }
    Ok(())
}

async fn tail(client: &mut Client, host_id: String, count: u64, output: &mut Output<'_>) -> Result<(), CtlError> {
    let request = v1::TailEventsRequest { host_id };
    let mut answers = client.tail_events(request.clone()).await?.into_inner();
    let mut left = count;
    while left > 0 {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(()),
            // A call has its longest time; looking has not.
            Err(status) if status.code() == Code::DeadlineExceeded => {
                answers = client.tail_events(request.clone()).await?.into_inner();
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        if answer.missed > 0 {
            note(&format!("{} events missed: this reader is too slow for them", answer.missed));
        }
        if answer.event_json.is_empty() {
            continue;
        }
        let event: Value =
            serde_json::from_str(&answer.event_json).map_err(|error| CtlError::Answer(error.to_string()))?;
        match output.format() {
            Format::Table => output.text(&safe(&line(&event)))?,
            Format::Json | Format::Ndjson => output.json_line(&event)?,
        }
        output.flush()?;
        left -= 1;
    }
    Ok(())
}

/// An event on one line: when, where, what, and what tells it apart.
fn line(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = event.get("time_unix_ns").and_then(Value::as_i64).map(i128::from);
    let time = time
        .and_then(|time| time::OffsetDateTime::from_unix_timestamp_nanos(time).ok())
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default();
    let details = match event.get("arguments").and_then(Value::as_array) {
        Some(arguments) if !arguments.is_empty() => {
            arguments.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        _ => {
            let keys = ["executable", "remote", "user_name", "path", "new_path", "name", "object", "subject", "reason"];
            let texts: Vec<&str> = keys.map(text).into_iter().filter(|text| !text.is_empty()).collect();
            texts.join(" ")
        }
    };
    let host = text("host_id");
    let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or_default();
    let id = format!("{host}/{}/{}", number("epoch"), number("sequence"));
    format!("{time}  {id}  {} {}  {details}", text("class"), text("activity"))
}

fn note(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell if stderr is closed.
    writeln!(std::io::stderr(), "picketctl: {text}").ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_fits_a_line() {
        let event = json!({
            "host_id": "h", "epoch": 1, "sequence": 2, "time_unix_ns": 1_800_000_000_000_000_000_i64,
            "class": "process_activity", "activity": "start", "arguments": ["ls", "-l"], "executable": "/bin/ls",
        });
        assert_eq!(line(&event), "2027-01-15T08:00:00Z  h/1/2  process_activity start  ls -l");
        assert!(line(&json!({})).contains("/0/0"));
    }
}
