//! An `inotify` group: what `fanotify` tells but who did it, for everybody who may read the folders.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::record::{Entry, Handle, Record};

/// Bytes read at a time; an event takes sixteen and the name.
const READ_BYTES: usize = 64 * 1024;
/// Most reads before what was read is worked on.
const READS_MAX: usize = 16;
/// Length of `struct inotify_event`.
const EVENT_BYTES: usize = 16;
const MOVED_FROM: u32 = 0x40;
const MOVED_TO: u32 = 0x80;

#[derive(Debug)]
pub(super) struct InotifyGroup {
    inotify: OwnedFd,
}

impl InotifyGroup {
    /// # Errors
    /// The kernel's: there may be too many groups of this user (`fs.inotify.max_user_instances`).
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? })
    }

    /// What becomes readable.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.inotify
    }

    /// Watches the entries of a folder; gives the handle by which records name it.
    pub(super) fn watch(&self, folder: &Path) -> io::Result<Handle> {
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        Ok(Handle::of_watch(inotify::add_watch(&self.inotify, folder, changes)?))
    }

    /// Reads what there is, within limits.
    pub(super) fn read(&self, records: &mut Vec<Record>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::new();
        for _ in 0..READS_MAX {
            match rustix::io::read(&self.inotify, buffer.as_mut_slice()) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(length) => parse(&buffer[..length], &mut events),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        join(events, records);
        Ok(())
    }
}

/// One event as the kernel writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    /// The same in both halves of a rename.
    cookie: u32,
    /// Of the entry; empty when it is about the folder itself.
    name: Vec<u8>,
}

/// Reads the events of one `read`. What is cut short is left out.
fn parse(mut bytes: &[u8], events: &mut Vec<Event>) {
    while let Some(head) = bytes.first_chunk::<EVENT_BYTES>() {
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::try_from(number(12)).unwrap_or(usize::MAX);
        let Some(end) = EVENT_BYTES.checked_add(length) else { return };
        let Some(event) = bytes.split_off(..end) else { return };
        let name = event[EVENT_BYTES..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        events.push(Event { watch: number(0).cast_signed(), mask: number(4), cookie: number(8), name });
    }
}

/// Makes records of events: the two halves of a rename are one.
fn join(events: Vec<Event>, records: &mut Vec<Record>) {
    let mut halves: Vec<(u32, usize)> = Vec::new();
    for event in events {
        let Event { watch, mask, cookie, name } = event;
        let mut record = Record::of_mask(mask.into());
        if name.is_empty() && !record.is_overflow {
            continue;
        }
        let entry = Some(Entry { folder: Handle::of_watch(watch), name });
        if mask & MOVED_TO != 0 {
            let half = halves.iter().position(|(known, _)| *known == cookie).map(|at| halves.swap_remove(at).1);
            if let Some(from) = half.and_then(|half| records.get_mut(half)) {
                from.new = entry;
                continue;
            }
            record.new = entry;
        } else if mask & MOVED_FROM != 0 {
            halves.push((cookie, records.len()));
            record.old = entry;
        } else if !record.is_overflow {
            record.here = entry;
        }
        records.push(record);
    }
}

#[cfg(test)]
mod tests {
    use picket_common::event::FileAction;
    use proptest::prelude::*;

    use super::*;

    const CREATE: u32 = 0x100;
    const OVERFLOW: u32 = 0x4000;

    fn event(watch: i32, mask: u32, cookie: u32, name: &str) -> Vec<u8> {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(name.len().next_multiple_of(16), 0);
        let length = u32::try_from(padded.len()).unwrap_or(0);
        let mut bytes = watch.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[mask, cookie, length].map(u32::to_ne_bytes).concat());
        bytes.extend_from_slice(&padded);
        bytes
    }

    fn records(bytes: &[u8]) -> Vec<Record> {
        let (mut events, mut records) = (Vec::new(), Vec::new());
        parse(bytes, &mut events);
        join(events, &mut records);
        records
    }

    fn entry(watch: i32, name: &str) -> Option<Entry> {
        Some(Entry { folder: Handle::of_watch(watch), name: name.as_bytes().to_vec() })
    }

    #[test]
    fn the_halves_of_a_rename_are_one_record() {
        let bytes = [
            event(1, MOVED_FROM, 7, "a"),
            event(2, CREATE, 0, "x"),
            event(2, MOVED_TO, 7, "b"),
            event(1, MOVED_FROM, 8, "gone"),
            event(2, MOVED_TO, 9, "came"),
        ]
        .concat();
        let records = records(&bytes);
        let ends: Vec<_> = records.iter().map(|record| (record.old.clone(), record.new.clone())).collect();
        let [renamed, created, gone, came] = [0, 1, 2, 3].map(|index| ends[index].clone());
        assert_eq!((renamed, created), ((entry(1, "a"), entry(2, "b")), (None, None)));
        assert_eq!((gone, came), ((entry(1, "gone"), None), (None, entry(2, "came"))));
        assert_eq!(records[1].here, entry(2, "x"));
        assert_eq!(records[1].actions().collect::<Vec<_>>(), [FileAction::Create]);
    }

    #[test]
    fn what_is_about_a_folder_itself_is_none_and_an_overflow_is_told() {
        let bytes = [event(1, 0x8000, 0, ""), event(1, 4, 0, ""), event(-1, OVERFLOW, 0, "")].concat();
        let records = records(&bytes);
        assert_eq!(records.len(), 1);
        assert!(records[0].is_overflow && records[0].here.is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            records(&bytes);
            records(&[event(1, MOVED_FROM, 7, "a"), bytes].concat());
        }
    }
}
