//! The budget: ceilings for what the agent costs its host, and what it does without to stay below them.
//!
//! Ceilings are set on the host ([`BudgetConfig`]); nothing the server says can raise them. Once a second the agent's
//! own use of processor, memory and disk is measured ([`meter`]), and a pure function decides the rung of the
//! degradation ladder ([`ladder`]):
//!
//! | rung | what is left out, beside what the rungs above leave out |
//! |---|---|
//! | `normal` | nothing |
//! | `drop_file_events` | file events |
//! | `aggregate_connections` | short connections alike: the first of each kind stays, the others become one counted summary |
//! | `sample_execs` | starts of programs that start often: the first of each stay, then one of n; and ends of processes left out |
//! | `heartbeats_only` | every event of a sensor: the agent's own events go on |
//!
//! One rung down when a ceiling is passed over a whole window, one up when everything was well below its ceiling for
//! long enough; the wait grows while the load comes back each time. Each step is an event of the agent. Events that a
//! rung leaves out were accepted before, and are counted as `pipeline/degraded`: *generated = stored + lost* holds
//! on every rung. The choice is made before events are numbered, so that detector and server see the same ones.
//!
//! The network's ceiling is not part of the ladder: a token bucket in the uplink holds it, and what has to wait does so
//! in the buffer, whose ceiling is `buffer.bytes_max`.

use serde::{Deserialize, Serialize};

use crate::budget::ladder::Ceilings;

mod connections;
pub mod control;
mod execs;
pub mod governor;
pub mod ladder;
pub mod meter;
pub mod rung;
pub(crate) mod shaper;
#[cfg(test)]
mod tests;

/// Section `[budget]`. A ceiling of 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Most processor time, percent of one core.
    pub cpu_percent_max: u32,
    /// Most resident memory, bytes.
    pub resident_bytes_max: u64,
    /// Most bytes written to disk per second.
    pub disk_write_bytes_per_second_max: u64,
    /// Most bytes sent to the server per second.
    pub uplink_bytes_per_second_max: u64,
    /// Over which time use is measured, milliseconds.
    pub window_ms: u64,
    /// How long everything must be well below its ceiling before the agent does more again, milliseconds.
    pub recovery_ms: u64,
    /// Of programs that start often, one start in so many stays while starts are sampled.
    pub exec_sample_one_in: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            cpu_percent_max: 100,
            resident_bytes_max: 256 * 1024 * 1024,
            disk_write_bytes_per_second_max: 32 * 1024 * 1024,
            uplink_bytes_per_second_max: 0,
            window_ms: 10_000,
            recovery_ms: 30_000,
            exec_sample_one_in: 10,
        }
    }
}

impl BudgetConfig {
    /// What the ladder goes by.
    pub fn ceilings(&self) -> Ceilings {
        Ceilings {
            cpu_milliseconds_per_second: u64::from(self.cpu_percent_max) * 10,
            resident_bytes: self.resident_bytes_max,
            disk_write_bytes_per_second: self.disk_write_bytes_per_second_max,
            window_ms: self.window_ms,
            recovery_ms: self.recovery_ms,
        }
    }
}
