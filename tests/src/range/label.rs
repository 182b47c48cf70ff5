//! Which observed event belongs to which instance.
//!
//! * A process belongs to the instance whose root it is or descends from (process id and start time, never a bare
//!   pid).
//! * A connection belongs to the instance whose process owns it; when its owner is not known, to the one whose network
//!   program noted the same two addresses at that time, or that alone used its port.
//! * The **far end**: on loopback the agent also sees the other side of each connection, at a service of the range. It
//!   carries the instance's verdict, because both ends are one connection; but an attack counts as found only by what
//!   the attacked host itself has of it: its processes and its own ends. Otherwise a beacon would be found at its own
//!   command server. For the same reason the far ends of attacks are not labelled: no model learns from them.
//! * Services of the range are scenery and get no verdict. Everything else on the machine is background: it is never
//!   labelled and is reported apart.

use std::collections::HashMap;
use std::net::SocketAddr;

use picket_common::id::EventKey;

use super::truth::{GroundTruth, InstanceTruth};

/// How far the range's and the sensor's idea of a process's start may be apart.
const START_TOLERANCE_NS: i64 = 2_000_000_000;

/// How long after an instance its connections may still be reported as closed.
const CLOSE_DELAY_NS: i64 = 5_000_000_000;

/// A process of one host: id and start time in nanoseconds since 1970.
pub type ProcessKey = (u32, i64);

/// A process start as it was stored.
#[derive(Clone, Debug)]
pub struct ObservedProcess {
    /// The event.
    pub event: EventKey,
    /// The process.
    pub process: ProcessKey,
    /// Its parent, when known.
    pub parent: Option<ProcessKey>,
}

/// A closed connection as it was stored.
#[derive(Clone, Debug)]
pub struct ObservedConnection {
    /// The event.
    pub event: EventKey,
    /// When it was seen to end, nanoseconds since 1970.
    pub time_unix_ns: i64,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Its owner, when known.
    pub process: Option<ProcessKey>,
}

/// Whose an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// An instance's own process or connection end.
    Own {
        /// Index into [`GroundTruth::instances`].
        instance: usize,
    },
    /// The other end of an instance's connection.
    FarEnd {
        /// Index into [`GroundTruth::instances`].
        instance: usize,
    },
    /// A service of the range.
    Scenery,
    /// Nothing the range knows of.
    Background,
}

impl Belonging {
    /// The instance, when there is one.
    pub fn instance(self) -> Option<usize> {
        match self {
            Self::Own { instance } | Self::FarEnd { instance } => Some(instance),
            Self::Scenery | Self::Background => None,
        }
    }
}

/// The answer for each event that was asked about.
#[derive(Debug, Default)]
pub struct Attribution {
    /// In the order of the processes given.
    pub processes: Vec<(EventKey, Belonging)>,
    /// In the order of the connections given.
    pub connections: Vec<(EventKey, Belonging)>,
}

/// Finds out whose each event is.
pub fn attribute(
    truth: &GroundTruth,
    processes: &[ObservedProcess],
    connections: &[ObservedConnection],
) -> Attribution {
    let owners = ProcessOwners::new(truth, processes);
    let tuples = NotedConnections::new(&truth.instances);
    let processes =
        processes.iter().map(|seen| (seen.event, owners.of(seen.process).unwrap_or(Belonging::Background))).collect();
    let mut known: Vec<Belonging> =
        connections.iter().map(|seen| direct_belonging(truth, &owners, &tuples, seen)).collect();
    // The far ends of connections that are known only by their owner.
    let mut near: HashMap<(SocketAddr, SocketAddr), Vec<(i64, usize)>> = HashMap::new();
    for (seen, belonging) in connections.iter().zip(&known) {
        if let Belonging::Own { instance } = belonging {
            near.entry((seen.remote, seen.local)).or_default().push((seen.time_unix_ns, *instance));
        }
    }
    for (seen, belonging) in connections.iter().zip(&mut known) {
        if matches!(belonging, Belonging::Scenery | Belonging::Background)
            && let Some(ends) = near.get(&(seen.local, seen.remote))
            && let Some(&(_, instance)) =
                ends.iter().find(|(time, _)| (time - seen.time_unix_ns).abs() <= CLOSE_DELAY_NS)
        {
            *belonging = Belonging::FarEnd { instance };
        }
    }
    let connections = connections.iter().map(|seen| seen.event).zip(known).collect();
    Attribution { processes, connections }
}

fn direct_belonging(
    truth: &GroundTruth,
    owners: &ProcessOwners,
    tuples: &NotedConnections,
    seen: &ObservedConnection,
) -> Belonging {
    let owner = seen.process.and_then(|process| owners.of(process));
    if let Some(belonging @ Belonging::Own { .. }) = owner {
        return belonging;
    }
    if let Some(instance) = tuples.find(seen.local, seen.remote, seen.time_unix_ns) {
        return Belonging::Own { instance };
    }
    if let Some(instance) = tuples.find(seen.remote, seen.local, seen.time_unix_ns) {
        return Belonging::FarEnd { instance };
    }
    for (instance, played) in truth.instances.iter().enumerate() {
        if !played.was_running_at(seen.time_unix_ns) {
            continue;
        }
        // A listener's own port is in both lists of a connection: the far end is the one that has it as its local port.
        if played.exclusive_ports.contains(&seen.local.port()) {
            return Belonging::FarEnd { instance };
        }
        if played.exclusive_ports.contains(&seen.remote.port()) {
            return Belonging::Own { instance };
        }
    }
    owner.unwrap_or(Belonging::Background)
}

impl InstanceTruth {
    fn was_running_at(&self, time_unix_ns: i64) -> bool {
        (self.started_unix_ns - START_TOLERANCE_NS..=self.ended_unix_ns + CLOSE_DELAY_NS).contains(&time_unix_ns)
    }
}

/// Which process is whose.
struct ProcessOwners {
    /// Processes the range started: pid to start time and owner.
    started: HashMap<u32, Vec<(i64, Belonging)>>,
    /// Their descendants.
    descendants: HashMap<ProcessKey, Belonging>,
}

impl ProcessOwners {
    fn new(truth: &GroundTruth, processes: &[ObservedProcess]) -> Self {
        let mut started: HashMap<u32, Vec<(i64, Belonging)>> = HashMap::new();
        for &pid in &truth.service_pids {
            started.entry(pid).or_default().push((truth.started_unix_ns, Belonging::Scenery));
        }
        for (instance, played) in truth.instances.iter().enumerate() {
            for root in &played.roots {
                started.entry(root.pid).or_default().push((root.started_unix_ns, Belonging::Own { instance }));
            }
            for &pid in &played.service_pids {
                started.entry(pid).or_default().push((played.started_unix_ns, Belonging::Scenery));
            }
        }
        let mut owners = Self { started, descendants: HashMap::new() };
        // Children may be reported before their parents: repeat until nothing new is learned.
        loop {
            let before = owners.descendants.len();
            for seen in processes {
                let owner = owners.of(seen.process).or_else(|| seen.parent.and_then(|parent| owners.of(parent)));
                if let Some(owner) = owner {
                    owners.descendants.insert(seen.process, owner);
                }
            }
            if owners.descendants.len() == before {
                return owners;
            }
        }
    }

    fn of(&self, process: ProcessKey) -> Option<Belonging> {
        if let Some(&belonging) = self.descendants.get(&process) {
            return Some(belonging);
        }
        let (pid, start) = process;
        let candidates = self.started.get(&pid)?;
        let (distance, belonging) = candidates
            .iter()
            .map(|(started, belonging)| ((started - start).abs(), *belonging))
            .min_by_key(|pair| pair.0)?;
        (distance <= START_TOLERANCE_NS).then_some(belonging)
    }
}

/// What the network programs noted, by (local, remote).
struct NotedConnections(HashMap<(SocketAddr, SocketAddr), Vec<NotedConnection>>);

struct NotedConnection {
    began_unix_ns: i64,
    until_unix_ns: i64,
    instance: usize,
}

impl NotedConnections {
    fn new(instances: &[InstanceTruth]) -> Self {
        let mut noted: HashMap<_, Vec<NotedConnection>> = HashMap::new();
        for (instance, played) in instances.iter().enumerate() {
            for record in &played.connections {
                noted.entry((record.local, record.remote)).or_default().push(NotedConnection {
                    began_unix_ns: record.time_unix_ns - START_TOLERANCE_NS,
                    until_unix_ns: played.ended_unix_ns + CLOSE_DELAY_NS,
                    instance,
                });
            }
        }
        Self(noted)
    }

    /// The instance that noted this connection last before `time`.
    fn find(&self, local: SocketAddr, remote: SocketAddr, time: i64) -> Option<usize> {
        let candidates = self.0.get(&(local, remote))?;
        let fitting = candidates.iter().filter(|noted| (noted.began_unix_ns..=noted.until_unix_ns).contains(&time));
        fitting.max_by_key(|noted| noted.began_unix_ns).map(|noted| noted.instance)
    }
}

#[cfg(test)]
mod tests;
