//! The five tables of a batch, growing as events refer to new entries.
//!
//! Each entry is pulled in by a reference of an event, so the tables are bounded by the number of events.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::Range;

use crate::batch::columns::{Column, ColumnReader, DeltaReader};
use crate::batch::error::BatchError;
use crate::batch::version::Version;
use crate::event::limits::{ANCESTORS_MAX, ARGUMENTS_MAX, DNS_ANSWERS_MAX, STRING_BYTES_MAX};
use crate::event::{ByteString, Connection, Direction, FileId, ProcessId, Protocol, StreamKind, Timestamp};

mod address;

const LIST_STRINGS_MAX: usize = ARGUMENTS_MAX;
const _: () = assert!(ANCESTORS_MAX <= LIST_STRINGS_MAX && DNS_ANSWERS_MAX <= LIST_STRINGS_MAX);
const BEYOND_TABLE: &str = "refers beyond its table";

/// A reference as it stands in a column.
enum Reference {
    Default,
    New,
    /// Counted from the oldest entry, or back from the newest, as the column says.
    Entry(usize),
}

impl Reference {
    fn take(columns: &mut ColumnReader<'_>, column: Column) -> Result<Self, BatchError> {
        Ok(match columns.take(column)? {
            0 => Self::Default,
            1 => Self::New,
            entry => Self::Entry(usize::try_from(entry - 2).map_err(|_| column.error(BEYOND_TABLE))?),
        })
    }

    /// The entry of a reference that counts back from the newest of `len`.
    fn from_newest(entry: usize, len: usize, column: Column) -> Result<usize, BatchError> {
        len.checked_sub(1).and_then(|newest| newest.checked_sub(entry)).ok_or(column.error(BEYOND_TABLE))
    }
}

#[derive(Debug, Clone, Copy)]
struct ProcessEntry<'a> {
    process: ProcessId,
    /// What the batch last said of its executable.
    executable: &'a [u8],
}

/// What process starts of one shell or service have in common.
#[derive(Debug, Clone)]
pub(super) struct Context<'a> {
    pub(super) working_directory: &'a [u8],
    pub(super) user_id: Option<u32>,
    pub(super) group_id: Option<u32>,
    pub(super) user_name: &'a [u8],
    pub(super) session_id: Option<u32>,
    pub(super) has_terminal: Option<bool>,
    pub(super) standard_streams: [StreamKind; 3],
    /// Where its ancestors are in the lists.
    pub(super) ancestors: Range<usize>,
    pub(super) cgroup_id: Option<NonZeroU64>,
    pub(super) cgroup: &'a [u8],
}

#[derive(Debug, Clone)]
struct ConnectionEntry<'a> {
    cookie: u64,
    protocol: Protocol,
    direction: Direction,
    local: SocketAddr,
    remote: SocketAddr,
    process: Option<ProcessId>,
    executable: &'a [u8],
    user_id: Option<u32>,
    cgroup_id: Option<NonZeroU64>,
    /// When the batch first mentioned it.
    first_time: i64,
}

/// The tables of the batch being read.
#[derive(Debug, Default)]
pub(super) struct Tables<'a> {
    /// Without the empty string, which is entry 0.
    strings: Vec<&'a [u8]>,
    /// The strings of all lists.
    list_strings: Vec<&'a [u8]>,
    /// Without the empty list, which is entry 0.
    lists: Vec<Range<usize>>,
    processes: Vec<ProcessEntry<'a>>,
    process_start_times: DeltaReader,
    newest_process: Option<ProcessId>,
    contexts: Vec<Context<'a>>,
    connections: Vec<ConnectionEntry<'a>>,
}

impl<'a> Tables<'a> {
    /// Takes a reference to a string.
    pub(super) fn take_string(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<&'a [u8], BatchError> {
        self.take_string_or(columns, column, &[])
    }

    /// Takes a reference to a string that frames of version 1 do not have.
    pub(super) fn take_string_since_v2(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<&'a [u8], BatchError> {
        match columns.version() {
            Version::V1 => Ok(&[]),
            Version::V2 => self.take_string(columns, column),
        }
    }

    /// Takes a reference to a file, which frames of version 1 do not have.
    pub(super) fn take_file_id(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<Option<FileId>, BatchError> {
        let bytes = self.take_string_since_v2(columns, column)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let error = column.error("refers to a file that is not 16 bytes long");
        let (device, inode) = bytes.split_first_chunk::<8>().ok_or(error.clone())?;
        let inode = <[u8; 8]>::try_from(inode).map_err(|_| error)?;
        Ok(Some(FileId { device: u64::from_be_bytes(*device), inode: u64::from_be_bytes(inode) }))
    }

    fn take_string_or(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
        default: &'a [u8],
    ) -> Result<&'a [u8], BatchError> {
        match Reference::take(columns, column)? {
            Reference::Default => Ok(default),
            Reference::New => {
                let length = columns.take_as(Column::StringLengths)?;
                if length > STRING_BYTES_MAX {
                    return Err(Column::StringLengths.error("has a string that is too long"));
                }
                let string = columns.take_bytes(Column::StringBytes, length)?;
                self.strings.push(string);
                Ok(string)
            }
            Reference::Entry(0) => Ok(&[]),
            Reference::Entry(entry) => self.strings.get(entry - 1).copied().ok_or(column.error(BEYOND_TABLE)),
        }
    }

    fn take_list(&mut self, columns: &mut ColumnReader<'a>, column: Column) -> Result<Range<usize>, BatchError> {
        match Reference::take(columns, column)? {
            Reference::Default | Reference::Entry(0) => Ok(0..0),
            Reference::New => {
                let length: usize = columns.take_as(Column::ListLengths)?;
                if length > LIST_STRINGS_MAX {
                    return Err(Column::ListLengths.error("has a list that is too long"));
                }
                let start = self.list_strings.len();
                for _ in 0..length {
                    let string = self.take_string(columns, Column::ListStrings)?;
                    self.list_strings.push(string);
                }
                let list = start..self.list_strings.len();
                self.lists.push(list.clone());
                Ok(list)
            }
            Reference::Entry(entry) => self.lists.get(entry - 1).cloned().ok_or(column.error(BEYOND_TABLE)),
        }
    }

    /// Takes a reference to a list of strings.
    pub(super) fn take_strings(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<Vec<ByteString>, BatchError> {
        let list = self.take_list(columns, column)?;
        Ok(self.strings_of(list))
    }

    /// The strings of a list.
    pub(super) fn strings_of(&self, list: Range<usize>) -> Vec<ByteString> {
        self.list_strings.get(list).unwrap_or_default().iter().map(|string| ByteString::truncated(string)).collect()
    }

    /// Takes a reference to a process; returns its entry.
    pub(super) fn take_process_entry(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<Option<usize>, BatchError> {
        let entry = match Reference::take(columns, column)? {
            Reference::Default => return Ok(None),
            Reference::New => {
                let newest = self.newest_process.unwrap_or(ProcessId { pid: 0, start_time: Timestamp(0) });
                let pid = columns.take_signed(Column::ProcessPids)?.checked_add(i64::from(newest.pid));
                let pid = pid
                    .and_then(|pid| u32::try_from(pid).ok())
                    .ok_or(Column::ProcessPids.error("has a pid that does not fit 32 bits"))?;
                let start_time =
                    self.process_start_times.take(columns, Column::ProcessStartTimes, newest.start_time.0)?;
                let process = ProcessId { pid, start_time: Timestamp(start_time) };
                if self.newest_process.is_none_or(|newest| process.start_time >= newest.start_time) {
                    self.newest_process = Some(process);
                }
                self.processes.push(ProcessEntry { process, executable: &[] });
                self.processes.len() - 1
            }
            Reference::Entry(entry) => Reference::from_newest(entry, self.processes.len(), column)?,
        };
        Ok(Some(entry))
    }

    /// The process of an entry that [`Self::take_process_entry`] returned.
    pub(super) fn process(&self, entry: usize) -> ProcessId {
        self.processes[entry].process
    }

    /// Takes a reference to the executable of a process: usually what was last said of it.
    pub(super) fn take_executable(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
        process: Option<usize>,
    ) -> Result<&'a [u8], BatchError> {
        let last_said = process.map_or([].as_slice(), |entry| self.processes[entry].executable);
        let executable = self.take_string_or(columns, column, last_said)?;
        if let Some(entry) = process {
            self.processes[entry].executable = executable;
        }
        Ok(executable)
    }

    /// Takes a reference to a process.
    pub(super) fn take_process(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<Option<ProcessId>, BatchError> {
        let entry = self.take_process_entry(columns, column)?;
        Ok(entry.map(|entry| self.process(entry)))
    }

    /// Takes a reference to the context of a process start.
    pub(super) fn take_context(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<Context<'a>, BatchError> {
        match Reference::take(columns, column)? {
            Reference::Default => Err(column.error("has no context")),
            Reference::New => {
                let context = Context {
                    working_directory: self.take_string(columns, Column::ContextWorkingDirectories)?,
                    user_id: take_option(columns, Column::ContextUserIds)?,
                    group_id: take_option(columns, Column::ContextGroupIds)?,
                    user_name: self.take_string(columns, Column::ContextUserNames)?,
                    session_id: take_option(columns, Column::ContextSessionIds)?,
                    has_terminal: match columns.take(Column::ContextTerminals)? {
                        0 => None,
                        1 => Some(false),
                        2 => Some(true),
                        _ => return Err(Column::ContextTerminals.error("has an unknown value")),
                    },
                    standard_streams: take_streams(columns)?,
                    ancestors: self.take_list(columns, Column::ContextAncestors)?,
                    cgroup_id: take_cgroup_id(columns, Column::ContextCgroupIds)?,
                    cgroup: self.take_string_since_v2(columns, Column::ContextCgroups)?,
                };
                self.contexts.push(context.clone());
                Ok(context)
            }
            Reference::Entry(entry) => self.contexts.get(entry).cloned().ok_or(column.error(BEYOND_TABLE)),
        }
    }

    /// Takes a reference to a connection, at an event of `time`; returns also when the batch first mentioned it.
    pub(super) fn take_connection(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
        time: i64,
    ) -> Result<(Connection, i64), BatchError> {
        let entry = match Reference::take(columns, column)? {
            Reference::Default => return Err(column.error("has no connection")),
            Reference::New => {
                let entry = self.take_new_connection(columns, time)?;
                self.connections.push(entry);
                self.connections.len() - 1
            }
            Reference::Entry(entry) => Reference::from_newest(entry, self.connections.len(), column)?,
        };
        let entry = &self.connections[entry];
        let connection = Connection {
            cookie: entry.cookie,
            protocol: entry.protocol,
            direction: entry.direction,
            local: entry.local,
            remote: entry.remote,
            process: entry.process,
            executable: entry.executable.into(),
            user_id: entry.user_id,
            cgroup_id: entry.cgroup_id,
        };
        Ok((connection, entry.first_time))
    }

    fn take_new_connection(
        &mut self,
        columns: &mut ColumnReader<'a>,
        time: i64,
    ) -> Result<ConnectionEntry<'a>, BatchError> {
        let previous = self.connections.last().map_or(0, |connection| connection.cookie);
        let cookie = previous.wrapping_add_signed(columns.take_signed(Column::ConnectionCookies)?);
        let kind = columns.take(Column::ConnectionKinds)?;
        let unknown_kind = Column::ConnectionKinds.error("has an unknown protocol or direction");
        let protocol = Protocol::from_code(kind & 7).ok_or(unknown_kind.clone())?;
        let direction = Direction::from_code(kind >> 3).ok_or(unknown_kind)?;
        let local =
            self.take_socket_address(columns, Column::ConnectionLocalAddresses, Column::ConnectionLocalPorts)?;
        let remote =
            self.take_socket_address(columns, Column::ConnectionRemoteAddresses, Column::ConnectionRemotePorts)?;
        let process = self.take_process_entry(columns, Column::ConnectionProcesses)?;
        let executable = self.take_executable(columns, Column::ConnectionExecutables, process)?;
        let process = process.map(|entry| self.process(entry));
        let user_id = take_option(columns, Column::ConnectionUserIds)?;
        let cgroup_id = take_cgroup_id(columns, Column::ConnectionCgroupIds)?;
        Ok(ConnectionEntry {
            cookie,
            protocol,
            direction,
            local,
            remote,
            process,
            executable,
            user_id,
            cgroup_id,
            first_time: time,
        })
    }
}

/// Takes a cgroup's id, which frames of version 1 do not have.
fn take_cgroup_id(columns: &mut ColumnReader<'_>, column: Column) -> Result<Option<NonZeroU64>, BatchError> {
    match columns.version() {
        Version::V1 => Ok(None),
        Version::V2 => columns.take(column).map(NonZeroU64::new),
    }
}

/// Takes a value that may be unknown.
pub(super) fn take_option(columns: &mut ColumnReader<'_>, column: Column) -> Result<Option<u32>, BatchError> {
    match columns.take(column)?.checked_sub(1) {
        None => Ok(None),
        Some(value) => {
            u32::try_from(value).map(Some).map_err(|_| column.error("has a value that does not fit 32 bits"))
        }
    }
}

fn take_streams(columns: &mut ColumnReader<'_>) -> Result<[StreamKind; 3], BatchError> {
    let streams = columns.take(Column::ContextStreams)?;
    let unknown = Column::ContextStreams.error("has an unknown kind of stream");
    if streams >> 9 != 0 {
        return Err(unknown);
    }
    let kind = |shift: u32| StreamKind::from_code(streams >> shift & 7).ok_or(unknown.clone());
    Ok([kind(0)?, kind(3)?, kind(6)?])
}
