//! SQL over the tables: reading only, within limits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::{Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::part::{self, PartReceiver, PartSender};
use super::{Inner, LakeError};

/// Longest statement, in bytes.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Most words, numbers, strings and signs of a statement. Planning recurses over an expression and takes time with the
/// square of its length: twice as many fit on the lake's stacks ([`THREAD_STACK_BYTES`](super::THREAD_STACK_BYTES)).
pub const SQL_TOKENS_MAX: usize = 1500;
/// Most rows of a result, whatever limit is asked for.
pub const QUERY_ROWS_MAX: usize = 100_000_000;
/// Longest time of a query, whatever limit is asked for.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(3600);
/// Most queries and readings of events at a time; further ones wait, within their time limit.
pub const QUERIES_MAX: usize = 4;
/// Result batches that wait for the reader.
const BATCHES_WAITING_MAX: usize = 2;
/// Rows of a result batch.
const BATCH_ROWS: usize = 2048;

/// A running query's result. Dropping it stops the query.
pub struct QueryStream {
    schema: SchemaRef,
    batches: PartReceiver<RecordBatch>,
    truncated: Arc<AtomicBool>,
    time_limit: Duration,
    deadline: Instant,
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
        let polled = self.batches.poll(context);
        match polled {
            // The query could not say that its time was over while it waited for this reader.
            Poll::Ready(Some(Err(LakeError::Closed(_)))) if Instant::now() >= self.deadline => {
                Poll::Ready(Some(Err(LakeError::QueryTimeout(self.time_limit))))
            }
            other => other,
        }
    }
}

/// Share of the memory that each sort keeps for merging what it spilled, and its bounds, in bytes.
const MERGE_RESERVATION_SHARE: usize = 64;
const MERGE_RESERVATION_BYTES_MIN: usize = 256 * 1024;
const MERGE_RESERVATION_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Functions that make a value of any size from small ones: single values escape the limit on memory.
const FUNCTIONS_ABSENT: [&str; 7] =
    ["array_repeat", "array_resize", "generate_series", "lpad", "range", "repeat", "rpad"];

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
    let (row_limit, time_limit) = (row_limit.min(QUERY_ROWS_MAX), time_limit.min(QUERY_TIME_MAX));
    let truncated = Arc::new(AtomicBool::new(false));
    let deadline = Instant::now() + time_limit;
    let sql = sql.to_owned();
    let query = Query { inner: inner.clone(), sql, row_limit, time_limit, deadline, truncated: truncated.clone() };
    let (schema_sender, schema) = oneshot::channel();
    let (sender, batches) = part::channel(BATCHES_WAITING_MAX);
    let task = AbortOnDropHandle::new(inner.spawn(query.run(schema_sender, sender)));
    match schema.await {
        Ok(schema) => Ok(QueryStream { schema: schema?, batches, truncated, time_limit, deadline, _task: task }),
        Err(_) => Err(LakeError::Closed("the query's task ended".to_owned())),
    }
}

impl Query {
    async fn run(self, schema: oneshot::Sender<Result<SchemaRef, LakeError>>, batches: PartSender<RecordBatch>) {
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
        let sent = async {
            if let Err(error) = self.send_rows(&mut rows, &batches).await {
                batches.fail(error).await;
            }
            Ok(())
        };
        if let Err(error) = self.in_time(sent).await {
            batches.try_fail(error);
        }
    }

    /// Sends rows up to the limit. An error of the query is returned; a reader that is gone is none.
    async fn send_rows(
        &self,
        rows: &mut SendableRecordBatchStream,
        batches: &PartSender<RecordBatch>,
    ) -> Result<(), LakeError> {
        let mut left = self.row_limit;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| self.error(error))?;
            let cut = batch.num_rows() > left;
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            if batch.num_rows() > 0 && !batches.send(batch).await {
                return Ok(());
            }
            if cut {
                self.truncated.store(true, Ordering::Release);
                break;
            }
        }
        batches.end().await;
        Ok(())
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
    let too_long = |length, unit, limit| LakeError::SqlTooLong { length, unit, limit };
    if sql.len() > SQL_BYTES_MAX {
        return Err(too_long(sql.len(), "bytes", SQL_BYTES_MAX));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| LakeError::Sql(error.to_string()))?;
    let length = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count();
    if length > SQL_TOKENS_MAX {
        return Err(too_long(length, "words and signs", SQL_TOKENS_MAX));
    }
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
        .set_bool("datafusion.execution.enable_recursive_ctes", false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
}

pub(super) fn session(config: SessionConfig, environment: Arc<RuntimeEnv>) -> SessionContext {
    let state =
        SessionStateBuilder::new().with_config(config).with_runtime_env(environment).with_default_features().build();
    let context = SessionContext::new_with_state(state);
    FUNCTIONS_ABSENT.iter().for_each(|name| context.deregister_udf(name));
    context
}
