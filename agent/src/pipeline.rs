//! From the sensors to the buffer and the detector.
//!
//! ```text
//! sensor threads ─▶ intake ─(ledger)─▶ queue ─▶ pipeline thread ─┬─▶ batch ─▶ writer ─▶ spool (buffer + accounts, durable)
//!                                                                └─▶ detector (never waited for)
//! ```
//!
//! One thread numbers the events (sequence), gives each to the detector and into the open batch, and closes the batch
//! when it is full or old enough (see [`linger`]).
//!
//! # No event vanishes
//! *accepted + lost before the sensors = stored + counted losses*, for every epoch, whatever happens in between:
//! * An observation is counted in the **ledger** before it enters the queue ([`intake`], [`ledger`]).
//! * A batch, the number of observations in it and the losses it announces become durable in **one step** of the
//!   buffer ([`spool`], [`account`]). A kill finds them all there or none.
//! * What the ledger has and the accounts have not was inside the process when it ended. The next epoch books it as
//!   `pipeline/agent_killed` and says so in a `SensorLoss` event.
//! * A loss is *booked* when it is known and *pending* until the `SensorLoss` event that announces it is durable, in
//!   that same one step. When a batch with such an event is evicted or rejected, the loss is pending again.
//! * The accounts are mirrored outside the buffer ([`history`](mod@history)), so that a damaged buffer can be counted:
//!   all that was accepted and neither delivered nor announced as lost.
//!
//! Batches form a hash chain (`picket_common::chain`): its head is part of the account and changes in that same step, so
//! that whoever takes a batch out of a stopped agent's buffer leaves a gap that the server can see.
//!
//! The agent's own events (`AgentStart`, `SensorLoss`) are not part of these numbers. Seen from the server:
//! `accepted + sensor_lost` of an epoch is the number of its rows in the tables of the sensors' classes plus the sum of
//! `count` over all `SensorLoss` rows *about* that epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_common::batch::{BatchBuilder, EncodeError};
use picket_common::chain::ChainPlace;
use picket_common::event::{AgentStart, Event, EventBody, Origin, SensorLoss, Timestamp};
use picket_common::id::{BatchSequence, Epoch, EventKey, Sequence};
use tokio_util::sync::CancellationToken;

use crate::budget::shaper::{Shaped, Shaper};
use crate::buffer::Priority;
use crate::pipeline::changes::Changes;
use crate::pipeline::intake::Intake;
use crate::pipeline::linger::Linger;
use crate::pipeline::queue::QueueReceiver;
use crate::pipeline::spool::{PreparedBatch, Spool};
use crate::pipeline::tag::BatchTag;
use crate::pipeline::writer::{Output, Writer};
use crate::sensor::Observation;

pub mod account;
pub mod accounts;
pub mod changes;
pub mod history;
pub mod intake;
pub mod ledger;
mod linger;
pub mod loss;
pub mod lost_batches;
pub(crate) mod queue;
pub mod spool;
pub mod tag;
#[cfg(test)]
mod tests;
mod writer;

/// Most observations taken, and most events handed to the detector, in one go. It is woken once for these.
const TURN_MAX: usize = 64;
/// How often losses are announced, at most.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// How long what is due waits for the disk before it is looked at again.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);
/// How long the thread sleeps when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// Section `[pipeline]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// How long an event waits at most for others to share its batch, milliseconds; after a quiet while a tenth of it.
    pub batch_age_ms: u64,
    /// Most events in a batch.
    pub batch_events_max: usize,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { batch_age_ms: 200, batch_events_max: 2_048 }
    }
}

/// The last event an alert was raised for: its batch is dropped last from a full buffer.
#[derive(Clone, Debug, Default)]
pub struct AlertMark(Arc<AtomicU64>);

impl AlertMark {
    /// Notes an alert for the event with this number.
    pub fn raise(&self, sequence: Sequence) {
        self.0.fetch_max(sequence.0.saturating_add(1), Ordering::AcqRel);
    }

    pub(crate) fn is_from(&self, first: Sequence) -> bool {
        self.0.load(Ordering::Acquire) > first.0
    }
}

/// What the pipeline has done so far.
#[derive(Debug, Default)]
pub struct PipelineCounters {
    /// Events numbered, the agent's own among them.
    pub events: AtomicU64,
    /// Batches in the buffer.
    pub batches: AtomicU64,
    /// Bytes of their frames.
    pub frame_bytes: AtomicU64,
    /// Batches given up because the disk did not take them.
    pub batches_given_up: AtomicU64,
}

/// Why the pipeline ended although nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The thread that writes batches panicked. What was on its way is booked as lost by the next life of the agent.
    #[error("the thread that writes batches ended unexpectedly, with {events} events on their way: please report this")]
    WriterEnded {
        /// Events that were accepted and are neither in a durable batch nor counted as lost.
        events: u64,
    },
}

/// What the pipeline thread works with.
pub(crate) struct Pipeline<D> {
    /// Limits of a batch.
    pub(crate) config: PipelineConfig,
    /// The running epoch.
    pub(crate) epoch: Epoch,
    /// Where batches go.
    pub(crate) spool: Arc<Spool>,
    /// The counters of the intake.
    pub(crate) intake: Intake,
    /// Takes all events in order, some at a time; must not wait.
    pub(crate) detector: D,
    /// Raised by the detector.
    pub(crate) alerts: AlertMark,
    /// For the status.
    pub(crate) counters: Arc<PipelineCounters>,
    /// Leaves out what the budget does not permit.
    pub(crate) shaper: Shaper,
    /// What the agent has to say of itself.
    pub(crate) changes: Arc<Changes>,
    /// Ends the thread once the queue is empty.
    pub(crate) stop: CancellationToken,
}

/// Starts the pipeline's thread. `queue` is the other end of the sensors' sender; `start` becomes the epoch's first
/// event.
///
/// # Errors
/// When the system refuses a thread. The thread itself ends with a [`PipelineError`] when it cannot go on.
pub(crate) fn spawn<D: FnMut(Vec<Event>) + Send + 'static>(
    parts: Pipeline<D>,
    queue: QueueReceiver<Observation>,
    start: AgentStart,
) -> std::io::Result<std::thread::JoinHandle<Result<(), PipelineError>>> {
    let worker = Worker::new(parts, queue);
    std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || worker.run(start))
}

/// A pipeline at work.
struct Worker<D> {
    parts: Pipeline<D>,
    queue: QueueReceiver<Observation>,
    builder: BatchBuilder,
    open: OpenBatch,
    linger: Linger,
    shaped: Shaped,
    /// What the detector has not been given yet.
    unseen: Vec<Event>,
    next_sequence: u64,
    next_batch: u64,
    next_losses: Instant,
    output: Output,
    /// The losses announced last are in one of the first so many batches.
    announced_in: u64,
}

/// What is known of the batch that is being filled.
#[derive(Default)]
struct OpenBatch {
    since: Option<Instant>,
    first: Option<Sequence>,
    priority: Option<Priority>,
    sensor_events: u32,
    losses: Vec<SensorLoss>,
}

impl<D: FnMut(Vec<Event>)> Worker<D> {
    fn new(parts: Pipeline<D>, queue: QueueReceiver<Observation>) -> Self {
        let writer = Writer {
            spool: Arc::clone(&parts.spool),
            intake: parts.intake.clone(),
            counters: Arc::clone(&parts.counters),
            is_failing: false,
        };
        let linger = Linger::new(Duration::from_millis(parts.config.batch_age_ms));
        Self {
            parts,
            queue,
            builder: BatchBuilder::new(),
            open: OpenBatch::default(),
            linger,
            shaped: Shaped::default(),
            unseen: Vec::new(),
            next_sequence: 0,
            next_batch: 0,
            next_losses: Instant::now(),
            output: Output::Inline(writer),
            announced_in: 0,
        }
    }

    /// Works until it is stopped (or every sensor is gone) and the queue is empty; then stores what is left.
    fn run(mut self, start: AgentStart) -> Result<(), PipelineError> {
        self.output = self.output.onto_thread();
        self.own_event(EventBody::AgentStart(Box::new(start)));
        while !self.output.has_ended() {
            match self.queue.recv_timeout(self.patience()) {
                Ok(observation) => self.take_turn(observation),
                Err(RecvTimeoutError::Timeout) if self.parts.stop.is_cancelled() => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.with_shaper(|shaper, out| shaper.tick(Instant::now(), out));
            if self.is_due() || self.are_losses_due() {
                self.close();
            }
            self.hand_over();
        }
        while !self.output.has_ended()
            && let Ok(observation) = self.queue.try_recv()
        {
            self.shape(observation);
        }
        self.with_shaper(Shaper::finish);
        // What is not written yet may have to be announced as lost.
        self.output.settle();
        self.next_losses = Instant::now();
        self.close();
        self.hand_over();
        let is_written = self.output.finish();
        let counters = self.parts.intake.counters();
        if let Err(error) = self.parts.spool.flush(&counters) {
            tracing::error!(%error, "the last losses could not be written down");
        }
        if is_written {
            Ok(())
        } else {
            Err(PipelineError::WriterEnded { events: self.parts.spool.in_flight(&counters) })
        }
    }

    /// Takes this observation and those that wait behind it, as long as they have room in the batch.
    fn take_turn(&mut self, observation: Observation) {
        self.shape(observation);
        for _ in 1..TURN_MAX {
            if self.builder.len() >= self.parts.config.batch_events_max {
                break;
            }
            let Ok(observation) = self.queue.try_recv() else { break };
            self.shape(observation);
        }
    }

    /// Gives the detector what it has not seen.
    fn hand_over(&mut self) {
        if !self.unseen.is_empty() {
            (self.parts.detector)(std::mem::take(&mut self.unseen));
        }
    }

    fn patience(&self) -> Duration {
        let due = self.open.since.map(|opened| self.linger.due(opened));
        let mut rest = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        if self.output.is_behind() {
            // What is due cannot be written yet.
            rest = rest.max(BEHIND_PAUSE);
        }
        if self.parts.stop.is_cancelled() { Duration::ZERO } else { rest.min(IDLE) }
    }

    fn is_due(&self) -> bool {
        let is_old = || self.open.since.is_some_and(|opened| Instant::now() >= self.linger.due(opened));
        // While the disk is behind, a batch that waits in line may as well be filled.
        self.builder.len() >= self.parts.config.batch_events_max || !self.output.is_behind() && is_old()
    }

    /// Whether it is time to announce losses. Those in a batch that is not written yet would be announced again.
    fn are_losses_due(&self) -> bool {
        Instant::now() >= self.next_losses && self.output.has_written(self.announced_in)
    }

    /// Leaves out what the budget does not permit, and stores the rest.
    fn shape(&mut self, observation: Observation) {
        self.with_shaper(|shaper, out| shaper.take(observation, Instant::now(), out));
    }

    fn with_shaper(&mut self, run: impl FnOnce(&mut Shaper, &mut Shaped)) {
        run(&mut self.parts.shaper, &mut self.shaped);
        if self.shaped.kept.is_empty() {
            return;
        }
        let mut kept = std::mem::take(&mut self.shaped.kept);
        kept.drain(..).for_each(|observation| self.observe(observation));
        self.shaped.kept = kept;
    }

    fn observe(&mut self, observation: Observation) {
        let priority = priority_of(&observation.body);
        let event =
            Event { key: self.next_key(), time: observation.time, origin: observation.origin, body: observation.body };
        if self.push(event, priority) {
            self.open.sensor_events += 1;
        } else {
            self.parts.spool.over_limit();
        }
    }

    fn own_event(&mut self, body: EventBody) -> bool {
        let priority = priority_of(&body);
        let event = Event { key: self.next_key(), time: now(), origin: Origin::Agent, body };
        self.push(event, priority)
    }

    fn next_key(&self) -> EventKey {
        EventKey { epoch: self.parts.epoch, sequence: Sequence(self.next_sequence) }
    }

    /// Puts an event into the open batch, closing a full one first, and hands it on. `false`: no batch may hold it.
    fn push(&mut self, event: Event, priority: Priority) -> bool {
        let mut result = self.builder.push(&event);
        if matches!(result, Err(EncodeError::Full { .. })) {
            self.store_open();
            result = self.builder.push(&event);
        }
        if let Err(error) = result {
            tracing::warn!(%error, "an event could not be stored");
            return false;
        }
        self.next_sequence += 1;
        self.open.since.get_or_insert_with(Instant::now);
        self.open.first.get_or_insert(event.key.sequence);
        self.open.priority = self.open.priority.max(Some(priority));
        self.parts.counters.events.fetch_add(1, Ordering::Relaxed);
        self.unseen.push(event);
        if self.unseen.len() >= TURN_MAX {
            self.hand_over();
        }
        true
    }

    /// Announces losses when it is time to, then stores the open batch if there is one.
    fn close(&mut self) {
        if self.are_losses_due() {
            self.next_losses = Instant::now() + LOSS_INTERVAL;
            for change in self.parts.changes.take() {
                self.own_event(EventBody::AgentChange(Box::new(change)));
            }
            self.book_left_out();
            for loss in self.parts.spool.pending_losses(&self.parts.intake.counters()) {
                // Noted first: should the batch be full, `push` stores it without this loss.
                if self.own_event(EventBody::SensorLoss(loss)) {
                    self.open.losses.push(loss);
                }
            }
        }
        self.store_open();
    }

    /// What was left out is booked with the losses, about once a second: the spool may be busy with the disk. Until then
    /// it counts as in flight.
    fn book_left_out(&mut self) {
        match std::mem::take(&mut self.shaped.left_out) {
            0 => {}
            count => self.parts.spool.left_out(count),
        }
    }

    fn store_open(&mut self) {
        let open = std::mem::take(&mut self.open);
        if self.builder.is_empty() {
            return;
        }
        self.linger.close(Instant::now());
        let event_count = u32::try_from(self.builder.len()).unwrap_or(u32::MAX);
        let sequence = self.next_batch;
        self.next_batch += 1;
        let alerted = open.first.is_some_and(|first| self.parts.alerts.is_from(first));
        let mut batch = PreparedBatch {
            frame: Vec::new(),
            priority: if alerted { Priority::Highest } else { open.priority.unwrap_or(Priority::Low) },
            event_count,
            tag: BatchTag {
                epoch: self.parts.epoch,
                sensor_events: open.sensor_events,
                closed_unix_ns: now().0.unsigned_abs(),
                chain: ChainPlace::unlinked(BatchSequence(sequence)),
                losses: open.losses,
            },
            sequence,
        };
        match self.builder.finish(self.parts.epoch, BatchSequence(sequence)) {
            Ok(frame) => {
                batch.frame = frame;
                let announces = !batch.tag.losses.is_empty();
                self.output.write(batch);
                if announces {
                    self.announced_in = self.output.submitted();
                }
            }
            Err(error) => {
                tracing::error!(%error, "a batch could not be made");
                self.builder.clear();
                self.parts.spool.give_up(&batch);
            }
        }
    }
}

/// What is dropped first from a full buffer: ends of processes and connections say least, what the accounts and
/// logins say is kept longest. (A batch with an alert goes last of all.)
fn priority_of(body: &EventBody) -> Priority {
    match body {
        EventBody::ProcessStart(start) if start.seeded => Priority::Low,
        EventBody::ProcessExit(_)
        | EventBody::ConnectionOpen(_)
        | EventBody::ConnectionClose(_)
        | EventBody::ConnectionSummary(_)
        | EventBody::DnsActivity(_) => Priority::Low,
        EventBody::ProcessStart(_) | EventBody::ConnectionListen(_) | EventBody::FileActivity(_) => Priority::Normal,
        EventBody::Authentication(_)
        | EventBody::KernelActivity(_)
        | EventBody::SensorLoss(_)
        | EventBody::AgentStart(_)
        | EventBody::AgentChange(_) => Priority::High,
    }
}

/// The wall clock, nanoseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
