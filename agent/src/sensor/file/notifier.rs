//! What tells of changes in folders.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use picket_common::event::Origin;

use super::group::Group;
use super::inotify::InotifyGroup;
use super::record::{Handle, Record};
use crate::sensor::stop::StopSignal;

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

    /// Waits until there is something to read, or the stop, at most `timeout`; says whether there is.
    pub(super) fn wait(&self, timeout: Duration, stop: &StopSignal) -> io::Result<bool> {
        let descriptor = match self {
            Self::Fanotify(group) => group.descriptor(),
            Self::Inotify(group) => group.descriptor().as_fd(),
        };
        stop.wait_for(descriptor, timeout)
    }

    /// Reads what there is, within limits.
    pub(super) fn read(&self, records: &mut Vec<Record>) -> io::Result<()> {
        match self {
            Self::Fanotify(group) => group.read(records),
            Self::Inotify(group) => group.read(records),
        }
    }
}
