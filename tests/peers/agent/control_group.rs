//! A control group of this comparison: what all processes in it have used, ended ones and short threads included.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::collector::with_libraries;

/// How long the kernel may take to find a group empty.
const REMOVAL_TRIES: u32 = 50;

/// A control group (version 2); removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
    root: PathBuf,
}

impl ControlGroup {
    pub(crate) fn make(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| format!("/proc/mounts: {error}"))?;
        let of_kind = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
        let root = mounts.lines().find(of_kind).and_then(|line| line.split(' ').nth(1));
        let root = PathBuf::from(root.ok_or("no cgroup2 hierarchy is mounted: processor time cannot be told exactly")?);
        let path = root.join(format!("picket-peers-{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, root })
    }

    /// Moves a process into it, with all its threads.
    pub(crate) fn take(&self, pid: u32) -> Result<(), String> {
        let file = self.path.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// A peer's command that begins in it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = with_libraries(Command::new("/bin/sh"));
        command.args(["-c".as_ref(), "echo $$ > \"$0\" && exec \"$@\"".as_ref() as &OsStr]);
        command.arg(self.path.join("cgroup.procs")).arg(program);
        command
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Processor time that was used in it.
    pub(crate) fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(self.path.join("cpu.stat")).unwrap();
        let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        Duration::from_micros(microseconds.parse().unwrap())
    }

    /// A sum over its processes of a figure in /proc/PID/FILE, in the unit that is there.
    pub(crate) fn sum(&self, file: &str, key: &str) -> u64 {
        let figure = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            value.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(figure).sum()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for pid in self.processes() {
            // This process itself, or one that is about to end.
            fs::write(self.root.join("cgroup.procs"), pid.to_string()).ok();
        }
        for _ in 0..REMOVAL_TRIES {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("warning: {} could not be removed", self.path.display());
    }
}
