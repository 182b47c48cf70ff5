//! Which program a process was told to execute, from the kernel's trace event `sched/sched_process_exec`.
//!
//! Only asked for a process that was over before `/proc` could be read: the kernel records the path at the start, so it
//! cannot be missed. It is the path as the caller gave it. In the system's own directories links are followed and
//! scripts give their interpreter, as `/proc` would show it; elsewhere the path stays as given: a file system that a
//! user mounted could let whoever looks at it wait forever.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::sensor::trace::format::{Field, RecordFormat};
use crate::sensor::trace::{TraceEvent, TraceInstance};

const EVENT: TraceEvent = TraceEvent { name: "sched/sched_process_exec", filter: "" };
/// Most starts kept that nobody has asked for yet.
const STARTS_MAX: usize = 16_384;
/// Where only root can put or mount anything.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr", "/bin", "/sbin", "/lib"];
/// How much of a script is read for the name of its interpreter (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD_BYTES: u64 = 256;

/// The program starts that were recorded lately.
#[derive(Debug)]
pub(super) struct ProgramTrace {
    instance: TraceInstance,
    format: RecordFormat,
    path: Field,
    pid: Field,
    starts: HashMap<u32, Start>,
}

#[derive(Debug)]
struct Start {
    monotonic_ns: u64,
    path: Box<[u8]>,
}

impl ProgramTrace {
    /// Starts the recording.
    pub(super) fn start() -> io::Result<Self> {
        let instance = TraceInstance::create("process", &[EVENT])?;
        let format = instance.format(EVENT.name)?;
        let (Some(path), Some(pid)) = (format.field("filename", 4), format.field("pid", 4)) else {
            return Err(io::Error::other(format!("trace event {} is not understood", EVENT.name)));
        };
        Ok(Self { instance, format, path, pid, starts: HashMap::new() })
    }

    /// The executable of the program that a process executes or has executed last; empty when unknown.
    pub(super) fn executable(&mut self, pid: u32) -> Vec<u8> {
        self.read();
        match self.starts.remove(&pid) {
            Some(start) => resolve(Path::new(std::ffi::OsStr::from_bytes(&start.path))),
            None => Vec::new(),
        }
    }

    fn read(&mut self) {
        // Those that nobody asked for are of no use any more once many others have come.
        if self.starts.len() > STARTS_MAX {
            self.starts.clear();
        }
        let Self { instance, format, path, pid, starts } = self;
        // What is overwritten unread is no loss: it was not needed.
        let read = instance.drain(|record| {
            if !format.is_of(record.data) {
                return;
            }
            let (Some(pid), Some(path)) = (pid.u32(record.data), path.text(record.data)) else { return };
            let is_later = starts.get(&pid).is_none_or(|start| start.monotonic_ns < record.monotonic_ns);
            if is_later {
                starts.insert(pid, Start { monotonic_ns: record.monotonic_ns, path: path.into() });
            }
        });
        if let Err(error) = read {
            tracing::debug!(%error, "recorded program starts cannot be read");
        }
    }
}

/// The executable that stands behind a path given to `execve`.
fn resolve(path: &Path) -> Vec<u8> {
    if !path.is_absolute() {
        // Relative to a directory that is not known any more.
        return Vec::new();
    }
    if !SYSTEM_DIRECTORIES.iter().any(|directory| path.starts_with(directory)) || has_parent_steps(path) {
        return path.as_os_str().as_bytes().to_vec();
    }
    let executable = match interpreter(path) {
        Some(interpreter) if interpreter.first() == Some(&b'/') => interpreter,
        Some(_) => return Vec::new(),
        None => path.as_os_str().as_bytes().to_vec(),
    };
    match std::fs::canonicalize(std::ffi::OsStr::from_bytes(&executable)) {
        Ok(resolved) => resolved.into_os_string().into_encoded_bytes(),
        Err(_) => executable,
    }
}

/// Whether a path leaves a directory it went into.
fn has_parent_steps(path: &Path) -> bool {
    path.components().any(|component| component == std::path::Component::ParentDir)
}

/// The interpreter named in the first line of a script; `None` for what is no script.
fn interpreter(path: &Path) -> Option<Vec<u8>> {
    // What is not a regular file could make this thread wait.
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut head = Vec::new();
    File::open(path).ok()?.take(SCRIPT_HEAD_BYTES).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let name = line.trim_ascii().split(|byte| byte.is_ascii_whitespace()).next()?;
    (!name.is_empty()).then(|| name.to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;
    use crate::sensor::test_sink::DEADLINE;

    #[test]
    fn the_program_of_a_process_that_is_gone_is_known() {
        let mut programs = match ProgramTrace::start() {
            Ok(programs) => programs,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let mut child = Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + DEADLINE;
        let executable = loop {
            let executable = programs.executable(child.id());
            if !executable.is_empty() {
                break executable;
            }
            assert!(Instant::now() < deadline);
        };
        assert_eq!(executable, std::fs::canonicalize("/bin/true").unwrap().as_os_str().as_bytes());
        assert!(programs.executable(child.id()).is_empty());
        for pid in 0..=u32::try_from(STARTS_MAX).unwrap() {
            programs.starts.insert(u32::MAX - pid, Start { monotonic_ns: 0, path: Box::from([]) });
        }
        programs.executable(1);
        assert!(programs.starts.len() < STARTS_MAX);
    }

    #[test]
    fn a_path_of_the_system_is_resolved_and_another_is_not_touched() {
        let resolved = |path: &str| String::from_utf8(resolve(Path::new(path))).unwrap();
        let canonical = |path: &str| std::fs::canonicalize(path).unwrap().into_os_string().into_string().unwrap();
        assert_eq!(resolved("/bin/sh"), canonical("/bin/sh"));
        assert_eq!(resolved("/usr/bin/no such program"), "/usr/bin/no such program");
        assert_eq!(resolved("/usr/../bin/sh"), "/usr/../bin/sh");
        assert_eq!(resolved("/userland/sh"), "/userland/sh");
        assert_eq!(resolved("relative"), "");
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let named = |text: &[u8]| {
            let path = folder.path().join("script");
            std::fs::write(&path, text).unwrap();
            interpreter(&path)
        };
        assert_eq!(named(b"#!/bin/sh -e\ntrue\n").unwrap(), b"/bin/sh");
        assert_eq!(named(b"#! /bin/sh").unwrap(), b"/bin/sh");
        assert_eq!(named(b"\x7fELF"), None);
        assert_eq!(named(b"#!\n"), None);
        assert_eq!(interpreter(folder.path()), None);
    }
}
