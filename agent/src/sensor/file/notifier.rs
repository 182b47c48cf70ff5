//! What tells of changes in folders.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use picket_common::event::Origin;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::group::Group;
use super::inotify::InotifyGroup;
use super::record::{Handle, Record};

/// A group of either kind.
#[derive(Debug)]
pub(super) enum Notifier {
    Fanotify(Group),
    Inotify(InotifyGroup),
}

impl Notifier {
    /// How its events are seen.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Fanotify(_) => Origin::AgentFanotify,
            Self::Inotify(_) => Origin::AgentInotify,
        }
    }

    /// Watches the entries of a folder; gives the handle by which records name it. Records that are read meanwhile go
    /// to `early`.
    pub(super) fn watch(&self, folder: &Path, early: &mut Vec<Record>) -> io::Result<Handle> {
        match self {
            Self::Fanotify(group) => group.watch(folder, early),
            Self::Inotify(group) => group.watch(folder),
        }
    }

    /// Waits until there is something to read, at most `timeout` (less than a second); says whether there is.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        let descriptor = match self {
            Self::Fanotify(group) => group.descriptor(),
            Self::Inotify(group) => group.descriptor().as_fd(),
        };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what there is, within limits.
    pub(super) fn read(&self, records: &mut Vec<Record>) -> io::Result<()> {
        match self {
            Self::Fanotify(group) => group.read(records),
            Self::Inotify(group) => group.read(records),
        }
    }
}
