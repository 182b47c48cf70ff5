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
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use picket_common::event::{
    AgentStart, Authentication, ByteString, Connection, ConnectionClose, Event, EventBody, EventClass, ProcessExit,
    ProcessId, ProcessStart, SensorLoss,
};

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
    let nullable = |column: &Column| !ENVELOPE.iter().any(|key| key.name == column.name);
    let fields = columns(class).map(|column| {
        let comment = [("comment".to_owned(), column.comment.to_owned())];
        Field::new(column.name, column.kind.data_type(), nullable(column)).with_metadata(comment.into())
    });
    Schema::new(fields.collect::<Vec<Field>>())
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
    column("origin", Text, "How it was seen: agent, agent_netlink, agent_polling, replay", |row| {
        Cell::Name(row.event.origin.name())
    }),
    column("activity", Text, "What happened, by class: start, exit; open, close; logon; loss", |row| {
        Cell::Name(row.event.body.kind().activity())
    }),
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
    column("outcome", Text, "How it ended: unknown, closed, failed", |row| {
        close(row).map_or(Cell::Null, |close| Cell::Name(close.outcome.name()))
    }),
];

const AUTHENTICATION: &[Column] = &[
    column("user_name", Text, "Account that was asked for", |row| {
        authentication(row).map_or(Cell::Null, |authentication| Cell::Text(&authentication.user_name))
    }),
    column("success", Boolean, "Whether it was let in", |row| {
        flag(authentication(row).map(|authentication| authentication.success))
    }),
    column("service", Text, "Service: sshd, sudo …", |row| {
        authentication(row).map_or(Cell::Null, |authentication| Cell::Text(&authentication.service))
    }),
    column("source_address", Text, "Where from", |row| {
        authentication(row).and_then(|login| login.source).map_or(Cell::Null, |source| Cell::Address(source, 0))
    }),
    column("pid", Long, "Process that decided", |row| {
        authentication(row).and_then(|login| login.process).map_or(Cell::Null, |process| long(process.pid))
    }),
    column("process_start_ns", Long, "When that process was created, ns since 1970", |row| {
        let process = authentication(row).and_then(|login| login.process);
        process.map_or(Cell::Null, |process| Cell::Long(process.start_time.0))
    }),
];

const SENSOR_LOSS: &[Column] = &[
    column("stage", Text, "Where events were lost: sensor, pipeline, buffer, server", |row| {
        loss(row).map_or(Cell::Null, |loss| Cell::Name(loss.stage.name()))
    }),
    column(
        "reason",
        Text,
        "Why: queue_full, agent_killed, buffer_full, write_failed, store_damaged, rejected",
        |row| loss(row).map_or(Cell::Null, |loss| Cell::Name(loss.reason.name())),
    ),
    column("count", Long, "How many", |row| loss(row).map_or(Cell::Null, |loss| Cell::Long(loss.count.cast_signed()))),
    column("lost_epoch", Long, "In which epoch; not always the one that reports it", |row| {
        loss(row).map_or(Cell::Null, |loss| Cell::Long(loss.epoch.0.cast_signed()))
    }),
];

const AGENT_ACTIVITY: &[Column] = &[
    column("agent_version", Text, "The agent's version", |row| {
        agent(row).map_or(Cell::Null, |agent| Cell::Text(&agent.agent_version))
    }),
    column("boot_id", Text, "The kernel's boot id", |row| {
        agent(row).map_or(Cell::Null, |agent| Cell::Text(&agent.boot_id))
    }),
    column("sensor_names", TextList, "Its sensors", |row| {
        agent(row)
            .map_or(Cell::Null, |agent| Cell::OwnedTextList(agent.sensors.iter().map(|sensor| &sensor.name).collect()))
    }),
    column("sensor_origins", TextList, "How each of them sees", |row| {
        agent(row).map_or(Cell::Null, |agent| {
            Cell::NameList(agent.sensors.iter().map(|sensor| sensor.origin.name()).collect())
        })
    }),
    column("sensor_reasons", TextList, "Why each of them sees no better; empty for the best way", |row| {
        agent(row).map_or(Cell::Null, |agent| {
            Cell::OwnedTextList(agent.sensors.iter().map(|sensor| &sensor.reason).collect())
        })
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
        EventBody::ConnectionOpen(connection) => Some(connection),
        EventBody::ConnectionClose(close) => Some(&close.connection),
        _ => None,
    }
}

fn close<'a>(row: &Row<'a>) -> Option<&'a ConnectionClose> {
    match &row.event.body {
        EventBody::ConnectionClose(close) => Some(close),
        _ => None,
    }
}

fn authentication<'a>(row: &Row<'a>) -> Option<&'a Authentication> {
    match &row.event.body {
        EventBody::Authentication(authentication) => Some(authentication),
        _ => None,
    }
}

fn loss<'a>(row: &Row<'a>) -> Option<&'a SensorLoss> {
    match &row.event.body {
        EventBody::SensorLoss(loss) => Some(loss),
        _ => None,
    }
}

fn agent<'a>(row: &Row<'a>) -> Option<&'a AgentStart> {
    match &row.event.body {
        EventBody::AgentStart(agent) => Some(agent),
        _ => None,
    }
}
