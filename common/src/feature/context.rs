//! What happened lately on one host, in bounded memory.

use std::net::IpAddr;

use crate::event::{Connection, ConnectionClose, Direction, ProcessId, Timestamp};
use crate::feature::bounded_map::{BoundedMap, Segment};
use crate::feature::limits::{DISTINCT_MAX, HOST_DISTINCT_MAX, LATENESS_MAX_NS};
use crate::feature::path::PathClass;
use crate::feature::program::ProgramKinds;
use crate::feature::series::Series;
use crate::feature::sketch::Sketch;
use crate::feature::text::{hash, hash_pair};
use crate::feature::window::{Amount, Count, Distinct};

/// Ancestors whose lineage a discovery command is counted for.
pub(super) const LINEAGE_DEPTH: usize = 3;
/// Connections of a process that are known to be open; more are not remembered.
const OPEN_CONNECTIONS_MAX: usize = 32;

/// How many things a [`FeaturePipeline`](super::FeaturePipeline) remembers. What exceeds a limit is evicted (seen once
/// before seen often, long ago before lately) and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextLimits {
    /// Processes, running or ended lately.
    pub processes: usize,
    /// Processes that started others.
    pub parents: usize,
    /// Processes that had connections.
    pub connection_owners: usize,
    /// Executables that had connections.
    pub connection_executables: usize,
    /// POSIX sessions.
    pub sessions: usize,
    /// Destinations: direction, remote address and service port.
    pub destinations: usize,
    /// Series of contacts: pairs of a process or a payload with a destination.
    pub series: usize,
    /// Series of starts: pairs of a parent and a program.
    pub repeats: usize,
}

impl Default for ContextLimits {
    fn default() -> Self {
        Self {
            processes: 4096,
            parents: 768,
            connection_owners: 512,
            connection_executables: 512,
            sessions: 256,
            destinations: 2048,
            series: 1536,
            repeats: 512,
        }
    }
}

impl ContextLimits {
    /// Most memory a pipeline with these limits takes, in bytes, when every table is full of entries that are.
    pub fn memory_bytes_max(&self) -> usize {
        let distinct = Distinct::<DISTINCT_MAX>::HEAP_BYTES_MAX;
        let host = 2 * Distinct::<HOST_DISTINCT_MAX>::HEAP_BYTES_MAX;
        size_of::<Context>()
            + Sketch::HEAP_BYTES
            + host
            + self.processes * BoundedMap::<ProcessId, ProcessEntry>::entry_bytes()
            + self.parents * (BoundedMap::<ProcessId, ParentEntry>::entry_bytes() + 2 * distinct)
            + self.connection_owners
                * (BoundedMap::<ProcessId, OwnerEntry>::entry_bytes()
                    + 3 * distinct
                    + OPEN_CONNECTIONS_MAX * size_of::<u64>())
            + self.connection_executables * BoundedMap::<u64, ExecutableEntry>::entry_bytes()
            + self.sessions * (BoundedMap::<u32, SessionEntry>::entry_bytes() + distinct)
            + self.destinations
                * (BoundedMap::<DestinationKey, Box<DestinationEntry>>::entry_bytes() + size_of::<DestinationEntry>())
            + self.series
                * (BoundedMap::<(Contactor, DestinationKey), Box<Series>>::entry_bytes() + size_of::<Series>())
            + self.repeats * (BoundedMap::<(ProcessId, u64), Box<Series>>::entry_bytes() + size_of::<Series>())
    }
}

/// A process as others refer to it.
#[derive(Clone, Debug)]
pub(super) struct ProcessEntry {
    pub(super) parent: Option<ProcessId>,
    /// Hash of the executable's path; `None` when unknown.
    pub(super) executable: Option<u64>,
    pub(super) kinds: ProgramKinds,
    pub(super) path_class: Option<PathClass>,
    pub(super) user_id: Option<u32>,
    pub(super) socket_streams: bool,
    pub(super) parent_kinds: Option<ProgramKinds>,
    pub(super) traits: ProcessTraits,
}

/// What a process showed at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessTraits {
    /// A name in its executable's path begins with a dot.
    pub(super) hidden: bool,
    /// It is called otherwise than its executable.
    pub(super) called_otherwise: bool,
    /// It was given a script on the command line.
    pub(super) inline_script: bool,
    /// Its arguments name an address or a URL.
    pub(super) network_address: bool,
    pub(super) has_terminal: Option<bool>,
}

/// What a process started.
#[derive(Clone, Debug, Default)]
pub(super) struct ParentEntry {
    pub(super) starts_1s: Count<1_000>,
    pub(super) starts_10s: Count<10_000>,
    pub(super) executables: Distinct<DISTINCT_MAX>,
    /// Discovery commands of its children and theirs.
    pub(super) discovery: Distinct<DISTINCT_MAX>,
    pub(super) exits_60s: Count<60_000>,
    pub(super) failed_exits_60s: Count<60_000>,
    /// Kinds of all children so far.
    pub(super) child_kinds: ProgramKinds,
    /// When it started its latest child.
    pub(super) latest_start: Option<i64>,
}

/// What a POSIX session started.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionEntry {
    pub(super) starts_10s: Count<10_000>,
    pub(super) discovery: Distinct<DISTINCT_MAX>,
}

/// The connections of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnerEntry {
    pub(super) connections_1s: Count<1_000>,
    pub(super) connections_10s: Count<10_000>,
    pub(super) connections_60s: Count<60_000>,
    pub(super) failed_60s: Count<60_000>,
    pub(super) bytes_sent_60s: Amount<60_000>,
    pub(super) ports: Distinct<DISTINCT_MAX>,
    pub(super) failed_ports: Distinct<DISTINCT_MAX>,
    pub(super) addresses: Distinct<DISTINCT_MAX>,
    /// Socket cookies of connections that are known to be open.
    open: Vec<u64>,
}

impl OwnerEntry {
    fn note_close(&mut self, now: i64, key: DestinationKey, close: &ConnectionClose) {
        self.connections_1s.add(now, 1);
        self.connections_10s.add(now, 1);
        self.connections_60s.add(now, 1);
        self.bytes_sent_60s.add(now, close.bytes_sent.unwrap_or(0));
        self.ports.add(now, u64::from(key.port));
        self.addresses.add(now, key.address_hash());
        if close.outcome.is_failure() {
            self.failed_60s.add(now, 1);
            self.failed_ports.add(now, u64::from(key.port));
        }
        self.open.retain(|cookie| *cookie != close.connection.cookie);
    }

    pub(super) fn open_connections(&self) -> usize {
        self.open.len()
    }
}

/// The connections of one executable.
#[derive(Clone, Debug, Default)]
pub(super) struct ExecutableEntry {
    pub(super) connections_10s: Count<10_000>,
}

/// The whole host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostEntry {
    pub(super) starts_1s: Count<1_000>,
    pub(super) starts_10s: Count<10_000>,
    pub(super) connections_1s: Count<1_000>,
    pub(super) connections_10s: Count<10_000>,
    pub(super) failed_10s: Count<10_000>,
    pub(super) ports: Distinct<HOST_DISTINCT_MAX>,
    pub(super) failed_ports: Distinct<HOST_DISTINCT_MAX>,
    pub(super) failed_logins_60s: Count<60_000>,
    pub(super) bytes_sent_600s: Amount<600_000>,
    /// Whether anything on this host reports logins at all.
    pub(super) sees_logins: bool,
}

impl HostEntry {
    fn note_close(&mut self, now: i64, key: DestinationKey, failed: bool) {
        self.connections_1s.add(now, 1);
        self.connections_10s.add(now, 1);
        self.ports.add(now, u64::from(key.port));
        if failed {
            self.failed_10s.add(now, 1);
            self.failed_ports.add(now, u64::from(key.port));
        }
    }
}

/// Who is talked to, about what: several connections to one service are one destination, whichever end began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DestinationKey {
    pub(super) inbound: bool,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl DestinationKey {
    pub(super) fn of(connection: &Connection) -> Self {
        let inbound = match connection.direction {
            Direction::Inbound => true,
            Direction::Outbound => false,
            // Services listen on lower ports than the ones clients are given.
            Direction::Unknown => connection.local.port() < connection.remote.port(),
        };
        let port = if inbound { connection.local.port() } else { connection.remote.port() };
        Self { inbound, address: connection.remote.ip(), port }
    }

    pub(super) fn hash(&self) -> u64 {
        hash_pair(self.address_hash(), u64::from(self.port) << 1 | u64::from(self.inbound))
    }

    /// The same for an IPv4 address and its IPv6 notation.
    fn address_hash(&self) -> u64 {
        match self.address {
            IpAddr::V4(address) => hash(&address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }
    }
}

/// Whose contacts with a destination are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contactor {
    /// Those of a process, or of a process's children together.
    Process(ProcessId),
    /// Those of about this payload, sent and received, whosever they are: short connections have no known owner.
    Size(u8, u8),
}

impl Contactor {
    /// By payload.
    pub(super) fn of_size(bytes_sent: u64, bytes_received: u64) -> Self {
        Self::Size(quarter_octave(bytes_sent), quarter_octave(bytes_received))
    }
}

/// Steps of a quarter of a power of two; below 4 every number is its own.
fn quarter_octave(bytes: u64) -> u8 {
    let Some(octave) = bytes.checked_ilog2().filter(|octave| *octave >= 2) else { return bytes as u8 };
    let quarter = (bytes >> (octave - 2)) & 3;
    (4 * octave - 4) as u8 + quarter as u8
}

/// The connections with one destination.
#[derive(Clone, Debug, Default)]
pub(super) struct DestinationEntry {
    pub(super) connections_1s: Count<1_000>,
    pub(super) connections_10s: Count<10_000>,
    pub(super) connections_60s: Count<60_000>,
    pub(super) failed_60s: Count<60_000>,
    pub(super) bytes_sent_600s: Amount<600_000>,
    pub(super) series: Series,
}

/// Everything that is remembered of one host.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) processes: BoundedMap<ProcessId, ProcessEntry>,
    pub(super) parents: BoundedMap<ProcessId, ParentEntry>,
    pub(super) owners: BoundedMap<ProcessId, OwnerEntry>,
    pub(super) executables: BoundedMap<u64, ExecutableEntry>,
    pub(super) sessions: BoundedMap<u32, SessionEntry>,
    /// Boxed: entries move within the map, and these are large.
    pub(super) destinations: BoundedMap<DestinationKey, Box<DestinationEntry>>,
    /// Contacts with one destination that may belong together.
    pub(super) series: BoundedMap<(Contactor, DestinationKey), Box<Series>>,
    /// Starts of one program, by the hash of its path, by one parent.
    pub(super) repeats: BoundedMap<(ProcessId, u64), Box<Series>>,
    pub(super) host: HostEntry,
    pub(super) seen: Sketch,
    now: i64,
    clock_resets: u64,
}

impl Context {
    pub(super) fn new(limits: ContextLimits) -> Self {
        Self {
            processes: BoundedMap::new(limits.processes),
            parents: BoundedMap::new(limits.parents),
            owners: BoundedMap::new(limits.connection_owners),
            executables: BoundedMap::new(limits.connection_executables),
            sessions: BoundedMap::new(limits.sessions),
            destinations: BoundedMap::new(limits.destinations),
            series: BoundedMap::new(limits.series),
            repeats: BoundedMap::new(limits.repeats),
            host: HostEntry::default(),
            seen: Sketch::new(),
            now: i64::MIN,
            clock_resets: 0,
        }
    }

    pub(super) fn evictions(&self) -> u64 {
        self.processes.evictions()
            + self.parents.evictions()
            + self.owners.evictions()
            + self.executables.evictions()
            + self.sessions.evictions()
            + self.destinations.evictions()
            + self.series.evictions()
            + self.repeats.evictions()
    }

    pub(super) fn clock_resets(&self) -> u64 {
        self.clock_resets
    }

    /// Moves event time on to an event and returns it in nanoseconds.
    pub(super) fn advance(&mut self, time: Timestamp) -> i64 {
        if time.0 < self.now.saturating_sub(LATENESS_MAX_NS) {
            self.parents.clear();
            self.owners.clear();
            self.executables.clear();
            self.sessions.clear();
            self.destinations.clear();
            self.series.clear();
            self.repeats.clear();
            self.host = HostEntry { sees_logins: self.host.sees_logins, ..HostEntry::default() };
            self.clock_resets += 1;
            self.now = time.0;
        }
        self.now = self.now.max(time.0);
        self.now
    }

    /// The ancestors that are known, nearest first, beginning with `parent` itself.
    pub(super) fn lineage(&self, parent: ProcessId) -> impl Iterator<Item = ProcessId> + '_ {
        std::iter::successors(Some(parent), |process| self.processes.peek(process).and_then(|entry| entry.parent))
            .take(LINEAGE_DEPTH)
    }

    /// A process ended: its parent's record of failures, and its own place among those that may go.
    pub(super) fn note_exit(&mut self, now: i64, process: ProcessId, failed: Option<bool>) {
        let parent = self.processes.peek(&process).and_then(|entry| entry.parent);
        self.processes.demote(&process);
        self.parents.demote(&process);
        self.owners.demote(&process);
        let (Some(parent), Some(failed)) = (parent, failed) else { return };
        if let Some(entry) = self.parents.peek_mut(&parent) {
            entry.exits_60s.add(now, 1);
            entry.failed_exits_60s.add(now, u64::from(failed));
        }
    }

    pub(super) fn note_open(&mut self, connection: &Connection) {
        let Some(process) = connection.process else { return };
        let open = &mut self.owners.touch(process, OwnerEntry::default).open;
        if open.len() < OPEN_CONNECTIONS_MAX && !open.contains(&connection.cookie) {
            open.push(connection.cookie);
        }
    }

    pub(super) fn note_login(&mut self, now: i64, success: bool) {
        self.host.sees_logins = true;
        self.host.failed_logins_60s.add(now, u64::from(!success));
    }

    /// Adds an ended connection to every window it belongs to.
    pub(super) fn note_close(&mut self, now: i64, close: &ConnectionClose, executable: Option<u64>) -> DestinationKey {
        let key = DestinationKey::of(&close.connection);
        let failed = close.outcome.is_failure();
        let bytes = close.bytes_sent.zip(close.bytes_received).map(|(sent, received)| sent.saturating_add(received));
        self.host.note_close(now, key, failed);
        self.host.bytes_sent_600s.add(now, close.bytes_sent.unwrap_or(0));
        if let Some(process) = close.connection.process {
            self.owners.touch(process, OwnerEntry::default).note_close(now, key, close);
            let parent = self.processes.peek(&process).and_then(|entry| entry.parent);
            for contactor in [Some(process), parent].into_iter().flatten().map(Contactor::Process) {
                self.series.touch((contactor, key), Box::default).add(now, bytes);
            }
        }
        if let Some((sent, received)) = close.bytes_sent.zip(close.bytes_received) {
            self.series.touch((Contactor::of_size(sent, received), key), Box::default).add(now, bytes);
        }
        if let Some(executable) = executable {
            self.executables.touch(executable, ExecutableEntry::default).connections_10s.add(now, 1);
        }
        let entry = self.destinations.touch(key, Box::default);
        entry.connections_1s.add(now, 1);
        entry.connections_10s.add(now, 1);
        entry.connections_60s.add(now, 1);
        entry.failed_60s.add(now, u64::from(failed));
        entry.bytes_sent_600s.add(now, close.bytes_sent.unwrap_or(0));
        entry.series.add(now, bytes);
        key
    }

    /// A process as it starts, or starts another program.
    pub(super) fn note_process(&mut self, process: ProcessId, entry: ProcessEntry) {
        self.processes.insert(process, entry, Segment::Protected);
    }
}
