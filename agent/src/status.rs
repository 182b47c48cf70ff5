//! What the agent says about itself: one [`Snapshot`] a second, in `run/status.json` and, now and then, to the server.
//!
//! How the numbers of an epoch hang together is said in [`crate::pipeline::account`]; all of them leave out the agent's
//! own events (`AgentStart`, `SensorLoss`). For an epoch that has ended,
//! `accepted + sensor_lost = stored + sum of lost`, where `stored` is what the server has or will get (`delivered +
//! waiting`); while it runs, `in_flight` comes on top.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::reload::ConfigReport;
use crate::budget::governor::BudgetReport;
use crate::detector::LatencySummary;
use crate::hardening::HardeningReport;
use crate::pipeline::account::EpochAccount;
use crate::pipeline::loss::loss_name;
use crate::uplink::UplinkStatus;

mod collect;
mod cost;
mod file;
pub(crate) mod print;
#[cfg(test)]
mod tests;

pub(crate) use crate::status::collect::{Sensors, Sources};
pub(crate) use crate::status::cost::OwnCost;
pub(crate) use crate::status::file::{AgentLock, ReadError, StatusFile, read};

/// How often the status is taken.
pub(crate) const INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The agent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// When it was taken, nanoseconds since 1970.
    pub time_unix_ns: i64,
    /// Whether the agent has ended (this is then its last word).
    pub stopped: bool,
    /// The agent's process id.
    pub pid: u32,
    /// The agent's version.
    pub agent_version: String,
    /// The running epoch.
    pub epoch: u64,
    /// Why the agent is not as it should be; empty when it is.
    pub degraded: Vec<String>,
    /// Events the sensors handed over in this epoch.
    pub events_accepted: u64,
    /// Losses of this epoch by `stage/reason`.
    pub events_lost: BTreeMap<String, u64>,
    /// This epoch and earlier ones of this state folder, oldest first.
    pub epochs: Vec<EpochReport>,
    /// The way of events through the agent in this epoch.
    pub pipeline: PipelineReport,
    /// Stored bytes that wait in the buffer.
    pub buffer_bytes: u64,
    /// Their ceiling.
    pub buffer_bytes_max: u64,
    /// More about the buffer.
    pub buffer: BufferReport,
    /// The way to the server.
    pub uplink: UplinkStatus,
    /// What the agent may cost, and what it does without.
    pub budget: BudgetReport,
    /// The configuration in force.
    pub config: ConfigReport,
    /// The sensors.
    pub sensors: Vec<SensorReport>,
    /// The model in force for each subject.
    pub active_models: Vec<ModelReport>,
    /// Highest generation of the desired state seen.
    pub model_generation: u64,
    /// Alerts in this epoch, repeated ones included.
    pub alerts_total: u64,
    /// The detector in this epoch.
    pub detector: DetectorReport,
    /// What the agent has given up since its start, and what not.
    pub hardening: HardeningReport,
    /// Processor time the agent has used, seconds.
    pub cpu_seconds: f64,
    /// Memory it uses, bytes.
    pub resident_bytes: u64,
    /// Most memory it has used, bytes.
    pub resident_bytes_peak: u64,
}

impl Snapshot {
    /// Whether it differs from another in nothing but its time and what the agent costs.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let without_cost = |snapshot: &Self| {
            let mut snapshot = snapshot.clone();
            (snapshot.time_unix_ns, snapshot.cpu_seconds) = (0, 0.0);
            (snapshot.resident_bytes, snapshot.resident_bytes_peak) = (0, 0);
            snapshot.budget.cpu_milliseconds_per_second = 0;
            snapshot.budget.resident_bytes = 0;
            snapshot.budget.disk_write_bytes_per_second = 0;
            snapshot
        };
        without_cost(self) == without_cost(other)
    }
}

/// Where the events of one epoch went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochReport {
    /// The epoch.
    pub epoch: u64,
    /// Observations the sensors handed over.
    pub accepted: u64,
    /// Events the sensors reported as lost before they could hand them over.
    pub sensor_lost: u64,
    /// `accepted + sensor_lost`: what must be found again.
    pub generated: u64,
    /// `delivered + waiting`: what the server has or will get.
    pub stored: u64,
    /// Acknowledged by the server.
    pub delivered: u64,
    /// In the buffer.
    pub waiting: u64,
    /// In the queue or the open batch.
    pub in_flight: u64,
    /// Losses by `stage/reason`, those of the sensors included.
    pub lost: BTreeMap<String, u64>,
    /// How many of these losses the server has acknowledged to know of.
    pub lost_announced: u64,
}

impl From<&EpochAccount> for EpochReport {
    fn from(account: &EpochAccount) -> Self {
        Self {
            epoch: account.epoch.0,
            accepted: account.accepted,
            sensor_lost: account.sensor_lost,
            generated: account.generated(),
            stored: account.delivered + account.waiting(),
            delivered: account.delivered,
            waiting: account.waiting(),
            in_flight: account.in_flight(),
            lost: account.booked.entries().map(|(stage, reason, count)| (loss_name(stage, reason), count)).collect(),
            lost_announced: account.announced.total(),
        }
    }
}

/// The way of events through the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PipelineReport {
    /// Observations between sensors and pipeline.
    pub queued: u64,
    /// Events numbered, the agent's own included.
    pub events: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// Batches the disk did not take.
    pub batches_given_up: u64,
    /// Failed writes of the ledger or its history: the counts go on, a kill could find them stale.
    pub ledger_write_failures: u64,
}

/// The buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BufferReport {
    /// Batches that wait.
    pub records: u64,
    /// Events in them, the agent's own included.
    pub events: u64,
    /// When the oldest of them was closed, nanoseconds since 1970.
    pub oldest_unix_ns: Option<u64>,
    /// Bytes of the store's log file; it shrinks late.
    pub disk_bytes: u64,
    /// Damaged stores set aside since the start.
    pub stores_set_aside: u64,
    /// Records whose checksum did not hold.
    pub records_unreadable: u64,
    /// Errors since the start.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

/// One sensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SensorReport {
    /// `process`, `connection` …
    pub name: String,
    /// How it sees: `netlink`, `polling`, `replay` or `off`.
    pub mode: String,
    /// Why this way and no better; empty for the best way.
    pub reason: String,
    /// Observations it has sent.
    pub events_total: u64,
    /// Events it knows to have missed.
    pub lost_total: u64,
    /// Whether its thread runs.
    pub running: bool,
}

/// The model of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelReport {
    /// `process_start` or `connection`.
    pub subject: String,
    /// SHA-256 of its file, hex; empty when there is none.
    pub model_digest: String,
    /// How it judges; empty when there is none.
    pub algorithm: String,
    /// Why the last model that was offered is not in force; empty when it is.
    pub last_error: String,
}

/// The detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DetectorReport {
    /// Events between pipeline and detector.
    pub queued: u64,
    /// Events observed.
    pub observed: u64,
    /// Subjects scored.
    pub scored: u64,
    /// Subjects without a model.
    pub not_scored_no_model: u64,
    /// Events (not subjects) that did not fit into the queue.
    pub not_scored_queue_full: u64,
    /// Alerts not written because they repeat others.
    pub alerts_suppressed: u64,
    /// Alerts or trace lines the disk did not take.
    pub write_failures: u64,
    /// Things forgotten because the context was full.
    pub context_evictions: u64,
    /// From the event to its alert.
    pub alert_latency: LatencySummary,
    /// From the event to its score.
    pub score_latency: LatencySummary,
}

impl Snapshot {
    /// Whether the models in force, or what is said about them, are others than in `earlier`.
    pub(crate) fn models_differ(&self, earlier: &Self) -> bool {
        self.active_models != earlier.active_models
    }

    /// Whether the agent stands on another rung of its budget than in `earlier`.
    pub(crate) fn rung_differs(&self, earlier: &Self) -> bool {
        self.budget.rung != earlier.budget.rung
    }
}
