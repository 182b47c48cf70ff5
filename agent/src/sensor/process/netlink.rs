//! The process sensor on the kernel's process connector.
//!
//! One thread reads the kernel's messages one by one and looks at `/proc` as soon as a program starts, so that
//! processes that live for a millisecond are still described. What the kernel had to drop is known exactly from the
//! gaps in its numbering and from its own count.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use picket_common::event::{Origin, ProcessId, Timestamp};

use crate::enrich::boot_clock::{self, BootClock};
use crate::enrich::process_table::TaskExit;
use crate::enrich::procfs::ProcReader;
use crate::sensor::event_clock::EventClock;
use crate::sensor::maintenance::Maintenance;
use crate::sensor::netlink::{DATAGRAM_BYTES_MAX, NetlinkSocket, Received, message, messages};
use crate::sensor::process::proc_event::{self, ProcEvent, ProcMessage, SequenceGaps};
use crate::sensor::process::program_trace::ProgramTrace;
use crate::sensor::process::tracker::ProcessTracker;
use crate::sensor::process::{NAME, mode};
use crate::sensor::{
    ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor, join_reasons, priority,
};

/// Receive buffer: at some 900 bytes of kernel memory per message, room for two seconds of 4,000 messages each.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// How long the kernel may take to confirm the subscription; it does so within the call.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Most messages kept that come before the confirmation.
const EARLY_MESSAGES_MAX: usize = 4096;

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

/// Starts the sensor on a subscription; `better` says why it is not a better one, if it is known.
pub(super) fn start<S: ObservationSink>(
    subscription: Subscription,
    better: &str,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let (programs, reason) = start_trace(environment.trace);
    let reason = join_reasons(better, &reason);
    let SensorEnvironment { stop, processes, own_pid, .. } = environment.clone();
    environment.spawn(mode(Origin::AgentNetlink, &reason), NAME, move |reporter| {
        priority::raise();
        let tracker = ProcessTracker::new(reporter, subscription.reader, processes, own_pid);
        let mut sensor = ProcessSensor {
            tracker,
            programs,
            gaps: SequenceGaps::default(),
            missing_messages: 0,
            lost_reported: 0,
            maintenance: Maintenance::new(),
        };
        sensor.tracker.seed()?;
        for (time, message) in subscription.early {
            sensor.observe(&message, time);
        }
        let mut clock = subscription.clock;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while !stop.is_raised() {
            match subscription.socket.receive(&mut buffer)? {
                Received::Datagram(length) => {
                    sensor.maintenance.hasten();
                    for message in messages(&buffer[..length]) {
                        if let Some(message) = proc_event::parse(message.payload) {
                            let time = clock.wall_clock(message.monotonic_ns, boot_clock::now());
                            sensor.observe(&message, time);
                        }
                    }
                }
                // Nothing is on its way: everything until now has been seen.
                Received::Nothing | Received::Overrun => sensor.tracker.seen_until = boot_clock::now(),
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

struct ProcessSensor<S> {
    tracker: ProcessTracker<S>,
    /// For programs that are over before they can be looked at.
    programs: Option<ProgramTrace>,
    gaps: SequenceGaps,
    /// Messages known to be lost by the gaps.
    missing_messages: u64,
    lost_reported: u64,
    maintenance: Maintenance,
}

impl<S: ObservationSink> ProcessSensor<S> {
    fn observe(&mut self, message: &ProcMessage, time: Timestamp) {
        self.missing_messages += self.gaps.observe(message);
        self.report_lost(self.missing_messages);
        self.tracker.seen_until = time;
        match message.event {
            ProcEvent::Fork { parent_pid, child_task, child_pid } => {
                // What was found running after this fork is known better already.
                if self.tracker.is_known_since(child_pid, time) {
                    return;
                }
                let mut processes = self.tracker.processes.lock();
                if child_task == child_pid {
                    let start_time = self.tracker.reader.clock().on_grid(time);
                    processes.fork(parent_pid, ProcessId { pid: child_pid, start_time }, time);
                } else {
                    processes.thread_started(child_task, child_pid);
                }
            }
            ProcEvent::Exec { pid } => self.program_started(pid, time),
            ProcEvent::Exit { task, pid, status } => {
                let exit = self.tracker.processes.lock().task_exited(pid, task == pid, status);
                if let TaskExit::Ended(ended) = exit {
                    self.tracker.process_ended(&ended, time, None);
                }
            }
            ProcEvent::Acknowledgement { .. } | ProcEvent::Other => {}
        }
    }

    /// Reports what was lost beyond what was reported already, when so many messages were lost in total.
    fn report_lost(&mut self, total: u64) {
        if total > self.lost_reported {
            self.tracker.lost(total - self.lost_reported);
            self.lost_reported = total;
        }
    }

    fn program_started(&mut self, pid: u32, time: Timestamp) {
        if self.tracker.ignores_start(pid, time) {
            return;
        }
        let mut details = self.tracker.reader.details(pid).unwrap_or_default();
        if details.executable.is_empty()
            && let Some(programs) = &mut self.programs
        {
            details.executable = programs.executable(pid);
        }
        self.tracker.program_started(pid, time, details);
    }

    fn maintain(&mut self, socket: &NetlinkSocket) {
        if self.maintenance.is_due() {
            // A gap is seen when the next message of the same processor comes, and not before the first.
            self.report_lost(socket.drops().unwrap_or(0));
            self.maintenance.done(self.tracker.maintain());
        }
    }
}
