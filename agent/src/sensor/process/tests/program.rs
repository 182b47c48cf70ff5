//! What a program start shows beyond names: script, file, memory, rights, and what it cost.

use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use picket_common::event::{ByteString, EventBody, KernelAction, KernelActivity};

use super::{end, with_each_way, with_ebpf};
use crate::sensor::Observation;

#[test]
fn ebpf_tells_a_script_from_its_interpreter() {
    with_ebpf(|sink| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("run me.sh");
        std::fs::write(&path, "#!/bin/sh\nexit 3\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        for asked in [path.as_path(), std::path::Path::new("./run me.sh")] {
            let mut child = Command::new(asked).current_dir(folder.path()).spawn().unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(3));
            let (_, start) = sink.wait_for_start(child.id());
            assert_eq!(start.script.as_bytes(), path.as_os_str().as_encoded_bytes());
            assert_eq!(start.executable.as_bytes(), shell.as_os_str().as_encoded_bytes());
        }
    });
}

#[test]
fn ebpf_measures_the_time_on_a_processor() {
    with_ebpf(|sink| {
        // The tick that the last run may be short of is 10 ms at most.
        const TICK_NS: u64 = 10_000_000;
        let busy = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";
        let mut child = Command::new("/bin/sh").args(["-c", busy]).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let (_, exit) = sink.wait_for_exit(pid);
        let (used, lived) = (exit.cpu_time_ns.unwrap(), exit.duration_ns.unwrap());
        assert!(used > 2 * TICK_NS && used <= lived + TICK_NS, "{used} of {lived} ns");
        let mut child = Command::new("/bin/sleep").arg("0.2").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let (_, exit) = sink.wait_for_exit(pid);
        let (used, lived) = (exit.cpu_time_ns.unwrap(), exit.duration_ns.unwrap());
        assert!(lived >= 200_000_000 && used < lived / 2, "{used} of {lived} ns");
    });
}

/// What a process is said to have done to the kernel, to others or to its rights.
fn kernel_activities(observations: &[Observation], pid: u32) -> Vec<KernelActivity> {
    let activity = |observation: &Observation| match &observation.body {
        EventBody::KernelActivity(activity) if activity.process.unwrap().pid == pid => Some((**activity).clone()),
        _ => None,
    };
    observations.iter().filter_map(activity).collect()
}

#[test]
fn a_program_started_from_memory_is_told() {
    with_each_way(|sink, _, _| {
        let program = rustix::fs::memfd_create("not a file", rustix::fs::MemfdFlags::empty()).unwrap();
        std::io::copy(
            &mut std::fs::File::open("/bin/sleep").unwrap(),
            &mut std::fs::File::from(program.try_clone().unwrap()),
        )
        .unwrap();
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let child = Command::new(path).arg("60").spawn().unwrap();
        drop(program);
        let (_, start) = sink.wait_for_start(child.id());
        let pid = child.id();
        end(child);
        sink.wait_for_exit(pid);
        assert_eq!(start.executable, ByteString::from("/memfd:not a file"));
        assert_eq!(start.executable_deleted, Some(true));
        let activities = kernel_activities(&sink.observations(), pid);
        assert_eq!(activities.len(), 1, "{activities:?}");
        assert_eq!(activities[0].action, KernelAction::MemfdExec);
        assert_eq!(
            (&activities[0].object, activities[0].process),
            (&ByteString::from("not a file"), Some(start.process))
        );
    });
}

#[test]
fn ebpf_sees_a_program_become_root() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: not root");
    }
    with_ebpf(|sink| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let path = folder.path().join("as root");
        std::fs::copy("/bin/sleep", &path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o4755)).unwrap();
        let shell = format!("/bin/sleep 0; exec '{}' 60", path.display());
        let child = Command::new("/bin/sh").args(["-c", &shell]).uid(65_534).gid(65_534).spawn().unwrap();
        let pid = child.id();
        let activity = sink.wait_for("root", |observations| kernel_activities(observations, pid).into_iter().next());
        end(child);
        sink.wait_for_exit(pid);
        assert_eq!((activity.action, activity.value), (KernelAction::BecomeRoot, Some(65_534)));
        assert_eq!((activity.executable.as_bytes(), activity.user_id), (path.as_os_str().as_encoded_bytes(), Some(0)));
        assert_eq!(kernel_activities(&sink.observations(), pid).len(), 1);
    });
}
