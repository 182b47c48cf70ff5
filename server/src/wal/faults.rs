//! Failures of a disk, on demand.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const NONE: usize = usize::MAX;

/// What the next operations on segment files shall do. The files are real.
#[derive(Debug)]
pub(crate) struct Faults {
    full_after: AtomicUsize,
    sync_fails: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { full_after: AtomicUsize::new(NONE), sync_fails: AtomicBool::new(false) }
    }
}

impl Faults {
    /// Every write from now on stores this many bytes and then finds the disk full; `None`: there is space again.
    pub(crate) fn disk_is_full(&self, after_bytes: Option<usize>) {
        self.full_after.store(after_bytes.unwrap_or(NONE), Ordering::SeqCst);
    }

    /// Every sync from now on fails.
    pub(crate) fn syncs_fail(&self) {
        self.sync_fails.store(true, Ordering::SeqCst);
    }

    pub(super) fn next_write(&self) -> Option<usize> {
        match self.full_after.load(Ordering::SeqCst) {
            NONE => None,
            bytes => Some(bytes),
        }
    }

    pub(super) fn next_sync(&self) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }
}
