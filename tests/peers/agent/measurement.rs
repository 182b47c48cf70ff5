//! One turn of a collector, and the best of several.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::collector::{Collector, Load, Seen};
use crate::control_group::ControlGroup;
use crate::storm::{Done, Storm, write_program};

/// How long after a load what a collector does is counted: it may still be at work.
const SETTLE: Duration = Duration::from_secs(2);

/// The kernel's thread that hands over audit messages.
const AUDIT_THREAD: &str = "kauditd";

/// Clock ticks in which the kernel tells the time of its threads.
const TICK: Duration = Duration::from_millis(10);

/// What a turn consists of.
pub(crate) struct Plan {
    pub(crate) work: PathBuf,
    pub(crate) seconds: u32,
    pub(crate) starts_per_second: u32,
    pub(crate) connections_per_second: u32,
    pub(crate) idle: Duration,
    pub(crate) load_group: ControlGroup,
}

/// What one load cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Events of the load: starts, or connections.
    pub(crate) events: u64,
    /// The collector's processor time.
    pub(crate) collector: Duration,
    /// That of the kernel's thread that works for it.
    pub(crate) kernel_thread: Duration,
    /// That of the load itself.
    pub(crate) load: Duration,
    /// Half of the events of the load took less than this.
    pub(crate) median: Duration,
    /// Bytes the collector wrote that reach a disk.
    pub(crate) written_bytes: u64,
}

/// One turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) version: String,
    pub(crate) idle_share: f64,
    pub(crate) starts: Option<Cost>,
    pub(crate) connections: Option<Cost>,
    pub(crate) resident_bytes: u64,
    pub(crate) resident_bytes_peak: u64,
    pub(crate) seen: Seen,
}

impl Plan {
    /// Runs the loads beside a collector, or beside nothing.
    pub(crate) fn turn(&self, collector: Option<&mut dyn Collector>, round: u32) -> Result<Turn, String> {
        let name = collector.as_ref().map_or("nothing", |collector| collector.name());
        let folder = self.work.join(format!("turn-{name}-{round}").replace('+', "-"));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let program = write_program(&folder).map_err(|error| error.to_string())?;
        let group = ControlGroup::make("collector")?;
        let Some(collector) = collector else {
            let (starts, connections) = (self.starts(&program, &group).1, self.connections(&program, &group).1);
            return Ok(Turn { starts: Some(starts), connections: Some(connections), ..Turn::default() });
        };
        let begun = collector.start(&group, &folder);
        let result = begun.and_then(|()| {
            let turn = self.loads(collector, &program, &group);
            collector.stop()?;
            let (mut turn, port) = turn;
            turn.seen = collector.seen(&Load { program: &program, port }, &folder)?;
            Ok(turn)
        });
        if result.is_err() {
            collector.stop().ok();
        }
        fs::remove_dir_all(&folder).ok();
        result
    }

    fn loads(&self, collector: &dyn Collector, program: &std::path::Path, group: &ControlGroup) -> (Turn, u16) {
        thread::sleep(SETTLE);
        let (before, begun) = (group.processor_time(), Instant::now());
        thread::sleep(self.idle);
        let idle_share = (group.processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let (_, starts_cost) = self.starts(program, group);
        let (connections, connections_cost) = self.connections(program, group);
        let kibibytes = |key: &str| group.sum("status", key) << 10;
        let (looks_for_starts, looks_for_connections) = collector.looks_for();
        let turn = Turn {
            version: collector.version(),
            idle_share,
            starts: looks_for_starts.then_some(starts_cost),
            connections: looks_for_connections.then_some(connections_cost),
            resident_bytes: kibibytes("VmRSS:"),
            resident_bytes_peak: kibibytes("VmHWM:"),
            seen: Seen::default(),
        };
        (turn, connections.port)
    }

    fn starts(&self, program: &std::path::Path, group: &ControlGroup) -> (Done, Cost) {
        let starts = self.starts_per_second * self.seconds;
        let storm = Storm {
            processes_per_second: self.starts_per_second,
            processes: starts,
            connections_per_second: 1,
            connections: 0,
        };
        self.measure(storm, program, group)
    }

    fn connections(&self, program: &std::path::Path, group: &ControlGroup) -> (Done, Cost) {
        let storm = Storm {
            processes_per_second: 1,
            processes: 0,
            connections_per_second: self.connections_per_second,
            connections: self.connections_per_second * self.seconds,
        };
        self.measure(storm, program, group)
    }

    fn measure(&self, storm: Storm, program: &std::path::Path, group: &ControlGroup) -> (Done, Cost) {
        let used = || (group.processor_time(), audit_thread_time(), group.sum("io", "write_bytes:"));
        let before = used();
        let load_before = self.load_group.processor_time();
        let done = storm.run(program);
        let load = self.load_group.processor_time() - load_before;
        thread::sleep(SETTLE);
        let after = used();
        let cost = Cost {
            events: done.processes + done.connections,
            collector: after.0 - before.0,
            kernel_thread: after.1.saturating_sub(before.1),
            load,
            median: done.process_median.max(done.connection_median),
            written_bytes: after.2.saturating_sub(before.2),
        };
        (done, cost)
    }
}

/// Processor time of the kernel's audit thread so far.
fn audit_thread_time() -> Duration {
    let is_thread =
        |folder: &PathBuf| fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == AUDIT_THREAD);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let Some(folder) = processes.filter(|path| path.join("comm").is_file()).find(is_thread) else {
        return Duration::ZERO;
    };
    let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
    // Behind the name: state is field 3, user time 14, system time 15.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at - 3).and_then(|field| field.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(14) + ticks(15))
}

/// The smallest figures of all turns: what other work of the machine has added least to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Best {
    pub(crate) turns: Vec<Turn>,
}

impl Best {
    pub(crate) fn take(&mut self, turn: &Turn) {
        self.turns.push(turn.clone());
    }

    /// The smallest of a figure; `None` when it was never taken.
    pub(crate) fn least(&self, figure: impl Fn(&Turn) -> Option<f64>) -> Option<f64> {
        self.turns.iter().filter_map(figure).min_by(f64::total_cmp)
    }
}
