//! The event model: one envelope, one body per class, named as in OCSF 1.x.
//!
//! Strings from hosts are opaque bytes ([`ByteString`]) with the limits in [`limits`]; nothing here assumes UTF-8.
//! A value that a sensor could not learn is `None` (or an empty string for names), never zero.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

pub use crate::event::byte_string::ByteString;
pub use crate::event::container::container_id;
pub use crate::event::name::EventKind;
pub use crate::event::size::{EventSize, LimitError};
use crate::id::{Epoch, EventKey};

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

/// Somebody logged in, tried to, became another user, or logged out.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// Which of these.
    pub action: AuthenticationAction,
    /// Account that was asked for; empty when unknown.
    pub user_name: ByteString,
    /// User id of that account.
    pub user_id: Option<u32>,
    /// Whether that account exists.
    pub user_exists: Option<bool>,
    /// Whether it was let in (out).
    pub success: bool,
    /// Service: `sshd`, `sudo`, `su`, `login`, `cron` …
    pub service: ByteString,
    /// How: `password`, `publickey` …; empty when unknown.
    pub method: ByteString,
    /// Account that asked (who ran `sudo` or `su`); empty when there is none or it is unknown.
    pub acting_user_name: ByteString,
    /// Terminal, such as `pts/0`; empty when there is none or it is unknown.
    pub terminal: ByteString,
    /// Command that was asked for (`sudo`); empty when unknown.
    pub command: ByteString,
    /// Where from.
    pub source: Option<IpAddr>,
    /// Port of the other end.
    pub source_port: Option<u16>,
    /// The process that decided.
    pub process: Option<ProcessId>,
}

/// What somebody did in an [`Authentication`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthenticationAction {
    /// OCSF Logon.
    Logon,
    /// OCSF Logoff.
    Logoff,
}

/// A file or folder changed.
#[derive(Clone, Debug, PartialEq)]
pub struct FileActivity {
    /// How.
    pub action: FileAction,
    /// Its absolute path; before the change, for a rename.
    pub path: ByteString,
    /// Its absolute path after a rename; empty when it left what is watched.
    pub new_path: ByteString,
    /// Whether it is a folder.
    pub is_directory: Option<bool>,
    /// Type and permission bits (`st_mode`) after the change.
    pub mode: Option<u32>,
    /// Its owner's user id after the change.
    pub owner_id: Option<u32>,
    /// The process that did it, when it could be learned.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// That process's effective user id.
    pub user_id: Option<u32>,
}

/// What happened to a file, in OCSF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAction {
    /// It was made (or linked, or moved here from where nobody watches).
    Create,
    /// It was closed after it was open for writing.
    Update,
    /// It has another name.
    Rename,
    /// A name of it was removed (or moved to where nobody watches).
    Delete,
    /// Permissions, owner, times or extended attributes changed.
    SetAttributes,
}

/// A DNS message that this host sent or received.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsActivity {
    /// Query or response.
    pub action: DnsAction,
    /// Name that is asked for, with dots, without the last one; bytes that are not printable are themselves.
    pub name: ByteString,
    /// Type that is asked for: 1 A, 28 AAAA, 16 TXT …
    pub query_type: u16,
    /// Response code, extended bits included: 0 no error, 3 no such name … Of responses only.
    pub response_code: Option<u16>,
    /// Answers as text (addresses, names), at most [`limits::DNS_ANSWERS_MAX`]. Of responses only.
    pub answers: Vec<ByteString>,
    /// Whether there were more answers.
    pub answers_truncated: bool,
    /// The server that is asked.
    pub server: Option<SocketAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Transaction id.
    pub transaction_id: u16,
    /// The process that asks, when it could be learned.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// Owner of the socket.
    pub user_id: Option<u32>,
    /// From query to response, nanoseconds.
    pub duration_ns: Option<u64>,
}

/// Which DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsAction {
    /// OCSF Query.
    Query,
    /// OCSF Response.
    Response,
}

/// A process did something to the kernel, to another process or to its own rights that few programs have reason to.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelActivity {
    /// What.
    pub action: KernelAction,
    /// Name of what it was done to, see [`KernelAction`]; empty when unknown.
    pub object: ByteString,
    /// The number that goes with it, see [`KernelAction`].
    pub value: Option<u64>,
    /// The process it was done to, where there is one.
    pub target: Option<ProcessId>,
    /// Whether the kernel did it.
    pub success: Option<bool>,
    /// The process that did it.
    pub process: Option<ProcessId>,
    /// That process's executable; empty when unknown.
    pub executable: ByteString,
    /// That process's effective user id.
    pub user_id: Option<u32>,
}

/// What was done in a [`KernelActivity`], with the meaning of its `object` and `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelAction {
    /// A kernel module was loaded: its name; the kernel's taint flags for it.
    ModuleLoad,
    /// A kernel module was removed: its name.
    ModuleUnload,
    /// A process was attached to (`ptrace`): name of the target's program; the request.
    PtraceAttach,
    /// A BPF program was loaded: its name; its type (`enum bpf_prog_type`).
    BpfProgramLoad,
    /// A program without a file was started: its name; nothing.
    MemfdExec,
    /// Another process's memory was written (`process_vm_writev`): name of the target's program; bytes.
    MemoryWrite,
    /// New namespaces were made or others entered: their kinds; the `CLONE_NEW…` flags.
    NamespaceChange,
    /// A process that was not root became root: nothing; the user id it had.
    BecomeRoot,
    /// A process gained capabilities: their names; the set that is new.
    CapabilityGain,
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
    /// A log was rotated, truncated or removed before it was read to its end.
    LogRotated,
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
