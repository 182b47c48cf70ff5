//! The processes of this host, by process id.
//!
//! Invariants: an entry's [`ProcessId`] is chosen once and never changes while it is in the table, except before anybody
//! was told it; at most [`ProcessTable::capacity`] entries, the oldest go first and are counted; ancestors are those
//! at the time of the fork, so that they outlive the parent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use picket_common::event::limits::ANCESTORS_MAX;
use picket_common::event::{ByteString, ProcessId, Timestamp};

/// Most processes known at once.
pub const PROCESSES_MAX: usize = 32_768;
/// How far the start time that a fork event implies may be from the one `/proc` shows, for both to mean one process.
pub const START_TIME_TOLERANCE_NS: i64 = 20_000_000;

/// Most processes remembered after their end, for events about them that come late.
const ENDED_MAX: usize = 1024;

/// Most threads whose process is remembered, also after their end.
const THREADS_MAX: usize = 8192;

/// A path, shared between the entries that inherit it.
pub type SharedPath = Arc<[u8]>;

/// The processes of this host.
#[derive(Debug)]
pub struct ProcessTable {
    entries: HashMap<u32, Entry>,
    /// Every entry once, oldest first; also some that are gone.
    order: VecDeque<ProcessId>,
    capacity: usize,
    evictions: u64,
    leaderless: Vec<u32>,
    /// Those that ended last, oldest first.
    ended: VecDeque<EndedProcess>,
    /// Processes of threads other than the one they are named after.
    process_of_thread: HashMap<u32, u32>,
    /// Every such thread once, oldest first; also some that are gone.
    threads: VecDeque<u32>,
    nothing: SharedPath,
}

#[derive(Debug)]
struct Entry {
    id: ProcessId,
    /// When it was created, to the nanosecond where that is known; the id's time is coarser.
    created: Timestamp,
    parent: Option<ProcessId>,
    executable: SharedPath,
    ancestors: Arc<[SharedPath]>,
    /// What `ancestors` of a child is now; made when first needed.
    ancestors_of_children: Option<Arc<[SharedPath]>>,
    user_id: Option<u32>,
    group_id: Option<u32>,
    session_id: Option<u32>,
    /// Its id is in an event that was sent.
    id_published: bool,
    /// Its start was sent.
    start_reported: bool,
    /// It was found at this time, not seen to be born.
    found: Option<Timestamp>,
    leader_alive: bool,
    other_threads: u32,
    /// Wait status of the task that ended last.
    status: Option<u32>,
}

/// A process found running.
#[derive(Clone, Debug)]
pub struct FoundProcess {
    /// The process.
    pub id: ProcessId,
    /// Its present parent.
    pub parent_pid: Option<u32>,
    /// Its executable; empty when unknown.
    pub executable: SharedPath,
    /// Effective user id.
    pub user_id: Option<u32>,
    /// Effective group id.
    pub group_id: Option<u32>,
    /// POSIX session id.
    pub session_id: Option<u32>,
    /// Number of its threads.
    pub thread_count: u32,
    /// When it was looked at.
    pub found: Timestamp,
    /// Its start is sent as an event.
    pub reported: bool,
}

/// A program that a process began to execute.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The process.
    pub pid: u32,
    /// When.
    pub time: Timestamp,
    /// When the process was created, as `/proc` shows it.
    pub start_time: Option<Timestamp>,
    /// Its parent as `/proc` shows it; used only when the fork was not seen.
    pub parent_pid: Option<u32>,
    /// The executable; empty when it could not be read any more.
    pub executable: SharedPath,
    /// Effective user id.
    pub user_id: Option<u32>,
    /// Effective group id.
    pub group_id: Option<u32>,
    /// POSIX session id.
    pub session_id: Option<u32>,
}

/// What the table adds to a program start.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    /// The process.
    pub id: ProcessId,
    /// Who forked it.
    pub parent: Option<ProcessId>,
    /// Executables of parent, grandparent and so on.
    pub ancestors: Vec<ByteString>,
    /// Effective user id, its own or else inherited.
    pub user_id: Option<u32>,
    /// Effective group id, its own or else inherited.
    pub group_id: Option<u32>,
    /// POSIX session id, its own or else inherited.
    pub session_id: Option<u32>,
}

/// A process that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedProcess {
    /// The process.
    pub id: ProcessId,
    /// When it was created.
    pub created: Timestamp,
    /// Its last executable.
    pub executable: SharedPath,
    /// Whether its start had been sent.
    pub start_reported: bool,
    /// Its wait status, when its end was seen.
    pub status: Option<u32>,
}

/// What the end of a task meant.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskExit {
    /// A process ended with it.
    Ended(EndedProcess),
    /// Its process lives on.
    Continues,
    /// Nothing is known of its process.
    Unknown,
}

impl Default for ProcessTable {
    fn default() -> Self {
        Self::with_capacity(PROCESSES_MAX)
    }
}

impl ProcessTable {
    /// An empty table for at most `capacity` processes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
            evictions: 0,
            leaderless: Vec::new(),
            ended: VecDeque::new(),
            process_of_thread: HashMap::new(),
            threads: VecDeque::new(),
            nothing: Arc::from([]),
        }
    }

    /// Most processes known at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Processes known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Processes forgotten while alive because the table was full.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether a process with this pid is known.
    pub fn contains(&self, pid: u32) -> bool {
        self.entries.contains_key(&pid)
    }

    /// The process with this pid.
    pub fn id(&self, pid: u32) -> Option<ProcessId> {
        self.entries.get(&pid).map(|entry| entry.id)
    }

    /// The effective user id that a process was last known to have.
    pub fn user_id(&self, pid: u32) -> Option<u32> {
        self.entries.get(&pid).and_then(|entry| entry.user_id)
    }

    /// Every process known, in no particular order.
    pub fn ids(&self) -> Vec<ProcessId> {
        self.entries.values().map(|entry| entry.id).collect()
    }

    /// When a process was found, if it was not seen to be born.
    pub fn found(&self, pid: u32) -> Option<Timestamp> {
        self.entries.get(&pid).and_then(|entry| entry.found)
    }

    /// The processes that came last, newest first.
    pub fn newest(&self) -> impl Iterator<Item = u32> {
        self.order.iter().rev().filter(|id| self.is_current(id)).map(|id| id.pid)
    }

    /// The identity and executable of a process that owns something, for an event about that thing.
    pub fn owner(&mut self, pid: u32) -> Option<(ProcessId, SharedPath)> {
        let entry = self.entries.get_mut(&pid)?;
        entry.id_published = true;
        Some((entry.id, Arc::clone(&entry.executable)))
    }

    /// As [`Self::owner`], of a process whose time of creation is known; it may have ended since.
    pub fn owner_created_at(&mut self, id: ProcessId) -> Option<(ProcessId, SharedPath)> {
        let is_meant = |known: ProcessId| {
            let distance = known.start_time.0.abs_diff(id.start_time.0);
            known.pid == id.pid && distance <= START_TIME_TOLERANCE_NS.unsigned_abs()
        };
        if self.entries.get(&id.pid).is_some_and(|entry| is_meant(entry.id)) {
            return self.owner(id.pid);
        }
        let ended = self.ended.iter().rev().find(|ended| is_meant(ended.id))?;
        Some((ended.id, Arc::clone(&ended.executable)))
    }

    /// As [`Self::owner`], of the process that a task (process or thread) belonged to at a time; it may have ended since.
    pub fn owner_at(&mut self, task: u32, time: Timestamp) -> Option<(ProcessId, SharedPath)> {
        let pid = self.process_of_thread.get(&task).copied().unwrap_or(task);
        let latest_creation = time.0.saturating_add(START_TIME_TOLERANCE_NS);
        if self.entries.get(&pid).is_some_and(|entry| entry.created.0 <= latest_creation) {
            return self.owner(pid);
        }
        let had_pid = |ended: &&EndedProcess| ended.id.pid == pid && ended.created.0 <= latest_creation;
        self.ended.iter().rev().find(had_pid).map(|ended| (ended.id, Arc::clone(&ended.executable)))
    }

    /// Takes in a process found running. A process already known keeps its identity.
    pub fn find(&mut self, found: FoundProcess) -> Lineage {
        let pid = found.id.pid;
        let known = self.entries.get(&pid).is_some_and(|entry| {
            entry.id.start_time.0.abs_diff(found.id.start_time.0) <= START_TIME_TOLERANCE_NS.unsigned_abs()
        });
        if !known {
            let entry = self.child_of(found.parent_pid, found.id, found.id.start_time);
            self.insert(entry);
        }
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.set_image(found.executable);
            entry.learn(found.user_id, found.group_id, found.session_id);
            entry.other_threads = found.thread_count.saturating_sub(1);
            entry.found = Some(found.found);
            entry.start_reported |= found.reported;
        }
        self.lineage(pid, found.id)
    }

    /// A process was forked.
    pub fn fork(&mut self, parent_pid: u32, id: ProcessId, created: Timestamp) {
        self.process_of_thread.remove(&id.pid);
        let entry = self.child_of(Some(parent_pid), id, created);
        self.insert(entry);
    }

    /// A process began to execute a program.
    pub fn execute(&mut self, execution: Execution) -> Lineage {
        let Execution { pid, time, start_time, .. } = execution;
        if !self.entries.contains_key(&pid) {
            let id = ProcessId { pid, start_time: start_time.unwrap_or(time) };
            let entry = self.child_of(execution.parent_pid, id, id.start_time);
            self.insert(entry);
        }
        let fallback = ProcessId { pid, start_time: time };
        if let Some(entry) = self.entries.get_mut(&pid) {
            if let Some(start_time) = start_time.filter(|_| !entry.id_published) {
                let distance = entry.id.start_time.0.abs_diff(start_time.0);
                if distance <= START_TIME_TOLERANCE_NS.unsigned_abs() && entry.id.start_time != start_time {
                    entry.id.start_time = start_time;
                    self.order.push_back(entry.id);
                }
            }
            entry.set_image(execution.executable);
            entry.learn(execution.user_id, execution.group_id, execution.session_id);
            entry.start_reported = true;
            // An exec ends every other thread; the one that remains is the leader now.
            entry.leader_alive = true;
            entry.other_threads = 0;
        }
        self.lineage(pid, fallback)
    }

    /// A thread was added to a process.
    pub fn thread_started(&mut self, thread: u32, pid: u32) {
        if self.process_of_thread.insert(thread, pid).is_none() {
            self.threads.push_back(thread);
            if self.threads.len() > THREADS_MAX
                && let Some(oldest) = self.threads.pop_front()
            {
                self.process_of_thread.remove(&oldest);
            }
        }
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.other_threads = entry.other_threads.saturating_add(1);
        }
    }

    /// A task (process or thread) ended; `is_leader` when it was the one its process is named after.
    pub fn task_exited(&mut self, pid: u32, is_leader: bool, status: u32) -> TaskExit {
        let Some(entry) = self.entries.get_mut(&pid) else { return TaskExit::Unknown };
        entry.status = Some(status);
        if is_leader {
            entry.leader_alive = false;
        } else {
            entry.other_threads = entry.other_threads.saturating_sub(1);
        }
        if entry.leader_alive {
            return TaskExit::Continues;
        }
        if entry.other_threads > 0 {
            if self.leaderless.len() < self.capacity && !self.leaderless.contains(&pid) {
                self.leaderless.push(pid);
            }
            return TaskExit::Continues;
        }
        self.remove(pid).map_or(TaskExit::Unknown, TaskExit::Ended)
    }

    /// Processes that live on without the thread they are named after. There are rarely any.
    pub fn leaderless(&mut self) -> Vec<u32> {
        let entries = &self.entries;
        self.leaderless.retain(|pid| entries.get(pid).is_some_and(|entry| !entry.leader_alive));
        self.leaderless.clone()
    }

    /// Forgets a process that is known to have ended.
    pub fn remove(&mut self, pid: u32) -> Option<EndedProcess> {
        let entry = self.entries.remove(&pid)?;
        let ended = EndedProcess {
            id: entry.id,
            created: entry.created,
            executable: entry.executable,
            start_reported: entry.start_reported,
            status: entry.status,
        };
        self.ended.push_back(ended.clone());
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
        Some(ended)
    }

    fn lineage(&mut self, pid: u32, fallback: ProcessId) -> Lineage {
        let Some(entry) = self.entries.get_mut(&pid) else {
            return Lineage {
                id: fallback,
                parent: None,
                ancestors: Vec::new(),
                user_id: None,
                group_id: None,
                session_id: None,
            };
        };
        entry.id_published = true;
        let lineage = Lineage {
            id: entry.id,
            parent: entry.parent,
            ancestors: entry.ancestors.iter().map(|path| ByteString::from(&path[..])).collect(),
            user_id: entry.user_id,
            group_id: entry.group_id,
            session_id: entry.session_id,
        };
        if let Some(parent) = lineage.parent
            && let Some(entry) = self.entries.get_mut(&parent.pid)
            && entry.id == parent
        {
            entry.id_published = true;
        }
        lineage
    }

    fn child_of(&mut self, parent_pid: Option<u32>, id: ProcessId, created: Timestamp) -> Entry {
        let parent = parent_pid.filter(|&pid| pid != id.pid).and_then(|pid| self.entries.get_mut(&pid));
        let mut entry = Entry {
            id,
            created,
            parent: None,
            executable: Arc::clone(&self.nothing),
            ancestors: Arc::from([]),
            ancestors_of_children: None,
            user_id: None,
            group_id: None,
            session_id: None,
            id_published: false,
            start_reported: false,
            found: None,
            leader_alive: true,
            other_threads: 0,
            status: None,
        };
        if let Some(parent) = parent {
            // The child may keep naming this identity for as long as it lives.
            parent.id_published = true;
            entry.parent = Some(parent.id);
            entry.executable = Arc::clone(&parent.executable);
            entry.ancestors = parent.ancestors_of_children();
            (entry.user_id, entry.group_id, entry.session_id) = (parent.user_id, parent.group_id, parent.session_id);
        }
        entry
    }

    fn insert(&mut self, entry: Entry) {
        self.order.push_back(entry.id);
        self.entries.insert(entry.id.pid, entry);
        while self.entries.len() > self.capacity {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.is_current(&oldest) {
                self.entries.remove(&oldest.pid);
                self.evictions += 1;
            }
        }
        if self.order.len() > 2 * self.capacity.max(1024) {
            let entries = &self.entries;
            self.order.retain(|id| entries.get(&id.pid).is_some_and(|entry| entry.id == *id));
        }
    }

    fn is_current(&self, id: &ProcessId) -> bool {
        self.entries.get(&id.pid).is_some_and(|entry| entry.id == *id)
    }
}

impl Entry {
    fn set_image(&mut self, executable: SharedPath) {
        if self.executable != executable {
            self.executable = executable;
            self.ancestors_of_children = None;
        }
    }

    fn learn(&mut self, user_id: Option<u32>, group_id: Option<u32>, session_id: Option<u32>) {
        self.user_id = user_id.or(self.user_id);
        self.group_id = group_id.or(self.group_id);
        self.session_id = session_id.or(self.session_id);
    }

    fn ancestors_of_children(&mut self) -> Arc<[SharedPath]> {
        let make = || {
            let inherited = self.ancestors.iter().take(ANCESTORS_MAX - 1).cloned();
            std::iter::once(Arc::clone(&self.executable)).chain(inherited).collect()
        };
        Arc::clone(self.ancestors_of_children.get_or_insert_with(make))
    }
}

#[cfg(test)]
mod tests;
