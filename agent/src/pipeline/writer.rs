//! Puts finished batches into the spool, on a thread of its own.
//!
//! A durable write takes as long as the disk wants, many milliseconds on a busy one. Meanwhile the pipeline goes on: a
//! finished batch is a tenth of the memory that its events take in the queue from the sensors, so much more fits between
//! the sensors and the disk. Batches are written in their order. When too many wait, the pipeline waits too. Should the
//! thread end, the pipeline ends with it: what was accepted and not written is then known from the ledger, and booked as
//! lost by the next life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pipeline::PipelineCounters;
use crate::pipeline::intake::Intake;
use crate::pipeline::queue::{QueueGauge, QueueLimits, QueueReceiver, QueueSender, SendError, Weigh, queue};
use crate::pipeline::spool::{PreparedBatch, Spool};

/// Most batches that wait.
const BATCHES_MAX: usize = 64;
/// Most bytes of them.
const BATCHES_BYTES_MAX: usize = 6 * 1024 * 1024;
/// How long the pipeline waits before it looks again for room.
const PAUSE: Duration = Duration::from_millis(1);
/// How often a batch is offered to a buffer that does not take it, before its events are given up.
const APPEND_ATTEMPTS: u32 = 4;
/// Pause after the first refused attempt; doubled for each further one.
const APPEND_PAUSE: Duration = Duration::from_millis(150);

/// Writes one batch after the other.
pub(super) struct Writer {
    pub(super) spool: Arc<Spool>,
    pub(super) intake: Intake,
    pub(super) counters: Arc<PipelineCounters>,
    /// The buffer did not take the last batch: do not wait long for the next.
    pub(super) is_failing: bool,
}

/// Where the pipeline's batches go.
pub(super) enum Output {
    /// Written at once, by whoever asks.
    Inline(Writer),
    /// Written by a thread.
    Thread(WriterThread),
}

pub(super) struct WriterThread {
    queue: QueueSender<PreparedBatch>,
    waiting: QueueGauge,
    /// Batches that were handed over, and of these those that were dealt with.
    submitted: u64,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Weigh for PreparedBatch {
    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.frame.len()
    }
}

impl Writer {
    /// Offers a batch to the spool until it takes it, within reason.
    fn write(&mut self, batch: &PreparedBatch) {
        let attempts = if self.is_failing { 1 } else { APPEND_ATTEMPTS };
        let mut pause = APPEND_PAUSE;
        for attempt in 1..=attempts {
            match self.spool.append(batch, &self.intake.counters()) {
                Ok(()) => {
                    self.is_failing = false;
                    self.counters.batches.fetch_add(1, Ordering::Relaxed);
                    self.counters.frame_bytes.fetch_add(batch.frame.len() as u64, Ordering::Relaxed);
                    return;
                }
                Err(_) if attempt < attempts => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(_) => {}
            }
        }
        self.is_failing = true;
        self.counters.batches_given_up.fetch_add(1, Ordering::Relaxed);
        self.spool.give_up(batch);
    }
}

impl WriterThread {
    /// Gives the writer back where the system refuses a thread.
    fn start(writer: Writer) -> Result<Self, Writer> {
        let (sender, receiver) = queue(QueueLimits { items: BATCHES_MAX, bytes: BATCHES_BYTES_MAX });
        let written = Arc::new(AtomicU64::new(0));
        // The writer is handed over only once there is somebody to take it.
        let (hand_over, taken) = std::sync::mpsc::sync_channel::<Writer>(1);
        let count = Arc::clone(&written);
        let run = move || {
            if let Ok(writer) = taken.recv() {
                write_all(writer, &receiver, &count);
            }
        };
        let thread = match std::thread::Builder::new().name("spool".to_owned()).spawn(run) {
            Ok(thread) => thread,
            Err(error) => {
                tracing::warn!(%error, "batches are written by the pipeline itself");
                return Err(writer);
            }
        };
        hand_over.send(writer).map_err(|refused| refused.0)?;
        Ok(Self { waiting: sender.gauge(), queue: sender, submitted: 0, written, thread })
    }
}

/// Until the other end is gone and nothing waits.
fn write_all(mut writer: Writer, queue: &QueueReceiver<PreparedBatch>, written: &AtomicU64) {
    while let Ok(batch) = queue.recv() {
        writer.write(&batch);
        written.fetch_add(1, Ordering::Release);
    }
}

impl Output {
    /// Leaves the writing to a thread from now on.
    pub(super) fn onto_thread(self) -> Self {
        match self {
            Self::Inline(writer) => WriterThread::start(writer).map_or_else(Self::Inline, Self::Thread),
            started @ Self::Thread(_) => started,
        }
    }

    /// Writes a batch, at once or soon. Waits when too many wait already. Does nothing when the thread that writes has
    /// ended.
    pub(super) fn write(&mut self, batch: PreparedBatch) {
        match self {
            Self::Inline(writer) => writer.write(&batch),
            Self::Thread(thread) => {
                thread.submitted += 1;
                let mut next = batch;
                while let Err(SendError::Full(refused)) = thread.queue.try_send(next) {
                    if thread.thread.is_finished() {
                        return;
                    }
                    next = refused;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Whether nothing more is written, because the thread that writes has ended.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Inline(_) => false,
            Self::Thread(thread) => thread.thread.is_finished(),
        }
    }

    /// Whether batches wait.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Self::Inline(_) => false,
            Self::Thread(thread) => thread.waiting.items() > 0,
        }
    }

    /// How many batches were handed over, where somebody else writes them.
    pub(super) fn submitted(&self) -> u64 {
        match self {
            Self::Inline(_) => 0,
            Self::Thread(thread) => thread.submitted,
        }
    }

    /// Whether the first so many batches that were handed over were dealt with.
    pub(super) fn has_written(&self, count: u64) -> bool {
        match self {
            Self::Inline(_) => true,
            // A thread that is gone deals with nothing more.
            Self::Thread(thread) => thread.written.load(Ordering::Acquire) >= count || thread.thread.is_finished(),
        }
    }

    /// Waits until everything was dealt with.
    pub(super) fn settle(&self) {
        while !self.has_written(self.submitted()) {
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes what waits and ends. `false`: not everything was written, the thread that writes panicked.
    pub(super) fn finish(self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::Thread(WriterThread { queue, thread, .. }) => {
                drop(queue);
                thread.join().is_ok()
            }
        }
    }

    /// An output whose thread panics at its first batch.
    #[cfg(test)]
    pub(super) fn failing() -> Self {
        let (sender, receiver) = queue::<PreparedBatch>(QueueLimits { items: BATCHES_MAX, bytes: BATCHES_BYTES_MAX });
        let thread = std::thread::spawn(move || {
            let batch = receiver.recv();
            panic!("cannot write {:?}", batch.map(|batch| batch.sequence));
        });
        let written = Arc::default();
        Self::Thread(WriterThread { waiting: sender.gauge(), queue: sender, submitted: 0, written, thread })
    }
}
