//! The process sensor by periodic looks at the process table, where nothing better is permitted or exists.
//!
//! Processes that come and go between two looks are not seen, exit codes are not known, and times are those of the look.
//! Listing is portable (`sysinfo`); on Linux each new process is then described from `/proc`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_common::event::{EventBody, Origin, ProcessId, Timestamp};
use sysinfo::{Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use crate::enrich::SharedProcessTable;
use crate::enrich::process_details::{Arguments, ProcessDetails};
use crate::enrich::process_table::{Execution, FoundProcess};
#[cfg(target_os = "linux")]
use crate::enrich::procfs::ProcReader;
use crate::enrich::user_names::UserNames;
use crate::sensor::config::ProcessSensorConfig;
use crate::sensor::process::{NAME, SEEDED_PROCESSES_MAX, exit_event, mode, start_event};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor};

/// Starts the sensor; `reason` says why it is not a better one.
pub(super) fn start<S: ObservationSink>(
    config: &ProcessSensorConfig,
    environment: &SensorEnvironment<S>,
    reason: &str,
) -> Result<StartedSensor, SensorError> {
    let mut system = match System::new() {
        Ok(system) => system,
        Err(error) => {
            let reason = format!("{reason}; polling: {error}");
            return Err(SensorError::ModeUnavailable { sensor: NAME, reason });
        }
    };
    let interval = config.poll_interval();
    let SensorEnvironment { stop, processes, own_pid, .. } = environment.clone();
    let describer = Describer::new(environment);
    environment.spawn(mode(Origin::AgentPolling, reason), NAME, move |reporter| {
        let mut poller = ProcessPoller::new(reporter, describer, processes, own_pid);
        while !stop.is_raised() {
            let next = Instant::now() + interval;
            poller.look(&mut system);
            stop.sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    })
}

struct ProcessPoller<S> {
    reporter: Reporter<S>,
    processes: SharedProcessTable,
    user_names: UserNames,
    describer: Describer,
    own_pid: Option<u32>,
    known: HashMap<u32, Known>,
    looks: u64,
}

/// A process as the last look showed it.
struct Known {
    start_time_s: u64,
    executable: Vec<u8>,
    reported: bool,
    seen_in_look: u64,
}

impl<S: ObservationSink> ProcessPoller<S> {
    fn new(reporter: Reporter<S>, describer: Describer, processes: SharedProcessTable, own_pid: Option<u32>) -> Self {
        Self {
            reporter,
            processes,
            user_names: UserNames::default(),
            describer,
            own_pid,
            known: HashMap::new(),
            looks: 0,
        }
    }

    /// Compares the process table with the last look.
    fn look(&mut self, system: &mut System) {
        let what = ProcessRefreshKind::nothing()
            .without_tasks()
            .with_exe(UpdateKind::Always)
            .with_cmd(UpdateKind::OnlyIfNotSet)
            .with_cwd(UpdateKind::OnlyIfNotSet)
            .with_user(UpdateKind::OnlyIfNotSet);
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        self.looks += 1;
        let time = now();
        let mut alive: Vec<&Process> = system
            .processes()
            .values()
            .filter(|process| process.thread_kind().is_none())
            .filter(|process| !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead))
            .collect();
        // Parents before children, as far as the clock of the process table tells them apart.
        alive.sort_by_key(|process| (process.start_time(), process.pid()));
        for process in alive {
            self.see(process, time);
        }
        self.report_gone(time);
    }

    fn see(&mut self, process: &Process, time: Timestamp) {
        let pid = process.pid().as_u32();
        let executable = process.exe().map(path_bytes).unwrap_or_default();
        match self.known.get_mut(&pid) {
            Some(known) if known.start_time_s == process.start_time() => {
                known.seen_in_look = self.looks;
                if executable.is_empty() || known.executable == executable {
                    return;
                }
                known.executable = executable.to_vec();
                if known.reported {
                    self.program_changed(process, pid, time);
                }
            }
            Some(_) => {
                self.process_gone(pid, time);
                self.process_came(process, pid, executable.to_vec(), time);
            }
            None => self.process_came(process, pid, executable.to_vec(), time),
        }
    }

    fn process_came(&mut self, process: &Process, pid: u32, executable: Vec<u8>, time: Timestamp) {
        let details = self.describer.describe(process, pid);
        let seeded = self.looks == 1;
        let beyond_limit = seeded && self.known.len() >= SEEDED_PROCESSES_MAX;
        let reported = Some(pid) != self.own_pid && !details.is_kernel_thread && !beyond_limit;
        let lineage = self.processes.lock().find(FoundProcess {
            id: ProcessId { pid, start_time: details.start_time.unwrap_or(time) },
            parent_pid: details.parent_pid,
            executable: Arc::from(&details.executable[..]),
            user_id: details.user_id,
            group_id: details.group_id,
            session_id: details.session_id,
            thread_count: 1,
            found: time,
            reported,
        });
        let known = Known { start_time_s: process.start_time(), executable, reported, seen_in_look: self.looks };
        self.known.insert(pid, known);
        if reported {
            self.reporter.send(time, start_event(details, lineage, &mut self.user_names, seeded));
        }
    }

    fn program_changed(&mut self, process: &Process, pid: u32, time: Timestamp) {
        let details = self.describer.describe(process, pid);
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

    fn report_gone(&mut self, time: Timestamp) {
        let look = self.looks;
        let gone: Vec<u32> =
            self.known.iter().filter(|(_, known)| known.seen_in_look != look).map(|(&pid, _)| pid).collect();
        for pid in gone {
            self.process_gone(pid, time);
        }
    }

    fn process_gone(&mut self, pid: u32, time: Timestamp) {
        let reported = self.known.remove(&pid).is_some_and(|known| known.reported);
        if let Some(ended) = self.processes.lock().remove(pid)
            && reported
        {
            self.reporter.send(time, EventBody::ProcessExit(exit_event(&ended, time, None, None)));
        }
    }
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// Describes a process by what the portable listing says.
fn describe_portably(process: &Process) -> ProcessDetails {
    let seconds = i64::try_from(process.start_time()).unwrap_or(0);
    #[cfg(unix)]
    let (user_id, group_id) = (
        process.effective_user_id().or(process.user_id()).map(|user_id| **user_id),
        process.effective_group_id().or(process.group_id()).map(|group_id| *group_id),
    );
    #[cfg(not(unix))]
    let (user_id, group_id) = (None, None);
    ProcessDetails {
        executable: process.exe().map(path_bytes).unwrap_or_default().to_vec(),
        arguments: Arguments::collect(process.cmd().iter().map(|argument| argument.as_encoded_bytes())),
        working_directory: process.cwd().map(path_bytes).unwrap_or_default().into(),
        user_id,
        group_id,
        session_id: process.session_id().map(|session_id| session_id.as_u32()),
        parent_pid: process.parent().map(|parent| parent.as_u32()),
        start_time: Some(Timestamp(seconds.saturating_mul(1_000_000_000))),
        ..ProcessDetails::default()
    }
}

/// Describes a process as well as this platform can.
#[cfg(target_os = "linux")]
struct Describer {
    reader: Option<ProcReader>,
}

#[cfg(target_os = "linux")]
impl Describer {
    fn new<S>(environment: &SensorEnvironment<S>) -> Self {
        Self { reader: ProcReader::open(environment.boot_clock).ok() }
    }

    fn describe(&mut self, process: &Process, pid: u32) -> ProcessDetails {
        let details = self.reader.as_mut().and_then(|reader| reader.details(pid));
        details.filter(|details| details.start_time.is_some()).unwrap_or_else(|| describe_portably(process))
    }
}

#[cfg(not(target_os = "linux"))]
struct Describer;

#[cfg(not(target_os = "linux"))]
impl Describer {
    fn new<S>(_environment: &SensorEnvironment<S>) -> Self {
        Self
    }

    fn describe(&mut self, process: &Process, _pid: u32) -> ProcessDetails {
        describe_portably(process)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_description_says_what_it_can() {
        let mut system = System::new().unwrap();
        let own = sysinfo::get_current_pid().unwrap();
        let all = ProcessRefreshKind::everything().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), true, all);
        let details = describe_portably(system.process(own).unwrap());
        assert_eq!(details.executable, path_bytes(&std::env::current_exe().unwrap()));
        assert!(!details.arguments.values.is_empty());
        let age = now().0 - details.start_time.unwrap().0;
        assert!((-2_000_000_000..3_600_000_000_000).contains(&age), "{age}");
    }
}
