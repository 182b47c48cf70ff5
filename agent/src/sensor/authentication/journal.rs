//! The journal of systemd, where no syslog daemon writes logins to a log.
//!
//! Its files are read as they are: `journalctl` would have to be started and kept running, which no thread of the agent
//! may, and its library would be loaded into the agent. What journald writes is there a moment later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use picket_common::event::Timestamp;

use super::line::{self, Entry};
use super::position::{Position, PositionFile};
use file::{JournalEntry, JournalFile};

mod file;
#[cfg(all(test, target_os = "linux"))]
pub(super) mod tests;

/// How often new files are looked for: those of users who never logged anything before.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Most entries read of a file before the next has its turn.
const ENTRIES_MAX: usize = 1024;
/// Most files followed.
const FILES_MAX: usize = 256;

/// The files that journald writes to.
#[derive(Debug)]
pub(super) struct Journal {
    folders: Vec<PathBuf>,
    files: Vec<FollowedFile>,
    last_look: Option<Instant>,
}

/// A name under which journald writes; what has it changes when it rotates.
#[derive(Debug)]
struct FollowedFile {
    path: PathBuf,
    open: Option<JournalFile>,
}

/// What was new in one file.
#[derive(Debug)]
pub(super) struct News {
    pub(super) path: PathBuf,
    pub(super) position: Option<Position>,
    pub(super) entries: Vec<Entry>,
    /// Messages of programs that write of logins which could not be read.
    pub(super) unreadable: u64,
    /// There may be more.
    pub(super) is_busy: bool,
}

impl Journal {
    /// Goes on where each file was left; at its end when it was never read. Gives also how often entries may have been
    /// lost in between.
    pub(super) fn resume(folders: &[PathBuf], positions: &PositionFile) -> (Self, u64) {
        let mut journal = Self { folders: folders.to_vec(), files: Vec::new(), last_look: Some(Instant::now()) };
        let mut lost = 0;
        for path in current_files(folders) {
            let (open, is_lossy) = resumed(&path, positions.of(&path));
            lost += u64::from(is_lossy);
            journal.files.push(FollowedFile { path, open });
        }
        (journal, lost)
    }

    /// Whether there is any file.
    pub(super) fn is_there(&self) -> bool {
        !self.files.is_empty()
    }

    /// Where the folders of the machines are looked for.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// How far each file was read.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&Path, Option<Position>)> {
        self.files.iter().map(|file| (file.path.as_path(), file.open.as_ref().and_then(position)))
    }

    /// What is new since it was last asked, of each file that has something.
    pub(super) fn news(&mut self) -> Vec<News> {
        if self.last_look.is_none_or(|look| look.elapsed() >= LOOK_INTERVAL) {
            self.last_look = Some(Instant::now());
            for path in current_files(&self.folders) {
                if self.files.iter().all(|file| file.path != path) {
                    // It came after the agent: all of it is new.
                    self.files.push(FollowedFile { path, open: None });
                }
            }
        }
        self.files.iter_mut().filter_map(FollowedFile::news).collect()
    }
}

impl FollowedFile {
    fn news(&mut self) -> Option<News> {
        let there = identity(&self.path);
        // Asked before reading: what has another name by then is complete.
        let is_renamed =
            self.open.as_ref().is_some_and(|open| there.is_some_and(|(device, inode)| !open.is(device, inode)));
        if self.open.is_none() {
            self.open = opened(&self.path);
        }
        let open = self.open.as_mut()?;
        let (mut entries, mut unreadable, mut read) = (Vec::new(), 0, 0);
        while read < ENTRIES_MAX {
            match open.next() {
                Ok(Some(entry)) => {
                    unreadable += u64::from(is_unreadable(&entry));
                    entries.extend(login(entry));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "cannot read a journal file");
                    break;
                }
            }
            read += 1;
        }
        let is_busy = read == ENTRIES_MAX;
        let position = position(open);
        if is_renamed && !is_busy {
            self.open = None;
        }
        let is_worth_it = read > 0 || is_renamed;
        is_worth_it.then(|| News {
            path: self.path.clone(),
            position,
            entries,
            unreadable,
            is_busy: is_busy || is_renamed,
        })
    }
}

fn position(open: &JournalFile) -> Option<Position> {
    let (device, inode, entries) = open.position();
    Some(Position { device, inode, offset: entries })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn opened(path: &Path) -> Option<JournalFile> {
    match JournalFile::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "cannot open a journal file");
            None
        }
    }
}

/// A file at the place where it was left; and whether that place could not be found.
fn resumed(path: &Path, position: Option<Position>) -> (Option<JournalFile>, bool) {
    let skipped = |path: &Path, entries: u64| {
        let mut file = opened(path)?;
        file.skip_to(entries).ok()?;
        Some(file)
    };
    let Some(position) = position else { return (skipped(path, u64::MAX), false) };
    let is_it = |path: &PathBuf| identity(path) == Some((position.device, position.inode));
    let left = if is_it(&path.to_path_buf()) { Some(path.to_path_buf()) } else { files_beside(path).find(is_it) };
    match left {
        Some(left) => {
            // Of those that were begun and ended since, nothing is read.
            let is_between = |other: &PathBuf| *other != left && other != path && is_later(other, &left, path);
            let is_lossy = left != path && files_beside(path).any(|other| is_between(&other));
            (skipped(&left, position.offset), is_lossy)
        }
        None => (opened(path), true),
    }
}

/// Whether a file was rotated after another one, both from under the name of `current`: journald names them by the number
/// of their first entry, `system@ID-NUMBER-TIME.journal`.
fn is_later(file: &Path, other: &Path, current: &Path) -> bool {
    let stem = current.file_stem().unwrap_or_default().as_encoded_bytes();
    let number = |path: &Path| {
        let rest = path.file_name()?.as_encoded_bytes().strip_prefix(stem)?.strip_prefix(b"@")?;
        let (id, number) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'-')?)?;
        Some((id.to_vec(), number.to_vec()))
    };
    match (number(file), number(other)) {
        (Some((id, number)), Some((other_id, other_number))) => id == other_id && number > other_number,
        _ => false,
    }
}

fn files_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The files that are written to: `system.journal` and `user-UID.journal` in the folder of each machine; those that
/// were rotated have an `@` in their names.
fn current_files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let is_current = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "system.journal" || (name.starts_with("user-") && name.ends_with(".journal") && !name.contains('@'))
    };
    let machines = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let files = machines.filter_map(|machine| fs::read_dir(machine.path()).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).filter(is_current).take(FILES_MAX).collect();
    files.sort();
    files
}

/// Whether an entry may have said something about a login, which cannot be told.
fn is_unreadable(entry: &JournalEntry) -> bool {
    entry.is_partial && entry.message.is_empty() && line::writes_of_logins(&entry.identifier)
}

/// What an entry says about a login, if it does.
fn login(entry: JournalEntry) -> Option<Entry> {
    let message = String::from_utf8_lossy(&entry.message);
    let authentication = line::read_message(&entry.identifier, message.trim())?;
    let time_ns = entry.realtime_us.checked_mul(1000).and_then(|time| i64::try_from(time).ok())?;
    Some(Entry { time: Some(Timestamp(time_ns)), pid: entry.pid, authentication })
}
