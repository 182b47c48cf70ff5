//! Rows of a query, as JSON lines.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use futures::StreamExt as _;
use picket_proto::v1;
use tonic::Status;

use crate::api::admin::convert::invalid;
use crate::api::admin::stream::Answers;
use crate::api::status::internal;
use crate::lake::{Lake, QueryStream};

/// Longest query.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Rows when nobody says.
const ROW_LIMIT_DEFAULT: u32 = 10_000;
/// Most rows.
const ROW_LIMIT_MAX: u32 = 1_000_000;
/// An answer is sent when it has so many bytes.
const ANSWER_BYTES: usize = 256 << 10;
/// Rows written at a time: an answer is over [`ANSWER_BYTES`] by these at most.
const ROWS_AT_A_TIME: usize = 64;

/// Starts a query.
pub(super) async fn start(lake: &Lake, request: &v1::QueryEventsRequest) -> Result<QueryStream, Status> {
    if request.sql.trim().is_empty() {
        return Err(invalid("sql", "it is empty"));
    }
    let row_limit = match request.row_limit {
        0 => ROW_LIMIT_DEFAULT,
        limit if limit <= ROW_LIMIT_MAX => limit,
        limit => return Err(invalid("row_limit", format!("{limit} is more than {ROW_LIMIT_MAX}"))),
    };
    Ok(lake.query(&request.sql, row_limit as usize, QUERY_TIME_MAX).await?)
}

/// Sends the columns, then the rows, then whether the result was cut.
pub(super) async fn send(mut rows: QueryStream, answers: Answers<v1::QueryEventsResponse>) -> Result<(), Status> {
    let column = |field: &arrow::datatypes::FieldRef| v1::Column {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
    };
    let mut answer = v1::QueryEventsResponse {
        columns: rows.schema().fields().iter().map(column).collect(),
        ..v1::QueryEventsResponse::default()
    };
    let mut lines = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for first in (0..batch.num_rows()).step_by(ROWS_AT_A_TIME) {
            let part = batch.slice(first, ROWS_AT_A_TIME.min(batch.num_rows() - first));
            write_lines(&part, &mut lines).map_err(|error| internal(&error))?;
            if lines.len() >= ANSWER_BYTES {
                answer.rows_ndjson = std::mem::take(&mut lines);
                let full = std::mem::take(&mut answer);
                if answers.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    answer.rows_ndjson = lines;
    answer.truncated = rows.truncated();
    // The caller may have gone.
    answers.send(Ok(answer)).await.ok();
    Ok(())
}

/// Absent values are written as null, so that every row has every column.
fn write_lines(batch: &RecordBatch, lines: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(lines);
    writer.write(batch)?;
    writer.finish()
}
