//! What an agent says about itself, read from its status.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The part of an agent's status that tests and the demo look at. Fields it does not have are zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AgentReport {
    /// The running epoch.
    pub epoch: u64,
    /// Events the sensors handed over in this epoch.
    pub events_accepted: u64,
    /// Bytes that wait in the buffer.
    pub buffer_bytes: u64,
    /// Its ceiling.
    pub buffer_bytes_max: u64,
    /// Losses of this epoch by `stage/reason`.
    pub events_lost: BTreeMap<String, u64>,
    /// One entry per subject.
    pub active_models: Vec<ActiveModel>,
    /// Alerts raised.
    pub alerts_total: u64,
    /// Processor time used.
    pub cpu_seconds: f64,
    /// Memory now.
    pub resident_bytes: u64,
    /// Most memory so far.
    pub resident_bytes_peak: u64,
    /// How it sees.
    pub sensors: Vec<SensorReport>,
    /// Where the events of this epoch and earlier ones went.
    pub epochs: Vec<EpochReport>,
    /// Whether this is its last word.
    pub stopped: bool,
}

/// Where the events of one epoch went.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EpochReport {
    /// The epoch.
    pub epoch: u64,
    /// What the sensors handed over, and what they know to have missed.
    pub generated: u64,
    /// Events the server acknowledged.
    pub delivered: u64,
    /// Events that wait in the buffer.
    pub waiting: u64,
    /// Events on their way inside the agent.
    pub in_flight: u64,
    /// Losses by `stage/reason`.
    pub lost: BTreeMap<String, u64>,
    /// How many of these losses the server knows of.
    pub lost_announced: u64,
}

/// The model in force for one subject.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ActiveModel {
    /// `process_start` or `connection`.
    pub subject: String,
    /// SHA-256 of its file, hex.
    pub model_digest: String,
    /// Why the last model that was offered is not active.
    pub last_error: String,
}

/// One sensor.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SensorReport {
    /// Its name.
    pub name: String,
    /// How it sees.
    pub mode: String,
    /// Why so.
    pub reason: String,
    /// Events it gave.
    pub events_total: u64,
}

impl AgentReport {
    /// Reads a status. A status of another form gives zeros, which no wait and no check takes for success.
    pub fn from_status(status: &Value) -> Self {
        serde_json::from_value(status.clone()).unwrap_or_default()
    }

    /// What the sensors of the running epoch have generated so far.
    pub fn generated(&self) -> u64 {
        let account = self.epochs.iter().find(|account| account.epoch == self.epoch);
        account.map_or(0, |account| account.generated)
    }

    /// Whether the model with this digest is in force.
    pub fn has_active(&self, subject: &str, digest: &str) -> bool {
        self.active_models.iter().any(|model| model.subject == subject && model.model_digest == digest)
    }
}
