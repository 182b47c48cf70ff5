//! Batches in, acknowledgements out.
//!
//! A batch is acknowledged only after the write-ahead log has it durably, and only if all of it decodes: what is in the
//! log can be read. Each batch stands alone: a bad one is rejected with its reason and disturbs nothing else.
//!
//! Overload is met per agent: an agent has one stream, at most [`IN_FLIGHT_MAX`] unacknowledged batches, and a rate in
//! bytes. Within [`PACE_MAX`] an agent that is too fast is simply read more slowly, beyond that its stream ends.
//! All agents together hold at most [`MEMORY_BYTES_MAX`] of frames.

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use picket_common::batch::{self, BatchErrorKind, limits};
use picket_common::event::Event;
use picket_common::id::HostId;
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::rate::TokenBucket;
use crate::wal::{Appended, Wal, WalError, WalRecord};

#[cfg(test)]
mod tests;

/// Unacknowledged batches of one agent.
pub const IN_FLIGHT_MAX: usize = 64;
/// How long an agent that is too fast is held back before its stream ends.
pub const PACE_MAX: Duration = Duration::from_secs(5);
/// Frames of all agents that are being checked or written, bytes.
pub const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How long a batch may wait for its share of that.
pub const MEMORY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a host's second stream waits for the end of the first.
pub const SECOND_STREAM_WAIT_MAX: Duration = Duration::from_secs(3);
/// Accepted batches kept for those who watch events; who is slower misses some.
pub const TAIL_BATCHES_MAX: usize = 32;
/// What a batch counts at least against its agent's rate, bytes: small batches cost work, too.
const COST_BYTES_MIN: u64 = 4096;
/// Agents whose rate is remembered while they have no stream.
const AGENTS_REMEMBERED_MAX: usize = 100_000;
/// Rejections of one stream that are logged at once and a second; the others are only counted.
const REJECTIONS_LOGGED_BURST: u64 = 5;

/// What one agent may do.
#[derive(Clone, Copy, Debug)]
pub struct AgentRate {
    /// Bytes a second for long.
    pub bytes_per_second: NonZeroU64,
    /// Bytes at once after a pause.
    pub burst_bytes: NonZeroU64,
}

/// Takes batches in.
#[derive(Debug)]
pub struct Ingest {
    wal: Arc<Wal>,
    rate: AgentRate,
    agents: Mutex<HashMap<HostId, AgentState>>,
    memory: Semaphore,
    decoders: Semaphore,
    tail: broadcast::Sender<Arc<AcceptedBatch>>,
    /// Told when a stream ends.
    freed: Notify,
    /// Events announced so far.
    announced: Mutex<u64>,
    counters: Counters,
}

#[derive(Debug)]
struct AgentState {
    bucket: TokenBucket,
    streaming: bool,
}

/// A batch that has just become durable.
#[derive(Debug)]
pub struct AcceptedBatch {
    /// Whose.
    pub host: HostId,
    /// Its events.
    pub events: Vec<Event>,
    /// Events of all hosts that were announced before these: a gap is what a slow reader missed.
    pub events_before: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Durable now.
    Accepted,
    /// Was durable already.
    Duplicate,
    /// Will never be accepted.
    Rejected(Rejection),
}

/// Why a batch will never be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For machines.
    pub kind: RejectionKind,
    /// For people.
    pub reason: String,
}

/// Why a batch will never be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// Damaged on its way.
    Checksum,
    /// Over a limit.
    TooLarge,
    /// Not what an agent writes.
    Malformed,
    /// A later agent wrote it.
    UnsupportedVersion,
    /// So old that nobody knows whether it is stored already.
    TooOld,
}

/// Why a stream of batches ends, with nothing acknowledged that is not durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The host's other stream is still open.
    #[error("this host delivers on another stream already")]
    SecondStream,
    /// Far more than the agent's rate.
    #[error("more than {} bytes a second", .0.bytes_per_second)]
    Rate(AgentRate),
    /// Too much at once from all agents.
    #[error("the server is overloaded")]
    Overloaded,
    /// Nothing can be made durable now.
    #[error("the server cannot store batches: {0}")]
    Unavailable(WalError),
    /// A task of the server died.
    #[error("a batch could not be checked")]
    Internal,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounters {
    /// Batches that became durable.
    pub batches_accepted: u64,
    /// Their events.
    pub events_accepted: u64,
    /// Batches that were durable already.
    pub batches_duplicate: u64,
    /// Batches that were refused for good.
    pub batches_rejected: u64,
}

#[derive(Debug, Default)]
struct Counters {
    batches_accepted: AtomicU64,
    events_accepted: AtomicU64,
    batches_duplicate: AtomicU64,
    batches_rejected: AtomicU64,
}

impl Ingest {
    /// Into this log.
    pub fn new(wal: Arc<Wal>, rate: AgentRate) -> Self {
        let decoders = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            wal,
            rate,
            agents: Mutex::default(),
            memory: Semaphore::new(MEMORY_BYTES_MAX),
            decoders: Semaphore::new(decoders),
            tail: broadcast::Sender::new(TAIL_BATCHES_MAX),
            freed: Notify::new(),
            announced: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Opens the host's one stream, once the one before has ended: a check-in may be about to end it. Waits at most
    /// [`SECOND_STREAM_WAIT_MAX`].
    ///
    /// # Errors
    /// [`IngestError::SecondStream`].
    pub async fn take_stream(self: &Arc<Self>, host: HostId) -> Result<HostStream, IngestError> {
        let opened = async {
            loop {
                let freed = self.freed.notified();
                match self.open_stream(host) {
                    Err(IngestError::SecondStream) => freed.await,
                    opened => return opened,
                }
            }
        };
        tokio::time::timeout(SECOND_STREAM_WAIT_MAX, opened).await.unwrap_or(Err(IngestError::SecondStream))
    }

    /// Opens the host's one stream.
    pub fn open_stream(self: &Arc<Self>, host: HostId) -> Result<HostStream, IngestError> {
        let now = Instant::now();
        let mut agents = self.agents.lock();
        if agents.len() >= AGENTS_REMEMBERED_MAX {
            agents.retain(|_, agent| agent.streaming);
        }
        let AgentRate { bytes_per_second, burst_bytes } = self.rate;
        let agent = agents.entry(host).or_insert_with(|| AgentState {
            bucket: TokenBucket::new(bytes_per_second.get(), burst_bytes.get(), now),
            streaming: false,
        });
        if agent.streaming {
            return Err(IngestError::SecondStream);
        }
        agent.streaming = true;
        let log = Mutex::new(TokenBucket::new(1, REJECTIONS_LOGGED_BURST, now));
        Ok(HostStream { ingest: Arc::clone(self), host, log })
    }

    /// Events as they become durable, from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<AcceptedBatch>> {
        self.tail.subscribe()
    }

    /// What happened since the start.
    pub fn counters(&self) -> IngestCounters {
        let Counters { batches_accepted, events_accepted, batches_duplicate, batches_rejected } = &self.counters;
        IngestCounters {
            batches_accepted: batches_accepted.load(Ordering::Relaxed),
            events_accepted: events_accepted.load(Ordering::Relaxed),
            batches_duplicate: batches_duplicate.load(Ordering::Relaxed),
            batches_rejected: batches_rejected.load(Ordering::Relaxed),
        }
    }

    async fn deliver(&self, host: HostId, frame: Bytes) -> Result<Verdict, IngestError> {
        if frame.len() > limits::BATCH_FRAME_BYTES_MAX {
            let reason =
                format!("batch of {} bytes exceeds the limit of {}", frame.len(), limits::BATCH_FRAME_BYTES_MAX);
            return Ok(Verdict::Rejected(Rejection { kind: RejectionKind::TooLarge, reason }));
        }
        let header = match batch::peek_header(&frame) {
            Ok(header) => header,
            Err(error) => return Ok(Verdict::Rejected(error.into())),
        };
        if self.wal.contains(host, header.epoch, header.batch_sequence) {
            return Ok(Verdict::Duplicate);
        }
        let share = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let _share = tokio::time::timeout(MEMORY_WAIT_MAX, self.memory.acquire_many(share))
            .await
            .map_err(|_| IngestError::Overloaded)?
            .map_err(|_| IngestError::Internal)?;
        let events = match self.decode(frame.clone()).await? {
            Ok(events) => events,
            Err(rejection) => return Ok(Verdict::Rejected(rejection)),
        };
        match self.wal.append(WalRecord { host, frame }).await {
            Ok(Appended::Stored(_)) => {
                self.counters.events_accepted.fetch_add(events.len() as u64, Ordering::Relaxed);
                self.announce(host, events);
                Ok(Verdict::Accepted)
            }
            Ok(Appended::Duplicate) => Ok(Verdict::Duplicate),
            Err(error) if error.is_retryable() => Err(IngestError::Unavailable(error)),
            Err(error) => Ok(Verdict::Rejected(error.into())),
        }
    }

    /// Tells those who watch, in the order of counting.
    fn announce(&self, host: HostId, events: Vec<Event>) {
        let mut announced = self.announced.lock();
        let events_before = *announced;
        *announced += events.len() as u64;
        if self.tail.receiver_count() > 0 {
            // Fails when the last one has just left.
            self.tail.send(Arc::new(AcceptedBatch { host, events, events_before })).ok();
        }
    }

    /// Reads a whole batch, off the threads that serve connections.
    async fn decode(&self, frame: Bytes) -> Result<Result<Vec<Event>, Rejection>, IngestError> {
        let _turn = self.decoders.acquire().await.map_err(|_| IngestError::Internal)?;
        let decoded = tokio::task::spawn_blocking(move || batch::decode(&frame)).await;
        let decoded = decoded.map_err(|_| IngestError::Internal)?;
        Ok(decoded.map(|(_, events)| events).map_err(Rejection::from))
    }

    fn count(&self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Accepted => &self.counters.batches_accepted,
            Verdict::Duplicate => &self.counters.batches_duplicate,
            Verdict::Rejected(_) => &self.counters.batches_rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The one open stream of a host. Its place is free again when this is dropped.
#[derive(Debug)]
pub struct HostStream {
    ingest: Arc<Ingest>,
    host: HostId,
    log: Mutex<TokenBucket>,
}

impl HostStream {
    /// Waits until the agent's rate allows a batch of this size. To be called in the order of the stream, so that
    /// waiting here holds the agent back.
    pub async fn pace(&self, frame_bytes: usize) -> Result<(), IngestError> {
        let cost = (frame_bytes as u64).max(COST_BYTES_MIN);
        let wait = match self.ingest.agents.lock().get_mut(&self.host) {
            Some(agent) => agent.bucket.take_within(cost, PACE_MAX, Instant::now()),
            None => Some(Duration::ZERO),
        };
        let wait = wait.ok_or(IngestError::Rate(self.ingest.rate))?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Takes one batch, and returns when it is durable or refused. Many may run at a time.
    pub async fn deliver(&self, frame: Bytes) -> Result<Verdict, IngestError> {
        let verdict = self.ingest.deliver(self.host, frame).await?;
        self.ingest.count(&verdict);
        if let Verdict::Rejected(rejection) = &verdict
            && self.log.lock().try_take(1, Instant::now())
        {
            tracing::warn!(host = %self.host, reason = rejection.reason, "rejected a batch");
        }
        Ok(verdict)
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        if let Some(agent) = self.ingest.agents.lock().get_mut(&self.host) {
            agent.streaming = false;
        }
        self.ingest.freed.notify_waiters();
    }
}

impl From<batch::BatchError> for Rejection {
    fn from(error: batch::BatchError) -> Self {
        let kind = match error.kind() {
            BatchErrorKind::Checksum => RejectionKind::Checksum,
            BatchErrorKind::TooLarge => RejectionKind::TooLarge,
            BatchErrorKind::Malformed => RejectionKind::Malformed,
            BatchErrorKind::UnsupportedVersion => RejectionKind::UnsupportedVersion,
        };
        Self { kind, reason: error.to_string() }
    }
}

impl From<WalError> for Rejection {
    /// For those that are not retryable.
    fn from(error: WalError) -> Self {
        let kind = match &error {
            WalError::Frame(_) => RejectionKind::Malformed,
            WalError::TooLarge { .. } => RejectionKind::TooLarge,
            _ => RejectionKind::TooOld,
        };
        Self { kind, reason: error.to_string() }
    }
}
