//! Who changed a file.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;

use picket_common::event::{ByteString, ProcessId, Timestamp};

use crate::enrich::SharedProcessTable;
use crate::enrich::procfs::ProcReader;

/// A process that did something, as far as it could be learned.
#[derive(Debug, Default)]
pub(super) struct Actor {
    pub(super) process: Option<ProcessId>,
    pub(super) executable: ByteString,
    pub(super) user_id: Option<u32>,
}

/// Finds processes: in the table that the process sensor fills, else in `/proc`.
pub(super) struct Actors {
    processes: SharedProcessTable,
    procfs: Option<RefCell<ProcReader>>,
}

impl Actors {
    pub(super) fn new(processes: SharedProcessTable, procfs: Option<ProcReader>) -> Self {
        Self { processes, procfs: procfs.map(RefCell::new) }
    }

    /// The process that had this id at `time`, a moment ago.
    pub(super) fn find(&self, pid: u32, time: Timestamp) -> Actor {
        // Its folder belongs to its effective user.
        let user_id = fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid());
        if let Some((process, executable)) = self.processes.lock().owner_at(pid, time) {
            return Actor { process: Some(process), executable: executable[..].into(), user_id };
        }
        let found = self.procfs.as_ref().and_then(|procfs| {
            let mut procfs = procfs.borrow_mut();
            let folder = procfs.folder(pid)?;
            procfs.identity(&folder)
        });
        match found {
            Some((start_time, executable)) => Actor {
                process: Some(ProcessId { pid, start_time }),
                executable: executable.as_slice().into(),
                user_id,
            },
            None => Actor { user_id, ..Actor::default() },
        }
    }
}
