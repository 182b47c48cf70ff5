//! The replay sensor: plays a recording (JSON lines, see [`picket_common::event::json`]) as if it happened now.
//!
//! What an agent says of itself (starts, losses) is not played: it is not true of this one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sensor::stop::StopSignal;
use picket_common::event::{Event, EventBody, Origin, ProcessId, SensorMode, Timestamp, json};

use crate::sensor::config::{ReplayConfig, ReplayTime};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor};

/// Its name in statuses.
pub(crate) const NAME: &str = "replay";
/// Longest line of a recording, bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Starts the sensor, after having read the whole recording once: a damaged one is refused.
pub(super) fn start<S: ObservationSink>(
    config: &ReplayConfig,
    environment: &SensorEnvironment<S>,
) -> Result<StartedSensor, SensorError> {
    let mut events = 0_u64;
    Recording::open(&config.path)
        .and_then(|recording| {
            for event in recording {
                event?;
                events += 1;
            }
            Ok(())
        })
        .map_err(|source| SensorError::Recording { path: config.path.clone(), source })?;
    if events == 0 {
        let source = RecordingError::Empty;
        return Err(SensorError::Recording { path: config.path.clone(), source });
    }
    let mode = SensorMode { name: NAME.into(), origin: Origin::Replay, reason: Default::default() };
    let (config, stop) = (config.clone(), environment.stop.clone());
    environment.spawn(mode, NAME, move |reporter| {
        let mut player = Player { reporter, stop, pace: Pace::new(config.events_per_second), sent: 0 };
        let mut loops = 0;
        while !player.stop.is_raised() && (config.loops == 0 || loops < config.loops) {
            loops += 1;
            if !player.play(&config).map_err(io::Error::other)? {
                break;
            }
        }
        Ok(())
    })
}

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line is no event.
    #[error("line {line}: {reason}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing in it can be played.
    #[error("holds no event of a host")]
    Empty,
}

/// The events of a recording, in order.
struct Recording {
    file: BufReader<File>,
    line: u64,
    text: Vec<u8>,
}

impl Recording {
    fn open(path: &Path) -> Result<Self, RecordingError> {
        Ok(Self { file: BufReader::new(File::open(path)?), line: 0, text: Vec::new() })
    }

    fn next_event(&mut self) -> Result<Option<Event>, RecordingError> {
        loop {
            self.line += 1;
            self.text.clear();
            let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            let line = self.line;
            let error = |reason: String| RecordingError::Line { line, reason };
            if self.text.last() != Some(&b'\n') && read as u64 == LINE_BYTES_MAX {
                return Err(error(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            let value = serde_json::from_slice(&self.text).map_err(|source| error(source.to_string()))?;
            let event = json::from_json(&value).map_err(|source| error(source.to_string()))?;
            if !matches!(event.body, EventBody::SensorLoss(_) | EventBody::AgentStart(_) | EventBody::AgentChange(_)) {
                return Ok(Some(event));
            }
        }
    }
}

impl Iterator for Recording {
    type Item = Result<Event, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

struct Player<S> {
    reporter: Reporter<S>,
    stop: StopSignal,
    pace: Pace,
    sent: u64,
}

impl<S: ObservationSink> Player<S> {
    /// Plays the recording once; says whether to go on.
    fn play(&mut self, config: &ReplayConfig) -> Result<bool, RecordingError> {
        let mut shift_ns = None;
        for event in Recording::open(&config.path)? {
            let event = event?;
            if !self.wait_for_turn() {
                return Ok(false);
            }
            let time = match config.time {
                ReplayTime::Original => event.time,
                ReplayTime::Shifted => {
                    let shift_ns = *shift_ns.get_or_insert_with(|| now().0.saturating_sub(event.time.0));
                    Timestamp(event.time.0.saturating_add(shift_ns))
                }
            };
            self.sent += 1;
            let mut body = event.body;
            if config.number_pids {
                // Numbers start again only after more than four billion events.
                number(&mut body, u32::try_from(self.sent % (1 << 32)).unwrap_or(0), time);
            }
            self.reporter.send(time, body);
            if self.sent == config.stop_after_events {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the next event is due; false when stopped instead.
    fn wait_for_turn(&mut self) -> bool {
        let due = self.pace.next_due();
        loop {
            if self.stop.is_raised() {
                return false;
            }
            let left = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return true;
            }
            self.stop.sleep(left);
        }
    }
}

/// When events are due.
struct Pace {
    begin: Instant,
    events: u64,
    per_second: u32,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { begin: Instant::now(), events: 0, per_second }
    }

    /// When the next event is due; `None` at once.
    fn next_due(&mut self) -> Option<Instant> {
        let nanoseconds = u128::from(self.events) * 1_000_000_000 / u128::from(self.per_second.max(1));
        self.events += 1;
        (self.per_second > 0).then(|| self.begin + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

/// Gives an event the process id `pid`, also one that named no process.
fn number(body: &mut EventBody, pid: u32, time: Timestamp) {
    let numbered = |process: Option<ProcessId>| {
        Some(ProcessId { pid, start_time: process.map_or(time, |process| process.start_time) })
    };
    match body {
        EventBody::ProcessStart(start) => start.process.pid = pid,
        EventBody::ProcessExit(exit) => exit.process.pid = pid,
        EventBody::ConnectionOpen(connection) | EventBody::ConnectionListen(connection) => {
            connection.process = numbered(connection.process);
        }
        EventBody::ConnectionSummary(summary) => {
            summary.close.connection.process = numbered(summary.close.connection.process);
        }
        EventBody::ConnectionClose(close) => close.connection.process = numbered(close.connection.process),
        EventBody::Authentication(authentication) => authentication.process = numbered(authentication.process),
        EventBody::FileActivity(file) => file.process = numbered(file.process),
        EventBody::DnsActivity(dns) => dns.process = numbered(dns.process),
        EventBody::KernelActivity(kernel) => kernel.process = numbered(kernel.process),
        EventBody::SensorLoss(_) | EventBody::AgentStart(_) | EventBody::AgentChange(_) => {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
