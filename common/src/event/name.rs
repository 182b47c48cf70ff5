//! The names and wire codes of the event model's enumerations.
//!
//! Names appear in JSON lines, in the lake and in reports; codes in batch frames. Neither ever changes its meaning:
//! new values are added at the end.

use super::{ConnectionOutcome, Direction, EventBody, EventClass, LossReason, LossStage, Origin, Protocol, StreamKind};

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
});

/// Which body an event has, without the body. A kind is a class and an activity.
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
}

named!(EventKind {
    ProcessStart = 0 "process_start",
    ProcessExit = 1 "process_exit",
    ConnectionOpen = 2 "connection_open",
    ConnectionClose = 3 "connection_close",
    Authentication = 4 "authentication",
    SensorLoss = 5 "sensor_loss",
    AgentStart = 6 "agent_start",
});

impl EventKind {
    /// The OCSF class; also the table of the lake.
    pub fn class(self) -> EventClass {
        match self {
            Self::ProcessStart | Self::ProcessExit => EventClass::ProcessActivity,
            Self::ConnectionOpen | Self::ConnectionClose => EventClass::NetworkActivity,
            Self::Authentication => EventClass::Authentication,
            Self::SensorLoss => EventClass::SensorLoss,
            Self::AgentStart => EventClass::AgentActivity,
        }
    }

    /// The activity within the class.
    pub fn activity(self) -> &'static str {
        match self {
            Self::ProcessStart | Self::AgentStart => "start",
            Self::ProcessExit => "exit",
            Self::ConnectionOpen => "open",
            Self::ConnectionClose => "close",
            Self::Authentication => "logon",
            Self::SensorLoss => "loss",
        }
    }

    /// The kind with this class and activity, if there is one.
    pub fn from_class_and_activity(class: &str, activity: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.class().name() == class && kind.activity() == activity)
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
            Self::Authentication(_) => EventKind::Authentication,
            Self::SensorLoss(_) => EventKind::SensorLoss,
            Self::AgentStart(_) => EventKind::AgentStart,
        }
    }
}
