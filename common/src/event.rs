//! The event model: one envelope, one body per class, named as in OCSF 1.x.
//!
//! Strings from hosts are opaque bytes ([`ByteString`]) with the limits in [`limits`]; nothing here assumes UTF-8.
//! A value that a sensor could not learn is `None` (or an empty string for names), never zero.

use std::net::SocketAddr;
use std::num::NonZeroU64;

pub use crate::event::activity::{
    Authentication, AuthenticationAction, DnsAction, DnsActivity, FileAction, FileActivity, KernelAction,
    KernelActivity,
};
pub use crate::event::byte_string::ByteString;
pub use crate::event::container::container_id;
pub use crate::event::name::EventKind;
pub use crate::event::size::{EventSize, LimitError};
use crate::id::{Epoch, EventKey};

mod activity;
pub mod byte_string;
pub mod community_id;
mod container;
pub mod json;
mod name;
mod size;
#[cfg(test)]
mod tests;

/// Limits of one event. Sensors cut to them before an event enters the pipeline; decoders refuse what exceeds them.
pub mod limits {
    /// Longest path, user name or other single string, in bytes (Linux `PATH_MAX`).
    pub const STRING_BYTES_MAX: usize = 4096;
    /// Most arguments kept of one process.
    pub const ARGUMENTS_MAX: usize = 64;
    /// Most bytes kept of all arguments of one process together.
    pub const ARGUMENTS_BYTES_MAX: usize = 8192;
    /// Most ancestors kept of one process, parent first.
    pub const ANCESTORS_MAX: usize = 8;
    /// Most sensors an agent reports.
    pub const SENSORS_MAX: usize = 32;
    /// Longest text an agent reports of itself (its version, the boot id, a sensor's name or reason, a change), in bytes.
    pub const AGENT_TEXT_BYTES_MAX: usize = 512;
    /// Most answers kept of one DNS response.
    pub const DNS_ANSWERS_MAX: usize = 16;
}

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Something that happened on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which event of its host this is.
    pub key: EventKey,
    /// When it happened, as near as the sensor can tell.
    pub time: Timestamp,
    /// Which sensor saw it.
    pub origin: Origin,
    /// What happened.
    pub body: EventBody,
}

/// How an event was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The agent itself.
    Agent,
    /// Linux process connector or `sock_diag` notifications: pushed by the kernel.
    AgentNetlink,
    /// Periodic look at the process or socket table; short-lived things are missed.
    AgentPolling,
    /// A recording, played back.
    Replay,
    /// eBPF programs in the kernel.
    AgentEbpf,
    /// A log that another program of the host writes.
    AgentLog,
    /// Linux `fanotify`: pushed by the kernel, with the acting process.
    AgentFanotify,
    /// Linux `inotify`: pushed by the kernel, without the acting process.
    AgentInotify,
    /// A log of Zeek.
    Zeek,
    /// A log of Suricata.
    Suricata,
    /// A log of Linux audit.
    Auditd,
}

/// The body of an event, by class.
#[derive(Clone, Debug, PartialEq)]
pub enum EventBody {
    /// OCSF 1007 Process Activity, activity Launch.
    ProcessStart(Box<ProcessStart>),
    /// OCSF 1007 Process Activity, activity Terminate.
    ProcessExit(ProcessExit),
    /// OCSF 4001 Network Activity, activity Open.
    ConnectionOpen(Box<Connection>),
    /// OCSF 4001 Network Activity, activity Close, Refuse or Fail.
    ConnectionClose(Box<ConnectionClose>),
    /// OCSF 4001 Network Activity, activity Listen: a socket began to wait for connections.
    ConnectionListen(Box<Connection>),
    /// OCSF 4001 Network Activity, activity Traffic: short connections alike, counted.
    ConnectionSummary(Box<ConnectionSummary>),
    /// OCSF 3002 Authentication.
    Authentication(Box<Authentication>),
    /// OCSF 1001 File System Activity.
    FileActivity(Box<FileActivity>),
    /// OCSF 4003 DNS Activity.
    DnsActivity(Box<DnsActivity>),
    /// OCSF 1003 Kernel Activity.
    KernelActivity(Box<KernelActivity>),
    /// Events that were lost, where and why: loss is data.
    SensorLoss(SensorLoss),
    /// An agent began an epoch.
    AgentStart(Box<AgentStart>),
    /// An agent works otherwise than before.
    AgentChange(Box<AgentChange>),
}

impl EventBody {
    /// The OCSF class this body belongs to; also the table of the lake it is stored in.
    pub fn class(&self) -> EventClass {
        self.kind().class()
    }
}

/// OCSF class, or Picket's own where OCSF has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventClass {
    /// OCSF 1007.
    ProcessActivity,
    /// OCSF 4001.
    NetworkActivity,
    /// OCSF 3002.
    Authentication,
    /// OCSF 1001.
    FileActivity,
    /// OCSF 4003.
    DnsActivity,
    /// OCSF 1003.
    KernelActivity,
    /// Picket's own.
    SensorLoss,
    /// Picket's own.
    AgentActivity,
}

impl EventClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::ProcessActivity,
        Self::NetworkActivity,
        Self::Authentication,
        Self::FileActivity,
        Self::DnsActivity,
        Self::KernelActivity,
        Self::SensorLoss,
        Self::AgentActivity,
    ];

    /// The name of the class, and of its table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessActivity => "process_activity",
            Self::NetworkActivity => "network_activity",
            Self::Authentication => "authentication",
            Self::FileActivity => "file_activity",
            Self::DnsActivity => "dns_activity",
            Self::KernelActivity => "kernel_activity",
            Self::SensorLoss => "sensor_loss",
            Self::AgentActivity => "agent_activity",
        }
    }
}

/// A process of one host, never mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id in the host's own namespace.
    pub pid: u32,
    /// When it was created. The same value in every event about this process.
    pub start_time: Timestamp,
}

/// A program was started (`execve`), or was found running when the agent started.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessStart {
    /// The process.
    pub process: ProcessId,
    /// Its parent, when known.
    pub parent: Option<ProcessId>,
    /// Absolute path of the executable; empty when it could not be read.
    pub executable: ByteString,
    /// Argument vector, cut to [`limits::ARGUMENTS_MAX`] and [`limits::ARGUMENTS_BYTES_MAX`].
    pub arguments: Vec<ByteString>,
    /// Whether arguments were cut.
    pub arguments_truncated: bool,
    /// Current directory; empty when unknown.
    pub working_directory: ByteString,
    /// Effective user id.
    pub user_id: Option<u32>,
    /// Effective group id.
    pub group_id: Option<u32>,
    /// Name of the user; empty when unknown.
    pub user_name: ByteString,
    /// POSIX session id.
    pub session_id: Option<u32>,
    /// Whether it has a controlling terminal.
    pub has_terminal: Option<bool>,
    /// What standard input, output and error are.
    pub standard_streams: [StreamKind; 3],
    /// Executable paths of the ancestors, parent first, at most [`limits::ANCESTORS_MAX`].
    pub ancestors: Vec<ByteString>,
    /// The executable had been unlinked (or never had a name: memfd) when it was looked at.
    pub executable_deleted: Option<bool>,
    /// It was running already when the agent started.
    pub seeded: bool,
    /// The kernel's id of its cgroup (version 2): what containers and services are told apart by.
    pub cgroup_id: Option<NonZeroU64>,
    /// Path of that cgroup below the root of the hierarchy; empty when unknown. [`container_id`] finds a container in it.
    pub cgroup: ByteString,
    /// The file that is the executable.
    pub executable_file: Option<FileId>,
    /// The script, when the kernel started an interpreter (the executable) for one that begins with `#!`; else empty.
    pub script: ByteString,
}

/// A file of one host, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device it is on, as `stat` says (`st_dev`).
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// What a file descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Could not be learned.
    Unknown,
    /// Not open.
    Closed,
    /// A terminal.
    Terminal,
    /// A pipe or FIFO.
    Pipe,
    /// A socket: what a reverse shell has and a shell of a person has not.
    Socket,
    /// `/dev/null`.
    Null,
    /// A regular file.
    File,
    /// Something else.
    Other,
}

/// A process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessExit {
    /// The process.
    pub process: ProcessId,
    /// Absolute path of its executable; empty when unknown.
    pub executable: ByteString,
    /// Exit status, when it exited.
    pub exit_code: Option<i32>,
    /// Signal, when it was killed.
    pub signal: Option<u32>,
    /// From start to end, nanoseconds.
    pub duration_ns: Option<u64>,
    /// Time on a processor of all its threads, user and kernel, nanoseconds.
    pub cpu_time_ns: Option<u64>,
}

/// A transport connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// The kernel's socket cookie: names this connection in all events of one boot.
    pub cookie: u64,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Who began it, seen from this host.
    pub direction: Direction,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The process that owns the socket, when it could be learned.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// Owner of the socket.
    pub user_id: Option<u32>,
    /// The kernel's id of the cgroup (version 2) that made the socket; a `ProcessStart` with this id tells its path.
    pub cgroup_id: Option<NonZeroU64>,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Could not be learned.
    Unknown,
    /// The other end did.
    Inbound,
    /// This host did.
    Outbound,
}

/// A connection ended, or an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionClose {
    /// The connection.
    pub connection: Connection,
    /// Payload bytes the other end acknowledged.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received.
    pub bytes_received: Option<u64>,
    /// Segments out.
    pub segments_sent: Option<u32>,
    /// Segments in.
    pub segments_received: Option<u32>,
    /// From first sight to end, nanoseconds.
    pub duration_ns: Option<u64>,
    /// How it ended.
    pub outcome: ConnectionOutcome,
}

/// Several short connections alike (same ends but for the ephemeral port, same program, same outcome), which an agent
/// on a tight budget reports as one. It stands for them; none of them has events of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionSummary {
    /// The last of them, with the sums of bytes, segments and durations of all. Its process is unknown when they had
    /// several.
    pub close: ConnectionClose,
    /// How many they are.
    pub count: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionOutcome {
    /// Could not be learned.
    Unknown,
    /// It was established and then closed.
    Closed,
    /// It never was established, for a reason that could not be learned (unreachable, given up …).
    Failed,
    /// It never was established: the other end refused it (RST to the SYN).
    Refused,
    /// It never was established: the other end did not answer in time.
    TimedOut,
    /// It was established and then cut (RST).
    Reset,
}

impl ConnectionOutcome {
    /// Whether it never was established.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Refused | Self::TimedOut)
    }
}

/// Events that an agent lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorLoss {
    /// Where.
    pub stage: LossStage,
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub count: u64,
    /// In which epoch; not always the one that reports it.
    pub epoch: Epoch,
}

/// Where events get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossStage {
    /// Between the kernel and the agent.
    Sensor,
    /// Inside the agent, before the buffer.
    Pipeline,
    /// In the buffer on disk.
    Buffer,
    /// The server refused them for good.
    Server,
}

/// Why events get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossReason {
    /// A queue was full: the kernel's (stage sensor) or a channel (stage pipeline).
    QueueFull,
    /// The agent died before they were durable.
    AgentKilled,
    /// The buffer's byte limit was reached.
    BufferFull,
    /// The disk refused a write.
    WriteFailed,
    /// The buffer's files were damaged and set aside.
    StoreDamaged,
    /// The server rejected the batch.
    Rejected,
    /// Left out on purpose: a limit on their rate, or the agent's budget.
    Throttled,
    /// A log was rotated, truncated or removed before it was read to its end, or has messages that cannot be read.
    LogRotated,
    /// Left out by the agent to stay within its budget.
    Degraded,
}

/// An agent began an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentStart {
    /// The agent's version.
    pub agent_version: ByteString,
    /// The kernel's boot id; empty when unknown.
    pub boot_id: ByteString,
    /// Which sensors run, how, and why so.
    pub sensors: Vec<SensorMode>,
}

/// How one sensor runs.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorMode {
    /// `process`, `connection` …
    pub name: ByteString,
    /// How its events are seen.
    pub origin: Origin,
    /// Why this way and no better; empty for the best way.
    pub reason: ByteString,
}

/// An agent works otherwise than before: a step of its budget, a new configuration, a sensor that fell back.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentChange {
    /// What changed: `budget`, `configuration`, `sensor.file` …
    pub subject: ByteString,
    /// What it was; empty when unknown.
    pub before: ByteString,
    /// What it is now.
    pub after: ByteString,
    /// Why.
    pub reason: ByteString,
}
