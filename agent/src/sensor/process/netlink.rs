//! The process sensor on the kernel's process connector.
//!
//! One thread reads the kernel's messages one by one and looks at `/proc` as soon as a program starts, so that
//! processes that live for a millisecond are still described. What the kernel had to drop is known exactly from the
//! gaps in its numbering and from its own count; after a loss the table is compared with `/proc`, quietly: what was lost is counted, not made
//! up for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use picket_common::event::{Origin, ProcessId, Timestamp};

use crate::enrich::SharedProcessTable;
use crate::enrich::boot_clock::{self, BootClock};
use crate::enrich::process_details::ProcessDetails;
use crate::enrich::process_table::{EndedProcess, Execution, FoundProcess, Lineage, TaskExit};
use crate::enrich::procfs::ProcReader;
use crate::enrich::user_names::UserNames;
use crate::sensor::event_clock::EventClock;
use crate::sensor::netlink::{DATAGRAM_BYTES_MAX, NetlinkSocket, Received, message, messages};
use crate::sensor::process::proc_event::{self, ProcEvent, ProcMessage, SequenceGaps};
use crate::sensor::process::program_trace::ProgramTrace;
use crate::sensor::process::{NAME, SEEDED_PROCESSES_MAX, exit_event, mode, start_event};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor};

/// Receive buffer: at some 900 bytes of kernel memory per message, room for two seconds of 4,000 messages each.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// How long the kernel may take to confirm the subscription; it does so within the call.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Most messages kept that come before the confirmation.
const EARLY_MESSAGES_MAX: usize = 4096;
/// How often the table is looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Niceness of the sensor's thread, where that is permitted.
const THREAD_NICENESS: i32 = -19;
/// How long after a loss the table is compared with `/proc`: not while the burst that caused it lasts.
const COMPARISON_DELAY: Duration = Duration::from_secs(1);

/// Why there is no process connector.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubscriptionError {
    #[error("netlink process connector: {0}; run as root or with CAP_NET_ADMIN")]
    Socket(io::Error),
    #[error("netlink process connector: the kernel refuses with error {0}; run as root or with CAP_NET_ADMIN")]
    Refused(u32),
    #[error(
        "netlink process connector: the kernel does not answer; it needs CONFIG_PROC_EVENTS and an agent in the \
         host's own pid and user namespaces"
    )]
    Silent,
    #[error("netlink process connector: /proc cannot be read: {0}")]
    Proc(io::Error),
}

/// A confirmed subscription to process events.
pub(super) struct Subscription {
    socket: NetlinkSocket,
    reader: ProcReader,
    clock: EventClock,
    early: VecDeque<(Timestamp, ProcMessage)>,
}

impl Subscription {
    /// Subscribes, and waits for the kernel to confirm.
    pub(super) fn open(clock: BootClock) -> Result<Self, SubscriptionError> {
        let reader = ProcReader::open(clock).map_err(SubscriptionError::Proc)?;
        let socket = NetlinkSocket::open(netlink_sys::protocols::NETLINK_CONNECTOR, proc_event::GROUPS)
            .map_err(SubscriptionError::Socket)?;
        socket.enlarge_receive_buffer(RECEIVE_BUFFER_BYTES);
        socket.set_receive_timeout(STOP_CHECK_INTERVAL).map_err(SubscriptionError::Socket)?;
        // Gaps are seen in the numbering: the kernel need not stop to tell.
        socket.continue_after_overrun().map_err(SubscriptionError::Socket)?;
        let request = message(crate::sensor::netlink::TYPE_DONE, 0, 0, &proc_event::listen_request());
        socket.send(&request).map_err(SubscriptionError::Socket)?;
        // The confirmation is made within the call: its time is known to the microsecond.
        let sent = boot_clock::now();
        let mut subscription = Self { socket, reader, clock: EventClock::default(), early: VecDeque::new() };
        subscription.await_confirmation(sent)?;
        Ok(subscription)
    }

    fn await_confirmation(&mut self, sent: Timestamp) -> Result<(), SubscriptionError> {
        let deadline = Instant::now() + CONFIRMATION_TIMEOUT;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while Instant::now() < deadline && self.early.len() < EARLY_MESSAGES_MAX {
            let Received::Datagram(length) = self.socket.receive(&mut buffer).map_err(SubscriptionError::Socket)?
            else {
                continue;
            };
            for message in messages(&buffer[..length]).filter_map(|message| proc_event::parse(message.payload)) {
                let seen =
                    if matches!(message.event, ProcEvent::Acknowledgement { .. }) { sent } else { boot_clock::now() };
                let time = self.clock.wall_clock(message.monotonic_ns, seen);
                // The confirmation is kept too: its number belongs to the sequence in which gaps are counted.
                self.early.push_back((time, message));
                match message.event {
                    ProcEvent::Acknowledgement { error: 0 } => return Ok(()),
                    ProcEvent::Acknowledgement { error } => return Err(SubscriptionError::Refused(error)),
                    _ => {}
                }
            }
        }
        Err(SubscriptionError::Silent)
    }
}

/// Starts the sensor on a subscription.
pub(super) fn start<S: ObservationSink>(
    subscription: Subscription,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let (programs, reason) = start_trace(environment.trace);
    let SensorEnvironment { stop, processes, own_pid, .. } = environment.clone();
    environment.spawn(mode(Origin::AgentNetlink, &reason), NAME, move |reporter| {
        raise_priority();
        let mut sensor = ProcessSensor::new(reporter, subscription.reader, programs, processes, own_pid);
        sensor.seed()?;
        for (time, message) in subscription.early {
            sensor.observe(&message, time);
        }
        let mut clock = subscription.clock;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !stop.is_cancelled() {
            match subscription.socket.receive(&mut buffer)? {
                Received::Datagram(length) => {
                    for message in messages(&buffer[..length]) {
                        if let Some(message) = proc_event::parse(message.payload) {
                            let time = clock.wall_clock(message.monotonic_ns, boot_clock::now());
                            sensor.observe(&message, time);
                        }
                    }
                }
                // Nothing is on its way: everything until now has been seen.
                Received::Nothing | Received::Overrun => sensor.seen_until = boot_clock::now(),
            }
            sensor.maintain(&subscription.socket);
        }
        Ok(())
    })
}

/// Starts the recording of program starts, or says what is missed without.
fn start_trace(permitted: bool) -> (Option<ProgramTrace>, String) {
    if !rustix::process::geteuid().is_root() {
        let reason = "not root: executables, folders and streams of other users' processes cannot be read";
        return (None, reason.to_owned());
    }
    let reason = if permitted {
        match ProgramTrace::start() {
            Ok(programs) => return (Some(programs), String::new()),
            Err(error) => format!("no trace events: {error}"),
        }
    } else {
        "no trace events: switched off by sensor.trace".to_owned()
    };
    (None, format!("{reason}; some processes of a millisecond have no executable"))
}

/// A process of a millisecond can only be described by a thread that runs at once when it starts.
fn raise_priority() {
    // On Linux this is the priority of the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, THREAD_NICENESS) {
        tracing::debug!(%error, "the process sensor runs at normal priority");
    }
}

struct ProcessSensor<S> {
    reporter: Reporter<S>,
    reader: ProcReader,
    processes: SharedProcessTable,
    user_names: UserNames,
    /// For programs that are over before they can be looked at.
    programs: Option<ProgramTrace>,
    gaps: SequenceGaps,
    /// Messages known to be lost by the gaps.
    missing_messages: u64,
    lost_reported: u64,
    own_pid: Option<u32>,
    evictions_reported: u64,
    next_maintenance: Instant,
    comparison_due: Option<Instant>,
    /// The kernel's messages have been read up to this time.
    seen_until: Timestamp,
    /// Processes that a comparison did not find in `/proc` at a time: forgotten as soon as their end cannot be on its
    /// way any more.
    missing: (Timestamp, Vec<ProcessId>),
}

impl<S: ObservationSink> ProcessSensor<S> {
    fn new(
        reporter: Reporter<S>,
        reader: ProcReader,
        programs: Option<ProgramTrace>,
        processes: SharedProcessTable,
        own_pid: Option<u32>,
    ) -> Self {
        Self {
            reporter,
            reader,
            processes,
            user_names: UserNames::default(),
            programs,
            gaps: SequenceGaps::default(),
            missing_messages: 0,
            lost_reported: 0,
            own_pid,
            evictions_reported: 0,
            next_maintenance: Instant::now() + MAINTENANCE_INTERVAL,
            comparison_due: None,
            seen_until: Timestamp(0),
            missing: (Timestamp(0), Vec::new()),
        }
    }

    /// Reports the processes that run already, parents first.
    fn seed(&mut self) -> io::Result<()> {
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

    fn observe(&mut self, message: &ProcMessage, time: Timestamp) {
        self.missing_messages += self.gaps.observe(message);
        self.report_lost(self.missing_messages);
        self.seen_until = time;
        match message.event {
            ProcEvent::Fork { parent_pid, child_task, child_pid } => {
                let mut processes = self.processes.lock();
                // What was found running after this fork is known better already.
                if processes.found(child_pid).is_some_and(|found| time <= found) {
                    return;
                }
                if child_task == child_pid {
                    let start_time = self.reader.clock().on_grid(time);
                    processes.fork(parent_pid, ProcessId { pid: child_pid, start_time }, time);
                } else {
                    processes.thread_started(child_task, child_pid);
                }
            }
            ProcEvent::Exec { pid } => self.program_started(pid, time),
            ProcEvent::Exit { task, pid, status } => {
                let exit = self.processes.lock().task_exited(pid, task == pid, status);
                if let TaskExit::Ended(ended) = exit {
                    self.process_ended(&ended, time);
                }
            }
            ProcEvent::Acknowledgement { .. } | ProcEvent::Other => {}
        }
    }

    /// Reports what was lost beyond what was reported already, when so many messages were lost in total.
    fn report_lost(&mut self, total: u64) {
        if total > self.lost_reported {
            self.reporter.lost(total - self.lost_reported);
            self.lost_reported = total;
            self.comparison_due = Some(Instant::now() + COMPARISON_DELAY);
        }
    }

    fn program_started(&mut self, pid: u32, time: Timestamp) {
        if Some(pid) == self.own_pid || self.processes.lock().found(pid).is_some_and(|found| time <= found) {
            return;
        }
        let mut details = self.reader.details(pid).unwrap_or_default();
        if details.executable.is_empty()
            && let Some(programs) = &mut self.programs
        {
            details.executable = programs.executable(pid);
        }
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
        self.reporter.send(time, start_event(details, lineage, &mut self.user_names, false));
    }

    fn process_ended(&self, ended: &EndedProcess, time: Timestamp) {
        if ended.start_reported {
            let (exit_code, signal) = wait_status(ended.status);
            self.reporter.send(time, exit_event(ended, time, exit_code, signal));
        }
    }

    fn maintain(&mut self, socket: &NetlinkSocket) {
        let now = Instant::now();
        if now < self.next_maintenance {
            return;
        }
        self.next_maintenance = now + MAINTENANCE_INTERVAL;
        // A gap is seen when the next message of the same processor comes, and not before the first.
        self.report_lost(socket.drops().unwrap_or(0));
        let evictions = self.processes.lock().evictions();
        // The end of a process that was forgotten cannot be reported.
        self.reporter.lost(evictions - self.evictions_reported);
        self.evictions_reported = evictions;
        self.end_leaderless();
        self.forget_missing();
        if self.comparison_due.is_some_and(|due| now >= due) {
            self.comparison_due = None;
            self.compare_with_proc();
        }
    }

    /// Ends processes whose leader has ended and of which nothing is left, although threads seemed to be.
    fn end_leaderless(&self) {
        let leaderless = self.processes.lock().leaderless();
        for pid in leaderless {
            if self.reader.folder(pid).is_none()
                && let Some(ended) = self.processes.lock().remove(pid)
            {
                self.process_ended(&ended, boot_clock::now());
            }
        }
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
