//! Taking a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use picket_common::event::{Origin, SensorMode};

use crate::app::reload::ConfigReport;
use crate::budget::governor::{Governor, Usage};
use crate::detector::DetectorCounters;
use crate::hardening::Hardening;
use crate::model_store::{ActiveModels, ModelStore};
use crate::pipeline::intake::Intake;
use crate::pipeline::queue::QueueGauge;
use crate::pipeline::spool::Spool;
use crate::pipeline::{PipelineCounters, now};
use crate::sensor::{SensorSet, SensorStatus};
use crate::status::cost::OwnCost;
use crate::status::{BufferReport, DetectorReport, EpochReport, ModelReport, PipelineReport, SensorReport, Snapshot};
use crate::uplink::{UplinkPhase, UplinkState};

/// Not being connected is nothing to worry about for so long.
const CONNECT_GRACE: Duration = Duration::from_secs(30);

/// Where a snapshot's numbers come from.
pub(crate) struct Sources {
    pub(crate) epoch: u64,
    pub(crate) intake: Intake,
    pub(crate) spool: Arc<Spool>,
    pub(crate) pipeline: Arc<PipelineCounters>,
    pub(crate) sensors: Arc<Mutex<Sensors>>,
    pub(crate) modes: Vec<SensorMode>,
    pub(crate) models: Arc<ActiveModels>,
    pub(crate) model_store: Option<Arc<Mutex<ModelStore>>>,
    pub(crate) detector: Arc<DetectorCounters>,
    pub(crate) detector_queue: QueueGauge,
    pub(crate) uplink: Arc<UplinkState>,
    pub(crate) cost: OwnCost,
    pub(crate) governor: Governor,
    pub(crate) config: Arc<Mutex<ConfigReport>>,
    pub(crate) hardening: Hardening,
}

/// The sensors, as long as they run, and then what they last said.
#[derive(Debug)]
pub(crate) enum Sensors {
    Running(SensorSet),
    Stopped(Vec<SensorStatus>),
}

impl Sensors {
    /// What each sensor has done so far.
    fn status(&self) -> Vec<SensorStatus> {
        match self {
            Self::Running(set) => set.status(),
            Self::Stopped(last) => last.clone(),
        }
    }

    /// Whether a sensor of this name runs.
    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.status().iter().any(|sensor| sensor.name == name && sensor.running)
    }

    /// Gives the sensors out to be stopped; what they said last stays.
    pub(crate) fn take(&mut self) -> Option<SensorSet> {
        let last = Self::Stopped(self.status());
        match std::mem::replace(self, last) {
            Self::Running(set) => Some(set),
            Self::Stopped(_) => None,
        }
    }
}

impl Sources {
    /// The agent now.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        // First of all: a slow disk must not hold it up.
        let cost = self.cost.read();
        let usage = Usage {
            cpu_seconds: cost.cpu_seconds,
            resident_bytes: cost.resident_bytes,
            disk_written_bytes: cost.disk_written_bytes,
        };
        let budget = self.governor.tick(&usage, now().0);
        let counters = self.intake.counters();
        let spool = self.spool.status(&counters);
        let epochs: Vec<EpochReport> = spool.accounts.iter().map(EpochReport::from).collect();
        let current = epochs.iter().find(|report| report.epoch == self.epoch).cloned().unwrap_or_default();
        let generation = self.model_store.as_ref().and_then(|store| store.try_lock().map(|store| store.generation()));
        let mut snapshot = Snapshot {
            time_unix_ns: now().0,
            stopped: false,
            pid: std::process::id(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch,
            degraded: Vec::new(),
            events_accepted: current.accepted,
            events_lost: current.lost,
            epochs,
            pipeline: PipelineReport {
                queued: self.intake.queued() as u64,
                events: load(&self.pipeline.events),
                batches: load(&self.pipeline.batches),
                frame_bytes: load(&self.pipeline.frame_bytes),
                batches_given_up: load(&self.pipeline.batches_given_up),
                ledger_write_failures: self.intake.write_failures() + spool.history_write_failures,
            },
            buffer_bytes: spool.buffer.bytes,
            buffer_bytes_max: spool.buffer_bytes_max,
            buffer: BufferReport {
                records: spool.buffer.records,
                events: spool.buffer.items,
                oldest_unix_ns: spool.oldest_unix_ns,
                disk_bytes: spool.buffer.disk_bytes,
                stores_set_aside: spool.stores_set_aside,
                records_unreadable: spool.records_unreadable,
                errors: spool.errors,
                last_error: spool.last_error,
            },
            uplink: self.uplink.status(),
            budget,
            config: self.config.lock().clone(),
            sensors: self.sensors(),
            active_models: self.models(),
            model_generation: generation.unwrap_or(0),
            alerts_total: load(&self.detector.alerts),
            detector: self.detector(),
            hardening: self.hardening.report(),
            cpu_seconds: cost.cpu_seconds,
            resident_bytes: cost.resident_bytes,
            resident_bytes_peak: cost.resident_bytes_peak,
        };
        snapshot.degraded = degraded(&snapshot, SystemTime::now());
        snapshot
    }

    fn sensors(&self) -> Vec<SensorReport> {
        let statuses = self.sensors.lock().status();
        let report = |mode: &SensorMode| {
            let name = mode.name.to_string();
            let status = statuses.iter().find(|status| status.name == name);
            SensorReport {
                mode: mode_name(mode.origin).to_owned(),
                reason: mode.reason.to_string(),
                events_total: status.map_or(0, |status| status.events_total),
                lost_total: status.map_or(0, |status| status.lost_total),
                running: status.is_some_and(|status| status.running),
                name,
            }
        };
        self.modes.iter().map(report).collect()
    }

    fn models(&self) -> Vec<ModelReport> {
        let report = |active: crate::model_store::ActiveModel| ModelReport {
            subject: active.subject.name().to_owned(),
            model_digest: active.model.as_ref().map(|model| model.id().to_string()).unwrap_or_default(),
            algorithm: active.model.map(|model| model.metadata().algorithm.to_string()).unwrap_or_default(),
            last_error: active.last_error.unwrap_or_default(),
        };
        self.models.all().into_iter().map(report).collect()
    }

    fn detector(&self) -> DetectorReport {
        let counters = &self.detector;
        DetectorReport {
            queued: self.detector_queue.items() as u64,
            observed: load(&counters.observed),
            scored: load(&counters.scored),
            not_scored_no_model: load(&counters.without_model),
            not_scored_queue_full: load(&counters.overflowed),
            alerts_suppressed: load(&counters.suppressed),
            write_failures: load(&counters.write_failures),
            context_evictions: load(&counters.context_evictions),
            alert_latency: counters.alert_latency.lock().summary(),
            score_latency: counters.score_latency.lock().summary(),
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How a sensor sees, by the origin of its events.
fn mode_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Agent => "off",
        Origin::AgentEbpf => "ebpf",
        Origin::AgentLog => "log",
        Origin::AgentFanotify => "fanotify",
        Origin::AgentInotify => "inotify",
        Origin::AgentNetlink => "netlink",
        Origin::AgentPolling => "polling",
        Origin::Replay | Origin::Zeek | Origin::Suricata | Origin::Auditd => "replay",
    }
}

/// Why the agent is not as it should be.
pub(crate) fn degraded(snapshot: &Snapshot, now: SystemTime) -> Vec<String> {
    let mut reasons = Vec::new();
    let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let uplink = &snapshot.uplink;
    match uplink.phase {
        UplinkPhase::Connected => {}
        UplinkPhase::NotEnrolled => reasons.push("this host is not enrolled: `picket-agent enroll`".to_owned()),
        _ if now_s.saturating_sub(uplink.since_unix_s) < CONNECT_GRACE.as_secs() && uplink.last_error.is_empty() => {}
        _ => reasons.push(format!("not connected to the server: {}", uplink.last_error)),
    }
    if !snapshot.events_lost.is_empty() {
        let total: u64 = snapshot.events_lost.values().sum();
        reasons.push(format!("{total} events of this epoch were lost"));
    }
    if snapshot.budget.is_degraded() {
        let (rung, cause) = (&snapshot.budget.rung, &snapshot.budget.cause);
        reasons.push(format!("over its budget ({cause}): on the rung {rung} of what it does without"));
    }
    if !snapshot.config.last_error.is_empty() {
        reasons.push(format!("the new configuration was refused: {}", snapshot.config.last_error));
    }
    if snapshot.buffer.stores_set_aside > 0 {
        reasons.push("a damaged buffer was set aside".to_owned());
    }
    if snapshot.pipeline.batches_given_up > 0 {
        let error = snapshot.buffer.last_error.as_deref().unwrap_or("unknown");
        reasons.push(format!("the buffer does not take batches: {error}"));
    }
    for model in snapshot.active_models.iter().filter(|model| !model.last_error.is_empty()) {
        reasons.push(format!("model for {}: {}", model.subject, model.last_error));
    }
    for sensor in snapshot.sensors.iter().filter(|sensor| sensor.mode != "off" && !sensor.running && !snapshot.stopped)
    {
        if sensor.mode != "replay" {
            reasons.push(format!("the {} sensor has ended", sensor.name));
        }
    }
    reasons
}
