//! The five tables of a batch: what repeats is written once and then referred to.

use std::num::NonZeroU64;

use crate::batch::columns::{Column, ColumnWriter, DeltaWriter};
use crate::batch::interner::{Hash, Interned, Interner};
use crate::event::{ByteString, Connection, FileId, ProcessId, ProcessStart};

mod address;

/// Number of the empty string and of the empty list.
const EMPTY: u32 = 0;

/// A reference as it stands in a column.
#[derive(Clone, Copy)]
struct Reference(u64);

impl Reference {
    const DEFAULT: Self = Self(0);
    const NEW: Self = Self(1);

    fn absolute(interned: Interned) -> Self {
        if interned.is_new { Self::NEW } else { Self(u64::from(interned.id) + 2) }
    }

    /// Of a string or list, whose empty value is the default.
    fn or_empty(interned: Interned) -> Self {
        if interned.id == EMPTY { Self::DEFAULT } else { Self::absolute(interned) }
    }

    /// Counted back from the newest of `len` entries: what is referred to is mostly recent.
    fn relative(interned: Interned, len: usize) -> Self {
        if interned.is_new { Self::NEW } else { Self((len - 1 - interned.id as usize) as u64 + 2) }
    }
}

#[derive(Clone, Copy)]
struct ProcessEntry {
    process: ProcessId,
    /// What the batch last said of its executable.
    executable: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct ContextEntry {
    working_directory: u32,
    user_id: u64,
    group_id: u64,
    user_name: u32,
    session_id: u64,
    terminal: u64,
    streams: u64,
    ancestors: u32,
    cgroup_id: u64,
    cgroup: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct ConnectionEntry {
    cookie: u64,
    kind: u64,
    local: (u32, u16),
    remote: (u32, u16),
    process: Option<u32>,
    executable: u32,
    user_id: u64,
    cgroup_id: u64,
}

/// The tables of the batch being written.
pub(super) struct Tables {
    strings: Interner,
    /// Where each string ends in its column; string 0 is the empty one.
    string_ends: Vec<u32>,
    lists: Interner,
    /// The strings of all lists, and where each list ends; list 0 is the empty one.
    list_strings: Vec<u32>,
    list_ends: Vec<u32>,
    /// The list being looked up.
    list: Vec<Interned>,
    processes: Interner,
    process_entries: Vec<ProcessEntry>,
    process_start_times: DeltaWriter,
    newest_process: ProcessId,
    contexts: Interner,
    context_entries: Vec<ContextEntry>,
    connections: Interner,
    connection_entries: Vec<(ConnectionEntry, i64)>,
}

const NO_PROCESS: ProcessId = ProcessId { pid: 0, start_time: crate::event::Timestamp(0) };

impl Tables {
    pub(super) fn new() -> Self {
        let mut tables = Self {
            strings: Interner::new(),
            string_ends: Vec::new(),
            lists: Interner::new(),
            list_strings: Vec::new(),
            list_ends: Vec::new(),
            list: Vec::new(),
            processes: Interner::new(),
            process_entries: Vec::new(),
            process_start_times: DeltaWriter::new(),
            newest_process: NO_PROCESS,
            contexts: Interner::new(),
            context_entries: Vec::new(),
            connections: Interner::new(),
            connection_entries: Vec::new(),
        };
        tables.clear();
        tables
    }

    pub(super) fn clear(&mut self) {
        for interner in
            [&mut self.strings, &mut self.lists, &mut self.processes, &mut self.contexts, &mut self.connections]
        {
            interner.clear();
        }
        self.list_strings.clear();
        self.process_entries.clear();
        self.process_start_times.clear();
        self.newest_process = NO_PROCESS;
        self.context_entries.clear();
        self.connection_entries.clear();
        // The empty string and the empty list are there from the start.
        for ends in [&mut self.string_ends, &mut self.list_ends] {
            ends.clear();
            ends.push(0);
        }
    }

    /// Bytes that [`Self::write_deltas_to`] will write at most.
    pub(super) fn delta_bytes(&self) -> usize {
        self.process_start_times.bytes()
    }

    pub(super) fn write_deltas_to(&self, columns: &mut ColumnWriter) {
        self.process_start_times.write_to(columns, Column::ProcessStartTimes);
    }

    fn intern_string(&mut self, columns: &mut ColumnWriter, bytes: &[u8]) -> Interned {
        if bytes.is_empty() {
            return Interned { id: EMPTY, is_new: false };
        }
        let (ends, all) = (&self.string_ends, columns.column(Column::StringBytes));
        // Entry n of the interner is string n + 1.
        let found = self
            .strings
            .intern(Hash::of_bytes(bytes), |index| all[ends[index] as usize..ends[index + 1] as usize] == *bytes);
        if found.is_new {
            columns.put(Column::StringLengths, bytes.len() as u64);
            columns.put_bytes(Column::StringBytes, bytes);
            self.string_ends.push(narrow(columns.column(Column::StringBytes).len()));
        }
        Interned { id: found.id + 1, ..found }
    }

    /// Puts a reference to a string.
    pub(super) fn put_string(&mut self, columns: &mut ColumnWriter, column: Column, bytes: &[u8]) {
        let string = self.intern_string(columns, bytes);
        columns.put(column, Reference::or_empty(string).0);
    }

    /// Puts a reference to a file.
    pub(super) fn put_file_id(&mut self, columns: &mut ColumnWriter, column: Column, file: Option<FileId>) {
        let Some(file) = file else { return self.put_string(columns, column, &[]) };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&file.device.to_be_bytes());
        bytes[8..].copy_from_slice(&file.inode.to_be_bytes());
        self.put_string(columns, column, &bytes);
    }

    fn intern_list(&mut self, columns: &mut ColumnWriter, strings: &[ByteString]) -> Interned {
        if strings.is_empty() {
            return Interned { id: EMPTY, is_new: false };
        }
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        let mut hash = Hash::default();
        for string in strings {
            let string = self.intern_string(columns, string.as_bytes());
            hash = hash.word(u64::from(string.id));
            list.push(string);
        }
        let (ends, all) = (&self.list_ends, &self.list_strings);
        let found = self.lists.intern(hash.finish(), |index| {
            all[ends[index] as usize..ends[index + 1] as usize].iter().eq(list.iter().map(|string| &string.id))
        });
        if found.is_new {
            columns.put(Column::ListLengths, list.len() as u64);
            for &string in &list {
                columns.put(Column::ListStrings, Reference::or_empty(string).0);
                self.list_strings.push(string.id);
            }
            self.list_ends.push(narrow(self.list_strings.len()));
        }
        self.list = list;
        Interned { id: found.id + 1, ..found }
    }

    /// Puts a reference to a list of strings.
    pub(super) fn put_list(&mut self, columns: &mut ColumnWriter, column: Column, strings: &[ByteString]) {
        let list = self.intern_list(columns, strings);
        columns.put(column, Reference::or_empty(list).0);
    }

    fn intern_process(&mut self, columns: &mut ColumnWriter, process: ProcessId) -> Interned {
        let ProcessId { pid, start_time } = process;
        let hash = Hash::default().word(u64::from(pid)).word(start_time.0.cast_unsigned()).finish();
        let entries = &self.process_entries;
        let found = self.processes.intern(hash, |index| entries[index].process == process);
        if found.is_new {
            columns.put_signed(Column::ProcessPids, i64::from(pid) - i64::from(self.newest_process.pid));
            self.process_start_times.put(start_time.0, self.newest_process.start_time.0);
            if self.process_entries.is_empty() || start_time >= self.newest_process.start_time {
                self.newest_process = process;
            }
            self.process_entries.push(ProcessEntry { process, executable: EMPTY });
        }
        found
    }

    /// Puts a reference to a process; returns its number.
    pub(super) fn put_process(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        process: Option<ProcessId>,
    ) -> Option<u32> {
        let Some(process) = process else {
            columns.put(column, Reference::DEFAULT.0);
            return None;
        };
        let found = self.intern_process(columns, process);
        columns.put(column, Reference::relative(found, self.process_entries.len()).0);
        Some(found.id)
    }

    /// Puts a reference to the executable of a process: usually what was last said of it.
    pub(super) fn put_executable(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        executable: &ByteString,
        process: Option<u32>,
    ) {
        let string = self.intern_string(columns, executable.as_bytes());
        self.put_executable_reference(columns, column, string, process);
    }

    fn put_executable_reference(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        string: Interned,
        process: Option<u32>,
    ) {
        let entry = process.and_then(|process| self.process_entries.get_mut(process as usize));
        let last_said = entry.as_ref().map_or(EMPTY, |entry| entry.executable);
        if let Some(entry) = entry {
            entry.executable = string.id;
        }
        let reference = if string.id == last_said { Reference::DEFAULT } else { Reference::absolute(string) };
        columns.put(column, reference.0);
    }

    /// Puts a reference to the context of a process start.
    pub(super) fn put_context(&mut self, columns: &mut ColumnWriter, column: Column, start: &ProcessStart) {
        let working_directory = self.intern_string(columns, start.working_directory.as_bytes());
        let user_name = self.intern_string(columns, start.user_name.as_bytes());
        let ancestors = self.intern_list(columns, &start.ancestors);
        let cgroup = self.intern_string(columns, start.cgroup.as_bytes());
        let [input, output, error] = start.standard_streams.map(crate::event::StreamKind::code);
        let context = ContextEntry {
            working_directory: working_directory.id,
            user_id: option(start.user_id),
            group_id: option(start.group_id),
            user_name: user_name.id,
            session_id: option(start.session_id),
            terminal: option(start.has_terminal.map(u32::from)),
            streams: input | output << 3 | error << 6,
            ancestors: ancestors.id,
            cgroup_id: start.cgroup_id.map_or(0, NonZeroU64::get),
            cgroup: cgroup.id,
        };
        let entries = &self.context_entries;
        let found = self.contexts.intern(context.hash(), |index| entries[index] == context);
        if found.is_new {
            columns.put(Column::ContextWorkingDirectories, Reference::or_empty(working_directory).0);
            columns.put(Column::ContextUserIds, context.user_id);
            columns.put(Column::ContextGroupIds, context.group_id);
            columns.put(Column::ContextUserNames, Reference::or_empty(user_name).0);
            columns.put(Column::ContextSessionIds, context.session_id);
            columns.put(Column::ContextTerminals, context.terminal);
            columns.put(Column::ContextStreams, context.streams);
            columns.put(Column::ContextAncestors, Reference::or_empty(ancestors).0);
            columns.put(Column::ContextCgroupIds, context.cgroup_id);
            columns.put(Column::ContextCgroups, Reference::or_empty(cgroup).0);
            self.context_entries.push(context);
        }
        columns.put(column, Reference::absolute(found).0);
    }

    /// Puts a reference to a connection; returns when this batch first mentioned it (`time`, if it is new).
    pub(super) fn put_connection(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        connection: &Connection,
        time: i64,
    ) -> i64 {
        let process = connection.process.map(|process| self.intern_process(columns, process));
        let local = self.intern_socket_address(columns, connection.local);
        let remote = self.intern_socket_address(columns, connection.remote);
        let executable = self.intern_string(columns, connection.executable.as_bytes());
        let entry = ConnectionEntry {
            cookie: connection.cookie,
            kind: connection.protocol.code() | connection.direction.code() << 3,
            local: (local.id, connection.local.port()),
            remote: (remote.id, connection.remote.port()),
            process: process.map(|process| process.id),
            executable: executable.id,
            user_id: option(connection.user_id),
            cgroup_id: connection.cgroup_id.map_or(0, NonZeroU64::get),
        };
        let entries = &self.connection_entries;
        let found = self.connections.intern(entry.hash(), |index| entries[index].0 == entry);
        if found.is_new {
            let previous = self.connection_entries.last().map_or(0, |(entry, _)| entry.cookie);
            columns.put_signed(Column::ConnectionCookies, entry.cookie.wrapping_sub(previous).cast_signed());
            columns.put(Column::ConnectionKinds, entry.kind);
            columns.put(Column::ConnectionLocalAddresses, Reference::or_empty(local).0);
            columns.put(Column::ConnectionLocalPorts, u64::from(entry.local.1));
            columns.put(Column::ConnectionRemoteAddresses, Reference::or_empty(remote).0);
            columns.put(Column::ConnectionRemotePorts, u64::from(entry.remote.1));
            let process_count = self.process_entries.len();
            let process = process.map_or(Reference::DEFAULT, |process| Reference::relative(process, process_count));
            columns.put(Column::ConnectionProcesses, process.0);
            self.put_executable_reference(columns, Column::ConnectionExecutables, executable, entry.process);
            columns.put(Column::ConnectionUserIds, entry.user_id);
            columns.put(Column::ConnectionCgroupIds, entry.cgroup_id);
            self.connection_entries.push((entry, time));
        }
        columns.put(column, Reference::relative(found, self.connection_entries.len()).0);
        self.connection_entries[found.id as usize].1
    }
}

impl ContextEntry {
    fn hash(&self) -> u64 {
        Hash::default()
            .word(u64::from(self.working_directory) << 32 | u64::from(self.user_name))
            .word(self.user_id << 32 | self.group_id)
            .word(self.session_id << 32 | u64::from(self.ancestors))
            .word(self.terminal << 16 | self.streams)
            .word(self.cgroup_id)
            .word(u64::from(self.cgroup))
            .finish()
    }
}

impl ConnectionEntry {
    /// The cookie is enough: the same one with other content is rare.
    fn hash(&self) -> u64 {
        Hash::default().word(self.cookie).finish()
    }
}

/// 0 for an unknown value, value + 1 otherwise.
pub(super) fn option(value: Option<u32>) -> u64 {
    value.map_or(0, |value| u64::from(value) + 1)
}

/// Sizes within a batch, which are far below 2^32.
fn narrow(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
