//! The authentication sensor: logins, failures, `sudo`, `su`, sessions, from the logs that syslog daemons write.
//!
//! A log is followed across rotation. How far it was read is kept in the state folder, so that a restart doubles no
//! line and loses none; where a rotation took lines away before they were read, that is counted as one loss each time,
//! as nobody knows how many they were. Lines of the traditional format name neither year nor zone: their events carry
//! the time at which the log was last written to.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use picket_common::event::{EventBody, LossReason, Origin, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::enrich::SharedProcessTable;
use crate::sensor::authentication::line::Entry;
use crate::sensor::authentication::log_file::{Chunk, LogFile};
use crate::sensor::authentication::position::PositionFile;
use crate::sensor::config::{AuthenticationSensorConfig, SensorSwitch};
use crate::sensor::reporter::Reporter;
use crate::sensor::{ObservationSink, STOP_CHECK_INTERVAL, SensorEnvironment, SensorError, StartedSensor, sensor_mode};

mod line;
mod log_file;
mod position;
#[cfg(test)]
mod tests;

const NAME: &str = "authentication";
/// File in the state folder that says how far each log was read.
const POSITION_FILE: &str = "authentication.position";
/// How often a position is written that no event depends on.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Most chunks read of one log before the next has its turn.
const CHUNKS_PER_TURN_MAX: usize = 16;

/// Starts the sensor, unless it is switched off.
pub(super) fn start<S: ObservationSink>(
    config: &AuthenticationSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    if config.mode == SensorSwitch::Off {
        return Ok(None);
    }
    let there: Vec<&PathBuf> = config.log_paths.iter().filter(|path| path.is_file()).collect();
    let reason = match there.as_slice() {
        [] => {
            format!("no log at {}: waiting for one; what is only in the journal is not seen", shown(&config.log_paths))
        }
        _ => String::new(),
    };
    let positions = PositionFile::open(environment.state_dir.as_deref().map(|folder| folder.join(POSITION_FILE)));
    // Opened before this returns: what is written from now on is seen.
    let logs = config.log_paths.iter().map(|path| LogFile::resume(path, positions.of(path))).collect();
    let poll_interval = config.poll_interval();
    let processes = SharedProcessTable::clone(&environment.processes);
    let stop = environment.stop.clone();
    let run = move |reporter| {
        let mut follower = Follower { reporter, processes, positions, last_save: SystemTime::now() };
        follower.follow(logs, poll_interval, &stop)
    };
    environment.spawn(sensor_mode(NAME, Origin::AgentLog, &reason), NAME, run).map(Some)
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Reads logs and reports what they say.
struct Follower<S> {
    reporter: Reporter<S>,
    processes: SharedProcessTable,
    positions: PositionFile,
    last_save: SystemTime,
}

impl<S: ObservationSink> Follower<S> {
    /// `logs`: each with whether lines of it may have been lost since it was last read.
    fn follow(
        &mut self,
        logs: Vec<(LogFile, bool)>,
        poll_interval: Duration,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        // Events that were about to be sent when the agent was killed, with the position already past their lines.
        self.reporter.lost_because(LossReason::AgentKilled, self.positions.take_pending());
        let lossy = logs.iter().filter(|(_, is_lossy)| *is_lossy).count();
        self.reporter.lost_because(LossReason::LogRotated, lossy as u64);
        let mut logs: Vec<LogFile> = logs.into_iter().map(|(log, _)| log).collect();
        loop {
            let mut busy = false;
            for log in &mut logs {
                busy |= self.read(log)?;
            }
            if stop.is_cancelled() {
                return self.save(&logs, 0);
            }
            if self.last_save.elapsed().unwrap_or(SAVE_INTERVAL) >= SAVE_INTERVAL {
                self.save(&logs, 0)?;
            }
            if !busy {
                wait(poll_interval, stop);
            }
        }
    }

    /// Reads what a log has that is new; says whether there may be more.
    fn read(&mut self, log: &mut LogFile) -> std::io::Result<bool> {
        for _ in 0..CHUNKS_PER_TURN_MAX {
            match log.next_chunk() {
                Ok(Chunk::Lines { written, entries, is_live }) => self.report(log, written, entries, is_live)?,
                Ok(Chunk::Truncated) => self.reporter.lost_because(LossReason::LogRotated, 1),
                Ok(Chunk::End) => return Ok(false),
                Err(error) => {
                    tracing::warn!(log = %log.path().display(), %error, "cannot read an authentication log");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Sends what lines say. The position is past them before: a kill in between loses and counts them, and never
    /// doubles one.
    fn report(&mut self, log: &LogFile, written: Timestamp, entries: Vec<Entry>, is_live: bool) -> std::io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.positions.set(log.path(), log.position());
        self.positions.save(entries.len() as u64)?;
        for mut entry in entries {
            let time = entry.time.unwrap_or(written);
            // A process of long ago is not looked for: its id may be another's by now.
            let pid = entry.pid.filter(|_| is_live || entry.time.is_some());
            let owner = pid.and_then(|pid| self.processes.lock().owner_at(pid, time));
            entry.authentication.process = owner.map(|(process, _)| process);
            self.reporter.send(time, EventBody::Authentication(Box::new(entry.authentication)));
        }
        self.positions.save(0)
    }

    fn save(&mut self, logs: &[LogFile], pending: u64) -> std::io::Result<()> {
        for log in logs {
            self.positions.set(log.path(), log.position());
        }
        self.last_save = SystemTime::now();
        self.positions.save(pending)
    }
}

fn wait(time: Duration, stop: &CancellationToken) {
    let mut left = time;
    while !left.is_zero() && !stop.is_cancelled() {
        let step = left.min(STOP_CHECK_INTERVAL);
        std::thread::sleep(step);
        left -= step;
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}
