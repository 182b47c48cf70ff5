//! The columns of each class. `decode/body.rs` takes them in the same order.

use super::tables::{Tables, option};
use crate::batch::NANOSECONDS_PER_MICROSECOND;
use crate::batch::columns::{Column, ColumnWriter};
use crate::event::{
    AgentChange, AgentStart, Authentication, ConnectionClose, DnsActivity, Event, EventBody, FileActivity,
    KernelActivity, ProcessExit, ProcessStart, SensorLoss,
};
use crate::id::Epoch;

/// Puts everything of `event` but its envelope.
pub(super) fn put(columns: &mut ColumnWriter, tables: &mut Tables, event: &Event) {
    let time = event.time.0;
    match &event.body {
        EventBody::ProcessStart(start) => put_process_start(columns, tables, start),
        EventBody::ProcessExit(exit) => put_process_exit(columns, tables, exit, time),
        EventBody::ConnectionOpen(connection) => {
            tables.put_connection(columns, Column::OpenConnections, connection, time);
        }
        EventBody::ConnectionClose(close) => put_connection_close(columns, tables, close, time),
        EventBody::ConnectionSummary(summary) => {
            put_connection_close(columns, tables, &summary.close, time);
            columns.put(Column::SummaryCounts, summary.count);
        }
        EventBody::ConnectionListen(connection) => {
            tables.put_connection(columns, Column::ListenConnections, connection, time);
        }
        EventBody::FileActivity(file) => put_file_activity(columns, tables, file),
        EventBody::DnsActivity(dns) => put_dns_activity(columns, tables, dns),
        EventBody::KernelActivity(kernel) => put_kernel_activity(columns, tables, kernel),
        EventBody::Authentication(authentication) => put_authentication(columns, tables, authentication),
        EventBody::SensorLoss(loss) => put_sensor_loss(columns, *loss, event.key.epoch),
        EventBody::AgentStart(start) => put_agent_start(columns, tables, start),
        EventBody::AgentChange(change) => put_agent_change(columns, tables, change),
    }
}

fn put_process_start(columns: &mut ColumnWriter, tables: &mut Tables, start: &ProcessStart) {
    let process = tables.put_process(columns, Column::StartProcesses, Some(start.process));
    tables.put_process(columns, Column::StartParents, start.parent);
    tables.put_executable(columns, Column::StartExecutables, &start.executable, process);
    tables.put_list(columns, Column::StartArguments, &start.arguments);
    tables.put_context(columns, Column::StartContexts, start);
    let deleted = tristate(start.executable_deleted) << 2;
    columns.put(Column::StartFlags, u64::from(start.arguments_truncated) | u64::from(start.seeded) << 1 | deleted);
    tables.put_file_id(columns, Column::StartExecutableFiles, start.executable_file);
    tables.put_string(columns, Column::StartScripts, start.script.as_bytes());
}

fn put_process_exit(columns: &mut ColumnWriter, tables: &mut Tables, exit: &ProcessExit, time: i64) {
    let process = tables.put_process(columns, Column::ExitProcesses, Some(exit.process));
    tables.put_executable(columns, Column::ExitExecutables, &exit.executable, process);
    let mut flags = 0;
    if let Some(code) = exit.exit_code {
        flags |= 1;
        columns.put_signed(Column::ExitCodes, i64::from(code));
    }
    if let Some(signal) = exit.signal {
        flags |= 2;
        columns.put(Column::ExitSignals, u64::from(signal));
    }
    if let Some(duration_ns) = exit.duration_ns {
        flags |= 4;
        put_duration(columns, Column::ExitDurations, duration_ns, time, exit.process.start_time.0);
    }
    if let Some(cpu_time_ns) = exit.cpu_time_ns {
        let in_microseconds = cpu_time_ns.is_multiple_of(NANOSECONDS_PER_MICROSECOND);
        flags |= 8 | u64::from(in_microseconds) << 4;
        let unit = if in_microseconds { NANOSECONDS_PER_MICROSECOND } else { 1 };
        columns.put(Column::ExitCpuTimes, cpu_time_ns / unit);
    }
    columns.put(Column::ExitFlags, flags);
}

fn put_connection_close(columns: &mut ColumnWriter, tables: &mut Tables, close: &ConnectionClose, time: i64) {
    let first_time = tables.put_connection(columns, Column::CloseConnections, &close.connection, time);
    let mut flags = close.outcome.code();
    let numbers = [
        (8, Column::CloseBytesSent, close.bytes_sent),
        (16, Column::CloseBytesReceived, close.bytes_received),
        (32, Column::CloseSegmentsSent, close.segments_sent.map(u64::from)),
        (64, Column::CloseSegmentsReceived, close.segments_received.map(u64::from)),
    ];
    for (flag, column, value) in numbers {
        if let Some(value) = value {
            flags |= flag;
            columns.put(column, value);
        }
    }
    if let Some(duration_ns) = close.duration_ns {
        flags |= 128;
        put_duration(columns, Column::CloseDurations, duration_ns, time, first_time);
    }
    columns.put(Column::CloseFlags, flags);
}

fn put_authentication(columns: &mut ColumnWriter, tables: &mut Tables, authentication: &Authentication) {
    tables.put_string(columns, Column::AuthenticationUserNames, authentication.user_name.as_bytes());
    tables.put_string(columns, Column::AuthenticationServices, authentication.service.as_bytes());
    if let Some(source) = authentication.source {
        tables.put_ip_address(columns, Column::AuthenticationSources, source);
    }
    tables.put_process(columns, Column::AuthenticationProcesses, authentication.process);
    columns.put(
        Column::AuthenticationFlags,
        u64::from(authentication.success)
            | u64::from(authentication.source.is_some()) << 1
            | authentication.action.code() << 2
            | tristate(authentication.user_exists) << 3,
    );
    for (column, text) in [
        (Column::AuthenticationMethods, &authentication.method),
        (Column::AuthenticationActingUserNames, &authentication.acting_user_name),
        (Column::AuthenticationTerminals, &authentication.terminal),
        (Column::AuthenticationCommands, &authentication.command),
    ] {
        tables.put_string(columns, column, text.as_bytes());
    }
    columns.put(Column::AuthenticationUserIds, option(authentication.user_id));
    columns.put(Column::AuthenticationSourcePorts, option(authentication.source_port.map(u32::from)));
}

fn put_file_activity(columns: &mut ColumnWriter, tables: &mut Tables, file: &FileActivity) {
    columns.put(Column::FileFlags, file.action.code() | tristate(file.is_directory) << 3);
    tables.put_string(columns, Column::FilePaths, file.path.as_bytes());
    tables.put_string(columns, Column::FileNewPaths, file.new_path.as_bytes());
    columns.put(Column::FileModes, option(file.mode));
    columns.put(Column::FileOwnerIds, option(file.owner_id));
    let process = tables.put_process(columns, Column::FileProcesses, file.process);
    tables.put_executable(columns, Column::FileExecutables, &file.executable, process);
    columns.put(Column::FileUserIds, option(file.user_id));
}

fn put_dns_activity(columns: &mut ColumnWriter, tables: &mut Tables, dns: &DnsActivity) {
    columns.put(
        Column::DnsFlags,
        dns.action.code()
            | dns.protocol.code() << 1
            | u64::from(dns.answers_truncated) << 4
            | u64::from(dns.server.is_some()) << 5
            | u64::from(dns.duration_ns.is_some()) << 6,
    );
    tables.put_string(columns, Column::DnsNames, dns.name.as_bytes());
    columns.put(Column::DnsQueryTypes, dns.query_type.into());
    columns.put(Column::DnsResponseCodes, option(dns.response_code.map(u32::from)));
    tables.put_list(columns, Column::DnsAnswers, &dns.answers);
    if let Some(server) = dns.server {
        tables.put_socket_address(columns, Column::DnsServerAddresses, server);
        columns.put(Column::DnsServerPorts, server.port().into());
    }
    columns.put(Column::DnsTransactionIds, dns.transaction_id.into());
    let process = tables.put_process(columns, Column::DnsProcesses, dns.process);
    tables.put_executable(columns, Column::DnsExecutables, &dns.executable, process);
    columns.put(Column::DnsUserIds, option(dns.user_id));
    if let Some(duration_ns) = dns.duration_ns {
        columns.put(Column::DnsDurations, duration_ns);
    }
}

fn put_kernel_activity(columns: &mut ColumnWriter, tables: &mut Tables, kernel: &KernelActivity) {
    columns.put(
        Column::KernelFlags,
        kernel.action.code() | u64::from(kernel.value.is_some()) << 4 | tristate(kernel.success) << 5,
    );
    tables.put_string(columns, Column::KernelObjects, kernel.object.as_bytes());
    if let Some(value) = kernel.value {
        columns.put(Column::KernelValues, value);
    }
    tables.put_process(columns, Column::KernelTargets, kernel.target);
    let process = tables.put_process(columns, Column::KernelProcesses, kernel.process);
    tables.put_executable(columns, Column::KernelExecutables, &kernel.executable, process);
    columns.put(Column::KernelUserIds, option(kernel.user_id));
}

fn put_sensor_loss(columns: &mut ColumnWriter, loss: SensorLoss, epoch: Epoch) {
    columns.put(Column::LossKinds, loss.stage.code() | loss.reason.code() << 3);
    columns.put(Column::LossCounts, loss.count);
    columns.put_signed(Column::LossEpochs, loss.epoch.0.wrapping_sub(epoch.0).cast_signed());
}

fn put_agent_start(columns: &mut ColumnWriter, tables: &mut Tables, start: &AgentStart) {
    tables.put_string(columns, Column::AgentVersions, start.agent_version.as_bytes());
    tables.put_string(columns, Column::AgentBootIds, start.boot_id.as_bytes());
    columns.put(Column::AgentSensorCounts, start.sensors.len() as u64);
    for sensor in &start.sensors {
        tables.put_string(columns, Column::AgentSensorNames, sensor.name.as_bytes());
        columns.put(Column::AgentSensorOrigins, sensor.origin.code());
        tables.put_string(columns, Column::AgentSensorReasons, sensor.reason.as_bytes());
    }
}

fn put_agent_change(columns: &mut ColumnWriter, tables: &mut Tables, change: &AgentChange) {
    for (column, text) in [
        (Column::ChangeSubjects, &change.subject),
        (Column::ChangesBefore, &change.before),
        (Column::ChangesAfter, &change.after),
        (Column::ChangeReasons, &change.reason),
    ] {
        tables.put_string(columns, column, text.as_bytes());
    }
}

/// 0 for unknown, 1 for no, 2 for yes.
fn tristate(value: Option<bool>) -> u64 {
    option(value.map(u32::from))
}

/// Durations are nearly always what the times say already, so only the difference is kept.
fn put_duration(columns: &mut ColumnWriter, column: Column, duration_ns: u64, time: i64, start: i64) {
    let expected = time.wrapping_sub(start).cast_unsigned();
    columns.put_signed(column, duration_ns.wrapping_sub(expected).cast_signed());
}
