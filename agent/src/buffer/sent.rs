//! Which records may be at the server already.
//!
//! Spans of record numbers, at most [`SPANS_MAX`]: what has ever been leased, and nothing between that was not, until
//! there are more; then the two nearest are joined, and what lies between them counts as sent, too (it is then not evicted,
//! that is all).
//!
//! A file: how many spans u32, for each its first and last number u64, CRC32C of all before (little-endian). It is written
//! before records are handed out, by one write inside one sector, so a killed process leaves the old or the new value.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::buffer::{BufferError, RecordNumber};

/// Most spans. There is one for what waited, and one more for each connection that ended while there was a backlog.
const SPANS_MAX: usize = 16;
const SPAN_BYTES: usize = 16;
const FILE_BYTES_MAX: usize = 4 + SPANS_MAX * SPAN_BYTES + 4;
const _: () = assert!(FILE_BYTES_MAX <= 512);

/// The first and the last number of a span.
type Span = (u64, u64);

pub(crate) struct SentMarks {
    file: File,
    path: PathBuf,
    /// In order, none touching another.
    spans: Vec<Span>,
}

impl SentMarks {
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
        Read::by_ref(&mut file).take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(io("read"))?;
        let spans = decode(&bytes).unwrap_or_default();
        Ok(Self { file, path: path.to_owned(), spans })
    }

    /// The highest number that may be at the server; 0: none is.
    pub(crate) fn last(&self) -> RecordNumber {
        RecordNumber(self.spans.last().map_or(0, |(_, last)| *last))
    }

    /// The first number from `from` on that cannot be at the server.
    pub(crate) fn next_unsent(&self, from: RecordNumber) -> RecordNumber {
        let inside = self.spans.iter().find(|(first, last)| (*first..=*last).contains(&from.0));
        inside.map_or(from, |(_, last)| RecordNumber(*last).next())
    }

    /// Notes that records up to `last` are handed out, of those from `first` on.
    pub(crate) fn cover(&mut self, first: RecordNumber, last: RecordNumber) -> Result<(), BufferError> {
        let spans = with_span(&self.spans, (first.0, last.0));
        if spans == self.spans {
            return Ok(());
        }
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&encode(&spans)))
            .map_err(|source| BufferError::Io { operation: "write to", path: self.path.clone(), source })?;
        self.spans = spans;
        Ok(())
    }
}

fn with_span(spans: &[Span], new: Span) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.push(new);
    sorted.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    while joined.len() > SPANS_MAX {
        let gap = |at: &usize| joined[at + 1].0 - joined[*at].1;
        let Some(nearest) = (0..joined.len() - 1).min_by_key(gap) else { break };
        let (_, last) = joined.remove(nearest + 1);
        joined[nearest].1 = last;
    }
    joined
}

fn encode(spans: &[Span]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_BYTES_MAX);
    bytes.extend(u32::try_from(spans.len()).unwrap_or(0).to_le_bytes());
    for (first, last) in spans {
        bytes.extend(first.to_le_bytes());
        bytes.extend(last.to_le_bytes());
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// What follows the checksum is left of a longer list.
fn decode(bytes: &[u8]) -> Option<Vec<Span>> {
    let count = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok().filter(|count| *count <= SPANS_MAX)?;
    let (body, rest) = bytes.split_at_checked(4 + count * SPAN_BYTES)?;
    if crc32c::crc32c(body).to_le_bytes() != *rest.first_chunk()? {
        return None;
    }
    let mut numbers = body.get(4..)?.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    let mut spans = Vec::with_capacity(count);
    while let (Some(first), Some(last)) = (numbers.next(), numbers.next()) {
        spans.push((first, last));
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u64) -> RecordNumber {
        RecordNumber(value)
    }

    #[test]
    fn spans_grow_together_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        let mut marks = SentMarks::open(&path).unwrap();
        assert_eq!((marks.last(), marks.next_unsent(number(1))), (number(0), number(1)));
        for (first, last) in [(1, 3), (10, 12), (20, 20), (10, 14)] {
            marks.cover(number(first), number(last)).unwrap();
        }
        for _ in 0..2 {
            assert_eq!(marks.last(), number(20));
            let next = |from| marks.next_unsent(number(from)).0;
            assert_eq!([1, 3, 4, 10, 15, 20, 21].map(next), [4, 4, 4, 15, 15, 21, 21]);
            marks = SentMarks::open(&path).unwrap();
        }
        // A shorter list leaves the end of the longer one behind it.
        marks.cover(number(1), number(25)).unwrap();
        assert_eq!(SentMarks::open(&path).unwrap().spans, [(1, 25)]);
        std::fs::write(&path, [7; 40]).unwrap();
        assert!(SentMarks::open(&path).unwrap().spans.is_empty());
    }

    #[test]
    fn too_many_spans_are_joined_where_they_are_nearest_and_none_is_forgotten() {
        let spans: Vec<Span> = (0..SPANS_MAX as u64).map(|at| (at * 100, at * 100 + 5)).collect();
        let joined = with_span(&spans, (310, 320));
        assert_eq!(joined.len(), SPANS_MAX);
        assert!(joined.contains(&(300, 320)));
        assert_eq!(decode(&encode(&joined)), Some(joined));
    }
}
