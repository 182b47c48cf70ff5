//! The authentication sensor: logins, failures, `sudo`, `su`, sessions, from the logs that syslog daemons write.
//!
//! A log is followed across rotation. How far it was read is kept in the state folder, so that a restart doubles no
//! line and loses none; where a rotation took lines away before they were read, that is counted as one loss each time,
//! as nobody knows how many they were. Lines of the traditional format name neither year nor zone: their events carry
//! the time at which the log was last written to.
//!
//! Where there is none of these logs, the journal of systemd is read the same way, and where there is no journal either,
//! `wtmp` and `btmp`. Of several only the first is read, so that no login is told twice; a log that comes later takes the
//! place of the others.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use picket_common::event::{EventBody, LossReason, Origin, Timestamp};

use crate::enrich::SharedProcessTable;
use crate::sensor::authentication::changes::Changes;
use crate::sensor::authentication::journal::Journal;
use crate::sensor::authentication::line::Entry;
use crate::sensor::authentication::log_file::{Chunk, LogFile};
use crate::sensor::authentication::position::{Position, PositionFile};
use crate::sensor::authentication::record_file::{RecordFile, RecordKind};
use crate::sensor::config::{AuthenticationSensorConfig, SensorSwitch};
use crate::sensor::reporter::Reporter;
use crate::sensor::stop::StopSignal;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, sensor_mode};

mod changes;
mod journal;
mod line;
mod log_file;
mod position;
mod record_file;
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
    let positions = PositionFile::open(environment.state_dir.as_deref().map(|folder| folder.join(POSITION_FILE)));
    // Opened before this returns: what is written from now on is seen.
    let (sources, lossy) = Sources::resume(config, &positions);
    let reason = sources.reason(config);
    let poll_interval = config.poll_interval();
    let processes = SharedProcessTable::clone(&environment.processes);
    let stop = environment.stop.clone();
    let run = move |reporter| {
        let mut follower = Follower { reporter, processes, positions, last_save: SystemTime::now() };
        follower.follow(sources, lossy, poll_interval, &stop)
    };
    environment.spawn(sensor_mode(NAME, Origin::AgentLog, &reason), NAME, run).map(Some)
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What tells of logins.
struct Sources {
    logs: Vec<LogFile>,
    /// `None` where there is a log.
    journal: Option<Journal>,
    /// None where there is a log; not read where there is a journal.
    records: Vec<RecordFile>,
}

impl Sources {
    /// All that is configured, where it was left; and in how many of them something may have been lost since.
    fn resume(config: &AuthenticationSensorConfig, positions: &PositionFile) -> (Self, u64) {
        let mut lossy = 0;
        let mut logs = Vec::new();
        for path in &config.log_paths {
            let (log, is_lossy) = LogFile::resume(path, positions.of(path));
            lossy += u64::from(is_lossy);
            logs.push(log);
        }
        let mut sources = Self { logs, journal: None, records: Vec::new() };
        if sources.has_log() {
            return (sources, lossy);
        }
        let (journal, lossy_files) = Journal::resume(&config.journal_folders, positions);
        lossy += lossy_files;
        sources.journal = Some(journal);
        for (path, kind) in [(&config.wtmp_path, RecordKind::Sessions), (&config.btmp_path, RecordKind::Failures)] {
            let (records, is_lossy) = RecordFile::resume(path, kind, positions.of(path));
            lossy += u64::from(is_lossy && !sources.has_journal());
            sources.records.push(records);
        }
        (sources, lossy)
    }

    fn has_log(&self) -> bool {
        self.logs.iter().any(|log| log.position().is_some())
    }

    fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_there)
    }

    /// Has changes of all of them noticed.
    fn follow(&self, changes: &Changes) {
        let journal = self.journal.iter().flat_map(Journal::positions).map(|(path, _)| path);
        let files = self.logs.iter().map(LogFile::path).chain(journal);
        let records = self.records.iter().map(RecordFile::path);
        changes.follow(files.chain(records), self.journal.as_ref().map(Journal::folders).unwrap_or_default());
    }

    /// Why it is not a log that is followed.
    fn reason(&self, config: &AuthenticationSensorConfig) -> String {
        let no_log = format!("no log at {}", shown(&config.log_paths));
        if self.has_log() {
            String::new()
        } else if self.has_journal() {
            format!("{no_log}: following the journal")
        } else {
            let journal = shown(&config.journal_folders);
            format!("{no_log} and no journal at {journal}: waiting for one; sessions and failures from wtmp and btmp")
        }
    }
}

/// Reads logs and reports what they say.
struct Follower<S> {
    reporter: Reporter<S>,
    processes: SharedProcessTable,
    positions: PositionFile,
    last_save: SystemTime,
}

impl<S: ObservationSink> Follower<S> {
    /// `lossy`: in how many of the sources something may have been lost since they were last read.
    fn follow(
        &mut self,
        mut sources: Sources,
        lossy: u64,
        poll_interval: Duration,
        stop: &StopSignal,
    ) -> std::io::Result<()> {
        // Events that were about to be sent when the agent was killed, with the position already past their lines.
        self.reporter.lost_because(LossReason::AgentKilled, self.positions.take_pending());
        self.reporter.lost_because(LossReason::LogRotated, lossy);
        for (path, position) in sources.journal.iter().flat_map(Journal::positions) {
            self.positions.set(path, position);
        }
        let changes = Changes::new();
        loop {
            // Before reading: what changes meanwhile ends the wait.
            sources.follow(&changes);
            let busy = self.read_all(&mut sources)?;
            if stop.is_raised() {
                return self.save(&sources, 0);
            }
            if self.last_save.elapsed().unwrap_or(SAVE_INTERVAL) >= SAVE_INTERVAL {
                self.save(&sources, 0)?;
            }
            if !busy {
                changes.wait(poll_interval, stop)?;
            }
        }
    }

    /// Reads what is new; says whether there may be more.
    fn read_all(&mut self, sources: &mut Sources) -> std::io::Result<bool> {
        let mut busy = false;
        for log in &mut sources.logs {
            busy |= self.read(log)?;
        }
        if sources.has_log() {
            sources.journal = None;
            sources.records.clear();
        }
        if let Some(journal) = &mut sources.journal {
            busy |= self.read_journal(journal)?;
        }
        if !sources.has_journal() {
            for records in &mut sources.records {
                busy |= self.read_records(records)?;
            }
        }
        Ok(busy)
    }

    /// Reads what a log has that is new; says whether there may be more.
    fn read(&mut self, log: &mut LogFile) -> std::io::Result<bool> {
        for _ in 0..CHUNKS_PER_TURN_MAX {
            match log.next_chunk() {
                Ok(Chunk::Lines { written, entries, is_live }) => {
                    self.report(log.path(), log.position(), written, entries, is_live)?
                }
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

    /// Reads what the journal has that is new; says whether there may be more.
    fn read_journal(&mut self, journal: &mut Journal) -> std::io::Result<bool> {
        let mut busy = false;
        for news in journal.news() {
            busy |= news.is_busy;
            self.reporter.lost_because(LossReason::LogRotated, news.unreadable);
            let written = timestamp(SystemTime::now());
            self.report(&news.path, news.position, written, news.entries, true)?;
        }
        Ok(busy)
    }

    /// Reads what `wtmp` or `btmp` have that is new; says whether there may be more.
    fn read_records(&mut self, file: &mut RecordFile) -> std::io::Result<bool> {
        match file.read() {
            Ok(records) => {
                self.reporter.lost_because(LossReason::LogRotated, u64::from(records.is_lossy));
                let written = timestamp(SystemTime::now());
                self.report(file.path(), file.position(), written, records.entries, true)?;
                Ok(records.is_busy)
            }
            Err(error) => {
                tracing::warn!(path = %file.path().display(), %error, "cannot read records of logins");
                Ok(false)
            }
        }
    }

    /// Sends what lines say. The position is past them before: a kill in between loses and counts them, and never
    /// doubles one.
    fn report(
        &mut self,
        log: &Path,
        position: Option<Position>,
        written: Timestamp,
        entries: Vec<Entry>,
        is_live: bool,
    ) -> std::io::Result<()> {
        self.positions.set(log, position);
        if entries.is_empty() {
            return Ok(());
        }
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

    fn save(&mut self, sources: &Sources, pending: u64) -> std::io::Result<()> {
        for log in &sources.logs {
            self.positions.set(log.path(), log.position());
        }
        self.last_save = SystemTime::now();
        self.positions.save(pending)
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}
