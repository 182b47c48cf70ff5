//! JSON to events.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU64;

use serde_json::{Map, Value};

use super::JsonError;
use crate::event::{
    AgentChange, AgentStart, Authentication, AuthenticationAction, ByteString, Connection, ConnectionClose,
    ConnectionOutcome, ConnectionSummary, Direction, DnsAction, DnsActivity, Event, EventBody, EventKind, FileAction,
    FileActivity, FileId, KernelAction, KernelActivity, LossReason, LossStage, Origin, ProcessExit, ProcessId,
    ProcessStart, Protocol, SensorLoss, SensorMode, StreamKind, Timestamp,
};
use crate::id::{Epoch, EventKey, Sequence};

/// One value of the document and where it is.
#[derive(Clone)]
struct Field<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Field<'a> {
    fn malformed(&self, expected: &'static str) -> JsonError {
        JsonError::Malformed { field: self.path.clone(), expected }
    }

    fn parse<T>(&self, expected: &'static str, parse: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, JsonError> {
        parse(self.value).ok_or_else(|| self.malformed(expected))
    }

    fn object(&self) -> Result<Object<'a>, JsonError> {
        let map = self.parse("an object", Value::as_object)?;
        Ok(Object { map, path: format!("{}.", self.path) })
    }

    fn items(&self) -> Result<impl ExactSizeIterator<Item = Field<'a>>, JsonError> {
        let items = self.parse("an array", Value::as_array)?;
        let path = self.path.clone();
        Ok(items.iter().enumerate().map(move |(index, value)| Field { value, path: format!("{path}[{index}]") }))
    }

    fn text(&self) -> Result<ByteString, JsonError> {
        self.parse("an escaped string of at most 4096 bytes", |value| ByteString::unescape(value.as_str()?))
    }

    fn texts(&self) -> Result<Vec<ByteString>, JsonError> {
        self.items()?.map(|item| item.text()).collect()
    }

    fn bool(&self) -> Result<bool, JsonError> {
        self.parse("true or false", Value::as_bool)
    }

    fn unsigned_64(&self) -> Result<u64, JsonError> {
        self.parse("a whole number from 0 to 2^64 - 1", Value::as_u64)
    }

    fn unsigned_32(&self) -> Result<u32, JsonError> {
        self.parse("a whole number from 0 to 2^32 - 1", |value| u32::try_from(value.as_u64()?).ok())
    }

    fn unsigned_16(&self) -> Result<u16, JsonError> {
        self.parse("a whole number from 0 to 65535", |value| u16::try_from(value.as_u64()?).ok())
    }

    fn nonzero(&self) -> Result<NonZeroU64, JsonError> {
        self.parse("a whole number from 1 to 2^64 - 1", |value| NonZeroU64::new(value.as_u64()?))
    }

    fn signed_32(&self) -> Result<i32, JsonError> {
        self.parse("a whole number from -2^31 to 2^31 - 1", |value| i32::try_from(value.as_i64()?).ok())
    }

    fn time(&self) -> Result<Timestamp, JsonError> {
        self.parse("nanoseconds since 1970 as a whole number", |value| value.as_i64().map(Timestamp))
    }

    fn name<T>(&self, from_name: impl FnOnce(&str) -> Option<T>) -> Result<T, JsonError> {
        self.parse("a known name", |value| from_name(value.as_str()?))
    }

    fn ip_address(&self) -> Result<IpAddr, JsonError> {
        self.parse("an IP address", |value| value.as_str()?.parse().ok())
    }

    fn process_id(&self) -> Result<ProcessId, JsonError> {
        let object = self.object()?;
        Ok(ProcessId {
            pid: object.required("pid")?.unsigned_32()?,
            start_time: object.required("start_time_unix_ns")?.time()?,
        })
    }

    fn socket_address(&self) -> Result<SocketAddr, JsonError> {
        let object = self.object()?;
        let ip = object.required("ip")?.ip_address()?;
        let port = object.required("port")?.unsigned_16()?;
        Ok(match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => {
                let flow_information = object.optional("flow_information", Field::unsigned_32)?.unwrap_or(0);
                let scope_id = object.optional("scope_id", Field::unsigned_32)?.unwrap_or(0);
                SocketAddr::V6(SocketAddrV6::new(ip, port, flow_information, scope_id))
            }
        })
    }

    fn file_id(&self) -> Result<FileId, JsonError> {
        let object = self.object()?;
        Ok(FileId {
            device: object.required("device")?.unsigned_64()?,
            inode: object.required("inode")?.unsigned_64()?,
        })
    }

    fn sensor(&self) -> Result<SensorMode, JsonError> {
        let object = self.object()?;
        Ok(SensorMode {
            name: object.required("name")?.text()?,
            origin: object.required("origin")?.name(Origin::from_name)?,
            reason: object.required("reason")?.text()?,
        })
    }
}

/// An object of the document; its path ends in a dot unless it is the document.
struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        Some(Field { value, path: format!("{}{key}", self.path) })
    }

    fn required(&self, key: &str) -> Result<Field<'a>, JsonError> {
        self.get(key).ok_or_else(|| JsonError::Missing { field: format!("{}{key}", self.path) })
    }

    fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, JsonError>,
    ) -> Result<Option<T>, JsonError> {
        self.get(key).map(|field| read(&field)).transpose()
    }

    /// A string that is absent when it is empty.
    fn text_or_empty(&self, key: &str) -> Result<ByteString, JsonError> {
        Ok(self.optional(key, Field::text)?.unwrap_or_default())
    }

    fn flag_or_false(&self, key: &str) -> Result<bool, JsonError> {
        Ok(self.optional(key, Field::bool)?.unwrap_or_default())
    }
}

pub(super) fn event(value: &Value) -> Result<Event, JsonError> {
    let map = value.as_object().ok_or(JsonError::NotAnObject)?;
    let object = Object { map, path: String::new() };
    let class = object.required("class")?;
    let activity = object.required("activity")?;
    let kind = activity.parse("an activity of the event's class", |activity| {
        EventKind::from_class_and_activity(class.value.as_str()?, activity.as_str()?)
    })?;
    Ok(Event {
        key: EventKey {
            epoch: Epoch(object.required("epoch")?.unsigned_64()?),
            sequence: Sequence(object.required("sequence")?.unsigned_64()?),
        },
        time: object.required("time_unix_ns")?.time()?,
        origin: object.required("origin")?.name(Origin::from_name)?,
        body: match kind {
            EventKind::ProcessStart => EventBody::ProcessStart(Box::new(process_start(&object)?)),
            EventKind::ProcessExit => EventBody::ProcessExit(process_exit(&object)?),
            EventKind::ConnectionOpen => EventBody::ConnectionOpen(Box::new(connection(&object)?)),
            EventKind::ConnectionClose => EventBody::ConnectionClose(Box::new(connection_close(&object)?)),
            EventKind::ConnectionListen => EventBody::ConnectionListen(Box::new(connection(&object)?)),
            EventKind::ConnectionSummary => EventBody::ConnectionSummary(Box::new(ConnectionSummary {
                close: connection_close(&object)?,
                count: object.required("count")?.unsigned_64()?,
            })),
            EventKind::Authentication => EventBody::Authentication(Box::new(authentication(&object)?)),
            EventKind::FileActivity => EventBody::FileActivity(Box::new(file_activity(&object)?)),
            EventKind::DnsActivity => EventBody::DnsActivity(Box::new(dns_activity(&object)?)),
            EventKind::KernelActivity => EventBody::KernelActivity(Box::new(kernel_activity(&object)?)),
            EventKind::SensorLoss => EventBody::SensorLoss(sensor_loss(&object)?),
            EventKind::AgentStart => EventBody::AgentStart(Box::new(agent_start(&object)?)),
            EventKind::AgentChange => EventBody::AgentChange(Box::new(agent_change(&object)?)),
        },
    })
}

fn process_start(object: &Object<'_>) -> Result<ProcessStart, JsonError> {
    Ok(ProcessStart {
        process: object.required("process")?.process_id()?,
        parent: object.optional("parent", Field::process_id)?,
        executable: object.required("executable")?.text()?,
        arguments: object.required("arguments")?.texts()?,
        arguments_truncated: object.required("arguments_truncated")?.bool()?,
        working_directory: object.required("working_directory")?.text()?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
        group_id: object.optional("group_id", Field::unsigned_32)?,
        user_name: object.required("user_name")?.text()?,
        session_id: object.optional("session_id", Field::unsigned_32)?,
        has_terminal: object.optional("has_terminal", Field::bool)?,
        standard_streams: standard_streams(&object.required("standard_streams")?)?,
        ancestors: object.required("ancestors")?.texts()?,
        executable_deleted: object.optional("executable_deleted", Field::bool)?,
        seeded: object.required("seeded")?.bool()?,
        cgroup_id: object.optional("cgroup_id", Field::nonzero)?,
        cgroup: object.text_or_empty("cgroup")?,
        executable_file: object.optional("executable_file", Field::file_id)?,
        script: object.text_or_empty("script")?,
    })
}

fn standard_streams(field: &Field<'_>) -> Result<[StreamKind; 3], JsonError> {
    let kinds: Vec<StreamKind> =
        field.items()?.map(|item| item.name(StreamKind::from_name)).collect::<Result<_, _>>()?;
    kinds.try_into().map_err(|_| field.malformed("three kinds of stream"))
}

fn process_exit(object: &Object<'_>) -> Result<ProcessExit, JsonError> {
    Ok(ProcessExit {
        process: object.required("process")?.process_id()?,
        executable: object.required("executable")?.text()?,
        exit_code: object.optional("exit_code", Field::signed_32)?,
        signal: object.optional("signal", Field::unsigned_32)?,
        duration_ns: object.optional("duration_ns", Field::unsigned_64)?,
        cpu_time_ns: object.optional("cpu_time_ns", Field::unsigned_64)?,
    })
}

fn connection(object: &Object<'_>) -> Result<Connection, JsonError> {
    Ok(Connection {
        cookie: object.required("cookie")?.unsigned_64()?,
        protocol: object.required("protocol")?.name(Protocol::from_name)?,
        direction: object.required("direction")?.name(Direction::from_name)?,
        local: object.required("local")?.socket_address()?,
        remote: object.required("remote")?.socket_address()?,
        process: object.optional("process", Field::process_id)?,
        executable: object.required("executable")?.text()?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
        cgroup_id: object.optional("cgroup_id", Field::nonzero)?,
    })
}

fn connection_close(object: &Object<'_>) -> Result<ConnectionClose, JsonError> {
    Ok(ConnectionClose {
        connection: connection(object)?,
        bytes_sent: object.optional("bytes_sent", Field::unsigned_64)?,
        bytes_received: object.optional("bytes_received", Field::unsigned_64)?,
        segments_sent: object.optional("segments_sent", Field::unsigned_32)?,
        segments_received: object.optional("segments_received", Field::unsigned_32)?,
        duration_ns: object.optional("duration_ns", Field::unsigned_64)?,
        outcome: object.required("outcome")?.name(ConnectionOutcome::from_name)?,
    })
}

fn authentication(object: &Object<'_>) -> Result<Authentication, JsonError> {
    Ok(Authentication {
        action: object.required("activity")?.name(AuthenticationAction::from_name)?,
        user_name: object.required("user_name")?.text()?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
        user_exists: object.optional("user_exists", Field::bool)?,
        success: object.required("success")?.bool()?,
        service: object.required("service")?.text()?,
        method: object.text_or_empty("method")?,
        acting_user_name: object.text_or_empty("acting_user_name")?,
        terminal: object.text_or_empty("terminal")?,
        command: object.text_or_empty("command")?,
        source: object.optional("source", Field::ip_address)?,
        source_port: object.optional("source_port", Field::unsigned_16)?,
        process: object.optional("process", Field::process_id)?,
    })
}

fn file_activity(object: &Object<'_>) -> Result<FileActivity, JsonError> {
    Ok(FileActivity {
        action: object.required("activity")?.name(FileAction::from_name)?,
        path: object.required("path")?.text()?,
        new_path: object.text_or_empty("new_path")?,
        is_directory: object.optional("is_directory", Field::bool)?,
        mode: object.optional("mode", Field::unsigned_32)?,
        owner_id: object.optional("owner_id", Field::unsigned_32)?,
        process: object.optional("process", Field::process_id)?,
        executable: object.text_or_empty("executable")?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
    })
}

fn dns_activity(object: &Object<'_>) -> Result<DnsActivity, JsonError> {
    Ok(DnsActivity {
        action: object.required("activity")?.name(DnsAction::from_name)?,
        name: object.required("name")?.text()?,
        query_type: object.required("query_type")?.unsigned_16()?,
        response_code: object.optional("response_code", Field::unsigned_16)?,
        answers: object.optional("answers", Field::texts)?.unwrap_or_default(),
        answers_truncated: object.flag_or_false("answers_truncated")?,
        server: object.optional("server", Field::socket_address)?,
        protocol: object.required("protocol")?.name(Protocol::from_name)?,
        transaction_id: object.required("transaction_id")?.unsigned_16()?,
        process: object.optional("process", Field::process_id)?,
        executable: object.text_or_empty("executable")?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
        duration_ns: object.optional("duration_ns", Field::unsigned_64)?,
    })
}

fn kernel_activity(object: &Object<'_>) -> Result<KernelActivity, JsonError> {
    Ok(KernelActivity {
        action: object.required("activity")?.name(KernelAction::from_name)?,
        object: object.text_or_empty("object")?,
        value: object.optional("value", Field::unsigned_64)?,
        target: object.optional("target", Field::process_id)?,
        success: object.optional("success", Field::bool)?,
        process: object.optional("process", Field::process_id)?,
        executable: object.text_or_empty("executable")?,
        user_id: object.optional("user_id", Field::unsigned_32)?,
    })
}

fn sensor_loss(object: &Object<'_>) -> Result<SensorLoss, JsonError> {
    Ok(SensorLoss {
        stage: object.required("stage")?.name(LossStage::from_name)?,
        reason: object.required("reason")?.name(LossReason::from_name)?,
        count: object.required("count")?.unsigned_64()?,
        epoch: Epoch(object.required("loss_epoch")?.unsigned_64()?),
    })
}

fn agent_start(object: &Object<'_>) -> Result<AgentStart, JsonError> {
    Ok(AgentStart {
        agent_version: object.required("agent_version")?.text()?,
        boot_id: object.required("boot_id")?.text()?,
        sensors: object.required("sensors")?.items()?.map(|item| item.sensor()).collect::<Result<_, _>>()?,
    })
}

fn agent_change(object: &Object<'_>) -> Result<AgentChange, JsonError> {
    Ok(AgentChange {
        subject: object.required("subject")?.text()?,
        before: object.text_or_empty("before")?,
        after: object.text_or_empty("after")?,
        reason: object.text_or_empty("reason")?,
    })
}
