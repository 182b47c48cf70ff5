//! The columns of a batch as protobuf bytes: `picket.v1.BatchColumns` of `proto/picket/v1/batch.proto`.
//!
//! Packed columns of protobuf are runs of varints, so the encoder appends to them and the decoder walks them in place:
//! no vector of decoded integers lies between, and a decoder allocates nothing for what a payload merely claims.
//! Tests hold these bytes to the generated message.

use crate::batch::error::BatchError;
use crate::batch::varint;
use crate::batch::version::Version;

/// Lists the columns once: their order here is their field number, from 1.
macro_rules! columns {
    ($($variant:ident $name:literal,)+) => {
        /// A column of the batch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Column {
            $($variant,)+
        }

        impl Column {
            pub(super) const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];
            pub(super) const COUNT: usize = Self::ALL.len();

            /// The name of the field in the `.proto` file.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

columns! {
    StringBytes "string_bytes",
    StringLengths "string_lengths",
    ListLengths "list_lengths",
    ListStrings "list_strings",
    ProcessPids "process_pids",
    ProcessStartTimes "process_start_times",
    ContextWorkingDirectories "context_working_directories",
    ContextUserIds "context_user_ids",
    ContextGroupIds "context_group_ids",
    ContextUserNames "context_user_names",
    ContextSessionIds "context_session_ids",
    ContextTerminals "context_terminals",
    ContextStreams "context_streams",
    ContextAncestors "context_ancestors",
    ConnectionCookies "connection_cookies",
    ConnectionKinds "connection_kinds",
    ConnectionLocalAddresses "connection_local_addresses",
    ConnectionLocalPorts "connection_local_ports",
    ConnectionRemoteAddresses "connection_remote_addresses",
    ConnectionRemotePorts "connection_remote_ports",
    ConnectionProcesses "connection_processes",
    ConnectionExecutables "connection_executables",
    ConnectionUserIds "connection_user_ids",
    EventKinds "event_kinds",
    EventOrigins "event_origins",
    EventTimes "event_times",
    StartProcesses "start_processes",
    StartParents "start_parents",
    StartExecutables "start_executables",
    StartArguments "start_arguments",
    StartContexts "start_contexts",
    StartFlags "start_flags",
    ExitProcesses "exit_processes",
    ExitExecutables "exit_executables",
    ExitFlags "exit_flags",
    ExitCodes "exit_codes",
    ExitSignals "exit_signals",
    ExitDurations "exit_durations",
    OpenConnections "open_connections",
    CloseConnections "close_connections",
    CloseFlags "close_flags",
    CloseBytesSent "close_bytes_sent",
    CloseBytesReceived "close_bytes_received",
    CloseSegmentsSent "close_segments_sent",
    CloseSegmentsReceived "close_segments_received",
    CloseDurations "close_durations",
    AuthenticationUserNames "authentication_user_names",
    AuthenticationFlags "authentication_flags",
    AuthenticationServices "authentication_services",
    AuthenticationSources "authentication_sources",
    AuthenticationProcesses "authentication_processes",
    LossKinds "loss_kinds",
    LossCounts "loss_counts",
    LossEpochs "loss_epochs",
    AgentVersions "agent_versions",
    AgentBootIds "agent_boot_ids",
    AgentSensorCounts "agent_sensor_counts",
    AgentSensorNames "agent_sensor_names",
    AgentSensorOrigins "agent_sensor_origins",
    AgentSensorReasons "agent_sensor_reasons",
    ContextCgroupIds "context_cgroup_ids",
    ContextCgroups "context_cgroups",
    ConnectionCgroupIds "connection_cgroup_ids",
    StartExecutableFiles "start_executable_files",
    StartScripts "start_scripts",
    ExitCpuTimes "exit_cpu_times",
    ListenConnections "listen_connections",
    AuthenticationMethods "authentication_methods",
    AuthenticationActingUserNames "authentication_acting_user_names",
    AuthenticationTerminals "authentication_terminals",
    AuthenticationCommands "authentication_commands",
    AuthenticationUserIds "authentication_user_ids",
    AuthenticationSourcePorts "authentication_source_ports",
    FileFlags "file_flags",
    FilePaths "file_paths",
    FileNewPaths "file_new_paths",
    FileModes "file_modes",
    FileOwnerIds "file_owner_ids",
    FileProcesses "file_processes",
    FileExecutables "file_executables",
    FileUserIds "file_user_ids",
    DnsFlags "dns_flags",
    DnsNames "dns_names",
    DnsQueryTypes "dns_query_types",
    DnsResponseCodes "dns_response_codes",
    DnsAnswers "dns_answers",
    DnsServerAddresses "dns_server_addresses",
    DnsServerPorts "dns_server_ports",
    DnsTransactionIds "dns_transaction_ids",
    DnsProcesses "dns_processes",
    DnsExecutables "dns_executables",
    DnsUserIds "dns_user_ids",
    DnsDurations "dns_durations",
    KernelFlags "kernel_flags",
    KernelObjects "kernel_objects",
    KernelValues "kernel_values",
    KernelTargets "kernel_targets",
    KernelProcesses "kernel_processes",
    KernelExecutables "kernel_executables",
    KernelUserIds "kernel_user_ids",
    ChangeSubjects "change_subjects",
    ChangesBefore "changes_before",
    ChangesAfter "changes_after",
    ChangeReasons "change_reasons",
    SummaryCounts "summary_counts",
}

/// The columns that version 1 of the frame had.
const VERSION_1_COLUMNS: usize = Column::AgentSensorReasons as usize + 1;

/// Protobuf wire type of packed columns and bytes.
const LENGTH_DELIMITED: u64 = 2;
/// Most bytes a column takes in the payload beside its values: its key and its length.
pub(super) const COLUMN_OVERHEAD_BYTES_MAX: usize = 2 + 5;

impl Column {
    /// Key before the column in the payload: field number and wire type.
    fn key(self) -> u64 {
        ((self as u64) + 1) << 3 | LENGTH_DELIMITED
    }

    /// This column is wrong in that it `problem`.
    pub(super) fn error(self, problem: &'static str) -> BatchError {
        BatchError::Column { column: self.name(), problem }
    }

    fn from_key(key: u64, version: Version) -> Option<Self> {
        let known = match version {
            Version::V1 => &Self::ALL[..VERSION_1_COLUMNS],
            Version::V2 => &Self::ALL,
        };
        let index = usize::try_from(key >> 3).ok()?.checked_sub(1)?;
        known.get(index).copied().filter(|column| column.key() == key)
    }
}

/// Columns being written. Cleared and used again, they keep their memory.
#[derive(Debug)]
pub(super) struct ColumnWriter {
    columns: [Vec<u8>; Column::COUNT],
    bytes: usize,
}

impl ColumnWriter {
    pub(super) fn new() -> Self {
        Self { columns: [const { Vec::new() }; Column::COUNT], bytes: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Vec::clear);
        self.bytes = 0;
    }

    /// Bytes of all values so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn put(&mut self, column: Column, value: u64) {
        self.bytes += varint::put(&mut self.columns[column as usize], value);
    }

    pub(super) fn put_signed(&mut self, column: Column, value: i64) {
        self.put(column, varint::zigzag(value));
    }

    pub(super) fn put_bytes(&mut self, column: Column, bytes: &[u8]) {
        self.columns[column as usize].extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn clear_column(&mut self, column: Column) {
        self.bytes -= self.columns[column as usize].len();
        self.columns[column as usize].clear();
    }

    /// The bytes of one column.
    pub(super) fn column(&self, column: Column) -> &[u8] {
        &self.columns[column as usize]
    }

    /// Appends the protobuf message of all columns that are not empty.
    pub(super) fn write_to(&self, payload: &mut Vec<u8>) {
        for column in Column::ALL {
            let bytes = &self.columns[column as usize];
            if !bytes.is_empty() {
                varint::put(payload, column.key());
                varint::put(payload, bytes.len() as u64);
                payload.extend_from_slice(bytes);
            }
        }
    }
}

/// A column of differences (event times, start times) being written. Its unit, the greatest common divisor of all
/// differences, is known only at the end: clock ticks and microseconds then take one or two bytes, not four.
#[derive(Debug, Default)]
pub(super) struct DeltaWriter {
    first: i64,
    deltas: Vec<i64>,
    unit: u64,
    is_empty: bool,
    bytes: usize,
}

impl DeltaWriter {
    pub(super) fn new() -> Self {
        Self { is_empty: true, ..Self::default() }
    }

    pub(super) fn clear(&mut self) {
        self.deltas.clear();
        (self.first, self.unit, self.is_empty, self.bytes) = (0, 0, true, 0);
    }

    /// No fewer bytes than [`Self::write_to`] will take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends `value`; `reference` is the value that the decoder will know then, ignored the first time.
    pub(super) fn put(&mut self, value: i64, reference: i64) {
        if self.is_empty {
            (self.first, self.is_empty) = (value, false);
            self.bytes = 2 * varint::VARINT_BYTES_MAX;
            return;
        }
        let delta = value.wrapping_sub(reference);
        self.unit = greatest_common_divisor(self.unit, delta.unsigned_abs());
        self.bytes += varint::encoded_len(varint::zigzag(delta));
        self.deltas.push(delta);
    }

    /// Writes unit, first value and differences in units, in place of what was there.
    pub(super) fn write_to(&self, columns: &mut ColumnWriter, column: Column) {
        columns.clear_column(column);
        if self.is_empty {
            return;
        }
        // At most 2^63, which wraps to `i64::MIN`: quotient and product are right even then.
        let unit = self.unit.max(1).cast_signed();
        columns.put_signed(column, unit);
        columns.put_signed(column, self.first);
        for delta in &self.deltas {
            columns.put_signed(column, delta.wrapping_div(unit));
        }
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Columns being read, each from its first value on.
#[derive(Debug)]
pub(super) struct ColumnReader<'a> {
    version: Version,
    columns: [&'a [u8]; Column::COUNT],
}

impl<'a> ColumnReader<'a> {
    /// Finds the columns in `payload`: each at most once, in ascending order, none that is unknown.
    pub(super) fn new(mut payload: &'a [u8], version: Version) -> Result<Self, BatchError> {
        let mut columns = [[].as_slice(); Column::COUNT];
        let mut next = 0;
        while !payload.is_empty() {
            let key = varint::take(&mut payload).ok_or(BatchError::Columns("a field's key is cut short"))?;
            let column =
                Column::from_key(key, version).ok_or(BatchError::Columns("a field is unknown or has a wrong type"))?;
            if (column as usize) < next {
                return Err(BatchError::Columns("fields are repeated or not in ascending order"));
            }
            next = column as usize + 1;
            let bytes = varint::take(&mut payload)
                .and_then(|length| usize::try_from(length).ok())
                .and_then(|length| payload.split_off(..length))
                .ok_or(BatchError::Columns("a field is longer than the payload"))?;
            columns[column as usize] = bytes;
        }
        Ok(Self { version, columns })
    }

    /// The version of the frame they are from.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn take(&mut self, column: Column) -> Result<u64, BatchError> {
        let rest = &mut self.columns[column as usize];
        varint::take(rest).ok_or(column.error("ends early or has a bad varint"))
    }

    pub(super) fn take_signed(&mut self, column: Column) -> Result<i64, BatchError> {
        self.take(column).map(varint::unzigzag)
    }

    /// Takes a value that must fit a narrower type.
    pub(super) fn take_as<T: TryFrom<u64>>(&mut self, column: Column) -> Result<T, BatchError> {
        let value = self.take(column)?;
        T::try_from(value).map_err(|_| column.error("has a value out of range"))
    }

    pub(super) fn take_bytes(&mut self, column: Column, length: usize) -> Result<&'a [u8], BatchError> {
        let rest = &mut self.columns[column as usize];
        rest.split_off(..length).ok_or(column.error("ends early"))
    }

    /// Bytes not yet taken from a column.
    pub(super) fn remaining_bytes(&self, column: Column) -> usize {
        self.columns[column as usize].len()
    }

    /// Refuses columns that hold more than the events took.
    pub(super) fn finish(&self) -> Result<(), BatchError> {
        match Column::ALL.into_iter().find(|&column| self.remaining_bytes(column) > 0) {
            Some(column) => Err(column.error("has more values than the events")),
            None => Ok(()),
        }
    }
}

/// A column of differences being read.
#[derive(Debug, Default)]
pub(super) struct DeltaReader {
    /// `None` until the first value is taken.
    unit: Option<i64>,
}

impl DeltaReader {
    /// The next value; `reference` is what the encoder subtracted.
    pub(super) fn take(
        &mut self,
        columns: &mut ColumnReader<'_>,
        column: Column,
        reference: i64,
    ) -> Result<i64, BatchError> {
        if let Some(unit) = self.unit {
            let delta = columns.take_signed(column)?.wrapping_mul(unit);
            return Ok(reference.wrapping_add(delta));
        }
        self.unit = Some(columns.take_signed(column)?);
        columns.take_signed(column)
    }
}
