//! SQL over the tables: reading only, within limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Inner, LakeError};

/// Longest statement, in bytes.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Most queries at a time; further ones wait, within their time limit.
pub const QUERIES_MAX: usize = 4;
/// Result batches that wait for the reader.
const BATCHES_WAITING_MAX: usize = 2;
/// Rows of a result batch.
const BATCH_ROWS: usize = 2048;

/// A running query's result. Dropping it stops the query.
pub struct QueryStream {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch, LakeError>>,
    truncated: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

impl QueryStream {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether the row limit cut the result. Known when the stream has ended.
    pub fn truncated(&self) -> bool {
        self.truncated.load(Ordering::Acquire)
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, LakeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(context)
    }
}

/// Share of the memory that each sort keeps for merging what it spilled, and its bounds, in bytes.
const MERGE_RESERVATION_SHARE: usize = 64;
const MERGE_RESERVATION_BYTES_MIN: usize = 256 * 1024;
const MERGE_RESERVATION_BYTES_MAX: usize = 10 * 1024 * 1024;

/// One query under way, on the lake's own threads.
struct Query {
    inner: Arc<Inner>,
    sql: String,
    row_limit: usize,
    time_limit: Duration,
    deadline: Instant,
    truncated: Arc<AtomicBool>,
}

pub(super) async fn start(
    inner: Arc<Inner>,
    sql: &str,
    row_limit: usize,
    time_limit: Duration,
) -> Result<QueryStream, LakeError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(LakeError::SqlTooLong { bytes: sql.len(), limit: SQL_BYTES_MAX });
    }
    let truncated = Arc::new(AtomicBool::new(false));
    let query = Query {
        inner: inner.clone(),
        sql: sql.to_owned(),
        row_limit,
        time_limit,
        deadline: Instant::now() + time_limit,
        truncated: truncated.clone(),
    };
    let (schema_sender, schema) = oneshot::channel();
    let (sender, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let task = AbortOnDropHandle::new(inner.spawn(query.run(schema_sender, sender)));
    match schema.await {
        Ok(schema) => Ok(QueryStream { schema: schema?, batches, truncated, _task: task }),
        Err(_) => Err(LakeError::Closed("the query's task ended".to_owned())),
    }
}

impl Query {
    async fn run(
        self,
        schema: oneshot::Sender<Result<SchemaRef, LakeError>>,
        batches: mpsc::Sender<Result<RecordBatch, LakeError>>,
    ) {
        let started = async {
            let permit = self.inner.queries.acquire().await.map_err(|error| LakeError::Closed(error.to_string()))?;
            let frame = self.plan().await?;
            let rows = frame.execute_stream().await.map_err(|error| self.error(error))?;
            Ok((permit, rows))
        };
        let (_permit, mut rows) = match self.in_time(started).await {
            Ok(started) => started,
            // The caller may be gone; so in all the sends below.
            Err(error) => return drop(schema.send(Err(error))),
        };
        if schema.send(Ok(rows.schema())).is_err() {
            return;
        }
        let mut left = self.row_limit;
        loop {
            let next = self.in_time(async { rows.next().await.transpose().map_err(|error| self.error(error)) }).await;
            let batch = match next {
                Ok(None) => return,
                Ok(Some(batch)) if batch.num_rows() <= left => Ok(batch),
                Ok(Some(batch)) => {
                    self.truncated.store(true, Ordering::Release);
                    Ok(batch.slice(0, left))
                }
                Err(error) => Err(error),
            };
            left -= batch.as_ref().map_or(left, RecordBatch::num_rows);
            let ended = batch.is_err() || self.truncated.load(Ordering::Acquire);
            if batch.as_ref().is_ok_and(|batch| batch.num_rows() == 0) && !ended {
                continue;
            }
            if self.in_time(async { Ok(batches.send(batch).await) }).await.is_err() || ended {
                return;
            }
        }
    }

    async fn plan(&self) -> Result<DataFrame, LakeError> {
        let statement = parse(&self.sql)?;
        let context = self.inner.session(BATCH_ROWS);
        let state = Arc::new(context.state());
        for table in self.inner.published().tables() {
            let provider = table.provider(state.clone()).await?;
            context.register_table(table.class.name(), provider).map_err(|error| self.error(error))?;
        }
        let plan = context.state().statement_to_plan(statement).await.map_err(|error| self.error(error))?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|error| self.error(error))?;
        let explains =
            matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
        let frame = context.execute_logical_plan(plan).await.map_err(|error| self.error(error))?;
        if explains {
            return Ok(frame);
        }
        // One row more than wanted tells whether there are more.
        frame.limit(0, Some(self.row_limit.saturating_add(1))).map_err(|error| self.error(error))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, LakeError>>) -> Result<T, LakeError> {
        let in_time = tokio::time::timeout_at(self.deadline, work).await;
        in_time.unwrap_or(Err(LakeError::QueryTimeout(self.time_limit)))
    }

    fn error(&self, error: datafusion::error::DataFusionError) -> LakeError {
        LakeError::query(error, self.inner.config.query_memory_bytes)
    }
}

/// One statement that only reads.
fn parse(sql: &str) -> Result<Statement, LakeError> {
    let mut statements = DFParser::parse_sql(sql).map_err(|error| LakeError::query(error, 0))?;
    let statement = statements.pop_front().ok_or_else(|| LakeError::Sql("the statement is empty".to_owned()))?;
    if !statements.is_empty() {
        return Err(LakeError::Sql("one statement at a time".to_owned()));
    }
    if reads_only(&statement) {
        return Ok(statement);
    }
    let text = statement.to_string();
    let name: Vec<&str> = text.split_whitespace().take(2).collect();
    Err(LakeError::NotAQuery { statement: name.join(" ") })
}

fn reads_only(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            SqlStatement::Query(_)
                | SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
        ),
        Statement::Explain(explain) => reads_only(&explain.statement),
        _ => false,
    }
}

/// Settings of a session with `memory_bytes`, whose work is cut into `partitions` for as many threads.
pub(super) fn session_config(memory_bytes: usize, batch_rows: usize, partitions: usize) -> SessionConfig {
    let merge_reservation =
        (memory_bytes / MERGE_RESERVATION_SHARE).clamp(MERGE_RESERVATION_BYTES_MIN, MERGE_RESERVATION_BYTES_MAX);
    SessionConfig::new()
        .with_batch_size(batch_rows)
        .with_target_partitions(partitions)
        .with_information_schema(true)
        .with_sort_spill_reservation_bytes(merge_reservation)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
}

pub(super) fn session(config: SessionConfig, environment: Arc<RuntimeEnv>) -> SessionContext {
    let state =
        SessionStateBuilder::new().with_config(config).with_runtime_env(environment).with_default_features().build();
    SessionContext::new_with_state(state)
}
