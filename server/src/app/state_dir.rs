//! The folder that holds everything the server keeps.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Permissions of the folder when the server makes it.
const MODE: u32 = 0o700;

/// The state folder, locked for this process until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or read.
    #[error("cannot use the state folder {path}: {source}")]
    Io {
        /// The folder, or what is in it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another server has it.
    #[error("the state folder {path} is in use by another picket-server")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

impl StateDir {
    /// Makes the folder if there is none, and locks it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(MODE).create(path).map_err(error(path))?;
        let path = path.canonicalize().map_err(error(path))?;
        let mode = path.metadata().map_err(error(&path))?.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{mode:03o}"), "others can write to the state folder");
        }
        let lock_path = path.join("lock");
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateDirError::Locked { path }),
            Err(std::fs::TryLockError::Error(source)) => Err(StateDirError::Io { path: lock_path, source }),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata database.
    pub fn metastore(&self) -> PathBuf {
        self.path.join("metadata.sqlite")
    }

    /// The write-ahead log's folder.
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The lake's folder.
    pub fn lake(&self) -> PathBuf {
        self.path.join("lake")
    }

    /// The first administrator's token.
    pub fn admin_token(&self) -> PathBuf {
        self.path.join("admin.token")
    }

    /// Where the server says on which addresses it answers.
    pub fn endpoints(&self) -> PathBuf {
        self.path.join("run").join("endpoints.json")
    }
}
