//! Sensors: what happens on this host, as [`Observation`]s.
//!
//! Each sensor runs on its own thread, pushes what it sees into an [`ObservationSink`] at once (nothing is held back or
//! batched here), counts what it knows to have been lost, and ends when it is told to ([`stop`]). Sensors know nothing of
//! buffer, uplink or detector.
//!
//! Platform code sits in its own files; what remains compiles everywhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use picket_common::event::limits::AGENT_TEXT_BYTES_MAX;
use picket_common::event::{ByteString, EventBody, LossReason, LossStage, Origin, SensorMode, Timestamp};

use crate::config::live::Live;
use crate::enrich::SharedProcessTable;
#[cfg(target_os = "linux")]
use crate::enrich::boot_clock::BootClock;
use crate::enrich::process_table::ProcessTable;
use crate::enrich::redaction::{PatternError, Redactor};
use crate::hardening::{Hardening, HardeningError};
pub use crate::sensor::config::SensorConfig;
#[cfg(target_os = "linux")]
pub use crate::sensor::ebpf::EbpfLoading;
#[cfg(target_os = "linux")]
use crate::sensor::ebpf::EbpfSources;
#[cfg(target_os = "linux")]
use crate::sensor::process_progress::ProcessProgress;
use crate::sensor::reporter::{Reporter, SensorCounters};
use crate::sensor::stop::StopSignal;

#[cfg(unix)]
mod authentication;
pub mod config;
mod connection;
mod datagram;
#[cfg(target_os = "linux")]
pub(crate) mod ebpf;
#[cfg(target_os = "linux")]
mod event_clock;
#[cfg(target_os = "linux")]
mod file;
mod kernel;
#[cfg(target_os = "linux")]
mod maintenance;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod priority;
mod process;
#[cfg(target_os = "linux")]
mod process_progress;
pub mod replay;
mod reporter;
pub(crate) mod stop;
#[cfg(all(test, target_os = "linux"))]
mod test_sink;
#[cfg(target_os = "linux")]
mod trace;

/// How often, at least, a sensor looks whether it shall stop that cannot wait for that and for events at once.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(400);
/// How long the sensors before it may take to end when one cannot be started.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// An event without a key: the pipeline numbers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When it happened, as near as the sensor can tell.
    pub time: Timestamp,
    /// Which kind of sensor saw it.
    pub origin: Origin,
    /// What happened.
    pub body: EventBody,
}

/// Where sensors put what they see. Neither method may block.
pub trait ObservationSink: Clone + Send + 'static {
    /// Takes an observation, or drops and counts it.
    fn send(&self, observation: Observation);
    /// Takes many observations, in order, and leaves none: whoever works on them is woken once, not for each.
    fn send_all(&self, observations: &mut Vec<Observation>) {
        observations.drain(..).for_each(|observation| self.send(observation));
    }
    /// Takes note of `count` events that a sensor knows to have been lost before it could send them.
    fn lost(&self, stage: LossStage, reason: LossReason, count: u64);
}

/// What sensors need to run.
#[derive(Debug)]
pub struct SensorContext<S> {
    /// Where observations go.
    pub sender: S,
    /// Where the agent itself connects to. A failed attempt there that was over before its owner could be found is
    /// taken for the agent's own, which is not reported. May be empty.
    pub own_remotes: Vec<SocketAddr>,
    /// Where sensors keep how far they came; `None`: they do not.
    pub state_dir: Option<PathBuf>,
    /// The eBPF programs on their way; without, they are loaded now and in this process.
    #[cfg(target_os = "linux")]
    pub ebpf: Option<EbpfLoading>,
    /// What each sensor gives up when it begins.
    pub hardening: Hardening,
}

/// Why sensors could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// A value of the configuration is out of range.
    #[error(transparent)]
    Config(#[from] config::SensorConfigError),
    /// A pattern for secrets cannot be used.
    #[error(transparent)]
    Redaction(#[from] PatternError),
    /// A mode was asked for by name, and this host does not permit it.
    #[error("{sensor} sensor: {reason}; or set sensor.{sensor}.mode to \"auto\"")]
    ModeUnavailable {
        /// Which sensor.
        sensor: &'static str,
        /// What is missing and how to get it.
        reason: String,
    },
    /// A recording cannot be played.
    #[error("replay sensor: recording {path}")]
    Recording {
        /// Which recording.
        path: PathBuf,
        /// What is wrong with it.
        source: replay::RecordingError,
    },
    /// The system has no more descriptors.
    #[error("the sensors cannot be made to stop: {0}; raise the limit of open files")]
    Stop(std::io::Error),
    /// What a sensor must give up and cannot.
    #[error(transparent)]
    Hardening(#[from] HardeningError),
    /// A thread could not be created.
    #[error("{sensor} sensor: cannot start its thread")]
    Thread {
        /// Which sensor.
        sensor: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What one sensor has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorStatus {
    /// `process`, `connection`, `datagram`, `authentication`, `file`, `kernel`, `replay`.
    pub name: &'static str,
    /// Observations sent.
    pub events_total: u64,
    /// Events it knows to have been lost before it could send them.
    pub lost_total: u64,
    /// Whether its thread runs.
    pub running: bool,
}

/// The running sensors.
#[derive(Debug)]
pub struct SensorSet {
    /// Which sensors run, how, and why no better. A sensor that cannot run here at all is listed with
    /// [`Origin::Agent`] and the reason.
    pub modes: Vec<SensorMode>,
    stop: StopSignal,
    sensors: Vec<RunningSensor>,
    processes: SharedProcessTable,
    redactor: SharedRedactor,
}

#[derive(Debug)]
struct RunningSensor {
    name: &'static str,
    counters: Arc<SensorCounters>,
    thread: JoinHandle<()>,
}

/// What every sensor gets.
#[derive(Clone, Debug)]
struct SensorEnvironment<S> {
    sender: S,
    stop: StopSignal,
    processes: SharedProcessTable,
    /// The agent's own process, which is not reported.
    own_pid: Option<u32>,
    own_remotes: Vec<SocketAddr>,
    state_dir: Option<PathBuf>,
    /// Trace events may be used.
    trace: bool,
    /// What a sensor's thread gives up.
    hardening: Hardening,
    /// Takes secrets out of command lines.
    redactor: SharedRedactor,
    /// One for all, so that all give a process the same start time.
    #[cfg(target_os = "linux")]
    boot_clock: BootClock,
    #[cfg(target_os = "linux")]
    ebpf: Arc<parking_lot::Mutex<EbpfSources>>,
    #[cfg(target_os = "linux")]
    process_progress: ProcessProgress,
}

/// How a sensor runs, within the limits of an event.
fn sensor_mode(name: &'static str, origin: Origin, reason: &str) -> SensorMode {
    let length = reason.len().min(AGENT_TEXT_BYTES_MAX);
    SensorMode { name: name.into(), origin, reason: ByteString::truncated(&reason.as_bytes()[..length]) }
}

/// Why a sensor does not run in a better way, for several better ways.
fn join_reasons(first: &str, second: &str) -> String {
    if first.is_empty() || second.is_empty() { format!("{first}{second}") } else { format!("{first}; {second}") }
}

/// A sensor that was started, or the reason why it cannot run here.
struct StartedSensor {
    mode: SensorMode,
    running: Option<RunningSensor>,
}

/// Starts the sensors that `config` asks for.
pub fn start<S: ObservationSink>(config: &SensorConfig, context: SensorContext<S>) -> Result<SensorSet, SensorError> {
    start_seeing(config, context, Some(std::process::id()))
}

/// As [`start`], without the given process.
fn start_seeing<S: ObservationSink>(
    config: &SensorConfig,
    context: SensorContext<S>,
    own_pid: Option<u32>,
) -> Result<SensorSet, SensorError> {
    config.check()?;
    let environment = SensorEnvironment {
        sender: context.sender,
        stop: StopSignal::new().map_err(SensorError::Stop)?,
        processes: Arc::new(parking_lot::Mutex::new(ProcessTable::default())),
        own_pid,
        own_remotes: context.own_remotes,
        state_dir: context.state_dir,
        trace: config.trace,
        hardening: context.hardening,
        redactor: Arc::new(Live::new(redactor(&config.process)?)),
        #[cfg(target_os = "linux")]
        boot_clock: BootClock::measure(),
        #[cfg(target_os = "linux")]
        ebpf: Arc::new(parking_lot::Mutex::new(
            context.ebpf.unwrap_or_else(|| EbpfLoading::begin(config, None)).finish(),
        )),
        #[cfg(target_os = "linux")]
        process_progress: ProcessProgress::default(),
    };
    let mut set = SensorSet {
        modes: Vec::new(),
        stop: environment.stop.clone(),
        sensors: Vec::new(),
        processes: Arc::clone(&environment.processes),
        redactor: Arc::clone(&environment.redactor),
    };
    let started = [
        process::start(&config.process, &environment),
        connection::start(&config.connection, &environment),
        datagram::start(&config.datagram, &environment),
        #[cfg(unix)]
        authentication::start(&config.authentication, &environment),
        #[cfg(target_os = "linux")]
        file::start(&config.file, &environment),
        kernel::start(&config.kernel, &environment),
        config.replay.as_ref().map(|config| replay::start(config, &environment)).transpose(),
    ];
    for sensor in started {
        match sensor {
            Ok(None) => {}
            Ok(Some(StartedSensor { mode, running })) => {
                set.modes.push(mode);
                set.sensors.extend(running);
            }
            Err(error) => {
                // What was started already must not go on behind the caller's back.
                set.stop_and_join(STOP_TIMEOUT);
                return Err(error);
            }
        }
    }
    Ok(set)
}

/// What takes secrets out of command lines, as the configuration says; it can be replaced while sensors run.
pub(crate) type SharedRedactor = Arc<Live<Option<Arc<Redactor>>>>;

pub(crate) fn redactor(config: &config::ProcessSensorConfig) -> Result<Option<Arc<Redactor>>, PatternError> {
    config.redact_arguments.then(|| Redactor::new(&config.redact_patterns).map(Arc::new)).transpose()
}

impl<S: ObservationSink> SensorEnvironment<S> {
    /// Runs a sensor on its own thread.
    fn spawn(
        &self,
        mode: SensorMode,
        name: &'static str,
        run: impl FnOnce(Reporter<S>) -> std::io::Result<()> + Send + 'static,
    ) -> Result<StartedSensor, SensorError> {
        let counters = Arc::new(SensorCounters::default());
        let reporter = Reporter::new(self.sender.clone(), Arc::clone(&counters), mode.origin, self.redactor.clone());
        let (hardening, origin) = (self.hardening.clone(), mode.origin);
        // The start is over when the thread has given up what it does not need.
        let (restricted, is_restricted) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let outcome = hardening.restrict_sensor(name, origin);
            let is_refused = outcome.is_err();
            // Fails when nobody waits any more.
            restricted.send(outcome).ok();
            if is_refused {
                return;
            }
            if let Err(error) = run(reporter) {
                tracing::error!(sensor = name, %error, "sensor stopped");
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("sensor-{name}"))
            .spawn(body)
            .map_err(|source| SensorError::Thread { sensor: name, source })?;
        // Without an answer it has panicked, which its status says.
        is_restricted.recv().unwrap_or(Ok(()))?;
        Ok(StartedSensor { mode, running: Some(RunningSensor { name, counters, thread }) })
    }
}

impl SensorSet {
    /// What each sensor has done so far.
    pub fn status(&self) -> Vec<SensorStatus> {
        let status = |sensor: &RunningSensor| SensorStatus {
            name: sensor.name,
            events_total: sensor.counters.events(),
            lost_total: sensor.counters.lost(),
            running: !sensor.thread.is_finished(),
        };
        self.sensors.iter().map(status).collect()
    }

    /// What takes secrets out of command lines, to be replaced.
    pub(crate) fn redactor(&self) -> SharedRedactor {
        Arc::clone(&self.redactor)
    }

    /// The processes known, for other parts that name a process.
    pub fn processes(&self) -> SharedProcessTable {
        Arc::clone(&self.processes)
    }

    /// Stops all sensors and waits for them, at most `timeout` for all together. Gives back the names of those that
    /// did not end in time (their threads are left to themselves) or had failed.
    pub fn stop_and_join(self, timeout: Duration) -> Vec<&'static str> {
        self.stop.raise();
        let deadline = Instant::now() + timeout;
        let mut late = Vec::new();
        for sensor in self.sensors {
            while !sensor.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !sensor.thread.is_finished() || sensor.thread.join().is_err() {
                late.push(sensor.name);
            }
        }
        late
    }
}
