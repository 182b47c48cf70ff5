//! Sensors: what happens on this host, as [`Observation`]s.
//!
//! Each sensor runs on its own thread, pushes what it sees into an [`ObservationSink`] at once (nothing is held back or
//! batched here), counts what it knows to have been lost, and checks its stop token at least every
//! [`STOP_CHECK_INTERVAL`]. Sensors know nothing of buffer, uplink or detector.
//!
//! Platform code sits in its own files; what remains compiles everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, LossReason, LossStage, Origin, SensorMode, Timestamp};
use tokio_util::sync::CancellationToken;

pub use crate::sensor::config::SensorConfig;

pub mod config;

/// How often, at least, a sensor looks whether it shall stop.
pub const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

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
    /// Takes note of `count` events that a sensor knows to have been lost before it could send them.
    fn lost(&self, stage: LossStage, reason: LossReason, count: u64);
}

/// What sensors need to run.
#[derive(Clone, Debug)]
pub struct SensorContext<S> {
    /// Where observations go.
    pub sender: S,
    /// Stops every sensor.
    pub stop: CancellationToken,
}

/// Why sensors could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// A value of the configuration is out of range.
    #[error(transparent)]
    Config(#[from] config::SensorConfigError),
    /// A mode was asked for by name, and this host does not permit it.
    #[error("{sensor} sensor: {reason}; or set sensor.{sensor}.mode to \"auto\"")]
    ModeUnavailable {
        /// Which sensor.
        sensor: &'static str,
        /// What is missing and how to get it.
        reason: String,
    },
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
    /// `process`, `connection`, `replay`.
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
    stop: CancellationToken,
    sensors: Vec<RunningSensor>,
}

#[derive(Debug)]
struct RunningSensor {
    name: &'static str,
    counters: Arc<SensorCounters>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct SensorCounters {
    events: AtomicU64,
    lost: AtomicU64,
}

/// Starts the sensors that `config` asks for.
pub fn start<S: ObservationSink>(config: &SensorConfig, context: SensorContext<S>) -> Result<SensorSet, SensorError> {
    config.check()?;
    Ok(SensorSet { modes: Vec::new(), stop: context.stop.child_token(), sensors: Vec::new() })
}

impl SensorSet {
    /// What each sensor has done so far.
    pub fn status(&self) -> Vec<SensorStatus> {
        let status = |sensor: &RunningSensor| SensorStatus {
            name: sensor.name,
            events_total: sensor.counters.events.load(Ordering::Relaxed),
            lost_total: sensor.counters.lost.load(Ordering::Relaxed),
            running: !sensor.thread.is_finished(),
        };
        self.sensors.iter().map(status).collect()
    }

    /// Stops all sensors and waits for them, at most `timeout` for all together. Gives back the names of those that
    /// did not end in time (their threads are left to themselves).
    pub fn stop_and_join(self, timeout: Duration) -> Vec<&'static str> {
        self.stop.cancel();
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
