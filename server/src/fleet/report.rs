//! What agents report about their hosts and themselves. For people and for planning, never for identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Facts about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostInventory {
    /// Its own name for itself.
    pub hostname: String,
    /// `Debian GNU/Linux 12` …
    pub operating_system: String,
    /// Version of its kernel.
    pub kernel_release: String,
    /// `x86_64` …
    pub architecture: String,
    /// Logical processors.
    pub logical_cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Version of the agent.
    pub agent_version: String,
    /// When it booted.
    pub boot_time_unix_s: u64,
}

/// What an agent reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// The running agent's epoch.
    pub epoch: u64,
    /// Events its sensors handed to the pipeline in this epoch.
    pub events_accepted: u64,
    /// Bytes waiting in its buffer.
    pub buffer_bytes: u64,
    /// The buffer's ceiling.
    pub buffer_bytes_max: u64,
    /// Events lost so far in this epoch, by `stage/reason`.
    pub events_lost: BTreeMap<String, u64>,
    /// The models it predicts with.
    pub active_models: Vec<ActiveModel>,
    /// Alerts so far in this epoch.
    pub alerts_total: u64,
    /// Processor time it took.
    pub cpu_seconds: f64,
    /// Memory it holds.
    pub resident_bytes: u64,
    /// The most it ever held.
    pub resident_bytes_peak: u64,
    /// What it does without to stay within its budget: `normal` is nothing. Empty: not known.
    pub budget_rung: String,
    /// Why it came there.
    pub budget_cause: String,
    /// Its sensors.
    pub sensors: Vec<SensorStatus>,
    /// SHA-256 (hex) of the authorities it trusts.
    pub trust_anchors: Vec<String>,
    /// SHA-256 (hex) of the authority that issued the certificate it shows; empty when that is not known.
    pub certificate_authority: String,
    /// Where the events of its latest epochs went. Kept apart.
    #[serde(skip)]
    pub epochs: Vec<EpochAccount>,
}

/// Where the events of one epoch went, as the agent counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochAccount {
    /// Which epoch.
    pub epoch: u64,
    /// Events the sensors handed over.
    pub accepted: u64,
    /// Events the sensors know to have missed; in `lost` too.
    pub sensor_lost: u64,
    /// Acknowledged by the server.
    pub delivered: u64,
    /// In the agent's buffer.
    pub waiting: u64,
    /// Between the sensors and the buffer.
    pub in_flight: u64,
    /// By `stage/reason`.
    pub lost: BTreeMap<String, u64>,
}

/// A model an agent predicts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActiveModel {
    /// What it judges.
    pub subject: String,
    /// SHA-256 of its file, hex.
    pub model_digest: String,
    /// Why the last model that was offered is not active. Empty when it is.
    pub last_error: String,
}

/// A sensor of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SensorStatus {
    /// `process`, `connection` …
    pub name: String,
    /// How it sees: `netlink`, `polling` …
    pub mode: String,
    /// Why this way.
    pub reason: String,
    /// Events so far.
    pub events_total: u64,
}
