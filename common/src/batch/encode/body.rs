//! The columns of each class. `decode/body.rs` takes them in the same order.

use super::tables::Tables;
use crate::batch::columns::{Column, ColumnWriter};
use crate::event::{
    AgentStart, Authentication, ConnectionClose, Event, EventBody, ProcessExit, ProcessStart, SensorLoss,
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
        EventBody::Authentication(authentication) => put_authentication(columns, tables, authentication),
        EventBody::SensorLoss(loss) => put_sensor_loss(columns, *loss, event.key.epoch),
        EventBody::AgentStart(start) => put_agent_start(columns, tables, start),
    }
}

fn put_process_start(columns: &mut ColumnWriter, tables: &mut Tables, start: &ProcessStart) {
    let process = tables.put_process(columns, Column::StartProcesses, Some(start.process));
    tables.put_process(columns, Column::StartParents, start.parent);
    tables.put_executable(columns, Column::StartExecutables, &start.executable, process);
    tables.put_list(columns, Column::StartArguments, &start.arguments);
    tables.put_context(columns, Column::StartContexts, start);
    let deleted = match start.executable_deleted {
        None => 0,
        Some(false) => 4,
        Some(true) => 8,
    };
    columns.put(Column::StartFlags, u64::from(start.arguments_truncated) | u64::from(start.seeded) << 1 | deleted);
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
        u64::from(authentication.success) | u64::from(authentication.source.is_some()) << 1,
    );
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

/// Durations are nearly always what the times say already, so only the difference is kept.
fn put_duration(columns: &mut ColumnWriter, column: Column, duration_ns: u64, time: i64, start: i64) {
    let expected = time.wrapping_sub(start).cast_unsigned();
    columns.put_signed(column, duration_ns.wrapping_sub(expected).cast_signed());
}
