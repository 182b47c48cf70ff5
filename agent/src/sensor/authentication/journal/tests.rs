#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::super::position::PositionFile;
use super::*;
use crate::sensor::test_sink::DEADLINE;

/// Where distributions put it.
const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];
/// A journald that sees nothing of the host and leaves nothing behind: it has a `/run` of its own.
const SCRIPT: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d \
    && printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nSplitMode=none\\n' > /run/systemd/journald.conf.d/x.conf \
    && printf '0123456789abcdef0123456789abcdef\\n' > /run/id && mount --bind /run/id /etc/machine-id && exec \"$0\"";

/// The real thing.
pub(in crate::sensor::authentication) struct Journald {
    child: Child,
    socket: UnixDatagram,
}

impl Journald {
    /// `None` where it is not there or not permitted.
    pub(in crate::sensor::authentication) fn start() -> Option<Self> {
        Self::start_compressing("ZSTD")
    }

    /// One that compresses in this way, where it knows how.
    fn start_compressing(method: &str) -> Option<Self> {
        let program = PROGRAMS.into_iter().find(|program| Path::new(program).exists());
        let (Some(program), true) = (program, rustix::process::geteuid().is_root()) else {
            eprintln!("skipped: not root, or no journald");
            return None;
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", SCRIPT, program]).stderr(Stdio::null());
        command.env("SYSTEMD_JOURNAL_COMPRESS", method);
        let child = command.spawn().unwrap();
        let journald = Self { child, socket: UnixDatagram::unbound().unwrap() };
        let deadline = Instant::now() + DEADLINE;
        let socket = journald.path("run/systemd/journal/socket");
        while journald.socket.connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "journald does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(journald)
    }

    fn path(&self, below: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{below}", self.child.id()))
    }

    pub(in crate::sensor::authentication) fn folders(&self) -> Vec<PathBuf> {
        vec![self.path("run/log/journal")]
    }

    fn log(&self, program: &str, message: &str) {
        let text = format!("SYSLOG_IDENTIFIER={program}\nPRIORITY=6\nMESSAGE={message}\n");
        self.socket.send(text.as_bytes()).unwrap();
    }

    /// A failed login of a user called so.
    pub(in crate::sensor::authentication) fn fail(&self, user: &str) {
        self.log("sshd", &format!("Failed password for {user} from 198.51.100.23 port 22 ssh2"));
    }

    fn rotate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let current = current_files(&self.folders()).pop().unwrap();
        let before = identity(&current);
        kill_process(pid, Signal::USR2).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while identity(&current).is_none() || identity(&current) == before {
            assert!(Instant::now() < deadline, "journald does not rotate");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Reads until this user's failure has come; gives all users of whom something was told.
fn users_until(journal: &mut Journal, last: &str) -> (Vec<Entry>, Option<(PathBuf, Position)>) {
    let (mut entries, mut place) = (Vec::new(), None);
    let deadline = Instant::now() + DEADLINE;
    loop {
        for news in journal.news() {
            entries.extend(news.entries);
            place = news.position.map(|position| (news.path, position));
        }
        if entries.iter().any(|entry: &Entry| entry.authentication.user_name == last.into()) {
            return (entries, place);
        }
        assert!(Instant::now() < deadline, "no {last} in {entries:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_message_of_a_login_that_cannot_be_read_is_counted() {
    let Some(journald) = Journald::start_compressing("LZ4") else { return };
    journald.fail("before");
    let mut journal = Journal { folders: journald.folders(), files: Vec::new(), last_look: None };
    let long = "x".repeat(3000);
    journald.log("cron", &long);
    journald.log("sudo", &format!("eve : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo {long}"));
    journald.fail("last");
    let (mut told, mut unreadable) = (Vec::new(), 0);
    let deadline = Instant::now() + DEADLINE;
    while users(&told).last().is_none_or(|user| user != "last") {
        assert!(Instant::now() < deadline, "no last user in {told:?}");
        journal.last_look = None;
        for news in journal.news() {
            told.extend(news.entries);
            unreadable += news.unreadable;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if users(&told) == ["before", "root", "last"] {
        eprintln!("skipped: this journald cannot be told to compress by LZ4");
        return;
    }
    assert_eq!((users(&told), unreadable), (vec!["before".to_owned(), "last".to_owned()], 1));
}

fn users(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.authentication.user_name.to_string()).collect()
}

#[test]
fn what_journald_writes_is_read_across_rotation_and_restart() {
    let Some(journald) = Journald::start() else { return };
    // What is there already is read by one that was told to begin before it.
    journald.fail("before");
    let (mut from_beginning, _) = Journal::resume(&[], &PositionFile::open(None));
    from_beginning.folders = journald.folders();
    from_beginning.last_look = None;
    let deadline = Instant::now() + DEADLINE;
    while current_files(&journald.folders()).is_empty() {
        assert!(Instant::now() < deadline, "journald writes no file");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (told, _) = users_until(&mut from_beginning, "before");
    assert_eq!(users(&told), ["before"]);

    let (mut journal, lost) = Journal::resume(&journald.folders(), &PositionFile::open(None));
    assert_eq!((journal.is_there(), lost), (true, 0));
    let time_before = crate::enrich::boot_clock::now();
    journald.log("cron", "not a login");
    journald.fail("ada");
    let long = "x".repeat(3000);
    journald.log("sudo", &format!("eve : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo {long}"));
    journald.fail("last");
    let (told, _) = users_until(&mut journal, "last");
    assert_eq!(users(&told), ["ada", "root", "last"]);
    assert_eq!(told[0].pid, Some(std::process::id()));
    let age_ns = told[0].time.unwrap().0 - time_before.0;
    assert!((-1_000_000..DEADLINE.as_nanos() as i64).contains(&age_ns), "{age_ns}");
    assert_eq!(told[1].authentication.command.len(), "/bin/echo ".len() + long.len(), "compressed");

    journald.fail("in the old file");
    journald.rotate();
    journald.fail("in the new file");
    let (told, place) = users_until(&mut journal, "in the new file");
    assert_eq!(users(&told), ["in the old file", "in the new file"]);

    // Stopped, with a rotation meanwhile.
    drop(journal);
    journald.fail("while stopped");
    journald.rotate();
    journald.fail("after");
    let folder = tempfile::tempdir().unwrap();
    let mut positions = PositionFile::open(Some(folder.path().join("positions")));
    let (path, position) = place.unwrap();
    positions.set(&path, Some(position));
    let (mut journal, lost) = Journal::resume(&journald.folders(), &positions);
    let (told, _) = users_until(&mut journal, "after");
    assert_eq!((users(&told), lost), (vec!["while stopped".to_owned(), "after".to_owned()], 0));

    // Rotated more than once: what is between is not read, which is said.
    journald.rotate();
    journald.fail("between");
    journald.rotate();
    assert_eq!(Journal::resume(&journald.folders(), &positions).1, 1);

    // Whatever is in a file, it is refused or read, and nothing else happens.
    let whole = fs::read(current_files(&journald.folders()).pop().unwrap()).unwrap();
    let damaged = folder.path().join("damaged.journal");
    for step in 0..400_usize {
        let mut bytes = whole[..whole.len().min(256 * 1024)].to_vec();
        let at = (step * 7919) % bytes.len().min(8192);
        bytes[at] ^= 1 << (step % 8);
        bytes.truncate(bytes.len() - (step * 523) % bytes.len());
        fs::write(&damaged, &bytes).unwrap();
        if let Ok(mut file) = JournalFile::open(&damaged) {
            for _ in 0..64 {
                if !matches!(file.next(), Ok(Some(_))) {
                    break;
                }
            }
        }
    }
}
