//! A real log, written, rotated and cut while it is followed.

use std::fs::{self, OpenOptions};
use std::io::Write;

use picket_common::event::Authentication;
use tempfile::TempDir;

use super::*;
use crate::sensor::config::{SensorConfig, SensorSwitch};
use crate::sensor::test_sink::TestSink;
use crate::sensor::{Observation, SensorSet};

struct Host {
    folder: TempDir,
    sink: TestSink,
}

impl Host {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), sink: TestSink::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> SensorSet {
        let mut config = SensorConfig::all_off();
        config.authentication.mode = SensorSwitch::Auto;
        config.authentication.log_paths = vec![self.path("auth.log")];
        config.authentication.journal_folders = Vec::new();
        config.authentication.wtmp_path = self.path("wtmp");
        config.authentication.btmp_path = self.path("btmp");
        config.authentication.poll_interval_ms = 10;
        self.sink.start_in(&config, self.folder.path())
    }

    fn append(&self, name: &str, text: &str) {
        let mut log = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    /// The users of the logins so far.
    fn users(&self) -> Vec<String> {
        users(&self.sink.observations())
    }

    fn wait_for(&self, user: &str) -> Observation {
        self.sink.wait_for(user, |seen| seen.iter().find(|one| login(one).user_name == user.into()).cloned())
    }
}

fn login(observation: &Observation) -> &Authentication {
    match &observation.body {
        EventBody::Authentication(login) => login,
        other => panic!("{other:?}"),
    }
}

fn users(observations: &[Observation]) -> Vec<String> {
    observations.iter().map(|one| login(one).user_name.to_string()).collect()
}

fn failed(user: &str) -> String {
    format!("Nov 23 04:21:03 web1 sshd[640]: Failed password for {user} from 198.51.100.23 port 22 ssh2\n")
}

fn stop(set: SensorSet) {
    assert_eq!(set.stop_and_join(Duration::from_secs(10)), Vec::<&str>::new());
}

#[test]
fn lines_are_seen_when_they_are_written_and_only_once() {
    let host = Host::new();
    host.append("auth.log", &failed("before_the_agent"));
    let set = host.start();
    assert_eq!((set.modes[0].name.as_bytes(), set.modes[0].origin), (&b"authentication"[..], Origin::AgentLog));
    assert!(set.modes[0].reason.is_empty());
    host.append("auth.log", "Nov 23 04:21:03 web1 sshd[640]: Server listening on :: port 22.\n");
    host.append("auth.log", &failed("ada"));
    let seen = host.wait_for("ada");
    assert_eq!(seen.origin, Origin::AgentLog);
    let age_ns = timestamp(SystemTime::now()).0 - seen.time.0;
    assert!((0..60_000_000_000).contains(&age_ns), "{age_ns}");
    // A line in two parts.
    let line = failed("bob");
    host.append("auth.log", &line[..50]);
    std::thread::sleep(Duration::from_millis(30));
    host.append("auth.log", &line[50..]);
    host.wait_for("bob");
    stop(set);

    host.append("auth.log", &failed("while_stopped"));
    let set = host.start();
    host.wait_for("while_stopped");
    host.append("auth.log", &failed("again"));
    host.wait_for("again");
    stop(set);
    assert_eq!(host.users(), ["ada", "bob", "while_stopped", "again"]);
    assert_eq!(host.sink.lost(), 0);
}

#[test]
fn rotation_takes_nothing_away() {
    let host = Host::new();
    let set = host.start();
    assert!(set.modes[0].reason.as_bytes().starts_with(b"no log at "), "{}", set.modes[0].reason);
    host.append("auth.log", &failed("first"));
    host.wait_for("first");
    fs::rename(host.path("auth.log"), host.path("auth.log.1")).unwrap();
    // The writer goes on with the old file until it is told.
    host.append("auth.log.1", &failed("late"));
    host.append("auth.log", &failed("second"));
    host.wait_for("second");
    stop(set);

    host.append("auth.log", &failed("third"));
    fs::rename(host.path("auth.log"), host.path("auth.log.1")).unwrap();
    host.append("auth.log", &failed("fourth"));
    let set = host.start();
    host.wait_for("fourth");
    stop(set);
    assert_eq!(host.users(), ["first", "late", "second", "third", "fourth"]);
    assert_eq!(host.sink.lost(), 0);
}

#[test]
fn what_rotation_takes_away_is_counted() {
    let host = Host::new();
    let set = host.start();
    host.append("auth.log", &failed("first"));
    host.wait_for("first");
    // Cut, as `copytruncate` does.
    fs::write(host.path("auth.log"), "").unwrap();
    host.sink.wait_for_losses(1);
    host.append("auth.log", &failed("second"));
    host.wait_for("second");
    stop(set);

    // Rotated, compressed and gone while nobody looked.
    fs::remove_file(host.path("auth.log")).unwrap();
    host.append("auth.log.new", &failed("third"));
    fs::rename(host.path("auth.log.new"), host.path("auth.log")).unwrap();
    let set = host.start();
    host.wait_for("third");
    stop(set);
    assert_eq!(host.users(), ["first", "second", "third"]);
    assert_eq!(host.sink.lost(), 2);
}

#[test]
fn what_a_kill_took_is_counted() {
    let host = Host::new();
    host.append("auth.log", &failed("unsent"));
    let (log, _) = LogFile::resume(&host.path("auth.log"), None);
    let mut positions = PositionFile::open(Some(host.path(POSITION_FILE)));
    positions.set(&host.path("auth.log"), log.position());
    positions.save(1).unwrap();

    let set = host.start();
    host.append("auth.log", &failed("next"));
    host.wait_for("next");
    stop(set);
    assert_eq!((host.users(), host.sink.lost()), (vec!["next".to_owned()], 1));
    // A position file that is damaged: the log is followed from its end.
    fs::write(host.path(POSITION_FILE), "{").unwrap();
    stop(host.start());
    assert_eq!(host.sink.lost(), 1);
}

#[test]
fn endless_lines_are_passed_over() {
    let host = Host::new();
    let set = host.start();
    host.append("auth.log", &"x".repeat(200_000));
    host.append("auth.log", &failed("within_a_line"));
    host.append("auth.log", &failed("ada"));
    host.wait_for("ada");
    stop(set);
    assert_eq!(host.users(), ["ada"]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_journal_is_followed_until_there_is_a_log() {
    let Some(journald) = journal::tests::Journald::start() else { return };
    let host = Host::new();
    let mut config = SensorConfig::all_off();
    config.authentication.mode = SensorSwitch::Auto;
    config.authentication.log_paths = vec![host.path("auth.log")];
    config.authentication.journal_folders = journald.folders();
    config.authentication.poll_interval_ms = 10;
    let set = host.sink.start_in(&config, host.folder.path());
    journald.fail("ada");
    let told = host.wait_for("ada");
    assert_eq!(told.origin, Origin::AgentLog);
    host.append(
        "auth.log",
        "Nov 23 04:21:03 web1 sshd[640]: Failed password for eve from 198.51.100.23 port 22 ssh2\n",
    );
    host.wait_for("eve");
    // What both have is told once.
    journald.fail("not told");
    host.append(
        "auth.log",
        "Nov 23 04:21:03 web1 sshd[640]: Failed password for last from 198.51.100.23 port 22 ssh2\n",
    );
    host.wait_for("last");
    assert_eq!(host.users(), ["ada", "eve", "last"]);
    assert_eq!(set.stop_and_join(Duration::from_secs(10)), Vec::<&str>::new());
    assert_eq!(host.sink.lost(), 0);
}
