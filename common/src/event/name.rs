//! The names and wire codes of the event model's enumerations.
//!
//! Names appear in JSON lines, in the lake and in reports; codes in batch frames. Neither ever changes its meaning:
//! new values are added at the end.

use super::{
    AuthenticationAction, ConnectionOutcome, Direction, DnsAction, EventBody, EventClass, FileAction, KernelAction,
    LossReason, LossStage, Origin, Protocol, StreamKind,
};

/// Gives an enumeration its list of values, its names and its wire codes, from one table.
macro_rules! named {
    ($type:ident { $($variant:ident = $code:literal $name:literal,)+ }) => {
        impl $type {
            /// Every value.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$variant),+];

            /// Its name in JSON, in the lake, in reports and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The value with this name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its code in batch frames.
            pub(crate) fn code(self) -> u64 {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// The value with this code, if there is one.
            pub(crate) fn from_code(code: u64) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

named!(Origin {
    Agent = 0 "agent",
    AgentNetlink = 1 "agent_netlink",
    AgentPolling = 2 "agent_polling",
    Replay = 3 "replay",
    AgentEbpf = 4 "agent_ebpf",
    AgentLog = 5 "agent_log",
    AgentFanotify = 6 "agent_fanotify",
    AgentInotify = 7 "agent_inotify",
    Zeek = 8 "zeek",
    Suricata = 9 "suricata",
    Auditd = 10 "auditd",
});

named!(StreamKind {
    Unknown = 0 "unknown",
    Closed = 1 "closed",
    Terminal = 2 "terminal",
    Pipe = 3 "pipe",
    Socket = 4 "socket",
    Null = 5 "null",
    File = 6 "file",
    Other = 7 "other",
});

named!(Protocol {
    Tcp = 0 "tcp",
    Udp = 1 "udp",
});

named!(Direction {
    Unknown = 0 "unknown",
    Inbound = 1 "inbound",
    Outbound = 2 "outbound",
});

named!(ConnectionOutcome {
    Unknown = 0 "unknown",
    Closed = 1 "closed",
    Failed = 2 "failed",
    Refused = 3 "refused",
    TimedOut = 4 "timed_out",
    Reset = 5 "reset",
});

named!(AuthenticationAction {
    Logon = 0 "logon",
    Logoff = 1 "logoff",
});

named!(FileAction {
    Create = 0 "create",
    Update = 1 "update",
    Rename = 2 "rename",
    Delete = 3 "delete",
    SetAttributes = 4 "set_attributes",
});

named!(DnsAction {
    Query = 0 "query",
    Response = 1 "response",
});

named!(KernelAction {
    ModuleLoad = 0 "module_load",
    ModuleUnload = 1 "module_unload",
    PtraceAttach = 2 "ptrace_attach",
    BpfProgramLoad = 3 "bpf_program_load",
    MemfdExec = 4 "memfd_exec",
    MemoryWrite = 5 "memory_write",
    NamespaceChange = 6 "namespace_change",
    BecomeRoot = 7 "become_root",
    CapabilityGain = 8 "capability_gain",
});

named!(LossStage {
    Sensor = 0 "sensor",
    Pipeline = 1 "pipeline",
    Buffer = 2 "buffer",
    Server = 3 "server",
});

named!(LossReason {
    QueueFull = 0 "queue_full",
    AgentKilled = 1 "agent_killed",
    BufferFull = 2 "buffer_full",
    WriteFailed = 3 "write_failed",
    StoreDamaged = 4 "store_damaged",
    Rejected = 5 "rejected",
    Throttled = 6 "throttled",
    LogRotated = 7 "log_rotated",
    Degraded = 8 "degraded",
});

/// Which body an event has, without the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// [`EventBody::ProcessStart`]
    ProcessStart,
    /// [`EventBody::ProcessExit`]
    ProcessExit,
    /// [`EventBody::ConnectionOpen`]
    ConnectionOpen,
    /// [`EventBody::ConnectionClose`]
    ConnectionClose,
    /// [`EventBody::Authentication`]
    Authentication,
    /// [`EventBody::SensorLoss`]
    SensorLoss,
    /// [`EventBody::AgentStart`]
    AgentStart,
    /// [`EventBody::ConnectionListen`]
    ConnectionListen,
    /// [`EventBody::ConnectionSummary`]
    ConnectionSummary,
    /// [`EventBody::FileActivity`]
    FileActivity,
    /// [`EventBody::DnsActivity`]
    DnsActivity,
    /// [`EventBody::KernelActivity`]
    KernelActivity,
    /// [`EventBody::AgentChange`]
    AgentChange,
}

named!(EventKind {
    ProcessStart = 0 "process_start",
    ProcessExit = 1 "process_exit",
    ConnectionOpen = 2 "connection_open",
    ConnectionClose = 3 "connection_close",
    Authentication = 4 "authentication",
    SensorLoss = 5 "sensor_loss",
    AgentStart = 6 "agent_start",
    ConnectionListen = 7 "connection_listen",
    FileActivity = 8 "file_activity",
    DnsActivity = 9 "dns_activity",
    KernelActivity = 10 "kernel_activity",
    AgentChange = 11 "agent_change",
    ConnectionSummary = 12 "connection_summary",
});

impl EventKind {
    /// The OCSF class; also the table of the lake.
    pub fn class(self) -> EventClass {
        match self {
            Self::ProcessStart | Self::ProcessExit => EventClass::ProcessActivity,
            Self::ConnectionOpen | Self::ConnectionClose | Self::ConnectionListen | Self::ConnectionSummary => {
                EventClass::NetworkActivity
            }
            Self::Authentication => EventClass::Authentication,
            Self::FileActivity => EventClass::FileActivity,
            Self::DnsActivity => EventClass::DnsActivity,
            Self::KernelActivity => EventClass::KernelActivity,
            Self::SensorLoss => EventClass::SensorLoss,
            Self::AgentStart | Self::AgentChange => EventClass::AgentActivity,
        }
    }

    /// Whether a body of this kind may have this activity.
    fn has_activity(self, activity: &str) -> bool {
        match self {
            Self::ProcessStart | Self::AgentStart => activity == "start",
            Self::ProcessExit => activity == "exit",
            Self::ConnectionOpen => activity == "open",
            Self::ConnectionClose => activity == "close",
            Self::ConnectionListen => activity == "listen",
            Self::ConnectionSummary => activity == "traffic",
            Self::Authentication => AuthenticationAction::from_name(activity).is_some(),
            Self::FileActivity => FileAction::from_name(activity).is_some(),
            Self::DnsActivity => DnsAction::from_name(activity).is_some(),
            Self::KernelActivity => KernelAction::from_name(activity).is_some(),
            Self::SensorLoss => activity == "loss",
            Self::AgentChange => activity == "change",
        }
    }

    /// The kind with this class and activity, if there is one.
    pub fn from_class_and_activity(class: &str, activity: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.class().name() == class && kind.has_activity(activity))
    }
}

impl EventBody {
    /// Which body this is.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::ProcessStart(_) => EventKind::ProcessStart,
            Self::ProcessExit(_) => EventKind::ProcessExit,
            Self::ConnectionOpen(_) => EventKind::ConnectionOpen,
            Self::ConnectionClose(_) => EventKind::ConnectionClose,
            Self::ConnectionListen(_) => EventKind::ConnectionListen,
            Self::ConnectionSummary(_) => EventKind::ConnectionSummary,
            Self::Authentication(_) => EventKind::Authentication,
            Self::FileActivity(_) => EventKind::FileActivity,
            Self::DnsActivity(_) => EventKind::DnsActivity,
            Self::KernelActivity(_) => EventKind::KernelActivity,
            Self::SensorLoss(_) => EventKind::SensorLoss,
            Self::AgentStart(_) => EventKind::AgentStart,
            Self::AgentChange(_) => EventKind::AgentChange,
        }
    }

    /// The activity within the class. Class and activity together tell the kind.
    pub fn activity(&self) -> &'static str {
        match self {
            Self::ProcessStart(_) | Self::AgentStart(_) => "start",
            Self::ProcessExit(_) => "exit",
            Self::ConnectionOpen(_) => "open",
            Self::ConnectionClose(_) => "close",
            Self::ConnectionListen(_) => "listen",
            Self::ConnectionSummary(_) => "traffic",
            Self::Authentication(authentication) => authentication.action.name(),
            Self::FileActivity(file) => file.action.name(),
            Self::DnsActivity(dns) => dns.action.name(),
            Self::KernelActivity(kernel) => kernel.action.name(),
            Self::SensorLoss(_) => "loss",
            Self::AgentChange(_) => "change",
        }
    }
}
