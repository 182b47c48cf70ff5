//! Events back out of the tables, in order, as events.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use futures::{Stream, StreamExt};
use picket_common::event::{Event, EventClass, Timestamp};
use picket_common::id::{Epoch, EventId, HostId};
use tokio_util::task::AbortOnDropHandle;

use super::part::{self, PartReceiver, PartSender};
use super::read::RowReader;
use super::rows::host_text;
use super::table::PublishedTable;
use super::{Inner, LakeError};

/// Rows per batch read from a table: events can be large.
const BATCH_ROWS: usize = 1024;
/// Events handed over at a time.
const CHUNK_EVENTS: usize = 512;
/// Chunks that wait for the reader.
const CHUNKS_WAITING_MAX: usize = 2;

/// A version of every table: together, a state of the lake after a whole round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableVersions(pub BTreeMap<EventClass, u64>);

/// Which events to read; what is empty or `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only of these classes.
    pub classes: Vec<EventClass>,
    /// Only of these hosts.
    pub hosts: Vec<HostId>,
    /// Only of this epoch.
    pub epoch: Option<Epoch>,
    /// Only that happened in this time; the end is not included.
    pub time: Option<Range<Timestamp>>,
}

/// Events ordered by host, epoch and sequence (numbers from 2^63 on come first: tables hold them as negative ones).
/// Dropping it stops the reading.
pub struct EventStream {
    chunks: PartReceiver<Vec<(HostId, Event)>>,
    chunk: std::vec::IntoIter<(HostId, Event)>,
    _task: AbortOnDropHandle<()>,
}

impl Stream for EventStream {
    type Item = Result<(HostId, Event), LakeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.chunk.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            match self.chunks.poll(context) {
                Poll::Ready(Some(Ok(chunk))) => self.chunk = chunk.into_iter(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

pub(super) fn read_events(inner: &Arc<Inner>, versions: TableVersions, filter: EventFilter) -> EventStream {
    let (sender, chunks) = part::channel(CHUNKS_WAITING_MAX);
    let reading = inner.clone();
    let task = inner.spawn(async move {
        if let Err(error) = merge(&reading, &versions, &filter, &sender).await {
            sender.fail(error).await;
        }
    });
    EventStream { chunks, chunk: Vec::new().into_iter(), _task: AbortOnDropHandle::new(task) }
}

/// The rows of one class, sorted.
struct SortedRows {
    class: EventClass,
    batches: SendableRecordBatchStream,
    reader: Option<RowReader>,
    next: usize,
    /// The event at the front.
    head: Option<(HostId, Event)>,
}

/// Sorts as the tables do.
fn key((host, event): &(HostId, Event)) -> (HostId, i64, i64) {
    (*host, event.key.epoch.0.cast_signed(), event.key.sequence.0.cast_signed())
}

impl SortedRows {
    /// Moves to the next event and gives the one at the front.
    async fn advance(&mut self, inner: &Inner) -> Result<Option<(HostId, Event)>, LakeError> {
        while self.reader.as_ref().is_none_or(|reader| self.next >= reader.len()) {
            let Some(batch) = self.batches.next().await else { return Ok(self.head.take()) };
            let batch = batch.map_err(|error| inner.read_error(error))?;
            self.reader = Some(RowReader::new(self.class, &batch)?);
            self.next = 0;
        }
        let next = match &self.reader {
            Some(reader) => Some(reader.event(self.next)?),
            None => None,
        };
        self.next += 1;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

async fn merge(
    inner: &Arc<Inner>,
    versions: &TableVersions,
    filter: &EventFilter,
    sender: &PartSender<Vec<(HostId, Event)>>,
) -> Result<(), LakeError> {
    let _permit = inner.queries.acquire().await.map_err(|error| LakeError::Closed(error.to_string()))?;
    let wanted = |class: &EventClass| filter.classes.is_empty() || filter.classes.contains(class);
    let versions: Vec<(EventClass, u64)> =
        versions.0.iter().map(|(class, version)| (*class, *version)).filter(|(class, _)| wanted(class)).collect();
    let memory_bytes = inner.config.query_memory_bytes / versions.len().max(1);
    let mut classes = Vec::new();
    for (class, version) in versions {
        let context = inner.sort_session(BATCH_ROWS, memory_bytes)?;
        let frame = table_at(inner, &context, class, version).await?;
        let sorted = sort_by_key(filter.apply(frame)).map_err(|error| inner.read_error(error))?;
        let batches = sorted.execute_stream().await.map_err(|error| inner.read_error(error))?;
        let mut rows = SortedRows { class, batches, reader: None, next: 0, head: None };
        rows.advance(inner).await?;
        classes.push(rows);
    }
    let mut chunk = Vec::with_capacity(CHUNK_EVENTS);
    loop {
        let first =
            classes.iter_mut().filter(|rows| rows.head.is_some()).min_by_key(|rows| rows.head.as_ref().map(key));
        let event = match first {
            Some(rows) => rows.advance(inner).await?,
            None => None,
        };
        let ended = event.is_none();
        chunk.extend(event);
        if (ended && !chunk.is_empty()) || chunk.len() == CHUNK_EVENTS {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_EVENTS));
            if !sender.send(full).await {
                return Ok(());
            }
        }
        if ended {
            sender.end().await;
            return Ok(());
        }
    }
}

async fn table_at(
    inner: &Inner,
    context: &SessionContext,
    class: EventClass,
    version: u64,
) -> Result<DataFrame, LakeError> {
    let published = inner.published();
    let Some(table) = published.table(class) else {
        return Err(LakeError::Closed(format!("there is no table {}", class.name())));
    };
    let provider = table.provider_at(version, Arc::new(context.state())).await?;
    context.read_table(provider).map_err(|error| inner.read_error(error))
}

fn sort_by_key(
    frame: Result<DataFrame, datafusion::error::DataFusionError>,
) -> Result<DataFrame, datafusion::error::DataFusionError> {
    let ascending = |name: &str| col(name).sort(true, false);
    frame?.sort(vec![ascending("host_id"), ascending("epoch"), ascending("sequence")])
}

impl EventFilter {
    fn apply(&self, frame: DataFrame) -> Result<DataFrame, datafusion::error::DataFusionError> {
        let mut conditions: Vec<Expr> = Vec::new();
        if !self.hosts.is_empty() {
            conditions.push(one_of_hosts(self.hosts.iter().copied()));
        }
        if let Some(epoch) = self.epoch {
            conditions.push(col("epoch").eq(lit(epoch.0.cast_signed())));
        }
        if let Some(time) = &self.time {
            conditions.push(within(time));
        }
        match conditions.into_iter().reduce(Expr::and) {
            Some(condition) => frame.filter(condition),
            None => Ok(frame),
        }
    }
}

fn one_of_hosts(hosts: impl Iterator<Item = HostId>) -> Expr {
    col("host_id").in_list(hosts.map(|host| lit(host_text(host))).collect(), false)
}

/// Compares microseconds, which files are skipped by, and then the nanoseconds within them.
fn within(time: &Range<Timestamp>) -> Expr {
    let microseconds =
        |time: Timestamp| lit(ScalarValue::TimestampMicrosecond(Some(time.0.div_euclid(1000)), Some("UTC".into())));
    let nanoseconds = |time: Timestamp| lit(time.0.rem_euclid(1000) as i16);
    let (from, to) = (time.start, time.end);
    let after = col("time").gt(microseconds(from));
    let at_start = col("time").eq(microseconds(from)).and(col("time_nanoseconds").gt_eq(nanoseconds(from)));
    let before = col("time").lt(microseconds(to));
    let at_end = col("time").eq(microseconds(to)).and(col("time_nanoseconds").lt(nanoseconds(to)));
    after.or(at_start).and(before.or(at_end))
}

/// Which of `ids` are in the tables now.
pub(super) async fn exists(inner: &Inner, ids: &[EventId]) -> Result<HashSet<EventId>, LakeError> {
    let mut found = HashSet::new();
    let hosts: HashSet<HostId> = ids.iter().map(|id| id.host).collect();
    let wanted: HashSet<(String, i64, i64)> = ids.iter().map(row_key).collect();
    let epochs = || wanted.iter().map(|(_, epoch, _)| *epoch);
    let sequences = || wanted.iter().map(|(_, _, sequence)| *sequence);
    let bounds = (epochs().min(), epochs().max(), sequences().min(), sequences().max());
    let (Some(first_epoch), Some(last_epoch), Some(first), Some(last)) = bounds else { return Ok(found) };
    let condition = one_of_hosts(hosts.into_iter())
        .and(col("epoch").between(lit(first_epoch), lit(last_epoch)))
        .and(col("sequence").between(lit(first), lit(last)));
    let context = inner.session(BATCH_ROWS * 8);
    let mut present: HashSet<(String, i64, i64)> = HashSet::new();
    for (class, version) in inner.published().versions().0 {
        let frame = table_at(inner, &context, class, version).await?;
        let frame =
            frame.filter(condition.clone()).and_then(|frame| frame.select_columns(&["host_id", "epoch", "sequence"]));
        let frame = frame.map_err(|error| inner.read_error(error))?;
        let mut batches = frame.execute_stream().await.map_err(|error| inner.read_error(error))?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| inner.read_error(error))?;
            let hosts = batch.column(0).as_string::<i32>();
            let epochs = batch.column(1).as_primitive::<Int64Type>();
            let sequences = batch.column(2).as_primitive::<Int64Type>();
            for index in 0..batch.num_rows() {
                let key = (hosts.value(index).to_owned(), epochs.value(index), sequences.value(index));
                if wanted.contains(&key) {
                    present.insert(key);
                }
            }
        }
        if present.len() == wanted.len() {
            break;
        }
    }
    found.extend(ids.iter().copied().filter(|id| present.contains(&row_key(id))));
    Ok(found)
}

fn row_key(id: &EventId) -> (String, i64, i64) {
    (host_text(id.host), id.key.epoch.0.cast_signed(), id.key.sequence.0.cast_signed())
}

/// How many events each host has in a table.
pub(super) async fn count_by_host(inner: &Inner, table: &PublishedTable) -> Result<BTreeMap<HostId, u64>, LakeError> {
    use datafusion::functions_aggregate::expr_fn::count;
    let context = inner.session(BATCH_ROWS * 8);
    let provider = table.provider(Arc::new(context.state())).await?;
    let counted = context
        .read_table(provider)
        .and_then(|frame| frame.aggregate(vec![col("host_id")], vec![count(lit(1)).alias("events")]));
    let batches = counted.map_err(|error| inner.read_error(error))?.collect().await;
    let mut counts = BTreeMap::new();
    for batch in batches.map_err(|error| inner.read_error(error))? {
        let hosts = batch.column(0).as_string::<i32>();
        let events = batch.column(1).as_primitive::<Int64Type>();
        for index in 0..batch.num_rows() {
            if let Ok(host) = hosts.value(index).parse() {
                counts.insert(host, events.value(index).cast_unsigned());
            }
        }
    }
    Ok(counts)
}
