//! What the sensors that are told of processes by the kernel have in common: the table kept up to date, and the events.
//!
//! After a loss the table is compared with `/proc`, quietly: what was lost is counted, not made up for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, ProcessExit, ProcessId, Timestamp};

use crate::enrich::SharedProcessTable;
use crate::enrich::boot_clock;
use crate::enrich::process_details::ProcessDetails;
use crate::enrich::process_table::{EndedProcess, Execution, FoundProcess, Lineage};
use crate::enrich::procfs::ProcReader;
use crate::enrich::user_names::UserNames;
use crate::sensor::ObservationSink;
use crate::sensor::process::{SEEDED_PROCESSES_MAX, exit_event, memfd_event, start_event};
use crate::sensor::reporter::Reporter;

/// How long after a loss the table is compared with `/proc`: not while the burst that caused it lasts.
const COMPARISON_DELAY: Duration = Duration::from_secs(1);

/// The processes, as a sensor tells of them.
pub(super) struct ProcessTracker<S> {
    pub(super) reporter: Reporter<S>,
    pub(super) reader: ProcReader,
    pub(super) processes: SharedProcessTable,
    user_names: UserNames,
    own_pid: Option<u32>,
    evictions_reported: u64,
    comparison_due: Option<Instant>,
    /// The kernel's messages have been read up to this time.
    pub(super) seen_until: Timestamp,
    /// Processes that a comparison did not find in `/proc` at a time: forgotten as soon as their end cannot be on its
    /// way any more.
    missing: (Timestamp, Vec<ProcessId>),
}

impl<S: ObservationSink> ProcessTracker<S> {
    pub(super) fn new(
        reporter: Reporter<S>,
        reader: ProcReader,
        processes: SharedProcessTable,
        own_pid: Option<u32>,
    ) -> Self {
        Self {
            reporter,
            reader,
            processes,
            user_names: UserNames::default(),
            own_pid,
            evictions_reported: 0,
            comparison_due: None,
            seen_until: Timestamp(0),
            missing: (Timestamp(0), Vec::new()),
        }
    }

    /// Reports the processes that run already, parents first.
    pub(super) fn seed(&mut self) -> io::Result<()> {
        let mut found: Vec<(Timestamp, u32, ProcessDetails)> = Vec::new();
        for pid in self.reader.pids()? {
            let time = boot_clock::now();
            found.extend(self.reader.details(pid).map(|details| (time, pid, details)));
        }
        found.sort_by_key(|(_, pid, details)| (details.start_time, *pid));
        let mut reports_left = SEEDED_PROCESSES_MAX;
        for (time, pid, details) in found {
            let report = reports_left > 0 && !details.is_kernel_thread && Some(pid) != self.own_pid;
            let lineage = self.take_in(pid, time, &details, report);
            if report {
                reports_left -= 1;
                self.reporter.send(time, start_event(details, lineage, &mut self.user_names, true));
            }
        }
        if reports_left == 0 {
            tracing::warn!(limit = SEEDED_PROCESSES_MAX, "more processes run than are reported at the start");
        }
        Ok(())
    }

    fn take_in(&self, pid: u32, time: Timestamp, details: &ProcessDetails, reported: bool) -> Lineage {
        self.processes.lock().find(FoundProcess {
            id: ProcessId { pid, start_time: details.start_time.unwrap_or(time) },
            parent_pid: details.parent_pid,
            executable: Arc::from(&details.executable[..]),
            user_id: details.user_id,
            group_id: details.group_id,
            session_id: details.session_id,
            thread_count: details.thread_count.unwrap_or(1),
            found: time,
            reported,
        })
    }

    /// Whether what happened to a process at a time was found out already by looking at it later.
    pub(super) fn is_known_since(&self, pid: u32, time: Timestamp) -> bool {
        self.processes.lock().found(pid).is_some_and(|found| time <= found)
    }

    /// Whether nothing is to be said of a program start.
    pub(super) fn ignores_start(&self, pid: u32, time: Timestamp) -> bool {
        Some(pid) == self.own_pid || self.is_known_since(pid, time)
    }

    /// A process began to execute a program.
    pub(super) fn program_started(&mut self, pid: u32, time: Timestamp, details: ProcessDetails) {
        let lineage = self.processes.lock().execute(Execution {
            pid,
            time,
            start_time: details.start_time,
            parent_pid: details.parent_pid,
            executable: Arc::from(&details.executable[..]),
            user_id: details.user_id,
            group_id: details.group_id,
            session_id: details.session_id,
        });
        let memfd = memfd_event(&details, &lineage);
        self.reporter.send(time, start_event(details, lineage, &mut self.user_names, false));
        if let Some(memfd) = memfd {
            self.reporter.send(time, memfd);
        }
    }

    /// A process ended that was taken out of the table, after so much time on a processor.
    pub(super) fn process_ended(&self, ended: &EndedProcess, time: Timestamp, cpu_time_ns: Option<u64>) {
        if ended.start_reported {
            let (exit_code, signal) = wait_status(ended.status);
            let exit = ProcessExit { cpu_time_ns, ..exit_event(ended, time, exit_code, signal) };
            self.reporter.send(time, EventBody::ProcessExit(exit));
        }
    }

    /// Messages of the kernel were lost, of which `events` would have been events.
    pub(super) fn lost(&mut self, events: u64) {
        self.reporter.lost(events);
        self.comparison_due = Some(Instant::now() + COMPARISON_DELAY);
    }

    /// Looks after the table; says whether there is something to follow up.
    pub(super) fn maintain(&mut self) -> bool {
        let evictions = self.processes.lock().evictions();
        // The end of a process that was forgotten cannot be reported.
        self.reporter.lost(evictions - self.evictions_reported);
        self.evictions_reported = evictions;
        let waits_for_threads = self.end_leaderless();
        self.forget_missing();
        if self.comparison_due.is_some_and(|due| Instant::now() >= due) {
            self.comparison_due = None;
            self.compare_with_proc();
        }
        waits_for_threads || self.comparison_due.is_some() || !self.missing.1.is_empty()
    }

    /// Ends processes whose leader has ended and of which nothing is left, although threads seemed to be; says whether
    /// there are others.
    fn end_leaderless(&self) -> bool {
        let leaderless = self.processes.lock().leaderless();
        let mut are_others = false;
        for pid in leaderless {
            if self.reader.folder(pid).is_some() {
                are_others = true;
            } else if let Some(ended) = self.processes.lock().remove(pid) {
                self.process_ended(&ended, boot_clock::now(), None);
            }
        }
        are_others
    }

    fn forget_missing(&mut self) {
        if self.seen_until <= self.missing.0 {
            return;
        }
        let mut processes = self.processes.lock();
        for id in self.missing.1.drain(..) {
            if processes.id(id.pid) == Some(id) {
                processes.remove(id.pid);
            }
        }
    }

    fn compare_with_proc(&mut self) {
        let known = self.processes.lock().ids();
        let missing = known.into_iter().filter(|id| self.reader.folder(id.pid).is_none()).collect();
        self.missing = (boot_clock::now(), missing);
        let Ok(pids) = self.reader.pids() else { return };
        for pid in pids {
            if self.processes.lock().contains(pid) {
                continue;
            }
            let time = boot_clock::now();
            if let Some(details) = self.reader.details(pid) {
                self.take_in(pid, time, &details, false);
            }
        }
    }
}

/// Exit code and signal of a wait status.
fn wait_status(status: Option<u32>) -> (Option<i32>, Option<u32>) {
    const SIGNAL_MASK: u32 = 0x7f;
    let Some(status) = status else { return (None, None) };
    match status & SIGNAL_MASK {
        0 => (i32::try_from((status >> 8) & 0xff).ok(), None),
        signal => (None, Some(signal)),
    }
}
