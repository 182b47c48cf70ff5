//! A `fanotify` group that reports folders and names.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use super::record::{self, Handle, Record};

/// `FAN_REPORT_DIR_FID | FAN_REPORT_NAME`: records name the folder (by its handle) and the entry.
const REPORT_FOLDER_AND_NAME: u32 = 0x0000_0c00;
/// Bytes read at a time; a record takes some fifty and the name.
const READ_BYTES: usize = 64 * 1024;
/// Most reads before what was read is worked on.
const READS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Group {
    fanotify: Fanotify,
}

impl Group {
    /// # Errors
    /// The kernel's: it takes `CAP_SYS_ADMIN`.
    pub(super) fn open() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::from_bits_retain(REPORT_FOLDER_AND_NAME);
        Ok(Self { fanotify: Fanotify::init(flags, EventFFlags::O_RDONLY)? })
    }

    /// Watches the entries of a folder; gives the handle by which records name it. Records that are read meanwhile go
    /// to `early`.
    pub(super) fn watch(&self, folder: &Path, early: &mut Vec<Record>) -> io::Result<Handle> {
        let opening = MaskFlags::FAN_OPEN | MaskFlags::FAN_ONDIR;
        self.mark(MarkFlags::FAN_MARK_ADD, opening, folder)?;
        let learned = self.learn(folder, early);
        self.mark(MarkFlags::FAN_MARK_REMOVE, opening, folder)?;
        let handle = learned?;
        let changes = MaskFlags::FAN_CREATE
            | MaskFlags::FAN_DELETE
            | MaskFlags::FAN_ATTRIB
            | MaskFlags::FAN_CLOSE_WRITE
            | MaskFlags::FAN_EVENT_ON_CHILD
            | MaskFlags::FAN_ONDIR
            | MaskFlags::from_bits_retain(record::RENAME);
        self.mark(MarkFlags::FAN_MARK_ADD, changes, folder)?;
        Ok(handle)
    }

    fn mark(&self, flags: MarkFlags, mask: MaskFlags, folder: &Path) -> io::Result<()> {
        Ok(self.fanotify.mark(flags | MarkFlags::FAN_MARK_ONLYDIR, mask, AT_FDCWD, Some(folder))?)
    }

    /// Opens the folder and looks for the record of that.
    fn learn(&self, folder: &Path, early: &mut Vec<Record>) -> io::Result<Handle> {
        // Earlier records may say that others opened other folders: they are out of the way first.
        self.read(early)?;
        let own_pid = std::process::id();
        drop(File::open(folder)?);
        let first = early.len();
        self.read(early)?;
        let is_opening = |record: &Record| record.is_open && record.pid == Some(own_pid);
        let found = early[first..].iter().filter(|record| is_opening(record)).find_map(|record| record.here.clone());
        early.retain(|record| !record.is_open);
        found.map(|entry| entry.folder).ok_or_else(|| io::Error::other("the kernel does not name the folder"))
    }

    /// What becomes readable.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }

    /// Reads what there is, within limits.
    pub(super) fn read(&self, records: &mut Vec<Record>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..READS_MAX {
            match rustix::io::read(self.fanotify.as_fd(), buffer.as_mut_slice()) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(length) => record::parse(&buffer[..length], records),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
