//! Which process holds a socket.
//!
//! The kernel tells the inode of a socket but not who has it open; that is found by looking through the open files of
//! processes. It costs a system call per open file, so it is done only for sockets whose owner is wanted, in the order
//! of likelihood (processes that were found to hold sockets lately, processes that started last, then all others in
//! turn) and within a budget per call; what is not found goes on at the next.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;

use picket_common::event::{ProcessId, Timestamp};
use rustix::fs::RawDir;

use crate::enrich::SharedProcessTable;
use crate::enrich::boot_clock::BootClock;
use crate::enrich::process_table::{START_TIME_TOLERANCE_NS, SharedPath};
use crate::enrich::procfs::ProcReader;

/// Most open files looked at in one call: some three milliseconds of one processor.
const FILES_PER_CALL_MAX: usize = 2048;
/// Most processes remembered to hold sockets.
const HOLDERS_MAX: usize = 32;
/// How many of the processes that started last are looked at first.
const NEWEST_PROCESSES: usize = 16;
/// Buffer for names of open files, bytes.
const NAMES_BYTES: usize = 8192;
/// Longest link target that can be `socket:[4294967295]`.
const LINK_BYTES: usize = 24;

/// The process that holds something.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// The process.
    pub process: ProcessId,
    /// Its executable; empty when unknown.
    pub executable: SharedPath,
}

/// Finds owners.
#[derive(Debug)]
pub struct SocketOwners {
    reader: ProcReader,
    processes: SharedProcessTable,
    /// Processes found to hold sockets, the latest first.
    holders: VecDeque<u32>,
    /// Where in the list of all processes the last call stopped.
    next_pid: u32,
    /// The process in the midst of whose files the last call stopped, and the next of these files.
    unfinished: Option<(u32, u32)>,
    names: Box<[MaybeUninit<u8>]>,
}

/// How far one call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Everything that can be looked at was: what was not found has no owner that can be seen.
    Complete,
    /// The budget was used up; the next call goes on.
    Partial,
}

struct Wanted<'a, F> {
    inodes: &'a mut HashMap<u32, u64>,
    found: F,
    files_left: usize,
}

impl SocketOwners {
    /// Looks in `/proc`; `processes` gives the identities.
    pub fn new(processes: SharedProcessTable, clock: BootClock) -> io::Result<Self> {
        Ok(Self {
            reader: ProcReader::open(clock)?,
            processes,
            holders: VecDeque::new(),
            next_pid: 0,
            unfinished: None,
            names: vec![MaybeUninit::uninit(); NAMES_BYTES].into_boxed_slice(),
        })
    }

    /// Identity and executable of a process.
    pub fn owner(&mut self, pid: u32) -> Option<Owner> {
        if let Some((process, executable)) = self.processes.lock().owner(pid) {
            return Some(Owner { process, executable });
        }
        let folder = self.reader.folder(pid)?;
        let (start_time, executable) = self.reader.identity(&folder)?;
        Some(Owner { process: ProcessId { pid, start_time }, executable: executable.into() })
    }

    /// The process that was created so many nanoseconds after boot; it may have ended since.
    pub fn owner_created_at(&mut self, pid: u32, since_boot_ns: u64) -> Owner {
        let process = ProcessId { pid, start_time: self.reader.clock().created_at(since_boot_ns) };
        let known = self.processes.lock().owner_created_at(process);
        if let Some((process, executable)) = known {
            return Owner { process, executable };
        }
        let identity = self.reader.folder(pid).and_then(|folder| self.reader.identity(&folder));
        let executable = identity.filter(|(start_time, _)| *start_time == process.start_time);
        Owner { process, executable: executable.map(|(_, executable)| executable).unwrap_or_default().into() }
    }

    /// The process that a task (process or thread) belonged to at a time. It may have ended since, a thread may not.
    pub fn owner_of_task(&mut self, task: u32, time: Timestamp) -> Option<Owner> {
        let known = self.processes.lock().owner_at(task, time);
        if let Some((process, executable)) = known {
            return Some(Owner { process, executable });
        }
        let pid = self.reader.process_of_task(task)?;
        // A process that began later has been given the same pid.
        let latest_start = time.0.saturating_add(START_TIME_TOLERANCE_NS);
        self.owner(pid).filter(|owner| owner.process.start_time.0 <= latest_start)
    }

    /// Looks for the holders of `wanted` (inode to a key of the caller's), calls `found` with the key and the owner of
    /// each that it finds and takes it out of `wanted`.
    pub fn find(&mut self, wanted: &mut HashMap<u32, u64>, found: impl FnMut(u64, &Owner)) -> Search {
        let mut wanted = Wanted { inodes: wanted, found, files_left: FILES_PER_CALL_MAX };
        let newest: Vec<u32> = self.processes.lock().newest().take(NEWEST_PROCESSES).collect();
        let unfinished = self.unfinished.map(|(pid, _)| pid);
        let likely: Vec<u32> = unfinished.into_iter().chain(self.holders.iter().copied()).chain(newest).collect();
        for pid in likely {
            if wanted.is_done() {
                return wanted.result();
            }
            self.look_at(pid, &mut wanted);
        }
        if wanted.is_done() {
            return wanted.result();
        }
        let Ok(pids) = self.reader.pids() else { return Search::Complete };
        let start = pids.partition_point(|&pid| pid < self.next_pid);
        for &pid in pids[start..].iter().chain(&pids[..start]) {
            if wanted.is_done() {
                self.next_pid = pid;
                return wanted.result();
            }
            self.look_at(pid, &mut wanted);
        }
        Search::Complete
    }

    fn look_at(&mut self, pid: u32, wanted: &mut Wanted<'_, impl FnMut(u64, &Owner)>) {
        let first_file = match self.unfinished {
            Some((unfinished, file)) if unfinished == pid => {
                self.unfinished = None;
                file
            }
            _ => 0,
        };
        let Some(files) = self.reader.folder(pid).and_then(|folder| folder.descriptors()) else { return };
        let mut hits = Vec::new();
        let mut entries = RawDir::new(&files, &mut self.names);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            let Some(file) = name.to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            if file < first_file {
                continue;
            }
            if wanted.is_done() {
                self.unfinished = (!wanted.inodes.is_empty()).then_some((pid, file));
                break;
            }
            wanted.files_left -= 1;
            let mut target = [0_u8; LINK_BYTES];
            let Ok(length) = rustix::fs::readlinkat_raw(&files, name, &mut target[..]) else { continue };
            if let Some(key) = socket_inode(&target[..length]).and_then(|inode| wanted.inodes.remove(&inode)) {
                hits.push(key);
            }
        }
        if hits.is_empty() {
            return;
        }
        self.holders.retain(|&holder| holder != pid);
        self.holders.push_front(pid);
        self.holders.truncate(HOLDERS_MAX);
        if let Some(owner) = self.owner(pid) {
            for key in hits {
                (wanted.found)(key, &owner);
            }
        }
    }
}

impl<F> Wanted<'_, F> {
    fn is_done(&self) -> bool {
        self.inodes.is_empty() || self.files_left == 0
    }

    fn result(&self) -> Search {
        if self.inodes.is_empty() { Search::Complete } else { Search::Partial }
    }
}

/// The inode in `socket:[inode]`.
fn socket_inode(target: &[u8]) -> Option<u32> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::enrich::process_table::ProcessTable;

    fn owners() -> SocketOwners {
        SocketOwners::new(Arc::new(Mutex::new(ProcessTable::default())), BootClock::measure()).unwrap()
    }

    fn inode(socket: &impl std::os::fd::AsFd) -> u32 {
        u32::try_from(rustix::fs::fstat(socket).unwrap().st_ino).unwrap()
    }

    /// Calls until the search is complete, as a sensor does.
    fn find(owners: &mut SocketOwners, wanted: &mut HashMap<u32, u64>) -> HashMap<u64, Owner> {
        let mut found = HashMap::new();
        while owners.find(wanted, |key, owner| assert!(found.insert(key, owner.clone()).is_none())) == Search::Partial {
        }
        found
    }

    #[test]
    fn the_holder_of_a_socket_is_found_and_a_missing_one_is_not() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = owners();
        let mut wanted = HashMap::from([(inode(&socket), 7), (u32::MAX, 8)]);
        let found = find(&mut owners, &mut wanted);
        assert_eq!(found[&7].process.pid, std::process::id());
        assert_eq!(&*found[&7].executable, std::env::current_exe().unwrap().as_os_str().as_encoded_bytes());
        assert_eq!(wanted.keys().copied().collect::<Vec<_>>(), [u32::MAX]);
        assert_eq!(owners.holders, [std::process::id()]);
    }

    #[test]
    fn a_socket_of_another_process_is_found() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let wanted_inode = inode(&far);
        let mut child =
            Command::new("/bin/sleep").arg("60").stdin(Stdio::from(std::os::fd::OwnedFd::from(far))).spawn();
        let child = child.as_mut().unwrap();
        let found = find(&mut owners(), &mut HashMap::from([(wanted_inode, 1)]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found[&1].process.pid, child.id());
        drop(near);
    }

    #[test]
    fn a_process_with_more_files_than_the_budget_is_searched_in_turns() {
        let mut owners = owners();
        let sockets: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixDatagram::unbound().unwrap()).collect();
        let last = inode(sockets.last().unwrap());
        let mut inodes = HashMap::from([(last, 1)]);
        let mut calls = 0;
        let mut found = None;
        while found.is_none() {
            calls += 1;
            assert!(calls < 1000);
            let mut wanted = Wanted {
                inodes: &mut inodes,
                found: |_, owner: &Owner| found = Some(owner.process.pid),
                files_left: 2,
            };
            owners.look_at(std::process::id(), &mut wanted);
        }
        assert_eq!((found, owners.unfinished), (Some(std::process::id()), None));
        assert!(calls > 5, "{calls}");
    }

    #[test]
    fn only_sockets_have_inodes_of_sockets() {
        assert_eq!(socket_inode(b"socket:[123]"), Some(123));
        assert_eq!(socket_inode(b"socket:[4294967295]"), Some(u32::MAX));
        for other in [&b"pipe:[123]"[..], b"socket:[]", b"socket:[123", b"/socket:[1]", b"socket:[-1]", b""] {
            assert_eq!(socket_inode(other), None);
        }
    }
}
