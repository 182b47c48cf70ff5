//! The log's folder: its files' names, and every operation on them that has to be durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::WalError;
use super::segment::SegmentHeader;

const SEGMENT_SUFFIX: &str = ".segment";
const TEMPORARY_SUFFIX: &str = ".tmp";
const LOCK_NAME: &str = "lock";
const SNAPSHOT_NAME: &str = "dedupe.snapshot";

/// The folder, locked against other processes for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<super::faults::Faults>,
}

impl Folder {
    /// Creates the folder where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, WalError> {
        fs::create_dir_all(path).map_err(|error| WalError::io("create", path, error))?;
        // The folder's own name has to be as durable as what is in it.
        sync_folder(&path.join(".."))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| WalError::io("open", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WalError::Locked { path: path.to_path_buf() }),
            Err(TryLockError::Error(error)) => return Err(WalError::io("lock", &lock_path, error)),
        }
        let folder = Self {
            path: path.to_path_buf(),
            _lock: lock,
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        };
        folder.sync()?;
        Ok(folder)
    }

    pub(super) fn segment_path(&self, first_position: u64) -> PathBuf {
        self.path.join(format!("{first_position:020}{SEGMENT_SUFFIX}"))
    }

    /// Every segment by the position its name states. Removes what an interrupted replacement left.
    pub(super) fn segments(&self) -> Result<BTreeMap<u64, PathBuf>, WalError> {
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(&self.path).map_err(|error| WalError::io("list", &self.path, error))? {
            let path = entry.map_err(|error| WalError::io("list", &self.path, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(&path).map_err(|error| WalError::io("remove", &path, error))?;
            } else if let Some(position) = name.strip_suffix(SEGMENT_SUFFIX).and_then(|digits| digits.parse().ok()) {
                segments.insert(position, path);
            }
        }
        Ok(segments)
    }

    /// Creates a segment with its header, durably. Leaves nothing behind when it fails.
    pub(super) fn create_segment(&self, header: &SegmentHeader) -> Result<SegmentFile, WalError> {
        let path = self.segment_path(header.first_position);
        let create = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            let mut file = SegmentFile {
                file,
                #[cfg(test)]
                faults: self.faults.clone(),
            };
            file.write_at(&header.encode(), 0)?;
            file.file.sync_all()?;
            Ok(file)
        };
        let created =
            create().map_err(|error| WalError::io("create", &path, error)).and_then(|file| self.sync().map(|()| file));
        if created.is_err() {
            // Best effort: a segment without records does no harm either.
            drop(fs::remove_file(&path));
        }
        created
    }

    pub(super) fn open_segment(&self, path: &Path) -> Result<SegmentFile, WalError> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| WalError::io("open", path, error))?;
        Ok(SegmentFile {
            file,
            #[cfg(test)]
            faults: self.faults.clone(),
        })
    }

    pub(super) fn remove_segment(&self, first_position: u64) -> Result<(), WalError> {
        let path = self.segment_path(first_position);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WalError::io("remove", &path, error)),
            _ => Ok(()),
        }
    }

    pub(super) fn snapshot_path(&self) -> PathBuf {
        self.path.join(SNAPSHOT_NAME)
    }

    /// The deduplication snapshot's bytes, when there is one.
    pub(super) fn read_snapshot(&self) -> Result<Option<Vec<u8>>, WalError> {
        let path = self.snapshot_path();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WalError::io("read", &path, error)),
        }
    }

    /// Replaces the snapshot: after a crash there is the old one or the new one, whole.
    pub(super) fn replace_snapshot(&self, bytes: &[u8]) -> Result<(), WalError> {
        let path = self.snapshot_path();
        let temporary = path.with_extension(format!("snapshot{TEMPORARY_SUFFIX}"));
        let replace = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        replace().map_err(|error| WalError::io("replace", &path, error))?;
        self.sync()
    }

    /// Makes created, renamed and removed names durable.
    pub(super) fn sync(&self) -> Result<(), WalError> {
        sync_folder(&self.path)
    }
}

fn sync_folder(path: &Path) -> Result<(), WalError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| WalError::io("sync", path, error))
}

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct SegmentFile {
    file: File,
    #[cfg(test)]
    faults: std::sync::Arc<super::faults::Faults>,
}

impl SegmentFile {
    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        #[cfg(test)]
        if let Some(written) = self.faults.next_write() {
            self.file.write_all(&bytes[..written.min(bytes.len())])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write_all(bytes)
    }

    /// Makes what was written durable (`fdatasync`: length included, times not).
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.next_sync()?;
        self.file.sync_data()
    }

    /// Forgets everything from `length` on.
    pub(super) fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}
