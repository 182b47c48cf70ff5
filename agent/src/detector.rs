//! The detector: features, score, alert; on this host, with or without a server.
//!
//! Every event of the epoch is observed in order ([`FeaturePipeline`]), each subject scored with the model in force for
//! it, and an alert written when the score reaches the model's threshold. A few events at a time are observed on the
//! pipeline's own thread: to wake another up costs more than that. When there are many, or any are waiting already, a
//! thread of the detector takes them from a bounded queue that the pipeline never waits for: what does not fit is not
//! scored and counted as such (it is stored and delivered all the same, so it is no loss). A new model is taken up between
//! two events.
//!
//! Without a model nothing is scored, but the features are computed: their context must be warm when a model comes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use picket_common::event::Event;
use picket_common::feature::{ContextLimits, FeaturePipeline, FeatureVector, Subject};
use picket_common::id::HostId;
use picket_common::model::{Contribution, Model};
use serde::{Deserialize, Serialize};

use crate::config::live::Live;
use crate::detector::alert::Alert;
use crate::detector::alert_file::AlertFile;
pub use crate::detector::latency::{Latency, LatencySummary};
use crate::detector::repeats::{Decision, Repeats};
use crate::detector::trace::Trace;
use crate::model_store::ActiveModels;
use crate::pipeline::intake::body_bytes;
use crate::pipeline::queue::{QueueGauge, QueueLimits, QueueReceiver, QueueSender, Weigh, queue};
use crate::pipeline::{AlertMark, now};

pub mod alert;
mod alert_file;
mod latency;
mod repeats;
#[cfg(test)]
mod tests;
mod trace;

/// Most events between the pipeline and the detector.
const QUEUE_ITEMS_MAX: usize = 16_384;
/// Most bytes of them.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most events observed on the thread that brings them.
const AT_ONCE_MAX: usize = 16;
/// How often a quiet detector writes out what it has.
const IDLE: Duration = Duration::from_secs(1);

/// Section `[detector]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// Ceiling of the alert file, bytes; the one before is kept as `alerts.jsonl.1`.
    pub alert_file_bytes_max: u64,
    /// Alerts about the same program, destination and subject that are written within a minute; further ones are
    /// counted in one alert when the minute is over. 0: no limit.
    pub alert_repeats_max: u32,
    /// Reasons in an alert.
    pub alert_reasons_max: usize,
    /// Writes every scored vector to this file, JSON lines; empty: does not. For tests of the features.
    pub trace_vectors: PathBuf,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self {
            alert_file_bytes_max: 16 * 1024 * 1024,
            alert_repeats_max: 100,
            alert_reasons_max: 5,
            trace_vectors: PathBuf::new(),
        }
    }
}

/// What the detector has done so far.
#[derive(Debug, Default)]
pub struct DetectorCounters {
    /// Events observed.
    pub observed: AtomicU64,
    /// Events that did not fit into the queue: not scored, and missing in the context of later ones.
    pub overflowed: AtomicU64,
    /// Subjects scored.
    pub scored: AtomicU64,
    /// Subjects for which there is no model.
    pub without_model: AtomicU64,
    /// Alerts, suppressed ones included.
    pub alerts: AtomicU64,
    /// Alerts not written because they repeat others.
    pub suppressed: AtomicU64,
    /// Alerts or trace lines that the disk did not take.
    pub write_failures: AtomicU64,
    /// Things forgotten because the context's tables were full.
    pub context_evictions: AtomicU64,
    /// From the event to its alert.
    pub alert_latency: Mutex<Latency>,
    /// From the event to its score.
    pub score_latency: Mutex<Latency>,
}

/// The pipeline's end. There is one: two would mix up the order of events.
pub struct DetectorSender {
    queue: QueueSender<Vec<Event>>,
    shared: Arc<Shared>,
}

/// What both threads use.
struct Shared {
    worker: Mutex<Worker>,
    /// Turns that were queued and are not observed yet: none may overtake them.
    behind: AtomicUsize,
    counters: Arc<DetectorCounters>,
}

impl DetectorSender {
    /// Observes a few events at once, and hands many over if there is room for all of them; never waits for the other
    /// thread.
    pub fn offer(&self, events: Vec<Event>) {
        let shared = &*self.shared;
        if events.len() <= AT_ONCE_MAX
            && shared.behind.load(Ordering::Acquire) == 0
            && let Some(mut worker) = shared.worker.try_lock()
        {
            worker.observe_all(&events);
            return;
        }
        let count = events.len() as u64;
        shared.behind.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(events).is_err() {
            shared.behind.fetch_sub(1, Ordering::AcqRel);
            shared.counters.overflowed.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How full the queue is.
    pub(crate) fn gauge(&self) -> QueueGauge {
        self.queue.gauge()
    }
}

impl Weigh for Vec<Event> {
    fn weight_bytes(&self) -> usize {
        self.iter().map(|event| size_of::<Event>() + body_bytes(&event.body)).sum()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// What the detector works with.
pub struct Detector {
    /// See there; taken up between two events when it changes.
    pub config: Arc<Live<DetectorConfig>>,
    /// Whose alerts these are, once that is known.
    pub host: Arc<OnceLock<HostId>>,
    /// Where alerts go.
    pub alert_path: PathBuf,
    /// The models in force.
    pub models: Arc<ActiveModels>,
    /// Told of every alert.
    pub mark: AlertMark,
    /// For the status.
    pub counters: Arc<DetectorCounters>,
}

/// A detector at work.
struct Worker {
    parts: Detector,
    config: DetectorConfig,
    config_revision: u64,
    features: FeaturePipeline,
    in_force: InForce,
    alerts: AlertFile,
    repeats: Repeats,
    trace: Option<Trace>,
    contributions: Vec<Contribution>,
}

/// The models taken up from [`ActiveModels`].
struct InForce {
    revision: Option<u64>,
    process_start: Option<Arc<Model>>,
    connection: Option<Arc<Model>>,
}

/// Starts the detector's thread. It ends when every sender is gone and the queue is empty.
///
/// # Errors
/// When the system refuses a thread.
pub fn spawn(parts: Detector) -> std::io::Result<(DetectorSender, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = queue(QueueLimits { items: QUEUE_ITEMS_MAX, bytes: QUEUE_BYTES_MAX });
    let counters = Arc::clone(&parts.counters);
    let shared = Arc::new(Shared { worker: Mutex::new(Worker::new(parts)), behind: AtomicUsize::new(0), counters });
    let sender = DetectorSender { queue: sender, shared: Arc::clone(&shared) };
    let thread = std::thread::Builder::new().name("detector".to_owned()).spawn(move || shared.run(&receiver))?;
    Ok((sender, thread))
}

impl Shared {
    /// Observes what is queued; looks after the rest while nothing is.
    fn run(&self, queue: &QueueReceiver<Vec<Event>>) {
        loop {
            match queue.recv_timeout(IDLE) {
                Ok(events) => {
                    self.worker.lock().observe_all(&events);
                    self.behind.fetch_sub(1, Ordering::AcqRel);
                }
                Err(RecvTimeoutError::Timeout) => self.worker.lock().tidy(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let mut worker = self.worker.lock();
        worker.write_summaries(true);
        worker.tidy();
    }
}

impl InForce {
    fn none() -> Self {
        Self { revision: None, process_start: None, connection: None }
    }

    fn refresh(&mut self, models: &ActiveModels) {
        let revision = models.revision();
        if self.revision != Some(revision) {
            self.process_start = models.model(Subject::ProcessStart);
            self.connection = models.model(Subject::Connection);
            self.revision = Some(revision);
        }
    }

    fn get(&self, subject: Subject) -> Option<&Arc<Model>> {
        match subject {
            Subject::ProcessStart => self.process_start.as_ref(),
            Subject::Connection => self.connection.as_ref(),
        }
    }
}

impl Worker {
    fn new(parts: Detector) -> Self {
        let mut config_revision = 0;
        let config = parts.config.newer_than(&mut config_revision).unwrap_or_else(|| parts.config.get());
        let alerts = AlertFile::new(&parts.alert_path, config.alert_file_bytes_max);
        let repeats = Repeats::new(config.alert_repeats_max);
        let trace = (!config.trace_vectors.as_os_str().is_empty()).then(|| Trace::new(&config.trace_vectors));
        Self {
            parts,
            config,
            config_revision,
            features: FeaturePipeline::new(ContextLimits::default()),
            in_force: InForce::none(),
            alerts,
            repeats,
            trace,
            contributions: Vec::new(),
        }
    }

    fn observe_all(&mut self, events: &[Event]) {
        for event in events {
            self.judge(event);
            self.parts.counters.observed.fetch_add(1, Ordering::Release);
        }
    }

    fn judge(&mut self, event: &Event) {
        self.refresh_config();
        let counters = &self.parts.counters;
        self.in_force.refresh(&self.parts.models);
        let Some(vector) = self.features.observe(event) else { return };
        let Some(model) = self.in_force.get(vector.subject) else {
            counters.without_model.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let score = model.score(vector.values);
        counters.scored.fetch_add(1, Ordering::Relaxed);
        counters.score_latency.lock().record(event.time, now());
        if let Some(trace) = &mut self.trace
            && trace.write(&vector, score, model.id()).is_err()
        {
            counters.write_failures.fetch_add(1, Ordering::Relaxed);
        }
        if model.is_alert(score) {
            counters.alerts.fetch_add(1, Ordering::Relaxed);
            self.parts.mark.raise(event.key.sequence);
            // Reasons are found for what is written only: in a storm of alerts hardly any is.
            match self.repeats.decide(vector.subject, event, event.time) {
                Decision::Write => {
                    let reasons_max = self.config.alert_reasons_max;
                    let alert =
                        alert_of(&self.parts, event, &vector, model, score, &mut self.contributions, reasons_max);
                    if self.alerts.append(&alert.to_json()).is_err() {
                        counters.write_failures.fetch_add(1, Ordering::Relaxed);
                    }
                    counters.alert_latency.lock().record(event.time, now());
                }
                Decision::Suppress => {
                    counters.suppressed.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.write_summaries(false);
        }
    }

    /// Takes up other limits.
    fn refresh_config(&mut self) {
        if let Some(config) = self.parts.config.newer_than(&mut self.config_revision) {
            self.alerts.set_bytes_max(config.alert_file_bytes_max);
            self.repeats.set_written_max(config.alert_repeats_max);
            self.config = config;
        }
    }

    /// Says how many alerts were suppressed, for what has been quiet long enough.
    fn write_summaries(&mut self, is_end: bool) {
        for summary in self.repeats.take_over(now(), is_end) {
            if self.alerts.append(&summary.to_json(self.parts.host.get().copied())).is_err() {
                self.parts.counters.write_failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn tidy(&mut self) {
        self.write_summaries(false);
        self.parts.counters.context_evictions.store(self.features.evictions(), Ordering::Relaxed);
        if let Some(trace) = &mut self.trace
            && trace.flush().is_err()
        {
            self.parts.counters.write_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn alert_of<'a>(
    parts: &Detector,
    event: &'a Event,
    vector: &FeatureVector<'_>,
    model: &Model,
    score: f64,
    contributions: &mut Vec<Contribution>,
    reasons_max: usize,
) -> Alert<'a> {
    model.explain(vector.values, contributions);
    Alert::new(parts.host.get().copied(), event, vector, model, score, contributions, reasons_max)
}
