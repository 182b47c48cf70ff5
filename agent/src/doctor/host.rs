//! State folder, kernel, disk, and the agent that runs or does not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{Area, Check, Outcome};
use crate::status::{self, ReadError};

/// Below this the agent cannot work, bytes: what its files need besides events.
const DISK_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Above this share of its ceiling the buffer is filling, percent.
const BUFFER_PERCENT_WARN: u64 = 80;

/// Whether the state folder is there, and for its owner only.
pub(super) fn state_dir(path: &Path) -> Check {
    const NAME: &str = "state folder";
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return Check::fail(Area::Host, NAME, format!("{shown} is no folder"), "check agent.state_dir"),
        Err(error) => {
            let advice = "check --state-dir or agent.state_dir; the agent makes it when it starts as root";
            return Check::fail(Area::Host, NAME, format!("{shown}: {error}"), advice);
        }
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let found = format!("{shown} has mode {mode:o}: others can look into it");
        return Check::fail(Area::Host, NAME, found, format!("`chmod 700 {shown}`"));
    }
    let foreign = foreign_file(path, metadata.uid());
    if let Some(foreign) = foreign {
        let found = format!("{foreign} does not belong to the owner of {shown}");
        return Check::fail(Area::Host, NAME, found, format!("`chown -R --reference={shown} {shown}`"));
    }
    Check::ok(Area::Host, NAME, format!("{shown} is for user {} only", metadata.uid()))
}

/// A file right below, or in the identity's folder, that belongs to somebody else.
fn foreign_file(path: &Path, owner: u32) -> Option<String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files = entries(path).chain(entries(&path.join("identity")));
    let foreign = files.find(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() != owner));
    foreign.map(|entry| entry.path().display().to_string())
}

/// What the kernel has of what sensors and hardening use.
pub(super) fn kernel() -> Vec<Check> {
    let has = |path: &str| Path::new(path).exists();
    let feature = |name, path: &str, without: &str, advice: &str| {
        if has(path) { Check::ok(Area::Host, name, "there") } else { Check::warn(Area::Host, name, without, advice) }
    };
    vec![
        ebpf(),
        feature(
            "kernel: BTF",
            "/sys/kernel/btf/vmlinux",
            "the kernel does not say what its structures look like: no eBPF",
            "a kernel with CONFIG_DEBUG_INFO_BTF; until then the netlink sensors are used",
        ),
        feature(
            "kernel: cgroup2",
            "/sys/fs/cgroup/cgroup.controllers",
            "containers cannot be told apart by their control group",
            "mount cgroup2 at /sys/fs/cgroup (systemd.unified_cgroup_hierarchy=1)",
        ),
        feature(
            "kernel: fanotify",
            "/proc/sys/fs/fanotify",
            "files cannot be watched",
            "a kernel with CONFIG_FANOTIFY, 5.13 or later",
        ),
        feature(
            "kernel: audit",
            "/proc/self/loginuid",
            "who logged in first is not known of processes",
            "a kernel with CONFIG_AUDIT",
        ),
        feature(
            "kernel: seccomp",
            "/proc/sys/kernel/seccomp/actions_avail",
            "the agent cannot give up system calls",
            "a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ]
}

#[cfg(target_os = "linux")]
fn ebpf() -> Check {
    const NAME: &str = "kernel: eBPF";
    match crate::sensor::ebpf::permitted() {
        Ok(()) => Check::ok(Area::Host, NAME, "permitted"),
        Err(reason) => {
            Check::warn(Area::Host, NAME, reason, "the next best sensors are used, and miss what is very short")
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn ebpf() -> Check {
    Check::warn(Area::Host, "kernel: eBPF", "exists only on Linux", "")
}

/// Whether there is room for what the buffer may hold.
pub(super) fn disk(state_dir: &Path, buffer_bytes_max: u64) -> Check {
    const NAME: &str = "disk space";
    const MIB: u64 = 1024 * 1024;
    let free = match rustix::fs::statvfs(state_dir) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return Check::warn(Area::Host, NAME, error.to_string(), "check the state folder"),
    };
    let found = format!("{} MiB free, the buffer may take {} MiB", free / MIB, buffer_bytes_max / MIB);
    if free < DISK_BYTES_MIN {
        Check::fail(Area::Host, NAME, found, "make room: events are being lost, which is counted")
    } else if free < buffer_bytes_max {
        Check::warn(Area::Host, NAME, found, "make room, or lower buffer.bytes_max")
    } else {
        Check::ok(Area::Host, NAME, found)
    }
}

/// What the agent itself says.
pub(super) fn agent(state_dir: &Path) -> Vec<Check> {
    const NAME: &str = "agent";
    let start = "start it: `systemctl start picket-agent` or `picket-agent run`";
    let reading = match status::read(state_dir) {
        Ok(reading) => reading,
        Err(error @ ReadError::NoAgent { .. }) => return vec![Check::warn(Area::Host, NAME, error.to_string(), start)],
        Err(error) => return vec![Check::fail(Area::Host, NAME, crate::error_text::chain(&error), "run this as root")],
    };
    let snapshot = reading.snapshot;
    let mut checks = Vec::new();
    if !reading.is_running {
        checks.push(Check::warn(Area::Host, NAME, "it does not run", start));
    } else if snapshot.degraded.is_empty() {
        checks.push(Check::ok(Area::Host, NAME, format!("it runs, process {}", snapshot.pid)));
    } else {
        checks.push(Check::warn(Area::Host, NAME, snapshot.degraded.join("; "), "see `picket-agent status`"));
    }
    for missing in snapshot.hardening.not_applied.iter().filter(|_| reading.is_running) {
        checks.push(Check::warn(Area::Host, "hardening", missing, "a newer kernel, or hardening.mode"));
    }
    let filled = snapshot.buffer_bytes.saturating_mul(100) / snapshot.buffer_bytes_max.max(1);
    let mut buffer =
        Check::ok(Area::Host, "buffer", format!("{filled} % full, {} batches wait", snapshot.buffer.records));
    if filled >= BUFFER_PERCENT_WARN {
        buffer.outcome = Outcome::Warn;
        buffer.advice =
            "the oldest events will go: look why the server does not take them, or raise buffer.bytes_max".to_owned();
    }
    if let Some(error) = snapshot.buffer.last_error.filter(|_| snapshot.buffer.errors > 0) {
        buffer.outcome = Outcome::Fail;
        buffer.found = format!("{}; {} errors, the last: {error}", buffer.found, snapshot.buffer.errors);
        buffer.advice = "check the disk".to_owned();
    }
    checks.push(buffer);
    checks
}
