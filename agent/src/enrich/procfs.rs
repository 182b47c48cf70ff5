//! One process as `/proc` shows it.
//!
//! The process's folder is opened once and everything is read relative to it: what is read is then of one process even
//! when its pid is given to another meanwhile, and the kernel looks the pid up only once. What vanishes first when a
//! process ends is read first. The environment of other processes is never read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use picket_common::event::limits::{ARGUMENTS_BYTES_MAX, STRING_BYTES_MAX};
use picket_common::event::{ByteString, FileId, StreamKind, Timestamp};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::enrich::boot_clock::BootClock;
use crate::enrich::cgroup::{self, CgroupTree};
use crate::enrich::process_details::{Arguments, ProcessDetails};

/// What the kernel appends to the path of an executable that has no name any more.
const DELETED_SUFFIX: &[u8] = b" (deleted)";
/// Longest `/proc/PID/stat`: fifty-two numbers and a name of sixteen bytes need half of it.
const STAT_BYTES_MAX: usize = 2048;
/// How much of `/proc/PID/status` is read: what is wanted is in its first lines.
const STATUS_BYTES_MAX: usize = 512;
/// `PF_KTHREAD` in the flags of `/proc/PID/stat`.
const KERNEL_THREAD_FLAG: u64 = 0x0020_0000;
/// Major and minor number of `/dev/null`.
const NULL_DEVICE: (u32, u32) = (1, 3);
/// Major numbers of terminals: consoles, `/dev/tty`, serial lines, hypervisor consoles.
const TERMINAL_MAJORS: [u32; 4] = [4, 5, 204, 229];
/// Major numbers of pseudo-terminals.
const PSEUDO_TERMINAL_MAJORS: std::ops::RangeInclusive<u32> = 128..=143;

/// Reads `/proc`, with buffers that are used again and again.
#[derive(Debug)]
pub struct ProcReader {
    proc: OwnedFd,
    cgroups: Option<CgroupTree>,
    clock: BootClock,
    buffer: Box<[u8]>,
}

/// The folder of one process.
#[derive(Debug)]
pub struct ProcFolder {
    folder: OwnedFd,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// It has ended, and is only still listed.
    pub is_dead: bool,
    /// Process id of its parent; 0: none.
    pub parent_pid: u32,
    /// POSIX session id.
    pub session_id: u32,
    /// Device number of the controlling terminal; 0: none.
    pub terminal: i64,
    /// It is a thread of the kernel.
    pub is_kernel_thread: bool,
    /// Number of threads.
    pub thread_count: u32,
    /// When it was created, clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcReader {
    /// Opens `/proc`.
    pub fn open(clock: BootClock) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
        // One byte more than is kept, so that a cut is noticed.
        let cgroups = CgroupTree::open();
        Ok(Self { proc, cgroups, clock, buffer: vec![0; ARGUMENTS_BYTES_MAX + 1].into_boxed_slice() })
    }

    /// The clock that start times are given in.
    pub fn clock(&self) -> BootClock {
        self.clock
    }

    /// The folder of a process, if there is such a process.
    pub fn folder(&self, pid: u32) -> Option<ProcFolder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.proc, Decimal::new(pid).as_str(), flags, Mode::empty()).ok()?;
        Some(ProcFolder { folder })
    }

    /// Process ids of all processes, ascending.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids: Vec<u32> =
            std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// Everything about a process. `None` when there is none with this pid.
    pub fn details(&mut self, pid: u32) -> Option<ProcessDetails> {
        let folder = self.folder(pid)?;
        let mut details = ProcessDetails::default();
        (details.executable, details.executable_deleted) = self.executable(&folder);
        details.executable_file = folder.executable_file();
        details.arguments = self.arguments(&folder);
        details.working_directory = ByteString::from(self.link(&folder, c"cwd"));
        details.standard_streams = folder.standard_streams();
        (details.user_id, details.group_id) = folder.effective_ids();
        match self.stat(&folder) {
            Some(stat) => {
                details.session_id = Some(stat.session_id);
                details.has_terminal = Some(stat.terminal != 0);
                details.parent_pid = Some(stat.parent_pid).filter(|&pid| pid != 0);
                details.start_time = Some(self.clock.start_time(stat.start_ticks));
                details.thread_count = Some(stat.thread_count);
                details.is_kernel_thread = stat.is_kernel_thread;
                if stat.is_dead {
                    forget_closed(&mut details.standard_streams);
                }
            }
            None => forget_closed(&mut details.standard_streams),
        }
        if !details.is_kernel_thread {
            self.read_cgroup(&folder, &mut details);
        }
        Some(details)
    }

    /// The cgroup of a process: what changes least comes last.
    fn read_cgroup(&mut self, folder: &ProcFolder, details: &mut ProcessDetails) {
        let limit = self.buffer.len();
        let Some(length) = self.read(folder, c"cgroup", limit) else { return };
        let Some(path) = cgroup::path_of_process(&self.buffer[..length]) else { return };
        details.cgroup_id = self.cgroups.as_ref().and_then(|tree| tree.id(path));
        details.cgroup = ByteString::truncated(path);
    }

    /// When a process was created, and its executable: what names the owner of something.
    pub fn identity(&mut self, folder: &ProcFolder) -> Option<(Timestamp, Vec<u8>)> {
        let (executable, _) = self.executable(folder);
        let stat = self.stat(folder)?;
        Some((self.clock.start_time(stat.start_ticks), executable))
    }

    /// The process that a task (process or thread) belongs to.
    pub fn process_of_task(&mut self, task: u32) -> Option<u32> {
        let folder = self.folder(task)?;
        let length = self.read(&folder, c"status", STATUS_BYTES_MAX)?;
        parse_process_of_task(&self.buffer[..length])
    }

    /// `/proc/PID/stat`.
    pub fn stat(&mut self, folder: &ProcFolder) -> Option<ProcessStat> {
        let length = self.read(folder, c"stat", STAT_BYTES_MAX)?;
        parse_stat(&self.buffer[..length])
    }

    fn executable(&mut self, folder: &ProcFolder) -> (Vec<u8>, Option<bool>) {
        let path = self.link(folder, c"exe");
        if path.is_empty() {
            return (Vec::new(), None);
        }
        match path.strip_suffix(DELETED_SUFFIX) {
            // A file may really be called so: only then is its link count asked for.
            Some(stripped) if folder.has_no_name(c"exe") => (stripped.to_vec(), Some(true)),
            _ => (path.to_vec(), Some(false)),
        }
    }

    fn arguments(&mut self, folder: &ProcFolder) -> Arguments {
        let limit = self.buffer.len();
        match self.read(folder, c"cmdline", limit) {
            Some(length) => {
                let kept = length.min(ARGUMENTS_BYTES_MAX);
                Arguments::from_nul_terminated(&self.buffer[..kept], length > kept)
            }
            None => Arguments::default(),
        }
    }

    /// Target of a symbolic link; empty when it cannot be read.
    fn link(&mut self, folder: &ProcFolder, name: &std::ffi::CStr) -> &[u8] {
        let length = rustix::fs::readlinkat_raw(&folder.folder, name, &mut self.buffer[..STRING_BYTES_MAX]);
        &self.buffer[..length.unwrap_or(0)]
    }

    fn read(&mut self, folder: &ProcFolder, name: &std::ffi::CStr, limit: usize) -> Option<usize> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder.folder, name, flags, Mode::empty()).ok()?;
        let buffer = &mut self.buffer[..limit];
        let mut length = 0;
        while length < buffer.len() {
            match rustix::io::read(&file, &mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => {
                    length += more;
                    // These files are made at once: a short read is the end, and one call is saved.
                    if length < buffer.len() {
                        break;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) if length == 0 => return None,
                Err(_) => break,
            }
        }
        Some(length)
    }
}

impl ProcFolder {
    /// Its open files, for [`rustix::fs::Dir`].
    pub fn descriptors(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, c"fd", flags, Mode::empty()).ok().map(File::from)
    }

    fn standard_streams(&self) -> [StreamKind; 3] {
        [c"fd/0", c"fd/1", c"fd/2"].map(|name| {
            let mask = StatxFlags::TYPE;
            match rustix::fs::statx(&self.folder, name, AtFlags::STATX_DONT_SYNC, mask) {
                Ok(stat) => stream_kind(u32::from(stat.stx_mode), (stat.stx_rdev_major, stat.stx_rdev_minor)),
                Err(rustix::io::Errno::NOENT) => StreamKind::Closed,
                Err(_) => StreamKind::Unknown,
            }
        })
    }

    fn executable_file(&self) -> Option<FileId> {
        let mask = StatxFlags::INO;
        let stat = rustix::fs::statx(&self.folder, c"exe", AtFlags::STATX_DONT_SYNC, mask).ok()?;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Some(FileId { device, inode: stat.stx_ino })
    }

    /// The folder of a process belongs to its effective user and group.
    fn effective_ids(&self) -> (Option<u32>, Option<u32>) {
        match rustix::fs::fstat(&self.folder) {
            Ok(stat) => (Some(stat.st_uid), Some(stat.st_gid)),
            Err(_) => (None, None),
        }
    }

    fn has_no_name(&self, name: &std::ffi::CStr) -> bool {
        let mask = StatxFlags::NLINK;
        rustix::fs::statx(&self.folder, name, AtFlags::STATX_DONT_SYNC, mask).is_ok_and(|stat| stat.stx_nlink == 0)
    }
}

impl AsFd for ProcFolder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// A process that has ended has no descriptors, which does not mean that it had closed them.
fn forget_closed(streams: &mut [StreamKind; 3]) {
    for stream in streams {
        if *stream == StreamKind::Closed {
            *stream = StreamKind::Unknown;
        }
    }
}

/// What a file is, by its mode and the major and minor number of its device.
pub fn stream_kind(mode: u32, device: (u32, u32)) -> StreamKind {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(mode) {
        FileType::Fifo => StreamKind::Pipe,
        FileType::Socket => StreamKind::Socket,
        FileType::RegularFile => StreamKind::File,
        FileType::CharacterDevice if device == NULL_DEVICE => StreamKind::Null,
        FileType::CharacterDevice
            if TERMINAL_MAJORS.contains(&device.0) || PSEUDO_TERMINAL_MAJORS.contains(&device.0) =>
        {
            StreamKind::Terminal
        }
        _ => StreamKind::Other,
    }
}

fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    // The name in parentheses may contain anything, also parentheses.
    let end_of_name = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent_pid = fields.next()?.parse().ok()?;
    let session_id = fields.nth(1)?.parse().ok()?;
    let terminal = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(1)?.parse().ok()?;
    let thread_count = fields.nth(10)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(ProcessStat {
        is_dead: matches!(state, "Z" | "X" | "x"),
        parent_pid,
        session_id,
        terminal,
        is_kernel_thread: flags & KERNEL_THREAD_FLAG != 0,
        thread_count,
        start_ticks,
    })
}

fn parse_process_of_task(status: &[u8]) -> Option<u32> {
    let value = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A number as text, without allocation.
struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    fn new(mut value: u32) -> Self {
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
            if value == 0 {
                return Self { digits, start };
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or("")
    }
}

#[cfg(test)]
mod tests;
