//! The file sensor: changes in places where attackers stay (cron, units, profiles, keys, `sudoers`, the preload list)
//! and programs in folders that everybody may write to.
//!
//! By `fanotify`, which tells who did it, or where that is not permitted by `inotify`, which does not. The former names folders by file handles; a folder's handle is learned by opening the
//! folder once while the group waits for just that, so that no handle is ever opened. Only folders are marked:
//! what is watched is their entries.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use picket_common::event::{ByteString, EventBody, FileAction, FileActivity, LossReason, Origin};

use crate::enrich::SharedProcessTable;
use crate::enrich::boot_clock::{BootClock, now};
use crate::enrich::procfs::ProcReader;
use crate::sensor::config::{FileModeChoice, FileSensorConfig};
use crate::sensor::file::actor::Actors;
use crate::sensor::file::group::Group;
use crate::sensor::file::inotify::InotifyGroup;
use crate::sensor::file::notifier::Notifier;
use crate::sensor::file::plan::{Folder, Plan};
use crate::sensor::file::record::{Entry, Handle, Record};
use crate::sensor::reporter::Reporter;
use crate::sensor::stop::StopSignal;
use crate::sensor::{ObservationSink, SensorEnvironment, SensorError, StartedSensor, join_reasons, sensor_mode};

mod actor;
mod group;
mod inotify;
mod notifier;
mod plan;
mod record;
#[cfg(test)]
mod tests;

const NAME: &str = "file";
/// How often the sensor looks for users and folders that are new, beside what events tell.
const PLAN_INTERVAL: Duration = Duration::from_secs(30);
/// How long a change waits for the process sensor to hear of the program that made it; the kernel keeps it meanwhile.
const SETTLE: Duration = Duration::from_millis(20);
/// Permission bits of a program.
const EXECUTABLE: u32 = 0o111;
/// Type bits of a regular file and of a folder, and their mask.
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// Starts the sensor, unless it is switched off.
pub(super) fn start<S: ObservationSink>(
    config: &FileSensorConfig,
    environment: &SensorEnvironment<S>,
) -> Result<Option<StartedSensor>, SensorError> {
    if config.mode == FileModeChoice::Off {
        return Ok(None);
    }
    let (notifier, worse) = match notifier(config.mode) {
        Ok(notifier) => notifier,
        Err(reason) if config.mode == FileModeChoice::Auto => {
            return Ok(Some(StartedSensor { mode: sensor_mode(NAME, Origin::Agent, &reason), running: None }));
        }
        Err(reason) => return Err(SensorError::ModeUnavailable { sensor: NAME, reason }),
    };
    let origin = notifier.origin();
    let mut watcher = Watcher {
        notifier,
        config: config.clone(),
        folders: HashMap::new(),
        marked: HashMap::new(),
        own_pid: environment.own_pid,
        early: Vec::new(),
    };
    // Marked before this returns: what happens from now on is seen.
    watcher.look(|_| ());
    let reason = join_reasons(&worse, &watcher.shortfall());
    let processes = SharedProcessTable::clone(&environment.processes);
    let (clock, stop) = (environment.boot_clock, environment.stop.clone());
    let run = move |reporter| Follower { watcher, reporter, actors: actors(processes, clock) }.follow(&stop);
    environment.spawn(sensor_mode(NAME, origin, &reason), NAME, run).map(Some)
}

/// The best way to be told of changes, and why it is no better one; or why there is none.
fn notifier(mode: FileModeChoice) -> Result<(Notifier, String), String> {
    let mut worse = "asked for by sensor.file.mode".to_owned();
    if mode != FileModeChoice::Inotify {
        match Group::open() {
            Ok(group) => return Ok((Notifier::Fanotify(group), String::new())),
            Err(error) => worse = format!("fanotify: {error}; it takes CAP_SYS_ADMIN and Linux 5.17"),
        }
    }
    if mode == FileModeChoice::Fanotify {
        return Err(worse);
    }
    match InotifyGroup::open() {
        Ok(group) => Ok((Notifier::Inotify(group), format!("{worse}; who makes a change is not known"))),
        Err(error) => Err(format!("{worse}; inotify: {error}")),
    }
}

fn actors(processes: SharedProcessTable, clock: BootClock) -> Actors {
    Actors::new(processes, ProcReader::open(clock).ok())
}

/// The marked folders.
struct Watcher {
    notifier: Notifier,
    config: FileSensorConfig,
    folders: HashMap<Handle, Folder>,
    /// Device and inode of the folder that is marked under a path.
    marked: HashMap<PathBuf, (u64, u64)>,
    own_pid: Option<u32>,
    /// Records read while a handle was learned.
    early: Vec<Record>,
}

impl Watcher {
    /// Marks what is to be watched and is not yet; gives the folders that are new.
    fn look(&mut self, mut found: impl FnMut(&Folder)) {
        let plan = Plan::make(&self.config);
        for folder in plan.folders {
            let Ok(metadata) = fs::metadata(&folder.path) else { continue };
            let identity = (metadata.dev(), metadata.ino());
            if self.marked.get(&folder.path) == Some(&identity) {
                // What is wanted of it may have become more.
                if let Some(known) = self.folders.values_mut().find(|known| known.path == folder.path) {
                    *known = folder;
                }
                continue;
            }
            match self.notifier.watch(&folder.path, &mut self.early) {
                Ok(handle) => {
                    self.marked.insert(folder.path.clone(), identity);
                    self.folders.retain(|_, known| known.path != folder.path);
                    found(&folder);
                    self.folders.insert(handle, folder);
                }
                Err(error) => tracing::debug!(path = %folder.path.display(), %error, "cannot watch a folder"),
            }
        }
    }

    /// What is not watched, and why; empty when all is.
    fn shortfall(&self) -> String {
        let missing: Vec<String> = Plan::make(&self.config)
            .folders
            .iter()
            .filter(|folder| !self.marked.contains_key(&folder.path))
            .map(|folder| folder.path.display().to_string())
            .collect();
        if missing.is_empty() { String::new() } else { format!("cannot watch {}", missing.join(", ")) }
    }

    /// A folder may be gone: the next look marks what has its name then. Inode numbers are used again.
    fn forget(&mut self, path: &Path) {
        self.marked.retain(|marked, _| !marked.starts_with(path));
    }

    fn folder(&self, entry: &Entry) -> Option<&Folder> {
        self.folders.get(&entry.folder)
    }
}

/// Reads the notifier and reports what it says.
struct Follower<S> {
    watcher: Watcher,
    reporter: Reporter<S>,
    actors: Actors,
}

impl<S: ObservationSink> Follower<S> {
    fn follow(mut self, stop: &StopSignal) -> io::Result<()> {
        let mut last_look = Instant::now();
        while !stop.is_raised() {
            if self.watcher.notifier.wait(PLAN_INTERVAL, stop)? {
                std::thread::sleep(SETTLE);
            }
            let mut records = std::mem::take(&mut self.watcher.early);
            self.watcher.notifier.read(&mut records)?;
            let mut is_stale = last_look.elapsed() >= PLAN_INTERVAL;
            for record in records {
                is_stale |= self.take(&record);
            }
            if is_stale {
                last_look = Instant::now();
                self.look_again();
            }
        }
        Ok(())
    }

    /// Watches what is new, and reports what came there before it was watched; nobody knows who made that.
    fn look_again(&mut self) {
        let mut new = Vec::new();
        self.watcher.look(|folder| new.push(folder.clone()));
        for folder in new {
            let Ok(entries) = fs::read_dir(&folder.path) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                self.report(FileAction::Create, &folder, name.as_bytes(), None);
            }
        }
    }

    /// Reports a record; says whether it is about a folder, so that there may be more to watch.
    fn take(&mut self, record: &Record) -> bool {
        if record.is_overflow {
            self.reporter.lost_because(LossReason::QueueFull, 1);
        }
        if record.pid.is_some() && record.pid == self.watcher.own_pid {
            return false;
        }
        let folder_of = |entry: &Option<Entry>| {
            entry.as_ref().and_then(|entry| Some((self.watcher.folder(entry)?.clone(), entry.name.clone())))
        };
        let (here, old, new) = (folder_of(&record.here), folder_of(&record.old), folder_of(&record.new));
        if record.is_directory {
            for (folder, name) in [&here, &old].into_iter().flatten() {
                self.watcher.forget(&folder.path.join(OsStr::from_bytes(name)));
            }
        }
        if let Some((folder, name)) = &here {
            for action in record.actions() {
                self.report(action, folder, name, record.pid);
            }
        }
        match (old, new) {
            (Some((from, name)), Some((to, new_name))) => {
                let new_path = to.path.join(OsStr::from_bytes(&new_name));
                if from.wants(&name) || wants(&to, &new_name, &new_path) {
                    self.send(
                        FileAction::Rename,
                        &from.path.join(OsStr::from_bytes(&name)),
                        Some(&new_path),
                        record.pid,
                    );
                }
            }
            (Some((from, name)), None) => self.report(FileAction::Delete, &from, &name, record.pid),
            (None, Some((to, name))) => self.report(FileAction::Create, &to, &name, record.pid),
            (None, None) => {}
        }
        record.is_directory
    }

    fn report(&self, action: FileAction, folder: &Folder, name: &[u8], pid: Option<u32>) {
        let path = folder.path.join(OsStr::from_bytes(name));
        if wants(folder, name, &path) {
            self.send(action, &path, None, pid);
        }
    }

    fn send(&self, action: FileAction, path: &Path, new_path: Option<&Path>, pid: Option<u32>) {
        let metadata = fs::symlink_metadata(new_path.unwrap_or(path)).ok().filter(|_| action != FileAction::Delete);
        let time = now();
        let actor = pid.map(|pid| self.actors.find(pid, time)).unwrap_or_default();
        let bytes = |path: &Path| ByteString::from(path.as_os_str().as_bytes());
        let mode = metadata.as_ref().map(MetadataExt::mode);
        let activity = FileActivity {
            action,
            path: bytes(path),
            new_path: new_path.map(bytes).unwrap_or_default(),
            is_directory: mode.map(|mode| mode & TYPE_MASK == DIRECTORY),
            mode,
            owner_id: metadata.as_ref().map(MetadataExt::uid),
            process: actor.process,
            executable: actor.executable,
            user_id: actor.user_id,
        };
        self.reporter.send(time, EventBody::FileActivity(Box::new(activity)));
    }
}

/// Whether an entry is to be reported. Of folders where only programs count, files that may be executed.
fn wants(folder: &Folder, name: &[u8], path: &Path) -> bool {
    if folder.wants(name) {
        return true;
    }
    let is_program = |mode: u32| mode & TYPE_MASK == REGULAR && mode & EXECUTABLE != 0;
    folder.programs && fs::symlink_metadata(path).is_ok_and(|metadata| is_program(metadata.mode()))
}
