//! What tells that there is something new to read, where the kernel does: `inotify`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sensor::stop::StopSignal;

/// How often everything is looked at all the same: not every file system tells of changes, and folders may come.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of the kernel's messages read at a time. What they say is not needed, only that there are some.
#[cfg(target_os = "linux")]
const READ_BYTES: usize = 16 * 1024;

/// Changes of files, and new files in folders.
#[derive(Debug)]
pub(super) struct Changes {
    /// `None` where nobody tells: files are looked at again and again.
    notifier: Option<OwnedFd>,
}

impl Changes {
    pub(super) fn new() -> Self {
        let notifier = open().inspect_err(|error| {
            tracing::debug!(%error, "nobody tells of changes of logs: they are looked at regularly");
        });
        Self { notifier: notifier.ok() }
    }

    /// From now on, changes of these files and new names beside them are noticed; files and folders that are not there
    /// are passed over until the next call.
    pub(super) fn follow<'a>(&self, files: impl Iterator<Item = &'a Path>, folders: &[PathBuf]) {
        let Some(notifier) = &self.notifier else { return };
        let mut beside: BTreeSet<&Path> = folders.iter().map(PathBuf::as_path).collect();
        for file in files {
            watch_file(notifier, file);
            beside.extend(file.parent());
        }
        for folder in beside {
            watch_folder(notifier, folder);
        }
    }

    /// Waits until something may be new, at least for `pause`; or for the stop.
    ///
    /// # Errors
    /// When the kernel's messages cannot be waited for.
    pub(super) fn wait(&self, pause: Duration, stop: &StopSignal) -> io::Result<()> {
        stop.sleep(pause);
        if let Some(notifier) = &self.notifier
            && stop.wait_for(notifier.as_fd(), LOOK_INTERVAL.saturating_sub(pause))?
        {
            drain(notifier);
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

#[cfg(target_os = "linux")]
fn open() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

#[cfg(target_os = "linux")]
fn watch_file(notifier: &OwnedFd, path: &Path) {
    // What is not there yet is told of by its folder.
    inotify::add_watch(notifier, path, WatchFlags::MODIFY).ok();
}

#[cfg(target_os = "linux")]
fn watch_folder(notifier: &OwnedFd, path: &Path) {
    inotify::add_watch(notifier, path, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR).ok();
}

#[cfg(target_os = "linux")]
fn drain(notifier: &OwnedFd) {
    let mut buffer = vec![0; READ_BYTES];
    while rustix::io::read(notifier, buffer.as_mut_slice()).is_ok_and(|length| length > 0) {}
}

#[cfg(not(target_os = "linux"))]
fn open() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn watch_file(_notifier: &OwnedFd, _path: &Path) {}

#[cfg(not(target_os = "linux"))]
fn watch_folder(_notifier: &OwnedFd, _path: &Path) {}

#[cfg(not(target_os = "linux"))]
fn drain(_notifier: &OwnedFd) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    /// Far less than [`LOOK_INTERVAL`].
    const SOON: Duration = Duration::from_secs(2);

    #[test]
    fn a_change_and_a_new_file_end_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (log, stop, changes) = (folder.path().join("auth.log"), StopSignal::new().unwrap(), Changes::new());
        for content in ["new", "new and changed"] {
            changes.follow([log.as_path()].into_iter(), &[]);
            fs::write(&log, content).unwrap();
            let begun = Instant::now();
            changes.wait(Duration::ZERO, &stop).unwrap();
            assert!(begun.elapsed() < SOON, "{content}");
        }
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let (stop, changes) = (StopSignal::new().unwrap(), Changes::new());
        changes.follow([Path::new("/nowhere/auth.log")].into_iter(), &["/nowhere/journal".into()]);
        stop.raise();
        changes.wait(Duration::from_secs(60), &stop).unwrap();
    }
}
