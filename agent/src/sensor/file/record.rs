//! What the kernel writes into a `fanotify` group: `struct fanotify_event_metadata` and its information records.

use picket_common::event::FileAction;

const ATTRIB: u64 = 0x4;
const CLOSE_WRITE: u64 = 0x8;
const OPEN: u64 = 0x20;
const CREATE: u64 = 0x100;
const DELETE: u64 = 0x200;
const QUEUE_OVERFLOW: u64 = 0x4000;
/// `FAN_RENAME`, Linux 5.17: one record with both names.
pub(super) const RENAME: u64 = 0x1000_0000;
const ON_DIRECTORY: u64 = 0x4000_0000;

/// Length of `struct fanotify_event_metadata`.
const METADATA_BYTES: usize = 24;
/// Lengths of an information record's header, of the file system's id and of a handle's header.
const INFORMATION_BYTES: usize = 4;
const FILE_SYSTEM_BYTES: usize = 8;
const HANDLE_BYTES: usize = 8;
const HERE: u8 = 2;
const OLD: u8 = 10;
const NEW: u8 = 12;

/// A folder, as the kernel names it: file system, type of handle and handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handle(Vec<u8>);

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) folder: Handle,
    pub(super) name: Vec<u8>,
}

/// One event of the group. Several changes of one entry by one process may be one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    mask: u64,
    pub(super) pid: Option<u32>,
    pub(super) is_overflow: bool,
    pub(super) is_open: bool,
    pub(super) is_directory: bool,
    /// The entry that was changed.
    pub(super) here: Option<Entry>,
    /// Of a rename, as far as the folders are watched.
    pub(super) old: Option<Entry>,
    pub(super) new: Option<Entry>,
}

impl Handle {
    /// A folder, as an `inotify` group numbers it.
    pub(super) fn of_watch(watch: i32) -> Self {
        Self(watch.to_ne_bytes().to_vec())
    }
}

impl Record {
    /// A record of what these bits say; they are the same in `inotify`.
    pub(super) fn of_mask(mask: u64) -> Self {
        Self {
            mask,
            is_overflow: mask & QUEUE_OVERFLOW != 0,
            is_open: mask & OPEN != 0,
            is_directory: mask & ON_DIRECTORY != 0,
            ..Self::default()
        }
    }

    /// What was done to the entry, in the order in which it can have been.
    pub(super) fn actions(&self) -> impl Iterator<Item = FileAction> + use<> {
        let mask = self.mask;
        [
            (CREATE, FileAction::Create),
            (ATTRIB, FileAction::SetAttributes),
            (CLOSE_WRITE, FileAction::Update),
            (DELETE, FileAction::Delete),
        ]
        .into_iter()
        .filter_map(move |(bit, action)| (mask & bit != 0).then_some(action))
    }
}

/// Reads the events of one `read`. What is cut short or of another version is left out.
pub(super) fn parse(mut bytes: &[u8], records: &mut Vec<Record>) {
    while let Some(record) = split_record(&mut bytes) {
        records.extend(parse_record(record));
    }
}

/// Takes one event off the front.
fn split_record<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    if length < METADATA_BYTES {
        return None;
    }
    bytes.split_off(..length)
}

fn parse_record(bytes: &[u8]) -> Option<Record> {
    let metadata_bytes = usize::from(u16::from_ne_bytes(array(bytes, 6)?));
    let mask = u64::from_ne_bytes(array(bytes, 8)?);
    let pid = i32::from_ne_bytes(array(bytes, 20)?);
    let mut record = Record { pid: u32::try_from(pid).ok().filter(|pid| *pid != 0), ..Record::of_mask(mask) };
    let mut rest = bytes.get(metadata_bytes..)?;
    while let Some(length) = array(rest, 2).map(|bytes| usize::from(u16::from_ne_bytes(bytes))) {
        if length < INFORMATION_BYTES {
            break;
        }
        let Some(information) = rest.split_off(..length) else { break };
        match information[0] {
            HERE => record.here = parse_entry(information),
            OLD => record.old = parse_entry(information),
            NEW => record.new = parse_entry(information),
            _ => {}
        }
    }
    Some(record)
}

fn parse_entry(information: &[u8]) -> Option<Entry> {
    let handle_at = INFORMATION_BYTES + FILE_SYSTEM_BYTES;
    let handle_bytes = usize::try_from(number(information, handle_at)?).ok()?;
    let name_at = (handle_at + HANDLE_BYTES).checked_add(handle_bytes)?;
    let folder = Handle(information.get(INFORMATION_BYTES..name_at)?.to_vec());
    let name = information.get(name_at..)?.split(|byte| *byte == 0).next()?.to_vec();
    Some(Entry { folder, name })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            parse(&bytes, &mut Vec::new());
            let mut record = vec![0; METADATA_BYTES];
            record[..4].copy_from_slice(&(METADATA_BYTES as u32 + bytes.len() as u32).to_ne_bytes());
            record[6..8].copy_from_slice(&(METADATA_BYTES as u16).to_ne_bytes());
            parse(&[record, bytes].concat(), &mut Vec::new());
        }
    }
}
