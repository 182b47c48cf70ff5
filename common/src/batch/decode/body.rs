//! The columns of each class, in the order in which `encode/body.rs` puts them.

use super::tables::{Tables, take_option};
use crate::batch::NANOSECONDS_PER_MICROSECOND;
use crate::batch::columns::{Column, ColumnReader};
use crate::batch::error::BatchError;
use crate::batch::version::Version;
use crate::event::limits::SENSORS_MAX;
use crate::event::{
    AgentChange, AgentStart, Authentication, AuthenticationAction, ConnectionClose, ConnectionOutcome,
    ConnectionSummary, DnsAction, DnsActivity, EventBody, EventKind, FileAction, FileActivity, KernelAction,
    KernelActivity, LossReason, LossStage, Origin, ProcessExit, ProcessStart, Protocol, SensorLoss, SensorMode,
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
        EventKind::ConnectionSummary => {
            let close = take_connection_close(columns, tables, time)?;
            let count = columns.take(Column::SummaryCounts)?;
            EventBody::ConnectionSummary(Box::new(ConnectionSummary { close, count }))
        }
        EventKind::ConnectionListen => {
            let (connection, _) = tables.take_connection(columns, Column::ListenConnections, time)?;
            EventBody::ConnectionListen(Box::new(connection))
        }
        EventKind::FileActivity => EventBody::FileActivity(Box::new(take_file_activity(columns, tables)?)),
        EventKind::DnsActivity => EventBody::DnsActivity(Box::new(take_dns_activity(columns, tables)?)),
        EventKind::KernelActivity => EventBody::KernelActivity(Box::new(take_kernel_activity(columns, tables)?)),
        EventKind::AgentChange => EventBody::AgentChange(Box::new(take_agent_change(columns, tables)?)),
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
        executable_deleted: tristate(flags >> 2, Column::StartFlags)?,
        seeded: flags & 2 != 0,
        cgroup_id: context.cgroup_id,
        cgroup: context.cgroup.into(),
        executable_file: tables.take_file_id(columns, Column::StartExecutableFiles)?,
        script: tables.take_string_since_v2(columns, Column::StartScripts)?.into(),
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
    let known = match columns.version() {
        Version::V1 => flags >> 3 == 0,
        Version::V2 => flags >> 5 == 0 && flags & 24 != 16,
    };
    if !known {
        return Err(Column::ExitFlags.error(UNKNOWN_FLAGS));
    }
    let exit_code = when(flags & 1 != 0, || {
        let code = columns.take_signed(Column::ExitCodes)?;
        i32::try_from(code).map_err(|_| Column::ExitCodes.error("has a value that does not fit 32 bits"))
    })?;
    let signal = when(flags & 2 != 0, || columns.take_as(Column::ExitSignals))?;
    let duration_ns =
        when(flags & 4 != 0, || take_duration(columns, Column::ExitDurations, time, process.start_time.0))?;
    let cpu_time_ns = when(flags & 8 != 0, || {
        let unit = if flags & 16 != 0 { NANOSECONDS_PER_MICROSECOND } else { 1 };
        let time = columns.take(Column::ExitCpuTimes)?.checked_mul(unit);
        time.ok_or(Column::ExitCpuTimes.error("has a value out of range"))
    })?;
    Ok(ProcessExit { process, executable: executable.into(), exit_code, signal, duration_ns, cpu_time_ns })
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
    let flag_bits = if columns.version() == Version::V1 { 2 } else { 5 };
    if flags >> flag_bits != 0 {
        return Err(Column::AuthenticationFlags.error(UNKNOWN_FLAGS));
    }
    let source = when(flags & 2 != 0, || tables.take_ip_address(columns, Column::AuthenticationSources))?;
    let process = tables.take_process(columns, Column::AuthenticationProcesses)?;
    let mut text = |column| tables.take_string_since_v2(columns, column).map(Into::into);
    Ok(Authentication {
        action: AuthenticationAction::from_code(flags >> 2 & 1)
            .ok_or(Column::AuthenticationFlags.error(UNKNOWN_FLAGS))?,
        user_name: user_name.into(),
        user_exists: tristate(flags >> 3, Column::AuthenticationFlags)?,
        success: flags & 1 != 0,
        service: service.into(),
        method: text(Column::AuthenticationMethods)?,
        acting_user_name: text(Column::AuthenticationActingUserNames)?,
        terminal: text(Column::AuthenticationTerminals)?,
        command: text(Column::AuthenticationCommands)?,
        source,
        process,
        user_id: when(columns.version() >= Version::V2, || take_option(columns, Column::AuthenticationUserIds))?
            .flatten(),
        source_port: when(columns.version() >= Version::V2, || {
            take_narrow_option(columns, Column::AuthenticationSourcePorts)
        })?
        .flatten(),
    })
}

fn take_file_activity<'a>(columns: &mut ColumnReader<'a>, tables: &mut Tables<'a>) -> Result<FileActivity, BatchError> {
    let flags = columns.take(Column::FileFlags)?;
    let action = FileAction::from_code(flags & 7).ok_or(Column::FileFlags.error(UNKNOWN_FLAGS))?;
    let path = tables.take_string(columns, Column::FilePaths)?;
    let new_path = tables.take_string(columns, Column::FileNewPaths)?;
    let process = tables.take_process_entry(columns, Column::FileProcesses)?;
    let executable = tables.take_executable(columns, Column::FileExecutables, process)?;
    Ok(FileActivity {
        action,
        path: path.into(),
        new_path: new_path.into(),
        is_directory: tristate(flags >> 3, Column::FileFlags)?,
        mode: take_option(columns, Column::FileModes)?,
        owner_id: take_option(columns, Column::FileOwnerIds)?,
        process: process.map(|entry| tables.process(entry)),
        executable: executable.into(),
        user_id: take_option(columns, Column::FileUserIds)?,
    })
}

fn take_dns_activity<'a>(columns: &mut ColumnReader<'a>, tables: &mut Tables<'a>) -> Result<DnsActivity, BatchError> {
    let flags = columns.take(Column::DnsFlags)?;
    let unknown = Column::DnsFlags.error(UNKNOWN_FLAGS);
    if flags >> 7 != 0 {
        return Err(unknown);
    }
    let action = DnsAction::from_code(flags & 1).ok_or(unknown.clone())?;
    let protocol = Protocol::from_code(flags >> 1 & 7).ok_or(unknown)?;
    let name = tables.take_string(columns, Column::DnsNames)?;
    let answers = tables.take_strings(columns, Column::DnsAnswers)?;
    let server = when(flags & 32 != 0, || {
        tables.take_socket_address(columns, Column::DnsServerAddresses, Column::DnsServerPorts)
    })?;
    let process = tables.take_process_entry(columns, Column::DnsProcesses)?;
    let executable = tables.take_executable(columns, Column::DnsExecutables, process)?;
    Ok(DnsActivity {
        action,
        name: name.into(),
        query_type: columns.take_as(Column::DnsQueryTypes)?,
        response_code: take_narrow_option(columns, Column::DnsResponseCodes)?,
        answers,
        answers_truncated: flags & 16 != 0,
        server,
        protocol,
        transaction_id: columns.take_as(Column::DnsTransactionIds)?,
        process: process.map(|entry| tables.process(entry)),
        executable: executable.into(),
        user_id: take_option(columns, Column::DnsUserIds)?,
        duration_ns: when(flags & 64 != 0, || columns.take(Column::DnsDurations))?,
    })
}

fn take_kernel_activity<'a>(
    columns: &mut ColumnReader<'a>,
    tables: &mut Tables<'a>,
) -> Result<KernelActivity, BatchError> {
    let flags = columns.take(Column::KernelFlags)?;
    let action = KernelAction::from_code(flags & 15).ok_or(Column::KernelFlags.error(UNKNOWN_FLAGS))?;
    let object = tables.take_string(columns, Column::KernelObjects)?;
    let value = when(flags & 16 != 0, || columns.take(Column::KernelValues))?;
    let target = tables.take_process(columns, Column::KernelTargets)?;
    let process = tables.take_process_entry(columns, Column::KernelProcesses)?;
    let executable = tables.take_executable(columns, Column::KernelExecutables, process)?;
    Ok(KernelActivity {
        action,
        object: object.into(),
        value,
        target,
        success: tristate(flags >> 5, Column::KernelFlags)?,
        process: process.map(|entry| tables.process(entry)),
        executable: executable.into(),
        user_id: take_option(columns, Column::KernelUserIds)?,
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

fn take_agent_change<'a>(columns: &mut ColumnReader<'a>, tables: &mut Tables<'a>) -> Result<AgentChange, BatchError> {
    let mut text = |column| tables.take_string(columns, column).map(Into::into);
    Ok(AgentChange {
        subject: text(Column::ChangeSubjects)?,
        before: text(Column::ChangesBefore)?,
        after: text(Column::ChangesAfter)?,
        reason: text(Column::ChangeReasons)?,
    })
}

/// 0 for unknown, 1 for no, 2 for yes: the last of the flags in a column.
fn tristate(flags: u64, column: Column) -> Result<Option<bool>, BatchError> {
    match flags {
        0 => Ok(None),
        1 => Ok(Some(false)),
        2 => Ok(Some(true)),
        _ => Err(column.error(UNKNOWN_FLAGS)),
    }
}

/// Takes a value of 16 bits that may be unknown.
fn take_narrow_option(columns: &mut ColumnReader<'_>, column: Column) -> Result<Option<u16>, BatchError> {
    let value = take_option(columns, column)?.map(u16::try_from).transpose();
    value.map_err(|_| column.error("has a value that does not fit 16 bits"))
}

fn take_duration(columns: &mut ColumnReader<'_>, column: Column, time: i64, start: i64) -> Result<u64, BatchError> {
    let expected = time.wrapping_sub(start).cast_unsigned();
    Ok(expected.wrapping_add_signed(columns.take_signed(column)?))
}

fn when<T>(present: bool, take: impl FnOnce() -> Result<T, BatchError>) -> Result<Option<T>, BatchError> {
    present.then(take).transpose()
}
