//! The process sensor on eBPF programs.
//!
//! A record says all there is to know of a program start, taken at that moment in the kernel: nothing is asked of `/proc`,
//! and a process cannot be over too soon. Process ids are made of the time of creation that `/proc` shows, too.

use std::sync::Arc;
use std::time::Duration;

use picket_common::event::{Origin, ProcessId, Timestamp};

use crate::enrich::boot_clock;
use crate::enrich::cgroup::CgroupPaths;
use crate::enrich::process_details::ProcessDetails;
use crate::enrich::process_table::EndedProcess;
use crate::enrich::procfs::ProcReader;
use crate::sensor::ebpf::RecordSource;
use crate::sensor::event_clock::EventClock;
use crate::sensor::maintenance::Maintenance;
use crate::sensor::process::ebpf_record::{self, Change, ProcessRecord};
use crate::sensor::process::tracker::ProcessTracker;
use crate::sensor::process::{NAME, mode};
use crate::sensor::process_progress::ProcessProgress;
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, priority};

/// Most records taken before something else gets its turn.
const RECORDS_PER_TURN_MAX: usize = 4096;
/// Most turns after the stop: more than a full ring buffer needs.
const LAST_TURNS_MAX: u32 = 8;
/// How long what follows an event is waited for: each wake-up costs more than the work on some records. A first event is
/// told at once.
const BURST_DELAY: Duration = Duration::from_micros(2_500);

/// Starts the sensor. The inner error says why it cannot run here.
pub(super) fn start<S: ObservationSink>(
    source: RecordSource,
    environment: &SensorEnvironment<S>,
) -> Result<Result<StartedSensor, String>, SensorError> {
    let reader = match ProcReader::open(environment.boot_clock) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(format!("eBPF: /proc cannot be read: {error}"))),
    };
    let SensorEnvironment { stop, processes, own_pid, process_progress: progress, .. } = environment.clone();
    progress.follow(&source);
    let started = environment.spawn(mode(Origin::AgentEbpf, ""), NAME, move |reporter| {
        priority::raise();
        let tracker = ProcessTracker::new(reporter, reader, processes, own_pid);
        let mut sensor =
            ProcessSensor { tracker, cgroups: CgroupPaths::default(), source, clock: EventClock::default(), progress };
        // What happens meanwhile is recorded already.
        sensor.tracker.seed()?;
        let mut maintenance = Maintenance::new();
        while !stop.is_raised() {
            sensor.source.wait(maintenance.patience(), &stop)?;
            let turn = sensor.tell_records();
            if turn.records > 0 {
                maintenance.hasten();
            }
            if turn.has_events {
                std::thread::sleep(BURST_DELAY);
            }
            if maintenance.is_due() {
                sensor.count_losses();
                maintenance.done(sensor.tracker.maintain());
            }
        }
        // What was recorded before the stop is still told.
        for _ in 0..LAST_TURNS_MAX {
            if sensor.tell_records().records < RECORDS_PER_TURN_MAX {
                break;
            }
        }
        sensor.count_losses();
        Ok(())
    });
    started.map(Ok)
}

struct ProcessSensor<S> {
    tracker: ProcessTracker<S>,
    cgroups: CgroupPaths,
    source: RecordSource,
    clock: EventClock,
    progress: ProcessProgress,
}

/// What was there in one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    records: usize,
    /// More than forks, which are no events and are followed by one.
    has_events: bool,
}

impl<S: ObservationSink> ProcessSensor<S> {
    /// Tells of the records that are there, together.
    fn tell_records(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.progress.turn_begins();
        Reporter::together(self, |sensor| &sensor.tracker.reporter, |sensor| turn = sensor.take_records());
        self.progress.turn_ends(turn.records < RECORDS_PER_TURN_MAX);
        turn
    }

    fn take_records(&mut self) -> Turn {
        let mut turn = Turn::default();
        while turn.records < RECORDS_PER_TURN_MAX {
            let asked = boot_clock::now();
            let Some(record) = self.source.next().map(|bytes| ebpf_record::parse(&bytes)) else {
                // Nothing is on its way: everything until now has been seen.
                self.tracker.seen_until = asked;
                break;
            };
            turn.records += 1;
            match record {
                Some(record) => {
                    turn.has_events |= matches!(record.change, Change::Executed(_) | Change::Ended { .. });
                    self.observe(record);
                }
                None => self.tracker.lost(1),
            }
        }
        turn
    }

    fn observe(&mut self, record: ProcessRecord) {
        let ProcessRecord { pid, monotonic_ns, created_ns, change } = record;
        let time = self.clock.wall_clock(monotonic_ns, boot_clock::now());
        let id = ProcessId { pid, start_time: self.tracker.reader.clock().created_at(created_ns) };
        self.tracker.seen_until = time;
        match change {
            Change::Forked { parent_pid } => {
                // What was found running after this fork is known better already.
                if !self.tracker.is_known_since(pid, time) {
                    self.tracker.processes.lock().fork(parent_pid, id, time);
                }
            }
            Change::Executed(details) => self.program_started(id, time, *details),
            Change::Ended { status, executed, processor_ns } => {
                self.process_ended(id, time, status, executed, processor_ns);
            }
            Change::CgroupNamed { id, path } => self.cgroups.insert(id, &path),
        }
    }

    fn process_ended(&self, id: ProcessId, time: Timestamp, status: u32, executed: bool, processor_ns: u64) {
        let mut processes = self.tracker.processes.lock();
        let known = if processes.id(id.pid) == Some(id) { processes.remove(id.pid) } else { None };
        drop(processes);
        // That a program ended is told also when its start was lost.
        let unknown = || EndedProcess {
            id,
            created: id.start_time,
            executable: Arc::from(&b""[..]),
            start_reported: true,
            status: None,
        };
        if let Some(mut ended) = known.or_else(|| executed.then(unknown)) {
            ended.status = Some(status);
            ended.start_reported |= executed;
            self.tracker.process_ended(&ended, time, Some(processor_ns));
        }
    }

    fn program_started(&mut self, id: ProcessId, time: Timestamp, mut details: ProcessDetails) {
        if self.tracker.ignores_start(id.pid, time) {
            return;
        }
        details.start_time = Some(id.start_time);
        if let Some(path) = details.cgroup_id.and_then(|id| self.cgroups.get(id)) {
            details.cgroup = path.clone();
        }
        let is_incomplete = details.executable.is_empty()
            || details.working_directory.is_empty()
            || details.arguments.values.is_empty()
            || details.cgroup.is_empty();
        if is_incomplete {
            self.complete(id, &mut details);
        }
        let mut processes = self.tracker.processes.lock();
        // One whose end was lost.
        if processes.id(id.pid).is_some_and(|known| known != id) {
            processes.remove(id.pid);
        }
        drop(processes);
        self.tracker.program_started(id.pid, time, details);
    }

    /// Asks `/proc` for what the kernel could not say at once: paths that are very deep or long, arguments that were not
    /// in memory, a cgroup whose path was forgotten.
    fn complete(&mut self, id: ProcessId, details: &mut ProcessDetails) {
        let shown = self.tracker.reader.details(id.pid);
        let Some(shown) = shown.filter(|shown| shown.start_time == Some(id.start_time)) else { return };
        if details.executable.is_empty() {
            (details.executable, details.executable_deleted) = (shown.executable, shown.executable_deleted);
        }
        if details.working_directory.is_empty() {
            details.working_directory = shown.working_directory;
        }
        if details.arguments.values.is_empty() {
            details.arguments = shown.arguments;
        }
        if details.cgroup.is_empty() {
            details.cgroup = shown.cgroup;
        }
    }

    fn count_losses(&mut self) {
        let losses = self.source.new_losses();
        let lost = |kind: u32| losses.full.get(kind as usize).copied().unwrap_or(0);
        self.tracker.reporter.throttled(losses.throttled);
        let events = lost(ebpf_record::EXEC) + lost(ebpf_record::EXIT) + losses.missed;
        // A fork, or the end of what never was a program of its own, is no event; but the table missed it.
        if events > 0 || losses.full.iter().any(|&count| count > 0) {
            self.tracker.lost(events);
        }
    }
}
