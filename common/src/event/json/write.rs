//! Events to JSON.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use serde_json::{Map, Value, json};

use crate::event::{
    AgentChange, AgentStart, Authentication, ByteString, Connection, ConnectionClose, DnsActivity, Event, EventBody,
    FileActivity, FileId, KernelActivity, ProcessExit, ProcessId, ProcessStart, SensorLoss, StreamKind,
};

/// An object being filled.
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn put_known(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_text(&mut self, key: &str, text: &ByteString) {
        self.put(key, text.to_string());
    }

    /// Leaves an empty string out.
    fn put_known_text(&mut self, key: &str, text: &ByteString) {
        if !text.is_empty() {
            self.put_text(key, text);
        }
    }

    fn put_texts(&mut self, key: &str, texts: &[ByteString]) {
        self.put(key, texts.iter().map(ByteString::to_string).collect::<Vec<_>>());
    }
}

pub(super) fn event(event: &Event) -> Value {
    let mut object = Object(Map::new());
    let kind = event.body.kind();
    object.put("epoch", event.key.epoch.0);
    object.put("sequence", event.key.sequence.0);
    object.put("time_unix_ns", event.time.0);
    object.put("origin", event.origin.name());
    object.put("class", kind.class().name());
    object.put("activity", event.body.activity());
    match &event.body {
        EventBody::ProcessStart(start) => put_process_start(&mut object, start),
        EventBody::ProcessExit(exit) => put_process_exit(&mut object, exit),
        EventBody::ConnectionOpen(connection) => put_connection(&mut object, connection),
        EventBody::ConnectionClose(close) => put_connection_close(&mut object, close),
        EventBody::ConnectionListen(connection) => put_connection(&mut object, connection),
        EventBody::ConnectionSummary(summary) => {
            put_connection_close(&mut object, &summary.close);
            object.put("count", summary.count);
        }
        EventBody::FileActivity(file) => put_file_activity(&mut object, file),
        EventBody::DnsActivity(dns) => put_dns_activity(&mut object, dns),
        EventBody::KernelActivity(kernel) => put_kernel_activity(&mut object, kernel),
        EventBody::Authentication(authentication) => put_authentication(&mut object, authentication),
        EventBody::SensorLoss(loss) => put_sensor_loss(&mut object, *loss),
        EventBody::AgentStart(start) => put_agent_start(&mut object, start),
        EventBody::AgentChange(change) => put_agent_change(&mut object, change),
    }
    Value::Object(object.0)
}

fn process_id(process: ProcessId) -> Value {
    json!({"pid": process.pid, "start_time_unix_ns": process.start_time.0})
}

fn file_id(file: FileId) -> Value {
    json!({"device": file.device, "inode": file.inode})
}

fn put_process_start(object: &mut Object, start: &ProcessStart) {
    object.put("process", process_id(start.process));
    object.put_known("parent", start.parent.map(process_id));
    object.put_text("executable", &start.executable);
    object.put_texts("arguments", &start.arguments);
    object.put("arguments_truncated", start.arguments_truncated);
    object.put_text("working_directory", &start.working_directory);
    object.put_known("user_id", start.user_id);
    object.put_known("group_id", start.group_id);
    object.put_text("user_name", &start.user_name);
    object.put_known("session_id", start.session_id);
    object.put_known("has_terminal", start.has_terminal);
    object.put("standard_streams", start.standard_streams.map(StreamKind::name).to_vec());
    object.put_texts("ancestors", &start.ancestors);
    object.put_known("executable_deleted", start.executable_deleted);
    object.put("seeded", start.seeded);
    object.put_known("cgroup_id", start.cgroup_id.map(NonZeroU64::get));
    object.put_known_text("cgroup", &start.cgroup);
    object.put_known("executable_file", start.executable_file.map(file_id));
    object.put_known_text("script", &start.script);
}

fn put_process_exit(object: &mut Object, exit: &ProcessExit) {
    object.put("process", process_id(exit.process));
    object.put_text("executable", &exit.executable);
    object.put_known("exit_code", exit.exit_code);
    object.put_known("signal", exit.signal);
    object.put_known("duration_ns", exit.duration_ns);
    object.put_known("cpu_time_ns", exit.cpu_time_ns);
}

fn socket_address(address: SocketAddr) -> Value {
    let mut object = Object(Map::new());
    object.put("ip", address.ip().to_string());
    object.put("port", address.port());
    if let SocketAddr::V6(address) = address {
        object.put_known("flow_information", Some(address.flowinfo()).filter(|&information| information != 0));
        object.put_known("scope_id", Some(address.scope_id()).filter(|&id| id != 0));
    }
    Value::Object(object.0)
}

fn put_connection(object: &mut Object, connection: &Connection) {
    object.put("cookie", connection.cookie);
    object.put("protocol", connection.protocol.name());
    object.put("direction", connection.direction.name());
    object.put("local", socket_address(connection.local));
    object.put("remote", socket_address(connection.remote));
    object.put_known("process", connection.process.map(process_id));
    object.put_text("executable", &connection.executable);
    object.put_known("user_id", connection.user_id);
    object.put_known("cgroup_id", connection.cgroup_id.map(NonZeroU64::get));
}

fn put_connection_close(object: &mut Object, close: &ConnectionClose) {
    put_connection(object, &close.connection);
    object.put_known("bytes_sent", close.bytes_sent);
    object.put_known("bytes_received", close.bytes_received);
    object.put_known("segments_sent", close.segments_sent);
    object.put_known("segments_received", close.segments_received);
    object.put_known("duration_ns", close.duration_ns);
    object.put("outcome", close.outcome.name());
}

fn put_authentication(object: &mut Object, authentication: &Authentication) {
    object.put_text("user_name", &authentication.user_name);
    object.put_known("user_id", authentication.user_id);
    object.put_known("user_exists", authentication.user_exists);
    object.put("success", authentication.success);
    object.put_text("service", &authentication.service);
    object.put_known_text("method", &authentication.method);
    object.put_known_text("acting_user_name", &authentication.acting_user_name);
    object.put_known_text("terminal", &authentication.terminal);
    object.put_known_text("command", &authentication.command);
    object.put_known("source", authentication.source.map(|source| source.to_string()));
    object.put_known("source_port", authentication.source_port);
    object.put_known("process", authentication.process.map(process_id));
}

fn put_file_activity(object: &mut Object, file: &FileActivity) {
    object.put_text("path", &file.path);
    object.put_known_text("new_path", &file.new_path);
    object.put_known("is_directory", file.is_directory);
    object.put_known("mode", file.mode);
    object.put_known("owner_id", file.owner_id);
    object.put_known("process", file.process.map(process_id));
    object.put_known_text("executable", &file.executable);
    object.put_known("user_id", file.user_id);
}

fn put_dns_activity(object: &mut Object, dns: &DnsActivity) {
    object.put_text("name", &dns.name);
    object.put("query_type", dns.query_type);
    object.put_known("response_code", dns.response_code);
    object.put_texts("answers", &dns.answers);
    object.put("answers_truncated", dns.answers_truncated);
    object.put_known("server", dns.server.map(socket_address));
    object.put("protocol", dns.protocol.name());
    object.put("transaction_id", dns.transaction_id);
    object.put_known("process", dns.process.map(process_id));
    object.put_known_text("executable", &dns.executable);
    object.put_known("user_id", dns.user_id);
    object.put_known("duration_ns", dns.duration_ns);
}

fn put_kernel_activity(object: &mut Object, kernel: &KernelActivity) {
    object.put_known_text("object", &kernel.object);
    object.put_known("value", kernel.value);
    object.put_known("target", kernel.target.map(process_id));
    object.put_known("success", kernel.success);
    object.put_known("process", kernel.process.map(process_id));
    object.put_known_text("executable", &kernel.executable);
    object.put_known("user_id", kernel.user_id);
}

fn put_sensor_loss(object: &mut Object, loss: SensorLoss) {
    object.put("stage", loss.stage.name());
    object.put("reason", loss.reason.name());
    object.put("count", loss.count);
    object.put("loss_epoch", loss.epoch.0);
}

fn put_agent_start(object: &mut Object, start: &AgentStart) {
    object.put_text("agent_version", &start.agent_version);
    object.put_text("boot_id", &start.boot_id);
    let sensors = start.sensors.iter().map(
        |sensor| json!({"name": sensor.name.to_string(), "origin": sensor.origin.name(), "reason": sensor.reason.to_string()}),
    );
    object.put("sensors", sensors.collect::<Vec<_>>());
}

fn put_agent_change(object: &mut Object, change: &AgentChange) {
    object.put_text("subject", &change.subject);
    object.put_known_text("before", &change.before);
    object.put_text("after", &change.after);
    object.put_known_text("reason", &change.reason);
}
