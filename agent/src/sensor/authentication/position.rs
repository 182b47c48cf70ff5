//! How far each log was read, across restarts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state_file;

/// Longest file that is read; a few logs take a few hundred bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Device and inode of the file: rotation gives it another name, not another inode.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Bytes before the first line that was not read.
    pub(super) offset: u64,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Positions {
    logs: BTreeMap<PathBuf, Position>,
    /// Events of lines before these positions that were not sent when this was written.
    pending: u64,
}

/// The positions, and the file that keeps them.
#[derive(Debug)]
pub(super) struct PositionFile {
    /// `None`: they are not kept.
    path: Option<PathBuf>,
    positions: Positions,
    saved: Option<String>,
}

impl PositionFile {
    /// Reads the file. One that cannot be read or understood counts as none: logs are then read from their end.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let read = |path: &PathBuf| match state_file::read_limited(path, FILE_BYTES_MAX) {
            Ok(content) => content.and_then(|content| serde_json::from_slice(&content).ok()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read how far logs were read");
                None
            }
        };
        let positions = path.as_ref().and_then(read).unwrap_or_default();
        Self { path, positions, saved: None }
    }

    /// Where to go on in a log.
    pub(super) fn of(&self, log: &Path) -> Option<Position> {
        self.positions.logs.get(log).copied()
    }

    /// Events that were not sent before the agent was killed; asked once.
    pub(super) fn take_pending(&mut self) -> u64 {
        std::mem::take(&mut self.positions.pending)
    }

    pub(super) fn set(&mut self, log: &Path, position: Option<Position>) {
        match position {
            Some(position) => self.positions.logs.insert(log.to_path_buf(), position),
            None => self.positions.logs.remove(log),
        };
    }

    /// Writes the file, if anything changed.
    pub(super) fn save(&mut self, pending: u64) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.positions.pending = pending;
        let text = serde_json::to_string(&self.positions)?;
        if self.saved.as_ref() != Some(&text) {
            state_file::replace(path, text.as_bytes(), false)?;
            self.saved = Some(text);
        }
        Ok(())
    }
}
