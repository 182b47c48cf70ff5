//! Records of the eBPF programs about processes, as `agent/bpf/process.bpf.c` writes them.
//!
//! Numbers are in the machine's byte order. All begin with kind and process id (`u32` each), the time of
//! `CLOCK_MONOTONIC` and the time of the process's creation after boot (nanoseconds, `u64` each).

use std::num::NonZeroU64;

use picket_common::event::limits::STRING_BYTES_MAX;
use picket_common::event::{ByteString, FileId, StreamKind};

use crate::enrich::process_details::{Arguments, ProcessDetails};
use crate::enrich::procfs::stream_kind;
use crate::sensor::netlink::{u32_at, u64_at};

/// Kinds of records.
pub(super) const FORK: u32 = 1;
pub(super) const EXEC: u32 = 2;
pub(super) const EXIT: u32 = 3;
/// What a cgroup is called: no event, and told again where it was lost.
const CGROUP: u32 = 4;

const HAS_TERMINAL: u32 = 1;
const EXECUTABLE_DELETED: u32 = 2;
const EXECUTABLE_COMPLETE: u32 = 4;
const DIRECTORY_COMPLETE: u32 = 8;
const ARGUMENTS_COMPLETE: u32 = 16;
const CGROUP_COMPLETE: u32 = 1;
/// Mode of a file that is not open.
const STREAM_CLOSED: u32 = u32::MAX;
/// Where a device's number is split into major and minor, in the kernel.
const DEVICE_MINOR_BITS: u32 = 20;
/// Where the text of a program start begins.
const EXEC_HEAD_BYTES: usize = 104;
/// Where the path of a cgroup begins.
const CGROUP_HEAD_BYTES: usize = 40;
/// Most bytes of arguments in a record; so many or more were cut.
const ARGUMENTS_BYTES_MAX: usize = picket_common::event::limits::ARGUMENTS_BYTES_MAX;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProcessRecord {
    pub(super) pid: u32,
    pub(super) monotonic_ns: u64,
    /// When the process was created, nanoseconds after boot.
    pub(super) created_ns: u64,
    pub(super) change: Change,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Forked {
        parent_pid: u32,
    },
    Executed(Box<ProcessDetails>),
    /// `executed`: it was a program of its own, not only a fork of another.
    Ended {
        status: u32,
        executed: bool,
        /// Time of all its threads on a processor.
        processor_ns: u64,
    },
    /// A cgroup is called so.
    CgroupNamed {
        id: NonZeroU64,
        path: Vec<u8>,
    },
}

/// Reads a record. `None` for what is none.
pub(super) fn parse(bytes: &[u8]) -> Option<ProcessRecord> {
    let value = u32_at(bytes, 24)?;
    let change = match u32_at(bytes, 0)? {
        FORK => Change::Forked { parent_pid: value },
        EXEC => Change::Executed(Box::new(details(bytes)?)),
        EXIT => Change::Ended { status: value, executed: u32_at(bytes, 28)? != 0, processor_ns: u64_at(bytes, 32)? },
        CGROUP => cgroup_named(bytes)?,
        _ => return None,
    };
    Some(ProcessRecord {
        pid: u32_at(bytes, 4)?,
        monotonic_ns: u64_at(bytes, 8)?,
        created_ns: u64_at(bytes, 16)?,
        change,
    })
}

/// What a program start says. What it could not say is empty: executable, folder, arguments.
fn details(bytes: &[u8]) -> Option<ProcessDetails> {
    let flags = u32_at(bytes, 28)?;
    let end = |offset: usize| Some(u32_at(bytes, offset)? as usize);
    let (executable_end, directory_end) = (end(88)?, end(92)?);
    let (script_end, arguments_end) = (end(96)?, end(100)?);
    let text = bytes.get(EXEC_HEAD_BYTES..)?;
    let part = |from: usize, to: usize, complete: u32| {
        let part = text.get(from..to)?;
        Some(if flags & complete == 0 { &[] } else { part })
    };
    let executable = path(part(0, executable_end, EXECUTABLE_COMPLETE)?, flags & EXECUTABLE_COMPLETE != 0);
    let directory = path(part(executable_end, directory_end, DIRECTORY_COMPLETE)?, flags & DIRECTORY_COMPLETE != 0);
    let script = text.get(directory_end..script_end)?;
    let arguments = part(script_end, arguments_end, ARGUMENTS_COMPLETE)?;
    let kept = arguments.len().min(ARGUMENTS_BYTES_MAX);
    let mut standard_streams = [StreamKind::Unknown; 3];
    for (number, stream) in standard_streams.iter_mut().enumerate() {
        *stream = stream_of(u32_at(bytes, 44 + 8 * number)?, u32_at(bytes, 48 + 8 * number)?);
    }
    Some(ProcessDetails {
        executable_deleted: (!executable.is_empty()).then_some(flags & EXECUTABLE_DELETED != 0),
        executable,
        executable_file: Some(FileId { device: device_number(u32_at(bytes, 68)?), inode: u64_at(bytes, 72)? }),
        script: script_path(script, &directory),
        arguments: Arguments::from_nul_terminated(&arguments[..kept], kept < arguments.len()),
        working_directory: ByteString::truncated(&directory),
        user_id: Some(u32_at(bytes, 32)?),
        group_id: Some(u32_at(bytes, 36)?),
        session_id: Some(u32_at(bytes, 40)?),
        has_terminal: Some(flags & HAS_TERMINAL != 0),
        standard_streams,
        parent_pid: Some(u32_at(bytes, 24)?).filter(|&pid| pid != 0),
        start_time: None,
        thread_count: None,
        is_kernel_thread: false,
        cgroup_id: NonZeroU64::new(u64_at(bytes, 80)?),
        cgroup: ByteString::default(),
    })
}

fn cgroup_named(bytes: &[u8]) -> Option<Change> {
    let id = NonZeroU64::new(u64_at(bytes, 24)?)?;
    let is_complete = u32_at(bytes, 32)? & CGROUP_COMPLETE != 0;
    let length = u32_at(bytes, 36)? as usize;
    let names = bytes.get(CGROUP_HEAD_BYTES..)?.get(..length)?;
    Some(Change::CgroupNamed { id, path: if is_complete { path(names, true) } else { Vec::new() } })
}

/// A device as `stat` numbers it, from the number that the kernel has.
fn device_number(device: u32) -> u64 {
    rustix::fs::makedev(device >> DEVICE_MINOR_BITS, device & ((1 << DEVICE_MINOR_BITS) - 1))
}

/// A script's path as it was asked for, from the root where the working directory is known.
fn script_path(asked: &[u8], directory: &[u8]) -> ByteString {
    let asked = asked.strip_suffix(b"\0").unwrap_or(asked);
    if asked.is_empty() || asked.starts_with(b"/") || directory.is_empty() {
        return ByteString::truncated(asked);
    }
    let asked = asked.strip_prefix(b"./").unwrap_or(asked);
    let separator: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    let path = [directory, separator, asked].concat();
    // Half a path would be another one.
    if path.len() > STRING_BYTES_MAX { ByteString::truncated(asked) } else { ByteString::truncated(&path) }
}

/// A path out of its names, the last first and each ended by NUL.
fn path(names: &[u8], complete: bool) -> Vec<u8> {
    let mut path = Vec::with_capacity(names.len() + 1);
    for name in names.strip_suffix(b"\0").unwrap_or(names).rsplit(|&byte| byte == 0) {
        if !name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
    }
    if path.is_empty() && complete {
        path.push(b'/');
    }
    path
}

fn stream_of(mode: u32, device: u32) -> StreamKind {
    match mode {
        STREAM_CLOSED => StreamKind::Closed,
        0 => StreamKind::Unknown,
        mode => stream_kind(mode, (device >> DEVICE_MINOR_BITS, device & ((1 << DEVICE_MINOR_BITS) - 1))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(kind: u32) -> Vec<u8> {
        let mut bytes = [kind, 42].map(u32::to_ne_bytes).concat();
        bytes.extend_from_slice(&[7_u64, 9].map(u64::to_ne_bytes).concat());
        bytes
    }

    fn exec(flags: u32, arguments: &[u8]) -> Vec<u8> {
        let mut bytes = head(EXEC);
        let parts: [&[u8]; 4] = [b"sh\0bin\0usr\0", b"root\0", b"./run.sh\0", arguments];
        let numbers =
            [3, flags, 1000, 1001, 5, 0o020_666, 1 << 20 | 3, STREAM_CLOSED, 0, 0o010_600, 0, 8 << 20 | 0x301];
        bytes.extend_from_slice(&numbers.map(u32::to_ne_bytes).concat());
        bytes.extend_from_slice(&[77_u64, 4711].map(u64::to_ne_bytes).concat());
        let mut end = 0;
        for part in parts {
            end += u32::try_from(part.len()).unwrap();
            bytes.extend_from_slice(&end.to_ne_bytes());
        }
        bytes.extend_from_slice(&parts.concat());
        bytes
    }

    fn executed(bytes: &[u8]) -> ProcessDetails {
        match parse(bytes).unwrap().change {
            Change::Executed(details) => *details,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn forks_and_ends_are_read() {
        let mut bytes = head(FORK);
        bytes.extend_from_slice(&[3_u32, 0].map(u32::to_ne_bytes).concat());
        let record = parse(&bytes).unwrap();
        assert_eq!((record.pid, record.monotonic_ns, record.created_ns), (42, 7, 9));
        assert_eq!(record.change, Change::Forked { parent_pid: 3 });
        bytes[..4].copy_from_slice(&EXIT.to_ne_bytes());
        bytes.extend_from_slice(&11_u64.to_ne_bytes());
        assert_eq!(parse(&bytes).unwrap().change, Change::Ended { status: 3, executed: false, processor_ns: 11 });
        bytes[..4].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(parse(&bytes), None);
    }

    #[test]
    fn a_program_start_is_read_and_its_paths_turned_round() {
        let all = EXECUTABLE_COMPLETE | DIRECTORY_COMPLETE | ARGUMENTS_COMPLETE;
        let details = executed(&exec(all | HAS_TERMINAL, b"sh\0-c\0\0x\0"));
        assert_eq!(details.executable, b"/usr/bin/sh");
        assert_eq!(details.working_directory, ByteString::from("/root"));
        assert_eq!(details.arguments.values, ["sh", "-c", "", "x"].map(ByteString::from));
        assert_eq!((details.user_id, details.group_id, details.session_id), (Some(1000), Some(1001), Some(5)));
        assert_eq!((details.parent_pid, details.has_terminal), (Some(3), Some(true)));
        assert_eq!(details.executable_deleted, Some(false));
        let device = rustix::fs::makedev(8, 0x301);
        assert_eq!(details.executable_file, Some(FileId { device, inode: 77 }));
        assert_eq!((details.cgroup_id, details.script), (NonZeroU64::new(4711), ByteString::from("/root/run.sh")));
        assert_eq!(details.standard_streams, [StreamKind::Null, StreamKind::Closed, StreamKind::Pipe]);
        let cut = executed(&exec(all, &vec![b'x'; ARGUMENTS_BYTES_MAX + 1]));
        assert!(cut.arguments.truncated);
        let nothing = executed(&exec(0, b""));
        assert_eq!((nothing.executable.len(), nothing.working_directory.len()), (0, 0));
        assert_eq!(nothing.executable_deleted, None);
        assert_eq!(path(b"", true), b"/");
    }

    #[test]
    fn a_cgroup_gets_its_path() {
        let named = |flags: u32, names: &[u8]| {
            let mut bytes = head(CGROUP);
            bytes.extend_from_slice(&4711_u64.to_ne_bytes());
            bytes.extend_from_slice(&[flags, u32::try_from(names.len()).unwrap()].map(u32::to_ne_bytes).concat());
            bytes.extend_from_slice(names);
            parse(&bytes).unwrap().change
        };
        let id = NonZeroU64::new(4711).unwrap();
        let path = |path: &[u8]| Change::CgroupNamed { id, path: path.to_vec() };
        assert_eq!(named(CGROUP_COMPLETE, b"x.service\0system.slice\0"), path(b"/system.slice/x.service"));
        assert_eq!((named(CGROUP_COMPLETE, b""), named(0, b"x\0")), (path(b"/"), path(b"")));
    }

    #[test]
    fn a_script_is_named_from_the_root_where_that_is_known() {
        let named = |asked: &[u8], directory: &[u8]| script_path(asked, directory);
        assert_eq!(named(b"/x\0", b"/root"), ByteString::from("/x"));
        assert_eq!(named(b"a/x\0", b"/"), ByteString::from("/a/x"));
        assert_eq!(named(b"../x\0", b"/srv"), ByteString::from("/srv/../x"));
        assert_eq!((named(b"x\0", b""), named(b"", b"/root")), (ByteString::from("x"), ByteString::default()));
        assert_eq!(named(b"x\0", &[b'/'; STRING_BYTES_MAX]), ByteString::from("x"));
    }

    #[test]
    fn what_is_cut_is_refused() {
        let whole = exec(EXECUTABLE_COMPLETE, b"sh\0");
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(kind in 0_u32..6, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[&kind.to_ne_bytes()[..], &bytes].concat());
            // Lengths that fit, mostly.
            let mut bytes = bytes;
            for number in 88..104.min(bytes.len()) {
                bytes[number] = if number % 4 == 0 { bytes[number] } else { 0 };
            }
            let _ = parse(&[&EXEC.to_ne_bytes()[..], bytes.get(4..).unwrap_or(&[])].concat());
        }
    }
}
