//! bpftrace: one script for program starts and for what becomes of TCP connections.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use picket_tests::process::ManagedProcess;
use picket_tests::wait;
use rustix::process::Signal;

use crate::collector::{Collector, Load, Seen, count_lines, prepared, said_version};
use crate::control_group::ControlGroup;

/// Starts with their arguments; begins and ends of connections at both ends (states 1 and 7 of TCP over IPv4 or IPv6).
const SCRIPT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:syscalls:sys_enter_execve {
    printf("exec %d %d %s %s ", pid, uid, comm, str(args->filename));
    join(args->argv);
}
tracepoint:sock:inet_sock_set_state / args->protocol == 6 && (args->newstate == 1 || args->newstate == 7) / {
    printf("tcp %d %s %s:%d %s:%d %d\n", pid, comm, ntop(args->saddr), args->sport, ntop(args->daddr), args->dport,
        args->newstate);
}
"#;

/// How long it may take to compile and attach its script, and to end.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Bpftrace {
    work: PathBuf,
    process: Option<ManagedProcess>,
}

impl Bpftrace {
    pub(crate) fn new(work: &Path) -> Self {
        Self { work: work.to_owned(), process: None }
    }

    fn program(&self) -> PathBuf {
        self.work.join("root/usr/bin/bpftrace")
    }
}

impl Collector for Bpftrace {
    fn name(&self) -> &'static str {
        "bpftrace"
    }

    fn version(&self) -> String {
        said_version(&self.program(), "--version")
    }

    fn start(&mut self, group: &ControlGroup, folder: &Path) -> Result<(), String> {
        prepared(&self.work, "bpftrace")?;
        let (script, log, errors) = (folder.join("script.bt"), folder.join("bpftrace.log"), folder.join("errors"));
        let make = |path: &Path| File::create(path).map_err(|error| error.to_string());
        fs::write(&script, SCRIPT).map_err(|error| error.to_string())?;
        let mut command = group.command(&self.program());
        command.arg("-o").arg(&log).arg(&script);
        command.stdin(Stdio::null()).stdout(make(&folder.join("output"))?).stderr(make(&errors)?);
        let process = ManagedProcess::spawn("bpftrace", &mut command).map_err(|error| error.to_string())?;
        let process = self.process.insert(process);
        wait::until("bpftrace to be attached", DEADLINE, || {
            if !process.is_running() {
                return Err("it ended".to_owned());
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("Attaching") { Ok(()) } else { Err(text) }
        })
        .map_err(|error| format!("{error} {}", fs::read_to_string(&errors).unwrap_or_default().trim()))
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::INT);
        process.wait(DEADLINE).map(drop).map_err(|error| error.to_string())
    }

    fn seen(&mut self, load: &Load<'_>, folder: &Path) -> Result<Seen, String> {
        let log = folder.join("bpftrace.log");
        // `str` keeps the beginning of a path.
        let program = load.program.to_string_lossy().into_owned();
        let is_start = |line: &str| {
            let path = line.strip_prefix("exec ").and_then(|rest| rest.split(' ').nth(3)).unwrap_or_default();
            !path.is_empty() && path.len() > 20 && program.starts_with(path)
        };
        let port = load.port;
        let target = format!(" 127.0.0.1:{port} 1");
        Ok(Seen {
            starts: Some(count_lines(&log, is_start)),
            connections: Some(count_lines(&log, |line| line.starts_with("tcp ") && line.ends_with(&target))),
        })
    }
}
