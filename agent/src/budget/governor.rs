//! The governor: measures, asks the ladder, puts the answer into force.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::budget::control::BudgetControl;
use crate::budget::ladder::{LadderState, Measured, Step, decide};
use crate::budget::meter::{Meter, Reading};
use crate::budget::rung::{BudgetCause, BudgetRung, BudgetStep};

/// What the agent has used since its start, and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time, seconds.
    pub cpu_seconds: f64,
    /// Memory, bytes.
    pub resident_bytes: u64,
    /// Written to disk, bytes.
    pub disk_written_bytes: u64,
}

/// The budget in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetReport {
    /// The rung in force.
    pub rung: String,
    /// When it was stepped on, nanoseconds since 1970; 0: at the start.
    pub since_unix_ns: i64,
    /// Why the last step was taken: `cpu`, `memory`, `disk` or `recovered`; empty: there was none.
    pub cause: String,
    /// Steps taken in this epoch.
    pub steps_total: u64,
    /// Observations left out in this epoch.
    pub left_out_total: u64,
    /// Processor time over the last window, milliseconds per second: 10 are one percent of a core.
    pub cpu_milliseconds_per_second: u64,
    /// Its ceiling; 0: none.
    pub cpu_milliseconds_per_second_max: u64,
    /// Memory, bytes.
    pub resident_bytes: u64,
    /// Its ceiling; 0: none.
    pub resident_bytes_max: u64,
    /// Bytes written to disk over the last window, per second.
    pub disk_write_bytes_per_second: u64,
    /// Its ceiling; 0: none.
    pub disk_write_bytes_per_second_max: u64,
    /// Ceiling of the bytes sent to the server per second; 0: none.
    pub uplink_bytes_per_second_max: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Governor {
    control: Arc<BudgetControl>,
    state: LadderState,
    meter: Meter,
    begin: Instant,
    last_step: Option<(i64, Step)>,
    steps_total: u64,
}

impl Governor {
    pub(crate) fn new(control: Arc<BudgetControl>) -> Self {
        Self {
            control,
            state: LadderState::default(),
            meter: Meter::default(),
            begin: Instant::now(),
            last_step: None,
            steps_total: 0,
        }
    }

    /// Takes a reading; `unix_ns` is the wall clock, for the report only.
    pub(crate) fn tick(&mut self, usage: &Usage, unix_ns: i64) -> BudgetReport {
        let at_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ceilings = self.control.config().ceilings();
        let reading = Reading {
            at_ms,
            cpu_ms: (usage.cpu_seconds * 1_000.0) as u64,
            resident_bytes: usage.resident_bytes,
            disk_written_bytes: usage.disk_written_bytes,
        };
        let measured = self.meter.measure(reading, ceilings.window_ms);
        let (state, step) = decide(&measured, &self.state, &ceilings, at_ms);
        self.state = state;
        if let Some(step) = step {
            self.apply(step, &measured, unix_ns);
        }
        self.report(&measured)
    }

    fn apply(&mut self, step: Step, measured: &Measured, unix_ns: i64) {
        self.meter.restart();
        self.last_step = Some((unix_ns, step));
        self.steps_total += 1;
        let (from, to, cause) = (step.from.name(), step.to.name(), step.cause.name());
        let cpu = measured.cpu_milliseconds_per_second;
        let (memory, disk) = (measured.resident_bytes, measured.disk_write_bytes_per_second);
        if step.cause == BudgetCause::Recovered {
            tracing::info!(from, to, cpu, memory, disk, "the agent is within its budget and does more again");
        } else {
            tracing::warn!(from, to, cause, cpu, memory, disk, "the agent is over its budget and does less");
        }
        self.control.step(BudgetStep {
            from: step.from,
            to: step.to,
            cause: step.cause,
            cpu_milliseconds_per_second: cpu,
            resident_bytes: memory,
            disk_write_bytes_per_second: disk,
            ceiling: step.ceiling,
        });
    }

    fn report(&self, measured: &Measured) -> BudgetReport {
        let config = self.control.config();
        let ceilings = config.ceilings();
        BudgetReport {
            rung: self.state.rung.name().to_owned(),
            since_unix_ns: self.last_step.map_or(0, |(unix_ns, _)| unix_ns),
            cause: self.last_step.map_or("", |(_, step)| step.cause.name()).to_owned(),
            steps_total: self.steps_total,
            left_out_total: self.control.left_out(),
            cpu_milliseconds_per_second: measured.cpu_milliseconds_per_second,
            cpu_milliseconds_per_second_max: ceilings.cpu_milliseconds_per_second,
            resident_bytes: measured.resident_bytes,
            resident_bytes_max: ceilings.resident_bytes,
            disk_write_bytes_per_second: measured.disk_write_bytes_per_second,
            disk_write_bytes_per_second_max: ceilings.disk_write_bytes_per_second,
            uplink_bytes_per_second_max: config.uplink_bytes_per_second_max,
        }
    }
}

impl BudgetReport {
    /// Whether anything is left out.
    pub fn is_degraded(&self) -> bool {
        !self.rung.is_empty() && self.rung != BudgetRung::Normal.name()
    }
}
