//! The tables: their columns, what each means, and how an event fills it.
//!
//! One table for each [`EventClass`], named as the class, partitioned by `event_day`. The mapping loses nothing:
//! * Strings from hosts are stored as [`ByteString`] shows them: a backslash is `\\`, a control character or a byte
//!   that is not UTF-8 is `\xNN`. An empty string means "unknown".
//! * Unsigned 64-bit numbers are stored as the BIGINT with the same bits: Delta has no unsigned types. Numbers from 2^63
//!   on therefore appear negative; of counts, sizes and durations none is that large, a socket `cookie` may be.
//! * Times are microseconds (Delta has none finer) and the nanoseconds beside them: `time` + `time_nanoseconds`. A
//!   process' start time is part of its identity and is one BIGINT of nanoseconds since 1970.
//! * A column that does not apply to the row's `activity`, or could not be learned, is NULL.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use picket_common::event::community_id::community_id;
use picket_common::event::{
    ByteString, Connection, ConnectionClose, Event, EventBody, EventClass, ProcessExit, ProcessId, ProcessStart,
    container_id,
};

use self::activity::{AUTHENTICATION, DNS_ACTIVITY, FILE_ACTIVITY, KERNEL_ACTIVITY};
use self::agent::{AGENT_ACTIVITY, SENSOR_LOSS};

mod activity;
mod agent;

/// The column every table is partitioned by.
pub const PARTITION_COLUMN: &str = "event_day";
/// Columns with minimum and maximum per file in the table's log, so that queries skip files.
pub(super) const INDEXED_COLUMNS: [&str; 4] = ["host_id", "epoch", "sequence", "time"];

/// A column of a table.
pub struct Column {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnKind,
    /// What it means, with unit.
    pub comment: &'static str,
    pub(super) cell: for<'a> fn(&Row<'a>) -> Cell<'a>,
}

/// The types columns have; SQL's names in the comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// STRING
    Text,
    /// `ARRAY<STRING>`
    TextList,
    /// BIGINT
    Long,
    /// INT
    Integer,
    /// SMALLINT
    Short,
    /// BOOLEAN
    Boolean,
    /// TIMESTAMP, microseconds, UTC
    Timestamp,
    /// DATE
    Date,
}

/// What fills a row.
pub(super) struct Row<'a> {
    pub(super) host: &'a str,
    /// Days since 1970.
    pub(super) day: i32,
    pub(super) event: &'a Event,
}

/// One value.
pub(super) enum Cell<'a> {
    Null,
    Text(&'a ByteString),
    Name(&'a str),
    OwnedName(String),
    Address(IpAddr, u32),
    TextList(&'a [ByteString]),
    NameList(Vec<&'a str>),
    OwnedTextList(Vec<&'a ByteString>),
    Long(i64),
    Integer(i32),
    Short(i16),
    Boolean(bool),
}

/// The columns of a class's table, in order.
pub fn columns(class: EventClass) -> impl Iterator<Item = &'static Column> {
    let own = match class {
        EventClass::ProcessActivity => PROCESS_ACTIVITY,
        EventClass::NetworkActivity => NETWORK_ACTIVITY,
        EventClass::Authentication => AUTHENTICATION,
        EventClass::FileActivity => FILE_ACTIVITY,
        EventClass::DnsActivity => DNS_ACTIVITY,
        EventClass::KernelActivity => KERNEL_ACTIVITY,
        EventClass::SensorLoss => SENSOR_LOSS,
        EventClass::AgentActivity => AGENT_ACTIVITY,
    };
    ENVELOPE.iter().chain(own)
}

/// The Arrow schema of a class's table.
pub fn schema(class: EventClass) -> SchemaRef {
    static SCHEMAS: LazyLock<Vec<(EventClass, SchemaRef)>> =
        LazyLock::new(|| EventClass::ALL.iter().map(|class| (*class, Arc::new(build_schema(*class)))).collect());
    let index = EventClass::ALL.iter().position(|other| *other == class).unwrap_or_default();
    SCHEMAS[index].1.clone()
}

fn build_schema(class: EventClass) -> Schema {
    Schema::new(columns(class).map(field).collect::<Vec<Field>>())
}

pub(super) fn field(column: &Column) -> Field {
    let comment = [("comment".to_owned(), column.comment.to_owned())];
    Field::new(column.name, column.kind.data_type(), is_nullable(column)).with_metadata(comment.into())
}

/// Whether a row may have no value in it, and a table be without it: everything but the envelope.
pub(super) fn is_nullable(column: &Column) -> bool {
    !ENVELOPE.iter().any(|key| key.name == column.name)
}

impl ColumnKind {
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::TextList => DataType::List(Arc::new(list_field())),
            Self::Long => DataType::Int64,
            Self::Integer => DataType::Int32,
            Self::Short => DataType::Int16,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
        }
    }
}

/// The element of a list, as Delta names it.
pub(super) fn list_field() -> Field {
    Field::new("element", DataType::Utf8, true)
}

const fn column(
    name: &'static str,
    kind: ColumnKind,
    comment: &'static str,
    cell: for<'a> fn(&Row<'a>) -> Cell<'a>,
) -> Column {
    Column { name, kind, comment, cell }
}

use ColumnKind::{Boolean, Date, Integer, Long, Short, Text, TextList, Timestamp};

const ENVELOPE: &[Column] = &[
    column(
        "event_day",
        Date,
        "Day of `time` (UTC), for storage: a time more than 30 days before or 1 day after reception counts as that limit",
        |row| Cell::Integer(row.day),
    ),
    column("host_id", Text, "The host, a UUID", |row| Cell::Name(row.host)),
    column("epoch", Long, "The agent's life that saw it: its start, nanoseconds since 1970", |row| {
        Cell::Long(row.event.key.epoch.0.cast_signed())
    }),
    column("sequence", Long, "The event's place in that life, from 0, without gaps", |row| {
        Cell::Long(row.event.key.sequence.0.cast_signed())
    }),
    column("time", Timestamp, "When it happened, UTC, cut to microseconds", |row| {
        Cell::Long(row.event.time.0.div_euclid(1000))
    }),
    column("time_nanoseconds", Short, "Nanoseconds to add to `time`, 0 to 999", |row| {
        Cell::Short(row.event.time.0.rem_euclid(1000) as i16)
    }),
    column("origin", Text, "How it was seen: agent, agent_ebpf, agent_netlink, agent_polling, replay …", |row| {
        Cell::Name(row.event.origin.name())
    }),
    column(
        "activity",
        Text,
        "What happened, by class: start, exit; open, close, listen; logon, logoff; create …",
        |row| Cell::Name(row.event.body.activity()),
    ),
];

const PROCESS_ACTIVITY: &[Column] = &[
    column("pid", Long, "Process id", |row| process(row).map_or(Cell::Null, |process| long(process.pid))),
    column("process_start_ns", Long, "When the process was created, ns since 1970; with pid, its identity", |row| {
        process(row).map_or(Cell::Null, |process| Cell::Long(process.start_time.0))
    }),
    column("parent_pid", Long, "Process id of the parent", |row| {
        parent(row).map_or(Cell::Null, |parent| long(parent.pid))
    }),
    column("parent_start_ns", Long, "When the parent was created, ns since 1970", |row| {
        parent(row).map_or(Cell::Null, |parent| Cell::Long(parent.start_time.0))
    }),
    column("executable", Text, "Path of the executable", |row| match &row.event.body {
        EventBody::ProcessStart(start) => Cell::Text(&start.executable),
        EventBody::ProcessExit(exit) => Cell::Text(&exit.executable),
        _ => Cell::Null,
    }),
    column("arguments", TextList, "Argument vector, the program's own name first", |row| {
        start(row).map_or(Cell::Null, |start| Cell::TextList(&start.arguments))
    }),
    column("arguments_truncated", Boolean, "Whether arguments were cut", |row| {
        start(row).map_or(Cell::Null, |start| Cell::Boolean(start.arguments_truncated))
    }),
    column("working_directory", Text, "Current directory", |row| {
        start(row).map_or(Cell::Null, |start| Cell::Text(&start.working_directory))
    }),
    column("user_id", Long, "Effective user id", |row| start(row).map_or(Cell::Null, |start| optional(start.user_id))),
    column("group_id", Long, "Effective group id", |row| {
        start(row).map_or(Cell::Null, |start| optional(start.group_id))
    }),
    column("user_name", Text, "Name of the user", |row| {
        start(row).map_or(Cell::Null, |start| Cell::Text(&start.user_name))
    }),
    column("session_id", Long, "POSIX session id", |row| {
        start(row).map_or(Cell::Null, |start| optional(start.session_id))
    }),
    column("has_terminal", Boolean, "Whether it has a controlling terminal", |row| {
        flag(start(row).and_then(|start| start.has_terminal))
    }),
    column("standard_input", Text, STREAM, |row| stream(row, 0)),
    column("standard_output", Text, STREAM, |row| stream(row, 1)),
    column("standard_error", Text, STREAM, |row| stream(row, 2)),
    column("ancestors", TextList, "Executables of the ancestors, parent first", |row| {
        start(row).map_or(Cell::Null, |start| Cell::TextList(&start.ancestors))
    }),
    column("executable_deleted", Boolean, "Whether the executable had been unlinked, or never had a name", |row| {
        flag(start(row).and_then(|start| start.executable_deleted))
    }),
    column("seeded", Boolean, "Whether it was running already when the agent started", |row| {
        flag(start(row).map(|start| start.seeded))
    }),
    column("exit_code", Integer, "Exit status", |row| {
        exit(row).and_then(|exit| exit.exit_code).map_or(Cell::Null, Cell::Integer)
    }),
    column("signal", Long, "Signal that killed it", |row| exit(row).map_or(Cell::Null, |exit| optional(exit.signal))),
    column("duration_ns", Long, "From start to end, nanoseconds", |row| {
        exit(row).map_or(Cell::Null, |exit| count(exit.duration_ns))
    }),
    column("cpu_time_ns", Long, "Time on a processor of all its threads, nanoseconds", |row| {
        exit(row).map_or(Cell::Null, |exit| count(exit.cpu_time_ns))
    }),
    column("cgroup_id", Long, "The kernel's id of its cgroup (version 2)", |row| {
        start(row).map_or(Cell::Null, |start| cgroup_id(start.cgroup_id))
    }),
    column("cgroup", Text, "Path of that cgroup", |row| start(row).map_or(Cell::Null, |start| known(&start.cgroup))),
    column("container_id", Text, "The container that this cgroup is of", |row| {
        start(row).and_then(|start| container_id(start.cgroup.as_bytes())).map_or(Cell::Null, Cell::Name)
    }),
    column("executable_device", Long, "Device the executable is on (its 64 bits)", |row| {
        let file = start(row).and_then(|start| start.executable_file);
        file.map_or(Cell::Null, |file| Cell::Long(file.device.cast_signed()))
    }),
    column("executable_inode", Long, "Inode of the executable (its 64 bits)", |row| {
        let file = start(row).and_then(|start| start.executable_file);
        file.map_or(Cell::Null, |file| Cell::Long(file.inode.cast_signed()))
    }),
    column("script", Text, "The script that the executable, an interpreter, was started for", |row| {
        start(row).map_or(Cell::Null, |start| known(&start.script))
    }),
];

const STREAM: &str = "What it refers to: unknown, closed, terminal, pipe, socket, null, file, other";

const NETWORK_ACTIVITY: &[Column] = &[
    column("cookie", Long, "The kernel's socket cookie (its 64 bits): names the connection within one boot", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Long(connection.cookie.cast_signed()))
    }),
    column("protocol", Text, "tcp or udp", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Name(connection.protocol.name()))
    }),
    column("direction", Text, "Who began it, seen from this host: unknown, inbound, outbound", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Name(connection.direction.name()))
    }),
    column("local_address", Text, "Address of this host's end; after a % its IPv6 scope", |row| {
        connection(row).map_or(Cell::Null, |connection| address(&connection.local))
    }),
    column("local_port", Integer, "Port of this host's end", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Integer(connection.local.port().into()))
    }),
    column("local_flow_information", Long, "IPv6 flow information of this host's end, when it is not 0", |row| {
        connection(row).map_or(Cell::Null, |connection| flow_information(&connection.local))
    }),
    column("remote_address", Text, "Address of the other end; after a % its IPv6 scope", |row| {
        connection(row).map_or(Cell::Null, |connection| address(&connection.remote))
    }),
    column("remote_port", Integer, "Port of the other end", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Integer(connection.remote.port().into()))
    }),
    column("remote_flow_information", Long, "IPv6 flow information of the other end, when it is not 0", |row| {
        connection(row).map_or(Cell::Null, |connection| flow_information(&connection.remote))
    }),
    column("pid", Long, "Process that owns the socket", |row| {
        connection(row).and_then(|connection| connection.process).map_or(Cell::Null, |process| long(process.pid))
    }),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        let process = connection(row).and_then(|connection| connection.process);
        process.map_or(Cell::Null, |process| Cell::Long(process.start_time.0))
    }),
    column("executable", Text, "That process' executable", |row| {
        connection(row).map_or(Cell::Null, |connection| Cell::Text(&connection.executable))
    }),
    column("user_id", Long, "Owner of the socket", |row| {
        connection(row).map_or(Cell::Null, |connection| optional(connection.user_id))
    }),
    column("bytes_sent", Long, "Payload bytes the other end acknowledged", |row| {
        close(row).map_or(Cell::Null, |close| count(close.bytes_sent))
    }),
    column("bytes_received", Long, "Payload bytes received", |row| {
        close(row).map_or(Cell::Null, |close| count(close.bytes_received))
    }),
    column("segments_sent", Long, "Segments out", |row| {
        close(row).map_or(Cell::Null, |close| optional(close.segments_sent))
    }),
    column("segments_received", Long, "Segments in", |row| {
        close(row).map_or(Cell::Null, |close| optional(close.segments_received))
    }),
    column("duration_ns", Long, "From first sight to end, nanoseconds", |row| {
        close(row).map_or(Cell::Null, |close| count(close.duration_ns))
    }),
    column("outcome", Text, "How it ended: unknown, closed, failed, refused, timed_out, reset", |row| {
        close(row).map_or(Cell::Null, |close| Cell::Name(close.outcome.name()))
    }),
    column("cgroup_id", Long, "The kernel's id of the cgroup (version 2) that made the socket", |row| {
        connection(row).map_or(Cell::Null, |connection| cgroup_id(connection.cgroup_id))
    }),
    column("community_id", Text, "Community ID, version 1 (seed 0): the flow's name in Zeek, Suricata …", |row| {
        let is_one = !matches!(row.event.body, EventBody::ConnectionListen(_) | EventBody::ConnectionSummary(_));
        let id = connection(row).filter(|_| is_one);
        let id = id.and_then(|flow| community_id(flow.protocol, flow.local, flow.remote));
        id.map_or(Cell::Null, Cell::OwnedName)
    }),
    column("count", Long, "Connections that a row of activity traffic stands for; its sums are over all", |row| {
        match &row.event.body {
            EventBody::ConnectionSummary(summary) => Cell::Long(summary.count.cast_signed()),
            _ => Cell::Null,
        }
    }),
];

fn long<'a>(value: u32) -> Cell<'a> {
    Cell::Long(value.into())
}

fn optional<'a>(value: Option<u32>) -> Cell<'a> {
    value.map_or(Cell::Null, long)
}

fn count<'a>(value: Option<u64>) -> Cell<'a> {
    value.map_or(Cell::Null, |value| Cell::Long(value.cast_signed()))
}

fn cgroup_id<'a>(id: Option<NonZeroU64>) -> Cell<'a> {
    count(id.map(NonZeroU64::get))
}

/// NULL for an empty string.
fn known(text: &ByteString) -> Cell<'_> {
    if text.is_empty() { Cell::Null } else { Cell::Text(text) }
}

fn port<'a>(value: Option<u16>) -> Cell<'a> {
    value.map_or(Cell::Null, |value| Cell::Integer(value.into()))
}

fn pid<'a>(process: Option<ProcessId>) -> Cell<'a> {
    process.map_or(Cell::Null, |process| long(process.pid))
}

fn process_start<'a>(process: Option<ProcessId>) -> Cell<'a> {
    process.map_or(Cell::Null, |process| Cell::Long(process.start_time.0))
}

fn flag<'a>(value: Option<bool>) -> Cell<'a> {
    value.map_or(Cell::Null, Cell::Boolean)
}

fn address<'a>(end: &SocketAddr) -> Cell<'a> {
    let scope = match end {
        SocketAddr::V6(end) => end.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    Cell::Address(end.ip(), scope)
}

fn flow_information<'a>(end: &SocketAddr) -> Cell<'a> {
    match end {
        SocketAddr::V6(end) if end.flowinfo() != 0 => long(end.flowinfo()),
        _ => Cell::Null,
    }
}

fn stream<'a>(row: &Row<'a>, index: usize) -> Cell<'a> {
    start(row).map_or(Cell::Null, |start| Cell::Name(start.standard_streams[index].name()))
}

fn process(row: &Row<'_>) -> Option<ProcessId> {
    match &row.event.body {
        EventBody::ProcessStart(start) => Some(start.process),
        EventBody::ProcessExit(exit) => Some(exit.process),
        _ => None,
    }
}

fn parent(row: &Row<'_>) -> Option<ProcessId> {
    start(row).and_then(|start| start.parent)
}

fn start<'a>(row: &Row<'a>) -> Option<&'a ProcessStart> {
    match &row.event.body {
        EventBody::ProcessStart(start) => Some(start),
        _ => None,
    }
}

fn exit<'a>(row: &Row<'a>) -> Option<&'a ProcessExit> {
    match &row.event.body {
        EventBody::ProcessExit(exit) => Some(exit),
        _ => None,
    }
}

fn connection<'a>(row: &Row<'a>) -> Option<&'a Connection> {
    match &row.event.body {
        EventBody::ConnectionOpen(connection) | EventBody::ConnectionListen(connection) => Some(connection),
        EventBody::ConnectionClose(close) => Some(&close.connection),
        EventBody::ConnectionSummary(summary) => Some(&summary.close.connection),
        _ => None,
    }
}

fn close<'a>(row: &Row<'a>) -> Option<&'a ConnectionClose> {
    match &row.event.body {
        EventBody::ConnectionClose(close) => Some(close),
        EventBody::ConnectionSummary(summary) => Some(&summary.close),
        _ => None,
    }
}
