//! `wtmp` and `btmp`: who logged in and out, and who failed to, in records of one length.
//!
//! They say less than the logs (no `sudo`, no method), and they are read only where there is neither log nor journal.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use picket_common::event::{AuthenticationAction, ByteString, Timestamp};

use super::line::{self, Entry};
use super::position::Position;

/// Length of `struct utmp`; and where times and what follows them are in it. On some machines they have 64 bits.
#[cfg(not(target_arch = "aarch64"))]
const LAYOUT: Layout = Layout { bytes: 384, seconds: 340, microseconds: 344, address: 348 };
#[cfg(target_arch = "aarch64")]
const LAYOUT: Layout = Layout { bytes: 400, seconds: 344, microseconds: 352, address: 360 };
const TERMINAL: std::ops::Range<usize> = 8..40;
const USER: std::ops::Range<usize> = 44..76;
/// `LOGIN_PROCESS`, `USER_PROCESS`, `DEAD_PROCESS`.
const LOGIN: u16 = 6;
const SESSION: u16 = 7;
const END: u16 = 8;
/// Most records read at a time.
const RECORDS_MAX: u64 = 256;
/// Most terminals of which it is known who is at them.
const TERMINALS_MAX: usize = 4096;

struct Layout {
    bytes: usize,
    seconds: usize,
    microseconds: usize,
    address: usize,
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// `wtmp`.
    Sessions,
    /// `btmp`.
    Failures,
}

/// One of the files, and how far it was read.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    kind: RecordKind,
    open: Option<OpenFile>,
    /// Who is at a terminal: the end of a session does not name its user.
    users: BTreeMap<Vec<u8>, ByteString>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    device: u64,
    inode: u64,
    offset: u64,
}

/// What one reading gave.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) entries: Vec<Entry>,
    /// Records were cut off before they were read.
    pub(super) is_lossy: bool,
    /// There may be more.
    pub(super) is_busy: bool,
}

impl OpenFile {
    fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, device: metadata.dev(), inode: metadata.ino(), offset: offset.min(metadata.len()) })
    }

    fn is(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
}

impl RecordFile {
    /// Goes on where it was left; at its end when it was never read. Says also whether records may have been lost in
    /// between.
    pub(super) fn resume(path: &Path, kind: RecordKind, position: Option<Position>) -> (Self, bool) {
        let file = |open| Self { path: path.to_path_buf(), kind, open, users: BTreeMap::new() };
        let Some(position) = position else { return (file(OpenFile::open(path, u64::MAX).ok()), false) };
        let rotated = PathBuf::from(format!("{}.1", path.display()));
        for path in [path, &rotated] {
            let open = OpenFile::open(path, position.offset).ok();
            let is_it = |open: &OpenFile| {
                (open.device, open.inode, open.offset) == (position.device, position.inode, position.offset)
            };
            if let Some(open) = open.filter(is_it) {
                return (file(Some(open)), false);
            }
        }
        (file(OpenFile::open(path, 0).ok()), true)
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How far it was read; `None` when there is no such file.
    pub(super) fn position(&self) -> Option<Position> {
        let open = self.open.as_ref()?;
        Some(Position { device: open.device, inode: open.inode, offset: open.offset })
    }

    /// Reads on.
    pub(super) fn read(&mut self) -> io::Result<Records> {
        let mut records = Records { entries: Vec::new(), is_lossy: false, is_busy: false };
        // Asked before reading: what has another name by then is complete.
        let there = fs::metadata(&self.path).ok();
        if self.open.is_none() {
            self.open = OpenFile::open(&self.path, 0).ok();
        }
        let Some(open) = &mut self.open else { return Ok(records) };
        if open.file.metadata()?.len() < open.offset {
            (open.offset, records.is_lossy) = (0, true);
        }
        let mut bytes = [0; LAYOUT.bytes];
        let mut read = 0;
        while read < RECORDS_MAX && read_whole(&open.file, &mut bytes, open.offset)? {
            open.offset += LAYOUT.bytes as u64;
            read += 1;
            records.entries.extend(entry(&bytes, self.kind, &mut self.users));
        }
        records.is_busy = read == RECORDS_MAX;
        let is_renamed = there.is_some_and(|there| !open.is(&there));
        if is_renamed && !records.is_busy {
            self.open = None;
            records.is_busy = true;
        }
        Ok(records)
    }
}

/// Whether there is a whole record at this place.
fn read_whole(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn entry(record: &[u8; LAYOUT.bytes], kind: RecordKind, users: &mut BTreeMap<Vec<u8>, ByteString>) -> Option<Entry> {
    let number = |at: usize| u32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let text = |range: std::ops::Range<usize>| record[range].split(|&byte| byte == 0).next().unwrap_or_default();
    let (terminal, mut user) = (text(TERMINAL), ByteString::from(text(USER)));
    let (action, success) = match (kind, u16::from_ne_bytes([record[0], record[1]])) {
        (RecordKind::Sessions, SESSION) => (AuthenticationAction::Logon, true),
        (RecordKind::Sessions, END) => (AuthenticationAction::Logoff, true),
        (RecordKind::Failures, LOGIN | SESSION) => (AuthenticationAction::Logon, false),
        _ => return None,
    };
    if action == AuthenticationAction::Logoff {
        // Ends of what never was a session of somebody have no name, either.
        user = users.remove(terminal).filter(|_| user.is_empty()).unwrap_or(user);
        if user.is_empty() {
            return None;
        }
    } else if success && (users.len() < TERMINALS_MAX || users.contains_key(terminal)) {
        users.insert(terminal.to_vec(), user.clone());
    }
    let service = if terminal.starts_with(b"ssh") { "sshd" } else { "login" };
    let mut authentication = line::logon(service, "", success);
    authentication.action = action;
    authentication.user_name = user;
    authentication.terminal = if terminal.ends_with(b":notty") { ByteString::default() } else { terminal.into() };
    authentication.source = address(&record[LAYOUT.address..LAYOUT.address + 16]);
    let micros = i64::from(number(LAYOUT.seconds)).checked_mul(1_000_000)? + i64::from(number(LAYOUT.microseconds));
    let time = Timestamp(micros.checked_mul(1000)?);
    let pid = Some(number(4)).filter(|&pid| pid != 0);
    Some(Entry { time: Some(time), pid, authentication })
}

/// An address of version 4 has its four bytes first and nothing else.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let [a, b, c, d, rest @ ..] = bytes;
    match (u32::from_be_bytes([a, b, c, d]), rest.iter().all(|&byte| byte == 0)) {
        (0, true) => None,
        (_, true) => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(Ipv6Addr::from(bytes).to_canonical()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    /// A record as login and sshd write it.
    fn record(kind: u16, user: &str, terminal: &str, address: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; LAYOUT.bytes];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&42_u32.to_ne_bytes());
        bytes[TERMINAL.start..TERMINAL.start + terminal.len()].copy_from_slice(terminal.as_bytes());
        bytes[USER.start..USER.start + user.len()].copy_from_slice(user.as_bytes());
        bytes[LAYOUT.seconds..LAYOUT.seconds + 4].copy_from_slice(&1_795_000_000_u32.to_ne_bytes());
        bytes[LAYOUT.microseconds..LAYOUT.microseconds + 4].copy_from_slice(&250_000_u32.to_ne_bytes());
        bytes[LAYOUT.address..LAYOUT.address + 4].copy_from_slice(&address);
        bytes
    }

    struct Host {
        folder: tempfile::TempDir,
    }

    impl Host {
        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn append(&self, name: &str, record: &[u8]) {
            let file = OpenOptions::new().create(true).append(true).open(self.path(name));
            file.unwrap().write_all(record).unwrap();
        }
    }

    fn users(file: &mut RecordFile) -> Vec<String> {
        let mut users = Vec::new();
        loop {
            let records = file.read().unwrap();
            users.extend(records.entries.iter().map(|entry| entry.authentication.user_name.to_string()));
            if !records.is_busy {
                return users;
            }
        }
    }

    #[test]
    fn sessions_and_failures_are_read() {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        host.append("wtmp", &record(SESSION, "before", "pts/0", [0; 4]));
        let (mut sessions, _) = RecordFile::resume(&host.path("wtmp"), RecordKind::Sessions, None);
        host.append("wtmp", &record(2, "reboot", "~", [0; 4]));
        host.append("wtmp", &record(SESSION, "ada", "pts/1", [198, 51, 100, 23]));
        host.append("wtmp", &record(END, "", "pts/1", [0; 4]));
        host.append("wtmp", &record(END, "", "pts/7", [0; 4]));
        let entries = sessions.read().unwrap().entries;
        let [logon, logoff] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((logon.time, logon.pid), (Some(Timestamp(1_795_000_000_250_000_000)), Some(42)));
        let authentication = &logon.authentication;
        assert_eq!((&authentication.user_name, &authentication.terminal), (&"ada".into(), &"pts/1".into()));
        assert_eq!(authentication.source, Some("198.51.100.23".parse().unwrap()));
        assert_eq!(logoff.authentication.action, AuthenticationAction::Logoff);
        assert_eq!(logoff.authentication.user_name, "ada".into());

        let (mut failures, _) = RecordFile::resume(&host.path("btmp"), RecordKind::Failures, None);
        assert!(failures.read().unwrap().entries.is_empty() && failures.position().is_none());
        host.append("btmp", &record(LOGIN, "eve", "ssh:notty", [0; 4]));
        let failure = failures.read().unwrap().entries.remove(0).authentication;
        assert_eq!((failure.success, failure.service, failure.terminal.len()), (false, "sshd".into(), 0));
    }

    #[test]
    fn rotation_and_restart_take_nothing_away_and_a_cut_is_told() {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        host.append("btmp", &record(LOGIN, "a", "tty1", [0; 4]));
        let (mut file, _) = RecordFile::resume(&host.path("btmp"), RecordKind::Failures, None);
        host.append("btmp", &record(LOGIN, "b", "tty1", [0; 4]));
        // Half a record is waited for.
        let half = record(LOGIN, "c", "tty1", [0; 4]);
        host.append("btmp", &half[..100]);
        assert_eq!(users(&mut file), ["b"]);
        let position = file.position();
        host.append("btmp", &half[100..]);
        fs::rename(host.path("btmp"), host.path("btmp.1")).unwrap();
        host.append("btmp", &record(LOGIN, "d", "tty1", [0; 4]));
        assert_eq!(users(&mut file), ["c", "d"]);
        let (mut resumed, is_lossy) = RecordFile::resume(&host.path("btmp"), RecordKind::Failures, position);
        assert_eq!((users(&mut resumed), is_lossy), (vec!["c".to_owned(), "d".to_owned()], false));
        fs::write(host.path("btmp"), b"").unwrap();
        assert!(file.read().unwrap().is_lossy);
        fs::remove_file(host.path("btmp.1")).unwrap();
        assert!(RecordFile::resume(&host.path("btmp"), RecordKind::Failures, position).1);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), LAYOUT.bytes)) {
            let mut record = [0; LAYOUT.bytes];
            record.copy_from_slice(&bytes);
            for kind in [2, LOGIN, SESSION, END] {
                record[..2].copy_from_slice(&kind.to_ne_bytes());
                let _ = entry(&record, RecordKind::Sessions, &mut BTreeMap::new());
                let _ = entry(&record, RecordKind::Failures, &mut BTreeMap::new());
            }
        }
    }
}
