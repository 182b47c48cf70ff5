//! A file of the systemd journal, read while journald writes it.
//!
//! Of the format (`JOURNAL_FILE_FORMAT.md` of systemd) only what it takes to read entries in their order: the header's
//! count of entries, the chain of arrays of them, entries, and their fields. Nothing in the file is believed: each
//! length has a limit, and each chain goes forward only.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// As much of the header as every version has.
const HEADER_BYTES: usize = 208;
/// `HEADER_INCOMPATIBLE_COMPRESSED_XZ`, `…_LZ4`, `…_KEYED_HASH`, `…_COMPRESSED_ZSTD`, `…_COMPACT`: those that are known.
const KNOWN_FLAGS: u32 = 0b1_1111;
const COMPACT: u32 = 16;

const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;
/// Set in the flags of a field that is compressed: by XZ, LZ4 or Zstandard, and by the last of them.
const COMPRESSED: u8 = 0b111;
const COMPRESSED_ZSTD: u8 = 0b100;

const OBJECT_HEADER_BYTES: u64 = 16;
const DATA_HEADER_BYTES: usize = 64;
const COMPACT_DATA_HEADER_BYTES: usize = 72;
const ENTRY_HEADER_BYTES: u64 = 64;
const ARRAY_HEADER_BYTES: u64 = 24;
/// Most fields looked at in one entry.
const FIELDS_MAX: u64 = 256;
/// Bytes read of a field at first; longer messages take a second read.
const FIELD_BYTES: usize = 1024;
/// Longest message; a longer one cannot be read, as one that is compressed in an older way than Zstandard.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Most fields that are remembered: the same are in entry after entry.
const REMEMBERED_MAX: usize = 4096;

/// An entry, as far as it is of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalEntry {
    /// Microseconds since 1970.
    pub(super) realtime_us: u64,
    pub(super) identifier: String,
    pub(super) pid: Option<u32>,
    pub(super) message: Vec<u8>,
    /// A field of it could not be read, which may have been its message.
    pub(super) is_partial: bool,
}

/// A journal file and how far it was read.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    device: u64,
    inode: u64,
    is_compact: bool,
    /// Entries read.
    read: u64,
    array: Option<Array>,
    remembered: HashMap<u64, Field>,
}

/// Where the next entry is named.
#[derive(Clone, Copy, Debug)]
struct Array {
    offset: u64,
    /// Entries it has room for.
    capacity: u64,
    /// Those of them that were read.
    used: u64,
}

/// A field of an entry.
#[derive(Clone, Debug)]
enum Field {
    Identifier(String),
    Pid(Option<u32>),
    Message(Vec<u8>),
    /// Too long, or compressed in a way that is not understood.
    Unreadable,
    Other,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("journal file: {what}"))
}

impl JournalFile {
    /// Opens it at its first entry.
    ///
    /// # Errors
    /// It cannot be read, or is none that is understood.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        if header[..8] != SIGNATURE[..] {
            return Err(invalid("no signature"));
        }
        let flags = u32_of(&header, 12);
        if flags & !KNOWN_FLAGS != 0 {
            return Err(invalid("a newer format"));
        }
        let (device, inode) = (metadata.dev(), metadata.ino());
        let is_compact = flags & COMPACT != 0;
        Ok(Self { file, device, inode, is_compact, read: 0, array: None, remembered: HashMap::new() })
    }

    /// Device, inode, and entries read.
    pub(super) fn position(&self) -> (u64, u64, u64) {
        (self.device, self.inode, self.read)
    }

    /// Whether it is that file.
    pub(super) fn is(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }

    /// Passes over entries until so many are behind; over all, where there are fewer.
    pub(super) fn skip_to(&mut self, entries: u64) -> io::Result<()> {
        let entries = entries.min(self.count()?);
        while self.read < entries {
            let Some(mut array) = self.current_array()? else { break };
            let step = (array.capacity - array.used).min(entries - self.read);
            array.used += step;
            self.read += step;
            self.array = Some(array);
        }
        Ok(())
    }

    /// The next entry; `None` when there is none yet. One that cannot be read is passed over and empty.
    pub(super) fn next(&mut self) -> io::Result<Option<JournalEntry>> {
        if self.read >= self.count()? {
            return Ok(None);
        }
        let Some(mut array) = self.current_array()? else { return Ok(None) };
        let offset = self.item(array.offset + ARRAY_HEADER_BYTES, array.used)?;
        if offset == 0 {
            return Ok(None);
        }
        array.used += 1;
        self.array = Some(array);
        self.read += 1;
        Ok(Some(self.entry(offset).unwrap_or_default()))
    }

    /// Entries that are in it.
    fn count(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        self.file.read_exact_at(&mut count, 152)?;
        Ok(u64::from_le_bytes(count))
    }

    /// The array that has the next entry; `None` when journald has not made it yet.
    fn current_array(&self) -> io::Result<Option<Array>> {
        let (at, before) = match self.array {
            Some(array) if array.used < array.capacity => return Ok(Some(array)),
            Some(array) => (array.offset + OBJECT_HEADER_BYTES, array.offset),
            None => (176, 0),
        };
        let mut offset = [0; 8];
        self.file.read_exact_at(&mut offset, at)?;
        let offset = u64::from_le_bytes(offset);
        if offset == 0 {
            return Ok(None);
        }
        if offset <= before {
            return Err(invalid("arrays go in circles"));
        }
        let size = self.object(offset, ENTRY_ARRAY)?;
        let capacity = size.saturating_sub(ARRAY_HEADER_BYTES) / self.item_bytes();
        if capacity == 0 {
            return Err(invalid("an empty array"));
        }
        Ok(Some(Array { offset, capacity, used: 0 }))
    }

    /// The size of an object, which must be of this type.
    fn object(&self, offset: u64, kind: u8) -> io::Result<u64> {
        let mut header = [0; 16];
        self.file.read_exact_at(&mut header, offset)?;
        if header[0] != kind {
            return Err(invalid("an object of another type"));
        }
        Ok(u64_of(&header, 8))
    }

    fn item_bytes(&self) -> u64 {
        if self.is_compact { 4 } else { 8 }
    }

    /// An offset in a list of them.
    fn item(&self, list: u64, index: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let width = self.item_bytes();
        let at = index.checked_mul(width).and_then(|at| at.checked_add(list)).ok_or_else(|| invalid("a long list"))?;
        let part = if self.is_compact { &mut bytes[..4] } else { &mut bytes[..] };
        self.file.read_exact_at(part, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn entry(&mut self, offset: u64) -> io::Result<JournalEntry> {
        let size = self.object(offset, ENTRY)?;
        let mut realtime = [0; 8];
        self.file.read_exact_at(&mut realtime, offset.saturating_add(24))?;
        let mut entry = JournalEntry { realtime_us: u64::from_le_bytes(realtime), ..JournalEntry::default() };
        // Beside its offset, each field has a hash in the older layout.
        let fields = size.saturating_sub(ENTRY_HEADER_BYTES) / if self.is_compact { 4 } else { 16 };
        for index in 0..fields.min(FIELDS_MAX) {
            let index = if self.is_compact { index } else { 2 * index };
            let data = self.item(offset.saturating_add(ENTRY_HEADER_BYTES), index)?;
            match self.field(data)? {
                Field::Identifier(identifier) => entry.identifier = identifier,
                Field::Pid(pid) => entry.pid = pid,
                Field::Message(message) => entry.message = message,
                Field::Unreadable => entry.is_partial = true,
                Field::Other => {}
            }
        }
        Ok(entry)
    }

    fn field(&mut self, offset: u64) -> io::Result<Field> {
        if let Some(field) = self.remembered.get(&offset) {
            return Ok(field.clone());
        }
        let field = self.read_field(offset)?;
        // A message is of one entry, mostly.
        if !matches!(field, Field::Message(_)) {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
            self.remembered.insert(offset, field.clone());
        }
        Ok(field)
    }

    fn read_field(&self, offset: u64) -> io::Result<Field> {
        let header_bytes = if self.is_compact { COMPACT_DATA_HEADER_BYTES } else { DATA_HEADER_BYTES };
        let mut bytes = vec![0; header_bytes + FIELD_BYTES];
        let there = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(there);
        if there < header_bytes || bytes[0] != DATA {
            return Err(invalid("a field that is none"));
        }
        let size = usize::try_from(u64_of(&bytes, 8)).unwrap_or(usize::MAX);
        let Some(payload_bytes) = size.checked_sub(header_bytes) else { return Err(invalid("a field without room")) };
        if payload_bytes > MESSAGE_BYTES_MAX {
            return Ok(Field::Unreadable);
        }
        if size > bytes.len() {
            bytes.resize(size, 0);
            self.file.read_exact_at(&mut bytes, offset)?;
        }
        let payload = &bytes[header_bytes..size];
        Ok(match bytes[1] & COMPRESSED {
            0 => classified(payload),
            COMPRESSED_ZSTD => match zstd::bulk::decompress(payload, MESSAGE_BYTES_MAX) {
                Ok(payload) => classified(&payload),
                Err(_) => Field::Unreadable,
            },
            _ => Field::Unreadable,
        })
    }
}

/// What a field `NAME=value` is.
fn classified(field: &[u8]) -> Field {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    if let Some(message) = field.strip_prefix(b"MESSAGE=") {
        Field::Message(message.to_vec())
    } else if let Some(identifier) = field.strip_prefix(b"SYSLOG_IDENTIFIER=") {
        Field::Identifier(text(identifier))
    } else if let Some(pid) = field.strip_prefix(b"_PID=") {
        Field::Pid(text(pid).parse().ok())
    } else {
        Field::Other
    }
}

fn u32_of(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_of(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
