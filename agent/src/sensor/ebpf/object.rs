//! Which programs there are: one object (`agent/bpf/*.bpf.c`) for each sensor.

/// A compiled object: what is in it, and how it is put to use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ObjectDefinition {
    /// What it is called between the agent and its loader.
    pub(crate) name: &'static str,
    /// The ELF file.
    pub(super) bytes: &'static [u8],
    /// The ring buffer that its programs write to.
    pub(super) records: &'static str,
    /// The counters of records that did not fit, by kind, for each processor; the first is of what a second program told.
    pub(super) lost: &'static str,
    /// Further maps that the sensor uses.
    pub(super) maps: &'static [&'static str],
    /// What is attached, in this order.
    pub(super) programs: &'static [ProgramDefinition],
    /// When it is loaded.
    pub(super) turn: Turn,
}

/// When an object is loaded among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// One after the other, as soon as may be: what happens before is not seen.
    First,
    /// Meanwhile: the kernel takes long to verify it.
    Beside,
    /// After all others.
    Last,
}

/// A program of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProgramDefinition {
    pub(super) name: &'static str,
    pub(super) attachment: Attachment,
    pub(super) role: Role,
}

/// What a program is to the others of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing works without it.
    Needed,
    /// Without it the others are of use, too; what is not seen then is said.
    Optional,
    /// Needed, and tells what the kernel left the one before it out of.
    Second,
}

const fn needed(name: &'static str, attachment: Attachment) -> ProgramDefinition {
    ProgramDefinition { name, attachment, role: Role::Needed }
}

const fn optional(name: &'static str, attachment: Attachment) -> ProgramDefinition {
    ProgramDefinition { name, attachment, role: Role::Optional }
}

const fn second(name: &'static str, attachment: Attachment) -> ProgramDefinition {
    ProgramDefinition { name, attachment, role: Role::Second }
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// `raw_tp/…`
    Raw(&'static str),
    /// `tp_btf/…`
    Typed(&'static str),
    /// `cgroup_skb/egress`: packets that sockets of all cgroups (version 2) send.
    SentPackets,
    /// `cgroup_skb/ingress`: packets that they receive.
    ReceivedPackets,
}

/// How many program starts one cgroup may cause.
pub(crate) const PROCESS_LIMIT: &str = "process_limit";
/// How many beginnings and ends of connections.
pub(crate) const CONNECTION_LIMIT: &str = "connection_limit";

/// Processes: see `process.bpf.c`.
pub(crate) static PROCESS: ObjectDefinition = ObjectDefinition {
    name: "process",
    bytes: aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/process.bpf.o")),
    records: "process_records",
    lost: "process_lost",
    maps: &[PROCESS_LIMIT],
    programs: &[
        needed("process_fork", Attachment::Raw("sched_process_fork")),
        needed("process_exit", Attachment::Raw("sched_process_exit")),
        needed("process_exec", Attachment::Raw("sched_process_exec")),
    ],
    turn: Turn::First,
};

/// TCP connections: see `connection.bpf.c`.
pub(crate) static CONNECTION: ObjectDefinition = ObjectDefinition {
    name: "connection",
    bytes: aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/connection.bpf.o")),
    records: "connection_records",
    lost: "connection_lost",
    maps: &[CONNECTION_LIMIT],
    programs: &[
        needed("connection_state", Attachment::Typed("inet_sock_set_state")),
        second("connection_second", Attachment::Typed("inet_sock_set_state")),
    ],
    turn: Turn::First,
};

/// The flows that are counted in the kernel.
pub(crate) const DATAGRAM_FLOWS: &str = "datagram_flows";

/// UDP flows and DNS messages: see `datagram.bpf.c`.
pub(crate) static DATAGRAM: ObjectDefinition = ObjectDefinition {
    name: "datagram",
    bytes: aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/datagram.bpf.o")),
    records: "datagram_records",
    lost: "datagram_lost",
    maps: &[DATAGRAM_FLOWS],
    programs: &[
        needed("datagram_sent", Attachment::SentPackets),
        needed("datagram_received", Attachment::ReceivedPackets),
    ],
    turn: Turn::Beside,
};

/// How many risky activities one cgroup may cause.
pub(crate) const KERNEL_LIMIT: &str = "kernel_limit";

/// Risky activities: see `kernel.bpf.c`. It sees programs that are loaded after it.
pub(crate) static KERNEL: ObjectDefinition = ObjectDefinition {
    name: "kernel",
    bytes: aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/kernel.bpf.o")),
    records: "kernel_records",
    lost: "kernel_lost",
    maps: &[KERNEL_LIMIT],
    programs: &[
        needed("kernel_fork", Attachment::Typed("task_newtask")),
        needed("kernel_exec", Attachment::Typed("sched_process_exec")),
        needed("kernel_exit", Attachment::Typed("sched_process_exit")),
        needed("kernel_signal", Attachment::Raw("signal_generate")),
        optional("kernel_module_load", Attachment::Raw("module_load")),
        optional("kernel_module_free", Attachment::Raw("module_free")),
        optional("kernel_program", Attachment::Raw("percpu_alloc_percpu")),
    ],
    turn: Turn::Last,
};

/// Every object.
static OBJECTS: [&ObjectDefinition; 4] = [&PROCESS, &CONNECTION, &DATAGRAM, &KERNEL];

impl ObjectDefinition {
    /// The object of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        OBJECTS.into_iter().find(|object| object.name == name)
    }

    /// The maps that are kept, in the order they are handed over.
    pub(super) fn kept_maps(&self) -> impl Iterator<Item = &'static str> {
        [self.records, self.lost].into_iter().chain(self.maps.iter().copied())
    }
}
