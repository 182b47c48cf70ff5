//! Room set aside for a full disk.
//!
//! Without any free space the store can neither be opened nor have anything removed from it, so what lies in it could
//! never be delivered, and the disk would stay full. The file `reserve` holds [`RESERVE_BYTES`]. When a write fails for
//! lack of space it is given up, so that records can be leased and removed; nothing is appended until it could be
//! filled again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Eight of the store's segments.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    is_held: bool,
}

impl Reserve {
    /// Sets the room aside if there is any.
    pub(crate) fn open(path: &Path) -> Self {
        let mut reserve = Self { path: path.to_owned(), is_held: false };
        // When it cannot be held now, the first append says why.
        reserve.hold().ok();
        reserve
    }

    /// Makes sure that the room is set aside.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        if self.is_held {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        if let Err(error) = allocate(&mut file) {
            // What was allocated of it is better used otherwise.
            file.set_len(0).ok();
            return Err(error);
        }
        self.is_held = true;
        Ok(())
    }

    /// Gives the room to the store.
    pub(crate) fn release(&mut self) {
        self.is_held = false;
        if let Err(error) = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(0)) {
            tracing::warn!(path = %self.path.display(), %error, "the reserve could not be released");
        }
    }
}

/// Takes real blocks: a file with holes would reserve nothing.
#[cfg(target_os = "linux")]
fn allocate(file: &mut File) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file),
        result => Ok(result?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &mut File) -> io::Result<()> {
    write_zeros(file)
}

fn write_zeros(file: &mut File) -> io::Result<()> {
    let block = vec![0; 64 * 1024];
    for _ in 0..RESERVE_BYTES / block.len() as u64 {
        file.write_all(&block)?;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_takes_real_blocks_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let mut reserve = Reserve::open(&path);
        assert!(blocks() >= RESERVE_BYTES);
        reserve.release();
        assert_eq!(blocks(), 0);
        reserve.hold().unwrap();
        assert!(blocks() >= RESERVE_BYTES);
        std::fs::remove_file(&path).unwrap();
        write_zeros(&mut File::create(&path).unwrap()).unwrap();
        assert!(blocks() >= RESERVE_BYTES);
    }

    #[test]
    fn what_cannot_be_held_is_an_error_of_the_append() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(&dir.path().join("none/reserve"));
        assert_eq!(reserve.hold().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
