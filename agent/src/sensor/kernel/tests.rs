#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use picket_common::event::{EventBody, KernelAction, KernelActivity, Origin};

use crate::sensor::config::{EbpfChoice, ModeChoice, SensorConfig};
use crate::sensor::test_sink::{DEADLINE, TestSink};
use crate::sensor::{Observation, SensorError, SensorSet};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Nobody's user id.
const NOBODY: u32 = 65_534;

/// System calls that no command makes for itself.
const CALLS: &str = r"
import ctypes, os, platform, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
clone, bpf = (56, 321) if platform.machine() == 'x86_64' else (220, 280)
NEWUTS, NEWNET = 0x04000000, 0x40000000
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def in_child():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
";

fn started(sink: &TestSink, events_per_second_max: u32) -> Option<SensorSet> {
    let mut config = SensorConfig::all_off();
    (config.process.mode, config.kernel.mode) = (ModeChoice::Ebpf, EbpfChoice::Ebpf);
    config.kernel.events_per_second_max = events_per_second_max;
    match crate::sensor::start(&config, sink.context()) {
        Ok(set) => Some(set),
        Err(SensorError::ModeUnavailable { reason, .. }) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs a test with the sensor, where that is permitted.
fn with_sensor(test: impl FnOnce(&TestSink)) {
    let sink = TestSink::default();
    let Some(set) = started(&sink, 0) else { return };
    test(&sink);
    assert_eq!(sink.lost(), 0);
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
}

/// Starts a script in Python; `None` where there is none.
fn python(script: &str, argument: &str) -> Option<Child> {
    let script = format!("{CALLS}{script}");
    let child = Command::new("python3").args(["-c", &script, argument]).stderr(Stdio::piped()).spawn();
    if child.is_err() {
        eprintln!("skipped: no python3 to make the call with");
    }
    child.ok()
}

/// Waits for a script to end, which must have done all of it.
fn finished(child: Child) -> u32 {
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pid
}

fn activities(observations: &[Observation], pid: u32) -> Vec<KernelActivity> {
    let activity = |observation: &Observation| match &observation.body {
        EventBody::KernelActivity(activity) if activity.process.unwrap().pid == pid => {
            assert_eq!(observation.origin, Origin::AgentEbpf);
            Some((**activity).clone())
        }
        _ => None,
    };
    observations.iter().filter_map(activity).collect()
}

/// Waits for so many activities of a process.
fn wait_for(sink: &TestSink, pid: u32, count: usize) -> Vec<KernelActivity> {
    let found = sink.wait_for(&format!("{count} activities of {pid}"), |observations| {
        let found = activities(observations, pid);
        (found.len() >= count).then_some(found)
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

fn sleeper() -> Child {
    Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: not root");
    }
    is_root
}

#[test]
fn namespaces_that_are_made_left_and_entered_are_told() {
    with_sensor(|sink| {
        let script = "
check(libc.syscall(clone, NEWNET | signal.SIGCHLD, 0, 0, 0, 0)) or os._exit(0)
os.wait()
old = os.open('/proc/self/ns/uts', os.O_RDONLY)
check(libc.unshare(NEWUTS))
in_child()
check(libc.setns(old, 0))
in_child()
check(libc.unshare(NEWUTS | NEWNET))
";
        let Some(child) = python(script, "") else { return };
        let pid = finished(child);
        let told = wait_for(sink, pid, 4);
        let objects: Vec<String> = told.iter().map(|activity| activity.object.to_string()).collect();
        assert_eq!(objects, ["net", "uts", "uts", "uts net"]);
        assert_eq!((told[0].value, told[3].value), (Some(0x4000_0000), Some(0x4400_0000)));
        // Python may be started by a wrapper.
        let start = sink.starts_of(pid).pop().unwrap().1;
        for (activity, has_target) in told.iter().zip([true, false, false, false]) {
            assert_eq!((activity.action, activity.success), (KernelAction::NamespaceChange, Some(true)));
            assert_eq!((activity.process, &activity.executable), (Some(start.process), &start.executable));
            assert_eq!(activity.target.is_some_and(|target| target.pid != pid), has_target);
            assert_eq!(activity.user_id, Some(rustix::process::geteuid().as_raw()));
        }
    });
}

#[test]
fn who_attaches_to_a_process_is_told_once() {
    // Attached to twice, each time stopped and let go.
    let attach = "
target = int(sys.argv[1])
for _ in range(2):
    check(libc.ptrace(16, target, 0, 0))
    os.waitpid(target, 0)
    check(libc.ptrace(17, target, 0, 0))
";
    let seize = "
target = int(sys.argv[1])
check(libc.ptrace(0x4206, target, 0, 0))
check(libc.ptrace(0x4207, target, 0, 0))
os.waitpid(target, 0)
check(libc.ptrace(17, target, 0, 0))
";
    with_sensor(|sink| {
        for (script, request) in [(attach, 16), (seize, 0x4206)] {
            let target = sleeper();
            let start = sink.wait_for_start(target.id()).1;
            let Some(child) = python(script, &target.id().to_string()) else { return end(target) };
            let pid = finished(child);
            end(target);
            let told = wait_for(sink, pid, 1).remove(0);
            assert_eq!((told.action, told.value), (KernelAction::PtraceAttach, Some(request)));
            assert_eq!((told.target, told.object), (Some(start.process), "sleep".into()));
        }
    });
}

#[test]
fn a_bpf_program_is_told_with_its_name_and_type_also_when_it_is_refused() {
    let script = "
code = ctypes.create_string_buffer(bytes([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
refused = ctypes.create_string_buffer(bytes([0xbf, 0x90, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
license = ctypes.create_string_buffer(b'GPL')
def load(code, name):
    attributes = struct.pack('<IIQQIIQII16s', 1, 2, ctypes.addressof(code), ctypes.addressof(license), 0, 0, 0, 0, 0, name)
    return libc.syscall(bpf, 5, attributes, len(attributes))
check(load(code, b'picket_test'))
assert load(refused, b'picket_refused') < 0
";
    with_sensor(|sink| {
        let Some(child) = python(script, "") else { return };
        let told = wait_for(sink, finished(child), 2);
        for (activity, name) in told.iter().zip(["picket_test", "picket_refused"]) {
            assert_eq!((activity.action, activity.value), (KernelAction::BpfProgramLoad, Some(1)));
            assert_eq!((activity.object.to_string().as_str(), activity.success), (name, None));
        }
    });
}

/// A copy of `sleep` that anybody may start.
fn program(folder: &Path, name: &str, mode: u32) -> String {
    fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
    let path = folder.join(name);
    fs::copy("/bin/sleep", &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// Starts it as nobody, and ends it when it was told.
fn as_nobody(sink: &TestSink, path: &str) -> KernelActivity {
    let script = format!("/bin/sleep 0; exec '{path}' 60");
    let child = Command::new("/bin/sh").args(["-c", &script]).uid(NOBODY).gid(NOBODY).spawn().unwrap();
    let told = wait_for(sink, child.id(), 1).remove(0);
    let pid = child.id();
    end(child);
    sink.wait_for_exit(pid);
    assert_eq!(activities(&sink.observations(), pid).len(), 1);
    assert_eq!(told.executable.to_string(), path);
    told
}

#[test]
fn a_program_that_becomes_root_is_told() {
    if !is_root() {
        return;
    }
    with_sensor(|sink| {
        let folder = tempfile::tempdir().unwrap();
        let told = as_nobody(sink, &program(folder.path(), "as root", 0o4755));
        assert_eq!((told.action, told.value), (KernelAction::BecomeRoot, Some(NOBODY.into())));
        assert_eq!((told.user_id, told.object.len()), (Some(0), 0));
    });
}

#[test]
fn a_program_that_gains_capabilities_is_told_which() {
    const NET_RAW: u64 = 1 << 13;
    if !is_root() {
        return;
    }
    with_sensor(|sink| {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path(), "raw", 0o755);
        // Revision 2, effective; what is permitted and what is inherited, each in two halves.
        let set = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
        if let Err(error) = rustix::fs::setxattr(&path, "security.capability", &set, rustix::fs::XattrFlags::empty()) {
            return eprintln!("skipped: no capabilities of files here: {error}");
        }
        let told = as_nobody(sink, &path);
        assert_eq!((told.action, told.value), (KernelAction::CapabilityGain, Some(NET_RAW)));
        assert_eq!((told.user_id, told.object), (Some(NOBODY), "CAP_NET_RAW".into()));
    });
}

#[test]
fn who_gives_up_rights_and_who_does_nothing_is_not_told() {
    if !is_root() {
        return;
    }
    with_sensor(|sink| {
        let mut quiet = Command::new("/bin/sh").args(["-c", "/bin/true; /bin/true"]).uid(NOBODY).spawn().unwrap();
        quiet.wait().unwrap();
        sink.wait_for_exit(quiet.id());
        // One that is told comes after it.
        let folder = tempfile::tempdir().unwrap();
        as_nobody(sink, &program(folder.path(), "as root", 0o4755));
        assert_eq!(activities(&sink.observations(), quiet.id()), []);
        assert_eq!(activities(&sink.observations(), std::process::id()), []);
    });
}

#[test]
fn what_one_cgroup_does_in_excess_is_counted() {
    const TIMES: usize = 40;
    let sink = TestSink::default();
    let Some(set) = started(&sink, 5) else { return };
    let script = "
for _ in range(int(sys.argv[1])):
    check(libc.unshare(NEWUTS))
    in_child()
";
    // Others of the same cgroup may use up what is let through, such as tests that load eBPF programs: until some is left.
    let told_of = |pids: &[u32]| pids.iter().map(|pid| activities(&sink.observations(), *pid).len()).sum::<usize>();
    let (mut pids, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while told_of(&pids) == 0 && Instant::now() < deadline {
        let Some(child) = python(script, &TIMES.to_string()) else { return };
        pids.push(finished(child));
        pids.iter().for_each(|pid| drop(sink.wait_for_exit(*pid)));
    }
    assert_eq!(set.stop_and_join(STOP_TIMEOUT), Vec::<&str>::new());
    let (all, told) = (TIMES * pids.len(), told_of(&pids));
    eprintln!("{told} of {all} told, {} left out", sink.throttled());
    assert!((1..all).contains(&told) && told as u64 + sink.throttled() >= all as u64);
}
