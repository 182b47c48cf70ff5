//! A log that another program appends to, renames and truncates.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use picket_common::event::Timestamp;

use super::line::{self, Entry};
use super::position::Position;
use super::timestamp;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest line that is looked at; of a longer one only the beginning.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// How long a log that was renamed is read on: its writer goes on with it until it is told.
const ROTATION_GRACE: Duration = Duration::from_secs(2);

/// What one reading gave.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Lines were read; these are those of interest.
    Lines {
        /// When the log was last written to.
        written: Timestamp,
        entries: Vec<Entry>,
        /// The log's end had been reached before: these lines are new.
        is_live: bool,
    },
    /// The log was cut shorter than it had been read.
    Truncated,
    /// There is nothing more for now.
    End,
}

/// One log, by its path.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<OpenLog>,
    is_live: bool,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    device: u64,
    inode: u64,
    /// Bytes before the first line that was not read to its end.
    offset: u64,
    /// The line at the offset is too long: what follows of it is passed over.
    in_long_line: bool,
    /// When it was found to be renamed.
    renamed: Option<Instant>,
}

impl LogFile {
    /// Goes on where the log was left; at its end when it was never read. Says also whether lines may have been lost
    /// in between.
    pub(super) fn resume(path: &Path, position: Option<Position>) -> (Self, bool) {
        let path = path.to_path_buf();
        let log = |open| Self { path: path.clone(), open, is_live: false };
        let Some(position) = position else {
            // What is there already was there before the agent; a log that comes later is read from its beginning.
            return (log(OpenLog::open(&path, u64::MAX).ok()), false);
        };
        let here = OpenLog::open(&path, position.offset).ok();
        if let Some(open) = here.filter(|open| open.is_at(position)) {
            return (log(Some(open)), false);
        }
        let names = [rotated_name(&path, 1)].into_iter().chain((2..5).map(|number| rotated_name(&path, number)));
        for (index, name) in names.enumerate() {
            if let Some(open) = OpenLog::open(&name, position.offset).ok().filter(|open| open.is_at(position)) {
                // Rotated more than once: the files between are not read.
                return (log(Some(open)), index > 0);
            }
        }
        (log(OpenLog::open(&path, 0).ok()), true)
    }

    /// The log's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How far it was read; `None` when there is no such log.
    pub(super) fn position(&self) -> Option<Position> {
        let open = self.open.as_ref()?;
        Some(Position { device: open.device, inode: open.inode, offset: open.offset })
    }

    /// Reads on.
    pub(super) fn next_chunk(&mut self) -> io::Result<Chunk> {
        let Some(open) = &mut self.open else {
            self.is_live = true;
            self.open = match OpenLog::open(&self.path, 0) {
                Ok(open) => Some(open),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Chunk::End),
                Err(error) => return Err(error),
            };
            return self.next_chunk();
        };
        let metadata = open.file.metadata()?;
        if metadata.len() < open.offset || !open.ends_a_line()? {
            (open.offset, open.in_long_line) = (0, false);
            return Ok(Chunk::Truncated);
        }
        let is_renamed = open.renamed.is_some();
        if let Some(entries) = open.read_lines(is_renamed)? {
            return Ok(Chunk::Lines { written: written(&metadata), entries, is_live: self.is_live });
        }
        self.is_live = true;
        if fs::metadata(&self.path).is_ok_and(|there| open.is(&there)) {
            open.renamed = None;
            return Ok(Chunk::End);
        }
        let renamed = *open.renamed.get_or_insert_with(Instant::now);
        if renamed.elapsed() >= ROTATION_GRACE && self.path.exists() {
            self.open = None;
            return self.next_chunk();
        }
        Ok(Chunk::End)
    }
}

impl OpenLog {
    /// Opens a log at `offset`, or at its end.
    fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let offset = if offset == u64::MAX { metadata.len() } else { offset };
        let (device, inode) = (metadata.dev(), metadata.ino());
        let in_long_line = false;
        let mut open = Self { file, device, inode, offset, in_long_line, renamed: None };
        // Within a line: its beginning was looked at, or is from before the agent.
        open.in_long_line = !open.ends_a_line().unwrap_or(true);
        Ok(open)
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }

    /// Whether this is the file that the position is in, and long enough for it.
    fn is_at(&self, position: Position) -> bool {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        (position.device, position.inode) == (self.device, self.inode) && length >= position.offset
    }

    /// Whether a line ends before the offset: otherwise the log was cut and has grown again.
    fn ends_a_line(&self) -> io::Result<bool> {
        if self.offset == 0 || self.in_long_line {
            return Ok(true);
        }
        let mut last = [0];
        let read = self.file.read_at(&mut last, self.offset - 1)?;
        Ok(read == 1 && last == *b"\n")
    }

    /// Reads whole lines; `None` when there is none. `to_the_end`: also one without an end, after which nothing comes.
    fn read_lines(&mut self, to_the_end: bool) -> io::Result<Option<Vec<Entry>>> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let read = self.file.read_at(&mut buffer, self.offset)?;
        let bytes = &buffer[..read];
        let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if bytes.len() == CHUNK_BYTES || (to_the_end && !bytes.is_empty()) => bytes.len(),
            None => return Ok(None),
        };
        let is_cut = bytes[..whole].last() != Some(&b'\n');
        let mut lines = bytes[..whole].split(|byte| *byte == b'\n');
        if self.in_long_line {
            // The rest of a line whose beginning was looked at.
            lines.next();
        }
        let short = |line| {
            let line: &[u8] = line;
            &line[..line.len().min(LINE_BYTES_MAX)]
        };
        let entries = lines.filter_map(|line| line::parse(short(line))).collect();
        self.in_long_line = is_cut;
        self.offset += whole as u64;
        Ok(Some(entries))
    }
}

/// As logrotate names it: `auth.log.1`.
fn rotated_name(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{number}"));
    path.with_file_name(name)
}

fn written(metadata: &Metadata) -> Timestamp {
    metadata.modified().map_or(Timestamp(0), timestamp)
}
