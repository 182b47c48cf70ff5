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
    /// The counters of records that did not fit, by kind, for each processor.
    pub(super) lost: &'static str,
    /// Further maps that the sensor uses.
    pub(super) maps: &'static [&'static str],
    /// What is attached, in this order.
    pub(super) programs: &'static [ProgramDefinition],
}

/// A program of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProgramDefinition {
    pub(super) name: &'static str,
    pub(super) attachment: Attachment,
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
        ProgramDefinition { name: "process_fork", attachment: Attachment::Raw("sched_process_fork") },
        ProgramDefinition { name: "process_exit", attachment: Attachment::Raw("sched_process_exit") },
        ProgramDefinition { name: "process_exec", attachment: Attachment::Raw("sched_process_exec") },
    ],
};

/// TCP connections: see `connection.bpf.c`.
pub(crate) static CONNECTION: ObjectDefinition = ObjectDefinition {
    name: "connection",
    bytes: aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/connection.bpf.o")),
    records: "connection_records",
    lost: "connection_lost",
    maps: &[CONNECTION_LIMIT],
    programs: &[ProgramDefinition { name: "connection_state", attachment: Attachment::Typed("inet_sock_set_state") }],
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
        ProgramDefinition { name: "datagram_sent", attachment: Attachment::SentPackets },
        ProgramDefinition { name: "datagram_received", attachment: Attachment::ReceivedPackets },
    ],
};

/// Every object.
static OBJECTS: [&ObjectDefinition; 3] = [&PROCESS, &CONNECTION, &DATAGRAM];

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
