//! The columns of each class, in the order in which `encode/body.rs` puts them.

use super::tables::Tables;
use crate::batch::columns::{Column, ColumnReader};
use crate::batch::error::BatchError;
use crate::event::limits::SENSORS_MAX;
use crate::event::{
    AgentStart, Authentication, ConnectionClose, ConnectionOutcome, EventBody, EventKind, LossReason, LossStage,
    Origin, ProcessExit, ProcessStart, SensorLoss, SensorMode,
};
use crate::id::Epoch;

const UNKNOWN_FLAGS: &str = "has unknown flags";

/// Takes everything of an event but its envelope.
pub(super) fn take<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
    kind: EventKind,
    time: i64,
    epoch: Epoch,
) -> Result<EventBody, BatchError> {
    Ok(match kind {
        EventKind::ProcessStart => EventBody::ProcessStart(Box::new(take_process_start(columns, tables)?)),
        EventKind::ProcessExit => EventBody::ProcessExit(take_process_exit(columns, tables, time)?),
        EventKind::ConnectionOpen => {
            let (connection, _) = tables.take_connection(columns, Column::OpenConnections, time)?;
            EventBody::ConnectionOpen(Box::new(connection))
        }
        EventKind::ConnectionClose => {
            EventBody::ConnectionClose(Box::new(take_connection_close(columns, tables, time)?))
        }
        EventKind::Authentication => EventBody::Authentication(Box::new(take_authentication(columns, tables)?)),
        EventKind::SensorLoss => EventBody::SensorLoss(take_sensor_loss(columns, epoch)?),
        EventKind::AgentStart => EventBody::AgentStart(Box::new(take_agent_start(columns, tables)?)),
    })
}

fn take_required_process<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
    column: Column,
) -> Result<usize, BatchError> {
    tables.take_process_entry(columns, column)?.ok_or(column.error("has no process"))
}

fn take_process_start<'a>(columns: &mut ColumnReader<'a>, tables: &mut Tables<'a>) -> Result<ProcessStart, BatchError> {
    let process = take_required_process(columns, tables, Column::StartProcesses)?;
    let parent = tables.take_process(columns, Column::StartParents)?;
    let executable = tables.take_executable(columns, Column::StartExecutables, Some(process))?;
    let arguments = tables.take_strings(columns, Column::StartArguments)?;
    let context = tables.take_context(columns, Column::StartContexts)?;
    let flags = columns.take(Column::StartFlags)?;
    Ok(ProcessStart {
        process: tables.process(process),
        parent,
        executable: executable.into(),
        arguments,
        arguments_truncated: flags & 1 != 0,
        working_directory: context.working_directory.into(),
        user_id: context.user_id,
        group_id: context.group_id,
        user_name: context.user_name.into(),
        session_id: context.session_id,
        has_terminal: context.has_terminal,
        standard_streams: context.standard_streams,
        ancestors: tables.strings_of(context.ancestors),
        executable_deleted: match flags >> 2 {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            _ => return Err(Column::StartFlags.error(UNKNOWN_FLAGS)),
        },
        seeded: flags & 2 != 0,
    })
}

fn take_process_exit<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
    time: i64,
) -> Result<ProcessExit, BatchError> {
    let process = take_required_process(columns, tables, Column::ExitProcesses)?;
    let executable = tables.take_executable(columns, Column::ExitExecutables, Some(process))?;
    let process = tables.process(process);
    let flags = columns.take(Column::ExitFlags)?;
    if flags >> 3 != 0 {
        return Err(Column::ExitFlags.error(UNKNOWN_FLAGS));
    }
    let exit_code = when(flags & 1 != 0, || {
        let code = columns.take_signed(Column::ExitCodes)?;
        i32::try_from(code).map_err(|_| Column::ExitCodes.error("has a value that does not fit 32 bits"))
    })?;
    let signal = when(flags & 2 != 0, || columns.take_as(Column::ExitSignals))?;
    let duration_ns =
        when(flags & 4 != 0, || take_duration(columns, Column::ExitDurations, time, process.start_time.0))?;
    Ok(ProcessExit { process, executable: executable.into(), exit_code, signal, duration_ns })
}

fn take_connection_close<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
    time: i64,
) -> Result<ConnectionClose, BatchError> {
    let (connection, first_time) = tables.take_connection(columns, Column::CloseConnections, time)?;
    let flags = columns.take(Column::CloseFlags)?;
    let outcome = ConnectionOutcome::from_code(flags & 7);
    let outcome = outcome.filter(|_| flags >> 8 == 0).ok_or(Column::CloseFlags.error(UNKNOWN_FLAGS))?;
    Ok(ConnectionClose {
        connection,
        bytes_sent: when(flags & 8 != 0, || columns.take(Column::CloseBytesSent))?,
        bytes_received: when(flags & 16 != 0, || columns.take(Column::CloseBytesReceived))?,
        segments_sent: when(flags & 32 != 0, || columns.take_as(Column::CloseSegmentsSent))?,
        segments_received: when(flags & 64 != 0, || columns.take_as(Column::CloseSegmentsReceived))?,
        duration_ns: when(flags & 128 != 0, || take_duration(columns, Column::CloseDurations, time, first_time))?,
        outcome,
    })
}

fn take_authentication<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
) -> Result<Authentication, BatchError> {
    let user_name = tables.take_string(columns, Column::AuthenticationUserNames)?;
    let service = tables.take_string(columns, Column::AuthenticationServices)?;
    let flags = columns.take(Column::AuthenticationFlags)?;
    if flags >> 2 != 0 {
        return Err(Column::AuthenticationFlags.error(UNKNOWN_FLAGS));
    }
    Ok(Authentication {
        user_name: user_name.into(),
        success: flags & 1 != 0,
        service: service.into(),
        source: when(flags & 2 != 0, || tables.take_ip_address(columns, Column::AuthenticationSources))?,
        process: tables.take_process(columns, Column::AuthenticationProcesses)?,
    })
}

fn take_sensor_loss(columns: &mut ColumnReader<'_>, epoch: Epoch) -> Result<SensorLoss, BatchError> {
    let kind = columns.take(Column::LossKinds)?;
    let unknown = Column::LossKinds.error("has an unknown stage or reason");
    Ok(SensorLoss {
        stage: LossStage::from_code(kind & 7).ok_or(unknown.clone())?,
        reason: LossReason::from_code(kind >> 3).ok_or(unknown)?,
        count: columns.take(Column::LossCounts)?,
        epoch: Epoch(epoch.0.wrapping_add_signed(columns.take_signed(Column::LossEpochs)?)),
    })
}

fn take_agent_start<'a>(columns: &mut ColumnReader<'a>, tables: &mut Tables<'a>) -> Result<AgentStart, BatchError> {
    let agent_version = tables.take_string(columns, Column::AgentVersions)?;
    let boot_id = tables.take_string(columns, Column::AgentBootIds)?;
    let sensor_count: usize = columns.take_as(Column::AgentSensorCounts)?;
    if sensor_count > SENSORS_MAX {
        return Err(Column::AgentSensorCounts.error("has too many sensors"));
    }
    let mut sensors = Vec::with_capacity(sensor_count);
    for _ in 0..sensor_count {
        let name = tables.take_string(columns, Column::AgentSensorNames)?;
        let origin = Origin::from_code(columns.take(Column::AgentSensorOrigins)?)
            .ok_or(Column::AgentSensorOrigins.error("has an unknown origin"))?;
        let reason = tables.take_string(columns, Column::AgentSensorReasons)?;
        sensors.push(SensorMode { name: name.into(), origin, reason: reason.into() });
    }
    Ok(AgentStart { agent_version: agent_version.into(), boot_id: boot_id.into(), sensors })
}

fn take_duration(columns: &mut ColumnReader<'_>, column: Column, time: i64, start: i64) -> Result<u64, BatchError> {
    let expected = time.wrapping_sub(start).cast_unsigned();
    Ok(expected.wrapping_add_signed(columns.take_signed(column)?))
}

fn when<T>(present: bool, take: impl FnOnce() -> Result<T, BatchError>) -> Result<Option<T>, BatchError> {
    present.then(take).transpose()
}
