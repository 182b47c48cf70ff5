//! What the range knows about what it played.

use super::Round;
use super::attack::Technique;
use super::helper::client::ConnectionRecord;

/// How much earlier and later than it was played something may be observed.
const OBSERVED_MARGIN_NS: i64 = 2_000_000_000;

/// One played round.
#[derive(Clone, Debug)]
pub struct GroundTruth {
    /// Which.
    pub round: Round,
    /// Its instances, in the order of the plan.
    pub instances: Vec<InstanceTruth>,
    /// Process ids of the shared services: neither benign nor malicious, part of the scenery.
    pub service_pids: Vec<u32>,
    /// When the round began, nanoseconds since 1970.
    pub started_unix_ns: i64,
    /// When its last process had ended.
    pub ended_unix_ns: i64,
}

impl GroundTruth {
    /// When its events can have been observed, nanoseconds since 1970: connections close a little later.
    pub fn observed_time(&self) -> std::ops::RangeInclusive<i64> {
        self.started_unix_ns - OBSERVED_MARGIN_NS..=self.ended_unix_ns + OBSERVED_MARGIN_NS
    }
}

/// One played instance.
#[derive(Clone, Debug)]
pub struct InstanceTruth {
    /// The plan's id; the label group.
    pub id: String,
    /// The technique, when it is an attack.
    pub technique: Option<Technique>,
    /// How it was done.
    pub style: String,
    /// Its root processes. Every descendant belongs to it.
    pub roots: Vec<RootProcess>,
    /// Processes of a service of its own: scenery, like the shared services.
    pub service_pids: Vec<u32>,
    /// The connections its network programs noted.
    pub connections: Vec<ConnectionRecord>,
    /// Ports that nothing else connected to or listened on while it was played.
    pub exclusive_ports: Vec<u16>,
    /// When it began, nanoseconds since 1970.
    pub started_unix_ns: i64,
    /// When its last process had ended.
    pub ended_unix_ns: i64,
    /// Why it was not played to its end.
    pub failure: Option<String>,
}

impl InstanceTruth {
    /// Whether it imitates an attack.
    pub fn is_malicious(&self) -> bool {
        self.technique.is_some()
    }
}

/// A process the range started itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootProcess {
    /// Its id.
    pub pid: u32,
    /// When it was started, nanoseconds since 1970.
    pub started_unix_ns: i64,
    /// When it had ended.
    pub ended_unix_ns: i64,
}
