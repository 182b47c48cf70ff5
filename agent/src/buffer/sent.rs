//! Which records may be at the server already.
//!
//! A file of 12 bytes: the highest record number ever leased (u64, little-endian) and its CRC32C. It is written
//! before the records are handed out, by one write inside one sector, so a killed process leaves the old or the new
//! value.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::buffer::{BufferError, RecordNumber};

pub(crate) struct SentMark {
    file: File,
    path: PathBuf,
    through: RecordNumber,
}

impl SentMark {
    pub(crate) fn open(path: &Path) -> Result<Self, BufferError> {
        let io = |operation| move |source| BufferError::Io { operation, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io("open"))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(12).read_to_end(&mut bytes).map_err(io("read"))?;
        let through = decode(&bytes).unwrap_or(RecordNumber(0));
        Ok(Self { file, path: path.to_owned(), through })
    }

    /// Every record up to this one may be at the server.
    pub(crate) fn through(&self) -> RecordNumber {
        self.through
    }

    pub(crate) fn raise(&mut self, number: RecordNumber) -> Result<(), BufferError> {
        if number <= self.through {
            return Ok(());
        }
        let value = number.0.to_le_bytes();
        let bytes = [&value[..], &crc32c::crc32c(&value).to_le_bytes()].concat();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|source| BufferError::Io { operation: "write to", path: self.path.clone(), source })?;
        self.through = number;
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<RecordNumber> {
    let value: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let crc = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    (crc32c::crc32c(&value) == crc).then(|| RecordNumber(u64::from_le_bytes(value)))
}
