//! `run/status.json` and the lock that says whether an agent runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::pipeline::account::EpochAccount;
use crate::pipeline::history::History;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::spool::SpoolPaths;
use crate::state_file;
use crate::status::{EpochReport, Snapshot};

/// Largest status that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Held while an agent runs: two on one state folder would ruin each other's accounts.
#[derive(Debug)]
pub(crate) struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes the lock; `None` when another agent has it. It ends with the process, however that ends.
    pub(crate) fn take(state_dir: &Path) -> io::Result<Option<Self>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path(state_dir))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether an agent runs on this state folder.
    pub(crate) fn is_held(state_dir: &Path) -> bool {
        // A shared lock for a moment: it does not get in the way of other readers.
        let Ok(file) = File::open(lock_path(state_dir)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("lock")
}

fn status_path(state_dir: &Path) -> PathBuf {
    state_dir.join("run").join("status.json")
}

/// The file, for writing.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
}

impl StatusFile {
    /// In a state folder.
    pub(crate) fn create(state_dir: &Path) -> io::Result<Self> {
        let path = status_path(state_dir);
        state_file::make_private_folder(&state_dir.join("run"))?;
        Ok(Self { path })
    }

    /// Replaces the status. It is news, not state: it need not survive a power failure.
    pub(crate) fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        state_file::replace(&self.path, &serde_json::to_vec(snapshot)?, false)
    }
}

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Not the state folder of an agent.
    #[error("no agent has run with the state folder {}: check --state-dir", path.display())]
    NoAgent {
        /// Which folder.
        path: PathBuf,
    },
    /// The files cannot be read.
    #[error("cannot read the status in {}", path.display())]
    File {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A status as somebody else sees it.
pub(crate) struct Reading {
    pub(crate) snapshot: Snapshot,
    /// Whether an agent runs.
    pub(crate) is_running: bool,
}

/// Reads the last status, with the epochs' numbers from the ledger itself: they are exact also when the agent was
/// killed since the status was written.
pub(crate) fn read(state_dir: &Path) -> Result<Reading, ReadError> {
    let error = |source| ReadError::File { path: state_dir.to_owned(), source };
    let content = state_file::read_limited(&status_path(state_dir), FILE_BYTES_MAX).map_err(error)?;
    let content = content.ok_or_else(|| ReadError::NoAgent { path: state_dir.to_owned() })?;
    let mut snapshot: Snapshot = serde_json::from_slice(&content).map_err(|source| error(source.into()))?;
    let is_running = AgentLock::is_held(state_dir);
    let accounts = accounts_on_disk(state_dir).map_err(error)?;
    if !accounts.is_empty() {
        snapshot.epochs = accounts.iter().map(EpochReport::from).collect();
    }
    if let Some(current) = snapshot.epochs.iter().find(|report| report.epoch == snapshot.epoch) {
        snapshot.events_accepted = current.accepted;
        snapshot.events_lost = current.lost.clone();
    }
    Ok(Reading { snapshot, is_running })
}

fn accounts_on_disk(state_dir: &Path) -> io::Result<Vec<EpochAccount>> {
    let paths = SpoolPaths::in_state_dir(state_dir);
    let mut accounts: Vec<EpochAccount> = History::read(&paths.history)?.iter().copied().collect();
    if let Some(intake) = Ledger::read(&paths.ledger)?
        && let Some(account) = accounts.iter_mut().find(|account| account.epoch == intake.epoch)
    {
        account.take_intake(intake.accepted, &intake.losses(), intake.reported.total());
    }
    Ok(accounts)
}
