//! Rows back to events: what `rows` wrote, exactly.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU64;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use picket_common::event::{
    AgentStart, ByteString, Connection, ConnectionClose, ConnectionOutcome, ConnectionSummary, Direction, Event,
    EventBody, EventClass, EventKind, FileId, LossReason, LossStage, Origin, ProcessExit, ProcessId, ProcessStart,
    Protocol, SensorLoss, SensorMode, StreamKind, Timestamp,
};
use picket_common::id::{Epoch, EventKey, HostId, Sequence};

use super::schema;

mod activity;

/// A row that no event can have made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of table {} {problem}", class.name())]
pub struct RowError {
    class: EventClass,
    column: &'static str,
    problem: &'static str,
}

/// The rows of one class, by column. Columns may come in any order and in any type that casts to theirs.
pub(super) struct RowReader {
    class: EventClass,
    columns: Vec<(&'static str, ArrayRef)>,
    rows: usize,
}

impl RowReader {
    pub(super) fn new(class: EventClass, batch: &RecordBatch) -> Result<Self, RowError> {
        let mut columns = Vec::new();
        for column in schema::columns(class).filter(|column| column.name != schema::PARTITION_COLUMN) {
            let error = |problem| RowError { class, column: column.name, problem };
            let kind = column.kind.data_type();
            let array = match batch.column_by_name(column.name) {
                Some(array) => cast(array, &kind).map_err(|_| error("has another type"))?,
                // An older version of the table does not have it.
                None if schema::is_nullable(column) => new_null_array(&kind, batch.num_rows()),
                None => return Err(error("is missing")),
            };
            columns.push((column.name, array));
        }
        Ok(Self { class, columns, rows: batch.num_rows() })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn event(&self, index: usize) -> Result<(HostId, Event), RowError> {
        let row = RowView { reader: self, index };
        let host = row.required_text("host_id")?.parse().map_err(|_| row.error("host_id", "is not a UUID"))?;
        let event = Event {
            key: EventKey {
                epoch: Epoch(row.required_long("epoch")?.cast_unsigned()),
                sequence: Sequence(row.required_long("sequence")?.cast_unsigned()),
            },
            time: row.time()?,
            origin: row.required_name("origin", Origin::from_name)?,
            body: row.body()?,
        };
        Ok((host, event))
    }
}

struct RowView<'a> {
    reader: &'a RowReader,
    index: usize,
}

impl<'a> RowView<'a> {
    fn body(&self) -> Result<EventBody, RowError> {
        let activity = self.required_text("activity")?;
        let kind = EventKind::from_class_and_activity(self.reader.class.name(), activity)
            .ok_or_else(|| self.error("activity", "is unknown"))?;
        Ok(match kind {
            EventKind::ProcessStart => EventBody::ProcessStart(Box::new(self.process_start()?)),
            EventKind::ProcessExit => EventBody::ProcessExit(self.process_exit()?),
            EventKind::ConnectionOpen => EventBody::ConnectionOpen(Box::new(self.connection()?)),
            EventKind::ConnectionClose => EventBody::ConnectionClose(Box::new(self.connection_close()?)),
            EventKind::ConnectionSummary => {
                let count = self.required_long("count")?.cast_unsigned();
                EventBody::ConnectionSummary(Box::new(ConnectionSummary { close: self.connection_close()?, count }))
            }
            EventKind::ConnectionListen => EventBody::ConnectionListen(Box::new(self.connection()?)),
            EventKind::FileActivity => EventBody::FileActivity(Box::new(self.file_activity()?)),
            EventKind::DnsActivity => EventBody::DnsActivity(Box::new(self.dns_activity()?)),
            EventKind::KernelActivity => EventBody::KernelActivity(Box::new(self.kernel_activity()?)),
            EventKind::AgentChange => EventBody::AgentChange(Box::new(self.agent_change()?)),
            EventKind::Authentication => EventBody::Authentication(Box::new(self.authentication()?)),
            EventKind::SensorLoss => EventBody::SensorLoss(self.sensor_loss()?),
            EventKind::AgentStart => EventBody::AgentStart(Box::new(self.agent_start()?)),
        })
    }

    fn process_start(&self) -> Result<ProcessStart, RowError> {
        Ok(ProcessStart {
            process: self.required_process()?,
            parent: self.process("parent_pid", "parent_start_ns")?,
            executable: self.bytes("executable")?,
            arguments: self.list("arguments")?,
            arguments_truncated: self.required_flag("arguments_truncated")?,
            working_directory: self.bytes("working_directory")?,
            user_id: self.number("user_id")?,
            group_id: self.number("group_id")?,
            user_name: self.bytes("user_name")?,
            session_id: self.number("session_id")?,
            has_terminal: self.flag("has_terminal")?,
            standard_streams: [
                self.required_name("standard_input", StreamKind::from_name)?,
                self.required_name("standard_output", StreamKind::from_name)?,
                self.required_name("standard_error", StreamKind::from_name)?,
            ],
            ancestors: self.list("ancestors")?,
            executable_deleted: self.flag("executable_deleted")?,
            seeded: self.required_flag("seeded")?,
            cgroup_id: self.nonzero("cgroup_id")?,
            cgroup: self.bytes_or_empty("cgroup")?,
            executable_file: self.file_id()?,
            script: self.bytes_or_empty("script")?,
        })
    }

    fn process_exit(&self) -> Result<ProcessExit, RowError> {
        Ok(ProcessExit {
            process: self.required_process()?,
            executable: self.bytes("executable")?,
            exit_code: self.integer("exit_code")?,
            signal: self.number("signal")?,
            duration_ns: self.count("duration_ns")?,
            cpu_time_ns: self.count("cpu_time_ns")?,
        })
    }

    fn connection(&self) -> Result<Connection, RowError> {
        Ok(Connection {
            cookie: self.required_long("cookie")?.cast_unsigned(),
            protocol: self.required_name("protocol", Protocol::from_name)?,
            direction: self.required_name("direction", Direction::from_name)?,
            local: self.socket_address("local_address", "local_port", "local_flow_information")?,
            remote: self.socket_address("remote_address", "remote_port", "remote_flow_information")?,
            process: self.process("pid", "process_start_ns")?,
            executable: self.bytes("executable")?,
            user_id: self.number("user_id")?,
            cgroup_id: self.nonzero("cgroup_id")?,
        })
    }

    fn connection_close(&self) -> Result<ConnectionClose, RowError> {
        Ok(ConnectionClose {
            connection: self.connection()?,
            bytes_sent: self.count("bytes_sent")?,
            bytes_received: self.count("bytes_received")?,
            segments_sent: self.number("segments_sent")?,
            segments_received: self.number("segments_received")?,
            duration_ns: self.count("duration_ns")?,
            outcome: self.required_name("outcome", ConnectionOutcome::from_name)?,
        })
    }

    fn sensor_loss(&self) -> Result<SensorLoss, RowError> {
        Ok(SensorLoss {
            stage: self.required_name("stage", LossStage::from_name)?,
            reason: self.required_name("reason", LossReason::from_name)?,
            count: self.required_long("count")?.cast_unsigned(),
            epoch: Epoch(self.required_long("lost_epoch")?.cast_unsigned()),
        })
    }

    fn agent_start(&self) -> Result<AgentStart, RowError> {
        let names = self.list("sensor_names")?;
        let origins = self.list("sensor_origins")?;
        let reasons = self.list("sensor_reasons")?;
        if names.len() != origins.len() || names.len() != reasons.len() {
            return Err(self.error("sensor_names", "is not as long as sensor_origins and sensor_reasons"));
        }
        let sensors = names.into_iter().zip(origins).zip(reasons).map(|((name, origin), reason)| {
            let origin = std::str::from_utf8(origin.as_bytes()).ok().and_then(Origin::from_name);
            let origin = origin.ok_or_else(|| self.error("sensor_origins", "has an unknown value"))?;
            Ok(SensorMode { name, origin, reason })
        });
        Ok(AgentStart {
            agent_version: self.bytes("agent_version")?,
            boot_id: self.bytes("boot_id")?,
            sensors: sensors.collect::<Result<_, RowError>>()?,
        })
    }

    fn time(&self) -> Result<Timestamp, RowError> {
        let column = self.column("time")?;
        let microseconds = column.as_primitive::<TimestampMicrosecondType>().value(self.index);
        let nanoseconds = self.column("time_nanoseconds")?.as_primitive::<Int16Type>().value(self.index);
        // The first multiple of 1,000 may lie just outside the 64 bits that the sum fits.
        let time = i128::from(microseconds) * 1000 + i128::from(nanoseconds);
        i64::try_from(time).map(Timestamp).map_err(|_| self.error("time", "is out of range"))
    }

    fn required_process(&self) -> Result<ProcessId, RowError> {
        self.process("pid", "process_start_ns")?.ok_or_else(|| self.error("pid", NULL))
    }

    fn process(&self, pid: &'static str, start: &'static str) -> Result<Option<ProcessId>, RowError> {
        let Some(number) = self.number(pid)? else { return Ok(None) };
        Ok(Some(ProcessId { pid: number, start_time: Timestamp(self.required_long(start)?) }))
    }

    fn socket_address(
        &self,
        address: &'static str,
        port: &'static str,
        flow_information: &'static str,
    ) -> Result<SocketAddr, RowError> {
        let text = self.required_text(address)?;
        let malformed = || self.error(address, "is not an address");
        let (ip, scope) = match text.split_once('%') {
            None => (text, 0),
            Some((ip, scope)) => (ip, scope.parse().map_err(|_| malformed())?),
        };
        let port = self.port(port)?.ok_or_else(malformed)?;
        Ok(match ip.parse().map_err(|_| malformed())? {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, self.number(flow_information)?.unwrap_or(0), scope).into(),
        })
    }

    fn file_id(&self) -> Result<Option<FileId>, RowError> {
        let Some(device) = self.count("executable_device")? else { return Ok(None) };
        Ok(Some(FileId { device, inode: self.required_long("executable_inode")?.cast_unsigned() }))
    }

    fn required_name<T>(&self, column: &'static str, value: impl Fn(&str) -> Option<T>) -> Result<T, RowError> {
        value(self.required_text(column)?).ok_or_else(|| self.error(column, "has an unknown value"))
    }

    fn bytes(&self, column: &'static str) -> Result<ByteString, RowError> {
        self.unescape(column, self.required_text(column)?)
    }

    /// A string that is NULL when it is empty.
    fn bytes_or_empty(&self, column: &'static str) -> Result<ByteString, RowError> {
        self.text(column)?.map_or_else(|| Ok(ByteString::default()), |text| self.unescape(column, text))
    }

    fn list(&self, column: &'static str) -> Result<Vec<ByteString>, RowError> {
        let array = self.present(column)?.ok_or_else(|| self.error(column, NULL))?;
        let list = array.as_list::<i32>().value(self.index);
        list.as_string::<i32>().iter().map(|text| self.unescape(column, text.unwrap_or_default())).collect()
    }

    fn unescape(&self, column: &'static str, text: &str) -> Result<ByteString, RowError> {
        ByteString::unescape(text).ok_or_else(|| self.error(column, "is not an escaped string"))
    }

    fn required_text(&self, column: &'static str) -> Result<&'a str, RowError> {
        self.text(column)?.ok_or_else(|| self.error(column, NULL))
    }

    fn text(&self, column: &'static str) -> Result<Option<&'a str>, RowError> {
        Ok(self.present(column)?.map(|array| array.as_string::<i32>().value(self.index)))
    }

    fn required_long(&self, column: &'static str) -> Result<i64, RowError> {
        self.long(column)?.ok_or_else(|| self.error(column, NULL))
    }

    fn long(&self, column: &'static str) -> Result<Option<i64>, RowError> {
        Ok(self.present(column)?.map(|array| array.as_primitive::<Int64Type>().value(self.index)))
    }

    /// A number of 32 bits without sign.
    fn number(&self, column: &'static str) -> Result<Option<u32>, RowError> {
        let Some(value) = self.long(column)? else { return Ok(None) };
        u32::try_from(value).map(Some).map_err(|_| self.error(column, "is out of range"))
    }

    /// A number of 64 bits that is never 0.
    fn nonzero(&self, column: &'static str) -> Result<Option<NonZeroU64>, RowError> {
        Ok(self.count(column)?.and_then(NonZeroU64::new))
    }

    /// A number of 16 bits.
    fn port(&self, column: &'static str) -> Result<Option<u16>, RowError> {
        let Some(value) = self.integer(column)? else { return Ok(None) };
        u16::try_from(value).map(Some).map_err(|_| self.error(column, "is out of range"))
    }

    fn count(&self, column: &'static str) -> Result<Option<u64>, RowError> {
        Ok(self.long(column)?.map(i64::cast_unsigned))
    }

    fn integer(&self, column: &'static str) -> Result<Option<i32>, RowError> {
        Ok(self.present(column)?.map(|array| array.as_primitive::<Int32Type>().value(self.index)))
    }

    fn required_flag(&self, column: &'static str) -> Result<bool, RowError> {
        self.flag(column)?.ok_or_else(|| self.error(column, NULL))
    }

    fn flag(&self, column: &'static str) -> Result<Option<bool>, RowError> {
        Ok(self.present(column)?.map(|array| array.as_boolean().value(self.index)))
    }

    /// The column, unless it is NULL in this row.
    fn present(&self, column: &'static str) -> Result<Option<&'a ArrayRef>, RowError> {
        Ok(Some(self.column(column)?).filter(|array| !array.is_null(self.index)))
    }

    fn column(&self, name: &'static str) -> Result<&'a ArrayRef, RowError> {
        let found = self.reader.columns.iter().find(|(other, _)| *other == name);
        found.map(|(_, array)| array).ok_or_else(|| self.error(name, "is missing"))
    }

    fn error(&self, column: &'static str, problem: &'static str) -> RowError {
        RowError { class: self.reader.class, column, problem }
    }
}

const NULL: &str = "is NULL where it cannot be";
