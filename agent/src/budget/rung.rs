//! The rungs of the degradation ladder, and why one is left.

use picket_common::event::AgentChange;

/// What the agent leaves out; each rung also what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetRung {
    /// Nothing.
    #[default]
    Normal,
    /// File events.
    DropFileEvents,
    /// Short connections alike become one counted summary.
    AggregateConnections,
    /// Of programs that start often, one start in so many stays.
    SampleExecs,
    /// Every event of a sensor.
    HeartbeatsOnly,
}

/// Why a rung is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetCause {
    /// Processor time passed its ceiling.
    Cpu,
    /// Memory passed its ceiling.
    Memory,
    /// Bytes written to disk passed their ceiling.
    Disk,
    /// Everything has been well below its ceiling for long enough.
    Recovered,
}

/// A step that was taken, with what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStep {
    /// From this rung.
    pub from: BudgetRung,
    /// To this one.
    pub to: BudgetRung,
    /// Why.
    pub cause: BudgetCause,
    /// Processor time over the window, milliseconds per second.
    pub cpu_milliseconds_per_second: u64,
    /// Memory, bytes.
    pub resident_bytes: u64,
    /// Bytes written to disk over the window, per second.
    pub disk_write_bytes_per_second: u64,
    /// What of these it was compared with; 0: nothing.
    pub ceiling: u64,
}

impl BudgetRung {
    /// Every rung, from the one on which all is well downwards.
    pub const ALL: [Self; 5] =
        [Self::Normal, Self::DropFileEvents, Self::AggregateConnections, Self::SampleExecs, Self::HeartbeatsOnly];

    /// Its name in events, in the status and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::DropFileEvents => "drop_file_events",
            Self::AggregateConnections => "aggregate_connections",
            Self::SampleExecs => "sample_execs",
            Self::HeartbeatsOnly => "heartbeats_only",
        }
    }

    /// Its place in [`Self::ALL`].
    pub(crate) fn place(self) -> usize {
        self as usize
    }
}

impl BudgetCause {
    /// Its name in events, in the status and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Recovered => "recovered",
        }
    }
}

impl BudgetStep {
    /// As an event of the agent.
    pub fn to_change(&self) -> AgentChange {
        let ceiling = match self.cause {
            BudgetCause::Cpu => format!(" above its ceiling of {} ms/s", self.ceiling),
            BudgetCause::Memory => format!(" above its ceiling of {} bytes", self.ceiling),
            BudgetCause::Disk => format!(" above its ceiling of {} bytes/s", self.ceiling),
            BudgetCause::Recovered => String::new(),
        };
        let reason = format!(
            "{}{ceiling}; cpu {} ms/s, memory {} bytes, disk {} bytes/s",
            self.cause.name(),
            self.cpu_milliseconds_per_second,
            self.resident_bytes,
            self.disk_write_bytes_per_second
        );
        AgentChange {
            subject: "budget".into(),
            before: self.from.name().into(),
            after: self.to.name().into(),
            reason: reason.as_str().into(),
        }
    }
}
