#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;
use crate::enrich::boot_clock::now;

fn reader() -> ProcReader {
    ProcReader::open(BootClock::measure()).unwrap()
}

#[test]
fn everything_of_a_process_that_waits_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(folder.path()).unwrap();
    let before = now();
    let mut child = Command::new("/bin/sleep")
        .arg0("not sleep")
        .args(["60", "1"])
        .current_dir(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(path.join("err")).unwrap())
        .spawn()
        .unwrap();
    let mut reader = reader();
    // The caller goes on a moment before the new program has its arguments.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let details = loop {
        let details = reader.details(child.id()).unwrap();
        if !details.arguments.values.is_empty() {
            break details;
        }
        assert!(std::time::Instant::now() < deadline);
    };
    child.kill().unwrap();
    let executable = std::fs::canonicalize("/bin/sleep").unwrap();
    assert_eq!(details.executable, executable.as_os_str().as_encoded_bytes());
    assert_eq!(details.executable_deleted, Some(false));
    let expected = ["not sleep", "60", "1"].map(ByteString::from);
    assert_eq!((&details.arguments.values[..], details.arguments.truncated), (&expected[..], false));
    assert_eq!(details.working_directory.as_bytes(), path.as_os_str().as_encoded_bytes());
    assert_eq!(details.standard_streams, [StreamKind::Null, StreamKind::Pipe, StreamKind::File]);
    assert_eq!(details.user_id, Some(rustix::process::geteuid().as_raw()));
    assert_eq!(details.group_id, Some(rustix::process::getegid().as_raw()));
    assert_eq!((details.thread_count, details.parent_pid), (Some(1), Some(std::process::id())));
    let start = details.start_time.unwrap();
    assert!((start.0 - before.0).abs() < 5_000_000_000, "{start:?} {before:?}");
    // A zombie keeps little, and nothing is made up.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !reader.stat(&reader.folder(child.id()).unwrap()).unwrap().is_dead {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let details = reader.details(child.id()).unwrap();
    assert!(details.executable.is_empty() && details.arguments.values.is_empty());
    assert_eq!(details.executable_deleted, None);
    assert_eq!(details.standard_streams, [StreamKind::Unknown; 3]);
    child.wait().unwrap();
    assert_eq!(reader.details(child.id()), None);
}

#[test]
fn a_deleted_executable_is_told_from_a_name_that_looks_like_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(folder.path()).unwrap();
    let mut reader = reader();
    for (name, delete) in [("gone", true), ("odd (deleted)", false)] {
        let program = path.join(name);
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = spawn_when_not_busy(&program);
        if delete {
            std::fs::remove_file(&program).unwrap();
        }
        let details = reader.details(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(details.executable, program.as_os_str().as_encoded_bytes());
        assert_eq!(details.executable_deleted, Some(delete));
    }
}

/// Another test may fork while the copy is still open for writing there; the kernel then refuses to execute it.
fn spawn_when_not_busy(program: &std::path::Path) -> std::process::Child {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Command::new(program).arg("60").spawn() {
            Ok(child) => return child,
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                assert!(std::time::Instant::now() < deadline);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn names_in_stat_may_contain_anything() {
    let line = b"42 (a) b) R 7 0 9 34816 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 777 99 0\n";
    let stat = parse_stat(line).unwrap();
    assert_eq!((stat.parent_pid, stat.session_id, stat.terminal), (7, 9, 34816));
    assert_eq!((stat.thread_count, stat.start_ticks, stat.is_dead), (3, 777, false));
    assert!(parse_stat(b"2 (kthreadd) Z 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5").unwrap().is_kernel_thread);
}

#[test]
fn damaged_stat_is_refused() {
    let line = b"42 (a) R 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 777";
    assert!(parse_stat(line).is_some());
    for length in 0..line.len() - 3 {
        assert_eq!(parse_stat(&line[..length]), None, "{length}");
    }
    assert_eq!(parse_stat(b"42 (a) R x"), None);
    assert_eq!(parse_stat(b"42 (a) \xff"), None);
}

#[test]
fn device_numbers_tell_terminals() {
    assert_eq!(stream_kind(0o020_620, (136, 5)), StreamKind::Terminal);
    assert_eq!(stream_kind(0o020_620, (5, 0)), StreamKind::Terminal);
    assert_eq!(stream_kind(0o020_666, (1, 3)), StreamKind::Null);
    assert_eq!(stream_kind(0o020_666, (1, 9)), StreamKind::Other);
    assert_eq!(stream_kind(0o140_777, (0, 0)), StreamKind::Socket);
    assert_eq!(stream_kind(0o060_660, (254, 0)), StreamKind::Other);
}

#[test]
fn a_thread_belongs_to_its_process() {
    let pid = std::process::id();
    let mut reader = reader();
    let threads: Vec<u32> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // Those of other tests may be gone already; this one and the first are not.
    let processes: Vec<u32> = threads.iter().filter_map(|&thread| reader.process_of_task(thread)).collect();
    assert!(processes.len() >= 2 && processes.iter().all(|&process| process == pid), "{processes:?}");
    assert_eq!(parse_process_of_task(b"Name:\tx\nTgid:\t12\nNgid:\t0\n"), Some(12));
    assert_eq!(parse_process_of_task(b"Name:\tx\n"), None);
}
