//! Linux audit, raw: the records of one event (same time and serial) together make a program start; a `USER_LOGIN` is a
//! login by itself.
//!
//! A start is what has an `EXECVE` record and a `SYSCALL` record that says it succeeded. What was started before is
//! remembered, bounded, so that programs have a parent and ancestors.

use std::collections::{BTreeMap, VecDeque};

use crate::event::limits::{ANCESTORS_MAX, ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX};
use crate::event::{
    Authentication, AuthenticationAction, ByteString, EventBody, ProcessId, ProcessStart, StreamKind, Timestamp,
};
use crate::import::auditd::record::{Fields, Record};
use crate::import::{Draft, LineError};

mod record;

/// Most events whose records are still coming; further ones complete the oldest.
const OPEN_EVENTS_MAX: usize = 64;
/// Most processes remembered; the oldest are forgotten first.
const PROCESSES_MAX: usize = 4_096;
/// Not set, in audit's numbers.
const UNSET: u32 = u32::MAX;

/// Puts records together.
#[derive(Debug, Default)]
pub(super) struct AuditdReader {
    open: BTreeMap<Key, Open>,
    /// In the order they began.
    order: VecDeque<Key>,
    processes: BTreeMap<u32, Known>,
    processes_in_order: VecDeque<u32>,
}

/// Names an event of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    node: String,
    time_ns: i64,
    serial: u64,
}

/// An event whose records are still coming.
#[derive(Debug, Default)]
struct Open {
    call: Option<Call>,
    has_arguments: bool,
    arguments: Vec<ByteString>,
    arguments_bytes: usize,
    arguments_truncated: bool,
    working_directory: ByteString,
}

/// What of a `SYSCALL` record is of use.
#[derive(Debug)]
struct Call {
    is_success: bool,
    pid: u32,
    parent_pid: u32,
    user_id: Option<u32>,
    group_id: Option<u32>,
    user_name: ByteString,
    session_id: Option<u32>,
    has_terminal: Option<bool>,
    executable: ByteString,
}

/// A process that was started.
#[derive(Debug)]
struct Known {
    process: ProcessId,
    parent_pid: u32,
    executable: ByteString,
}

impl AuditdReader {
    /// Reads a record. `false`: nothing is made of its kind.
    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<Draft>) -> Result<bool, LineError> {
        let record = Record::parse(line)?;
        let key = Key {
            node: String::from_utf8_lossy(record.node).chars().take(256).collect(),
            time_ns: record.time_ns,
            serial: record.serial,
        };
        match record.kind {
            b"SYSCALL" => {
                let call = call(&record.fields)?;
                self.event(key, out).call = Some(call);
            }
            b"EXECVE" => self.event(key, out).take_arguments(&record.fields)?,
            b"CWD" => {
                let folder = record.fields.text("cwd");
                self.event(key, out).working_directory = folder;
            }
            b"PROCTITLE" | b"EOE" => self.complete(&key, out),
            b"USER_LOGIN" => out.push(self.login(key, &record.fields)?),
            b"PATH" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The log has ended.
    pub(super) fn finish(&mut self, out: &mut Vec<Draft>) {
        while let Some(key) = self.order.front().cloned() {
            self.complete(&key, out);
        }
    }

    fn event(&mut self, key: Key, out: &mut Vec<Draft>) -> &mut Open {
        if !self.open.contains_key(&key) {
            if self.open.len() >= OPEN_EVENTS_MAX
                && let Some(oldest) = self.order.front().cloned()
            {
                self.complete(&oldest, out);
            }
            self.order.push_back(key.clone());
        }
        self.open.entry(key).or_default()
    }

    fn complete(&mut self, key: &Key, out: &mut Vec<Draft>) {
        let Some(open) = self.open.remove(key) else { return };
        self.order.retain(|other| other != key);
        if let Some(call) = open.call.filter(|call| open.has_arguments && call.is_success) {
            let time = Timestamp(key.time_ns);
            let process = self.remember(&call, time);
            let parent = self.processes.get(&call.parent_pid).map(|known| known.process);
            let start = ProcessStart {
                process,
                parent,
                ancestors: self.ancestors(call.parent_pid),
                executable: call.executable,
                arguments: open.arguments,
                arguments_truncated: open.arguments_truncated,
                working_directory: open.working_directory,
                user_id: call.user_id,
                group_id: call.group_id,
                user_name: call.user_name,
                session_id: call.session_id,
                has_terminal: call.has_terminal,
                standard_streams: [StreamKind::Unknown; 3],
                executable_deleted: None,
                seeded: false,
                cgroup_id: None,
                cgroup: ByteString::default(),
                executable_file: None,
                script: ByteString::default(),
            };
            out.push(Draft { host: key.node.clone(), time, body: EventBody::ProcessStart(Box::new(start)) });
        }
    }

    /// A pid that was seen before with the same parent is the same process, which starts another program.
    fn remember(&mut self, call: &Call, time: Timestamp) -> ProcessId {
        if let Some(known) = self.processes.get_mut(&call.pid).filter(|known| known.parent_pid == call.parent_pid) {
            known.executable = call.executable.clone();
            return known.process;
        }
        let process = ProcessId { pid: call.pid, start_time: time };
        let known = Known { process, parent_pid: call.parent_pid, executable: call.executable.clone() };
        if self.processes.insert(call.pid, known).is_none() {
            self.processes_in_order.push_back(call.pid);
        }
        if self.processes.len() > PROCESSES_MAX
            && let Some(oldest) = self.processes_in_order.pop_front()
        {
            self.processes.remove(&oldest);
        }
        process
    }

    fn ancestors(&self, parent_pid: u32) -> Vec<ByteString> {
        let known = |pid: &u32| self.processes.get(pid);
        let chain = std::iter::successors(known(&parent_pid), |child| known(&child.parent_pid));
        chain.take(ANCESTORS_MAX).map(|known| known.executable.clone()).collect()
    }

    fn login(&self, key: Key, fields: &Fields<'_>) -> Result<Draft, LineError> {
        let inner = fields.message();
        let is_success = match inner.raw("res").unwrap_or_default() {
            b"success" | b"1" => true,
            b"failed" | b"0" => false,
            _ => return Err(LineError::Malformed { field: "res", expected: "success or failed" }),
        };
        let program = inner.text("exe");
        let service = program.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let pid = fields.number("pid")?.and_then(|pid| self.processes.get(&pid));
        let user_id = inner.number("id")?.filter(|id| *id != UNSET);
        let terminal = inner.text("terminal");
        let body = Authentication {
            action: AuthenticationAction::Logon,
            user_name: inner.text("acct"),
            user_id,
            user_exists: None,
            success: is_success,
            service: ByteString::truncated(service),
            method: ByteString::default(),
            acting_user_name: ByteString::default(),
            terminal: if terminal.as_bytes() == b"?" { ByteString::default() } else { terminal },
            command: ByteString::default(),
            source: inner.raw("addr").and_then(|text| str::from_utf8(text).ok()).and_then(|text| text.parse().ok()),
            source_port: None,
            process: pid.map(|known| known.process),
        };
        let time = Timestamp(key.time_ns);
        Ok(Draft { host: key.node, time, body: EventBody::Authentication(Box::new(body)) })
    }
}

impl Open {
    /// `a0="ls" a1=2D6C …`; long ones come in parts, `a1_len=9000 a1[0]=… a1[1]=…`, over several records.
    fn take_arguments(&mut self, fields: &Fields<'_>) -> Result<(), LineError> {
        self.has_arguments = true;
        for (name, value) in fields.iter() {
            let Some((index, is_continued)) = argument_index(name) else { continue };
            let text = value.decoded();
            if is_continued && index + 1 == self.arguments.len() {
                self.append(&text);
            } else if index == self.arguments.len() {
                self.push(&text);
            } else if !self.arguments_truncated {
                return Err(LineError::Malformed { field: "EXECVE record", expected: "the next argument" });
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &[u8]) {
        let room = ARGUMENTS_BYTES_MAX - self.arguments_bytes;
        if self.arguments.len() >= ARGUMENTS_MAX || (room == 0 && !text.is_empty()) {
            self.arguments_truncated = true;
            return;
        }
        let kept = ByteString::truncated(&text[..text.len().min(room)]);
        self.arguments_truncated |= kept.len() < text.len();
        self.arguments_bytes += kept.len();
        self.arguments.push(kept);
    }

    fn append(&mut self, text: &[u8]) {
        let Some(last) = self.arguments.pop() else { return };
        self.arguments_bytes -= last.len();
        self.push(&[last.as_bytes(), text].concat());
    }
}

/// `a3` or `a3[1]`: the place of an argument, and whether this goes on with it.
fn argument_index(name: &[u8]) -> Option<(usize, bool)> {
    let digits = name.strip_prefix(b"a")?;
    let (index, part) = match digits.iter().position(|byte| *byte == b'[') {
        Some(at) => (&digits[..at], digits[at..].strip_prefix(b"[")?.strip_suffix(b"]")?),
        None => (digits, &b"0"[..]),
    };
    let number = |text: &[u8]| {
        let is_number = !text.is_empty() && text.len() < 9 && text.iter().all(u8::is_ascii_digit);
        is_number.then(|| str::from_utf8(text).ok()?.parse::<usize>().ok())?
    };
    Some((number(index)?, number(part)? > 0))
}

fn call(fields: &Fields<'_>) -> Result<Call, LineError> {
    let set = |number: Option<u32>| number.filter(|number| *number != UNSET);
    let terminal = fields.raw("tty").unwrap_or_default();
    Ok(Call {
        is_success: fields.raw("success") == Some(b"yes"),
        pid: fields.number("pid")?.ok_or(LineError::Missing("pid"))?,
        parent_pid: fields.number("ppid")?.unwrap_or(0),
        user_id: set(fields.number("euid")?),
        group_id: set(fields.number("egid")?),
        // Only in enriched logs.
        user_name: fields.text("EUID"),
        session_id: None,
        has_terminal: (!terminal.is_empty()).then(|| terminal != b"(none)"),
        executable: fields.text("exe"),
    })
}
