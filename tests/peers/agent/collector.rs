//! What is compared.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::control_group::ControlGroup;

/// A load of a turn and what its processes ran.
pub(crate) struct Load<'a> {
    /// The program of this turn alone.
    pub(crate) program: &'a Path,
    /// Where its connections went.
    pub(crate) port: u16,
}

/// How many events of a load a collector has recorded. `None`: it does not look for such events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) starts: Option<u64>,
    pub(crate) connections: Option<u64>,
}

/// A program that records process starts or connections.
pub(crate) trait Collector {
    fn name(&self) -> &'static str;

    /// Its version, or what it was built from.
    fn version(&self) -> String;

    /// Whether it looks for process starts, and for connections.
    fn looks_for(&self) -> (bool, bool) {
        (true, true)
    }

    /// Starts it, with all its processes in `group`, and waits until it sees. The reason when it cannot be had here.
    fn start(&mut self, group: &ControlGroup, folder: &Path) -> Result<(), String>;

    /// Ends it and takes back what it changed of the machine.
    fn stop(&mut self) -> Result<(), String>;

    /// What it has recorded of a load. Called when it has stopped.
    fn seen(&mut self, load: &Load<'_>, folder: &Path) -> Result<Seen, String>;
}

/// Where the libraries are that came with the peers.
const LIBRARIES: &str = "PICKET_PEERS_LIBRARIES";

/// Gives a peer's command the libraries that came with it.
pub(crate) fn with_libraries(mut command: Command) -> Command {
    if let Some(libraries) = std::env::var_os(LIBRARIES) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

/// What a peer says when it is asked for its version.
pub(crate) fn said_version(program: &Path, argument: &str) -> String {
    let mut command = with_libraries(Command::new(program));
    let output = picket_tests::process::output(command.arg(argument));
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The reason why a peer could not be prepared, as the preparing script has left it.
pub(crate) fn prepared(work: &Path, name: &str) -> Result<(), String> {
    match fs::read_to_string(work.join("unavailable").join(name)) {
        Ok(reason) => Err(reason.trim().to_owned()),
        Err(_) => Ok(()),
    }
}

/// Lines of a file for which `is_counted` is true; none when there is no file.
pub(crate) fn count_lines(file: &Path, is_counted: impl Fn(&str) -> bool) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter(|line| is_counted(line)).count() as u64
}
