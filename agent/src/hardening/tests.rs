#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

/// Runs on a thread of its own: what it gives up is gone for that thread only.
fn on_a_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn hardening() -> Hardening {
    Hardening::new(HardeningConfig { mode: HardeningMode::Auto })
}

fn status_of_this_thread(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

fn denied<T>(result: std::io::Result<T>) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn the_agent_keeps_its_folder_and_the_network_and_nothing_else() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let needs = Needs { write: vec![own.path().to_owned()], read: Vec::new() };
    on_a_thread(|| {
        let hardening = hardening();
        hardening.restrict_agent(&needs).unwrap();
        let report = hardening.report();
        println!("{report:?}");
        assert_eq!(status_of_this_thread("CapEff"), "0000000000000000");
        assert_eq!(status_of_this_thread("CapPrm"), "0000000000000000");
        assert_eq!(status_of_this_thread("NoNewPrivs"), "1");
        assert_eq!(status_of_this_thread("Seccomp"), "2");
        denied(Command::new("/bin/true").status());
        std::thread::spawn(|| assert_eq!(status_of_this_thread("Seccomp"), "2")).join().unwrap();
        fs::write(own.path().join("file"), "x").unwrap();
        fs::rename(own.path().join("file"), own.path().join("renamed")).unwrap();
        TcpStream::connect(address).unwrap();
        assert!("localhost:1".to_socket_addrs().unwrap().next().is_some());
        fs::read("/etc/hosts").unwrap();
        let has_landlock = report.applied.iter().any(|applied| applied.starts_with("landlock"));
        if !has_landlock {
            return println!("skipped: {:?}", report.not_applied);
        }
        denied(fs::write(other.path().join("file"), "x"));
        denied(fs::read_dir(other.path()));
        denied(OpenOptions::new().append(true).open("/etc/hosts"));
        denied(TcpListener::bind("127.0.0.1:0"));
    });
}

#[test]
fn a_sensor_sees_the_host_but_neither_changes_it_nor_talks() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let mut other = Command::new("/bin/sleep");
    if is_root {
        other.uid(65534);
    }
    let mut other = other.arg("60").spawn().unwrap();
    on_a_thread(|| {
        let hardening = hardening();
        hardening.restrict_sensor("process", Origin::AgentEbpf).unwrap();
        println!("{:?}", hardening.report());
        fs::read_link(format!("/proc/{}/exe", other.id())).unwrap();
        if is_root {
            let kept = u64::from_str_radix(&status_of_this_thread("CapEff"), 16).unwrap();
            assert_eq!(kept & !(1 << 19 | 1 << 2 | 1 << 23 | 1 << 39), 0, "{kept:x}");
        }
        let path = folder.path().join("file");
        assert_eq!(fs::read(&path).unwrap(), b"x");
        denied(fs::write(&path, "y"));
        denied(File::create(folder.path().join("new")));
        denied(OpenOptions::new().append(true).open(&path));
        denied(fs::remove_file(&path));
        denied(fs::rename(&path, folder.path().join("renamed")));
        denied(fs::create_dir(folder.path().join("folder")));
        denied(TcpStream::connect("127.0.0.1:1"));
        denied(Command::new("/bin/true").status());
    });
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_cannot_be_had_is_said_and_can_be_required() {
    let missing = || vec![("one".to_owned(), Ok("all".to_owned())), ("two".to_owned(), Err("no such".to_owned()))];
    let auto = hardening();
    auto.note(missing()).unwrap();
    assert_eq!(auto.report().applied, ["one: all"]);
    assert_eq!(auto.report().not_applied, ["two: no such"]);
    let required = Hardening::new(HardeningConfig { mode: HardeningMode::Require });
    let error = required.note(missing()).unwrap_err().to_string();
    assert!(error.contains("two: no such") && error.contains("hardening.mode"), "{error}");
    let off = Hardening::new(HardeningConfig { mode: HardeningMode::Off });
    off.restrict_agent(&Needs::default()).unwrap();
    off.restrict_sensor("process", Origin::AgentEbpf).unwrap();
    assert_eq!((off.report().applied.len(), off.report().not_applied.len()), (0, 1));
    assert_eq!(status_of_this_thread("Seccomp"), "0");
}

#[test]
fn the_privileged_thread_is_as_it_was_before() {
    on_a_thread(|| {
        let privileged = PrivilegedThread::spawn().unwrap();
        hardening().restrict_agent(&Needs::default()).unwrap();
        assert_eq!(privileged.run(|| status_of_this_thread("Seccomp")).unwrap(), "0");
        let idle = PrivilegedThread::spawn().unwrap();
        drop(idle);
        let panicking = PrivilegedThread::spawn().unwrap();
        assert!(panicking.run(|| -> u8 { panic!("for the test") }).is_err());
    });
}
