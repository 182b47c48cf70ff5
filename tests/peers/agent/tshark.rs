//! tshark: the segments that begin and end TCP connections on the loopback interface, as a line each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use picket_tests::process::ManagedProcess;
use picket_tests::wait;
use rustix::process::Signal;

use crate::collector::{Collector, Load, Seen, count_lines, prepared, said_version};
use crate::control_group::ControlGroup;

/// The kernel hands over nothing else: what a user who only wants connections would ask for.
const FILTER: &str = "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0";

/// How long it may take to begin and to end.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Tshark {
    work: PathBuf,
    process: Option<ManagedProcess>,
}

impl Tshark {
    pub(crate) fn new(work: &Path) -> Self {
        Self { work: work.to_owned(), process: None }
    }

    fn program(&self) -> PathBuf {
        self.work.join("root/usr/bin/tshark")
    }
}

impl Collector for Tshark {
    fn name(&self) -> &'static str {
        "tshark"
    }

    fn version(&self) -> String {
        said_version(&self.program(), "--version").split(" (Git").next().unwrap_or_default().to_lowercase()
    }

    fn looks_for(&self) -> (bool, bool) {
        (false, true)
    }

    fn start(&mut self, group: &ControlGroup, folder: &Path) -> Result<(), String> {
        prepared(&self.work, "tshark")?;
        let errors = folder.join("errors");
        let make = |path: &Path| File::create(path).map_err(|error| error.to_string());
        let mut command = group.command(&self.program());
        command.args(["-i", "lo", "-n", "-f", FILTER, "-T", "fields"]);
        for field in ["frame.time_epoch", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.flags"] {
            command.args(["-e", field]);
        }
        // Its capture file goes there.
        command.env("TMPDIR", folder).stdin(Stdio::null());
        command.stdout(make(&folder.join("tshark.log"))?).stderr(make(&errors)?);
        let process = ManagedProcess::spawn("tshark", &mut command).map_err(|error| error.to_string())?;
        let process = self.process.insert(process);
        wait::until("tshark to capture", DEADLINE, || {
            if !process.is_running() {
                return Err("it ended".to_owned());
            }
            let text = fs::read_to_string(&errors).unwrap_or_default();
            if text.contains("Capture started") { Ok(()) } else { Err(text) }
        })
        .map_err(|error| error.to_string())
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::INT);
        process.wait(DEADLINE).map(drop).map_err(|error| error.to_string())
    }

    fn seen(&mut self, load: &Load<'_>, folder: &Path) -> Result<Seen, String> {
        let target = format!("\t127.0.0.1\t{}\t0x0002", load.port);
        let connections = count_lines(&folder.join("tshark.log"), |line| line.ends_with(&target));
        Ok(Seen { starts: None, connections: Some(connections) })
    }
}
