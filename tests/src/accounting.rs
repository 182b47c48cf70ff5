//! Where every event went: the agent's own account against what the lake has.
//!
//! For one agent's epoch, *generated = stored + lost*: what its sensors handed over or know to have missed is either a
//! row of the sensors' tables or counted in a `SensorLoss` row about that epoch. The agent's own events (its start,
//! its loss reports) are not part of these numbers.

use std::collections::BTreeMap;

use crate::admin::{AdminClient, AdminError};

/// The tables sensors fill.
const SENSOR_TABLES: [&str; 6] =
    ["process_activity", "network_activity", "authentication", "file_activity", "dns_activity", "kernel_activity"];

/// All tables.
const TABLES: [&str; 8] = [
    "process_activity",
    "network_activity",
    "authentication",
    "file_activity",
    "dns_activity",
    "kernel_activity",
    "sensor_loss",
    "agent_activity",
];

/// What the lake has of some epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Rows of sensor events, by epoch.
    pub events: BTreeMap<u64, u64>,
    /// Losses about each epoch, by `stage/reason`.
    pub lost: BTreeMap<u64, BTreeMap<String, u64>>,
    /// Rows whose (host, epoch, sequence) another row has too.
    pub duplicates: u64,
}

impl Stored {
    /// Counts what is stored of `host_id`.
    ///
    /// # Errors
    /// A query failed.
    pub fn read(admin: &mut AdminClient, host_id: &str) -> Result<Self, AdminError> {
        let mut stored = Self::default();
        for row in admin.query(&format!(
            "SELECT epoch, count(*) AS events FROM ({}) AS e WHERE host_id = '{host_id}' GROUP BY epoch",
            union(&SENSOR_TABLES)
        ))? {
            stored.events.insert(number(&row, "epoch")?, number(&row, "events")?);
        }
        for row in admin.query(&format!(
            "SELECT lost_epoch, stage, reason, sum(\"count\") AS lost FROM sensor_loss \
             WHERE host_id = '{host_id}' GROUP BY lost_epoch, stage, reason"
        ))? {
            let text = |key: &str| row.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            let cause = format!("{}/{}", text("stage"), text("reason"));
            *stored.lost.entry(number(&row, "lost_epoch")?).or_default().entry(cause).or_default() +=
                number(&row, "lost")?;
        }
        let duplicates = admin.query_number(&format!(
            "SELECT CAST(coalesce(sum(n - 1), 0) AS BIGINT) AS duplicates FROM (SELECT count(*) AS n FROM ({}) AS e \
             GROUP BY host_id, epoch, sequence) AS g",
            union(&TABLES)
        ))?;
        stored.duplicates = duplicates.unsigned_abs();
        Ok(stored)
    }

    /// Rows of sensor events of one epoch.
    pub fn events_of(&self, epoch: u64) -> u64 {
        self.events.get(&epoch).copied().unwrap_or_default()
    }

    /// Events counted as lost of one epoch.
    pub fn lost_of(&self, epoch: u64) -> u64 {
        self.lost.get(&epoch).map_or(0, |causes| causes.values().sum())
    }

    /// Rows of all epochs.
    pub fn events_total(&self) -> u64 {
        self.events.values().sum()
    }

    /// Losses of all epochs, by `stage/reason`.
    pub fn lost_total(&self) -> BTreeMap<String, u64> {
        let mut total = BTreeMap::new();
        for (cause, count) in self.lost.values().flatten() {
            *total.entry(cause.clone()).or_default() += count;
        }
        total
    }
}

fn union(tables: &[&str]) -> String {
    let selects: Vec<String> =
        tables.iter().map(|table| format!("SELECT host_id, epoch, sequence FROM {table}")).collect();
    selects.join(" UNION ALL ")
}

fn number(row: &serde_json::Map<String, serde_json::Value>, key: &str) -> Result<u64, AdminError> {
    row.get(key)
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| AdminError::Answer { call: "query events", problem: format!("no number {key} in {row:?}") })
}
