//! Real changes in real folders.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::sensor::SensorSet;
use crate::sensor::config::{FileModeChoice, ModeChoice, SensorConfig};
use crate::sensor::test_sink::TestSink;

struct Host {
    folder: TempDir,
    sink: TestSink,
    mode: FileModeChoice,
}

impl Host {
    fn new() -> Self {
        Self::with(FileModeChoice::Auto)
    }

    fn with(mode: FileModeChoice) -> Self {
        Self { folder: TempDir::new().unwrap(), sink: TestSink::default(), mode }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the sensor, with processes or without; `None` where it is not permitted.
    fn start(&self, paths: &[&str], program_folders: &[&str], processes: bool) -> Option<SensorSet> {
        let mut config = SensorConfig::all_off();
        config.file.mode = self.mode;
        config.process.mode = if processes { ModeChoice::Auto } else { ModeChoice::Off };
        config.file.paths = paths.iter().map(|path| self.path(path)).collect();
        config.file.program_folders = program_folders.iter().map(|path| self.path(path)).collect();
        let set = self.sink.start_seeing_itself(&config);
        let mode = set.modes.iter().find(|mode| mode.name.as_bytes() == NAME.as_bytes()).unwrap();
        if mode.origin == Origin::Agent {
            eprintln!("skipped: {}", mode.reason);
            return None;
        }
        let reason = mode.reason.to_string();
        if self.mode == FileModeChoice::Inotify {
            assert_eq!(mode.origin, Origin::AgentInotify);
            assert!(reason.ends_with("who makes a change is not known"), "{reason}");
        } else if mode.origin == Origin::AgentInotify {
            eprintln!("skipped: {reason}");
            return None;
        } else {
            assert_eq!((mode.origin, reason), (Origin::AgentFanotify, String::new()));
        }
        Some(set)
    }

    /// Does something as another process; the agent's own changes are not reported.
    fn shell(&self, script: &str) -> u32 {
        let mut child = Command::new("/bin/sh").args(["-c", script]).current_dir(self.folder.path()).spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success(), "{script}");
        pid
    }

    /// Waits for an activity; its path is below the folder.
    fn wait_for(&self, action: FileAction, path: &str) -> FileActivity {
        let path = ByteString::from(self.path(path).as_os_str().as_bytes());
        self.sink.wait_for(&format!("{} of {path}", action.name()), |seen| {
            seen.iter().find_map(|one| match &one.body {
                EventBody::FileActivity(file) if file.action == action && file.path == path => Some((**file).clone()),
                _ => None,
            })
        })
    }

    fn activities(&self) -> Vec<FileActivity> {
        let body = |body| match body {
            EventBody::FileActivity(file) => Some(*file),
            _ => None,
        };
        self.sink.observations().into_iter().filter_map(|one| body(one.body)).collect()
    }
}

fn stop(set: SensorSet) {
    assert_eq!(set.stop_and_join(Duration::from_secs(10)), Vec::<&str>::new());
}

#[test]
fn every_kind_of_change_is_seen_with_who_did_it() {
    let host = Host::new();
    fs::create_dir(host.path("cron.d")).unwrap();
    let Some(set) = host.start(&["cron.d"], &[], true) else { return };
    host.shell("echo '* * * * * root /tmp/x' > cron.d/x; exit 0");
    let created = host.wait_for(FileAction::Create, "cron.d/x");
    assert_eq!((created.is_directory, created.new_path.is_empty()), (Some(false), true));
    let updated = host.wait_for(FileAction::Update, "cron.d/x");
    assert_eq!(updated.owner_id, Some(rustix::process::geteuid().as_raw()));

    let pid = host.shell("exec chmod 4755 cron.d/x");
    let changed = host.wait_for(FileAction::SetAttributes, "cron.d/x");
    assert_eq!(changed.mode, Some(0o104_755));
    assert_eq!(changed.process.map(|process| process.pid), Some(pid));
    // On a busy host the process sensor may be late with the program's name, not each time.
    let names_program = |file: &FileActivity| {
        let executable = file.executable.to_string();
        ["chmod", "coreutils", "busybox"].into_iter().any(|name| executable.contains(name))
    };
    let mut attempts = 0;
    while !host.activities().iter().any(names_program) {
        attempts += 1;
        assert!(attempts < 50, "{:?}", host.activities().last());
        let seen = host.activities().len();
        host.shell("exec chmod 4755 cron.d/x");
        host.sink.wait_for("change", |observations| {
            let is_file = |one: &&crate::sensor::Observation| matches!(one.body, EventBody::FileActivity(_));
            (observations.iter().filter(is_file).count() > seen).then_some(())
        });
    }

    host.shell("mv cron.d/x cron.d/y");
    let renamed = host.wait_for(FileAction::Rename, "cron.d/x");
    assert_eq!(renamed.new_path, ByteString::from(host.path("cron.d/y").as_os_str().as_bytes()));
    host.shell("mkdir aside; mv cron.d/y aside/y; mv aside/y cron.d/z");
    host.wait_for(FileAction::Delete, "cron.d/y");
    host.wait_for(FileAction::Create, "cron.d/z");
    host.shell("rm cron.d/z");
    let deleted = host.wait_for(FileAction::Delete, "cron.d/z");
    assert_eq!(deleted.mode, None);
    stop(set);
    assert_eq!(host.sink.lost(), 0);
}

#[test]
fn without_fanotify_every_kind_of_change_is_seen_but_not_who_did_it() {
    let host = Host::with(FileModeChoice::Inotify);
    fs::create_dir(host.path("cron.d")).unwrap();
    let Some(set) = host.start(&["cron.d", "ld.so.preload"], &[], true) else { return };
    host.shell("echo '* * * * * root /tmp/x' > cron.d/x; chmod 4755 cron.d/x");
    host.wait_for(FileAction::Create, "cron.d/x");
    host.wait_for(FileAction::Update, "cron.d/x");
    let changed = host.wait_for(FileAction::SetAttributes, "cron.d/x");
    assert_eq!(changed.mode, Some(0o104_755));
    assert_eq!((changed.process, changed.executable.len(), changed.user_id), (None, 0, None));
    host.shell("mv cron.d/x cron.d/y; mkdir aside; mv cron.d/y aside/y; mv aside/y cron.d/z; rm cron.d/z");
    let renamed = host.wait_for(FileAction::Rename, "cron.d/x");
    assert_eq!(renamed.new_path, ByteString::from(host.path("cron.d/y").as_os_str().as_bytes()));
    host.wait_for(FileAction::Delete, "cron.d/y");
    host.wait_for(FileAction::Create, "cron.d/z");
    host.wait_for(FileAction::Delete, "cron.d/z");
    // One name, and a folder that comes later.
    host.shell("echo /tmp/evil.so > ld.so.preload; mkdir cron.d/later");
    host.wait_for(FileAction::Create, "ld.so.preload");
    host.wait_for(FileAction::Create, "cron.d/later");
    host.shell("echo x > cron.d/later/job");
    host.wait_for(FileAction::Create, "cron.d/later/job");
    stop(set);
    assert_eq!(host.sink.lost(), 0);
}

#[test]
fn one_file_is_watched_by_name_also_before_it_is_there() {
    let host = Host::new();
    let Some(set) = host.start(&["ld.so.preload"], &[], false) else { return };
    host.shell("echo x > other; echo /tmp/evil.so > ld.so.preload");
    let created = host.wait_for(FileAction::Create, "ld.so.preload");
    // Without the process sensor, `/proc` says who it was while it is there.
    assert!(created.user_id.is_none_or(|user| user == rustix::process::geteuid().as_raw()));
    host.wait_for(FileAction::Update, "ld.so.preload");
    stop(set);
    let other = ByteString::from(host.path("other").as_os_str().as_bytes());
    assert!(host.activities().iter().all(|file| file.path != other));
}

#[test]
fn folders_that_come_later_are_watched_with_what_is_in_them() {
    let host = Host::new();
    fs::create_dir(host.path("units")).unwrap();
    let Some(set) = host.start(&["home/.ssh/authorized_keys", "units"], &[], false) else { return };
    host.shell("mkdir -p home/.ssh; echo key > home/.ssh/authorized_keys; mkdir units/x.service.d");
    host.wait_for(FileAction::Create, "home/.ssh/authorized_keys");
    host.wait_for(FileAction::Create, "units/x.service.d");
    host.shell(
        "mv home/.ssh/authorized_keys k; mv k home/.ssh/authorized_keys; echo x > units/x.service.d/override.conf",
    );
    host.wait_for(FileAction::Create, "units/x.service.d/override.conf");
    // Gone and made anew, it is another folder.
    host.shell("rm -r units/x.service.d");
    host.wait_for(FileAction::Delete, "units/x.service.d");
    host.shell("mkdir units/x.service.d");
    host.sink.wait_for("second folder", |seen| {
        let made = |one: &&crate::sensor::Observation| match &one.body {
            EventBody::FileActivity(file) => {
                file.action == FileAction::Create && file.path.as_bytes().ends_with(b"units/x.service.d")
            }
            _ => false,
        };
        (seen.iter().filter(made).count() == 2).then_some(())
    });
    host.shell("echo x > units/x.service.d/again.conf");
    host.wait_for(FileAction::Create, "units/x.service.d/again.conf");
    stop(set);
}

#[test]
fn programs_in_folders_of_everybody_are_seen_and_nothing_else() {
    let host = Host::new();
    fs::create_dir(host.path("tmp")).unwrap();
    let Some(set) = host.start(&[], &["tmp"], false) else { return };
    host.shell("echo data > tmp/data; cp /bin/true tmp/program; chmod 755 tmp/program; echo data > tmp/more");
    let seen = host.sink.wait_for("program", |seen| {
        seen.iter().find_map(|one| match &one.body {
            EventBody::FileActivity(file) if file.path.as_bytes().ends_with(b"tmp/program") => Some((**file).clone()),
            _ => None,
        })
    });
    assert!(seen.mode.is_some_and(|mode| mode & 0o111 != 0));
    stop(set);
    assert!(host.activities().iter().all(|file| file.path.as_bytes().ends_with(b"tmp/program")));
}

#[test]
fn a_full_queue_is_counted() {
    let host = Host::new();
    fs::create_dir(host.path("cron.d")).unwrap();
    let group = match Group::open() {
        Ok(group) => group,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let mut records = Vec::new();
    group.watch(&host.path("cron.d"), &mut records).unwrap();
    let limit: usize = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap().trim().parse().unwrap();
    for number in 0..limit + 10 {
        File::create(host.path(&format!("cron.d/{number}")))
            .unwrap()
            .set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
    }
    let mut last = 1;
    while last > 0 {
        let before = records.len();
        group.read(&mut records).unwrap();
        last = records.len() - before;
    }
    assert_eq!(records.iter().filter(|record| record.is_overflow).count(), 1);
}
