//! Processes of this same program.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Longer than this, and a process hangs.
const HANG: Duration = Duration::from_secs(20);

/// What looking into a store came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It opened; whether each record is intact.
    Opened(BTreeMap<u64, bool>),
    /// It said no, with an error.
    Refused(String),
    /// It panicked, or was ended by a signal.
    Crashed(String),
    /// It did not come to an end.
    Hung,
}

pub fn start(arguments: &[&str]) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// Runs to the end; gives standard output.
pub fn run(arguments: &[&str]) -> Result<String, Failure> {
    let output = start(arguments)?.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Opens and reads a store in a process of its own.
pub fn look(engine: &str, folder: &str) -> Result<Look, Failure> {
    let mut child = start(&["check", engine, folder])?;
    let (mut out, mut err) = (child.stdout.take().ok_or("no output")?, child.stderr.take().ok_or("no output")?);
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > HANG {
            child.kill()?;
            child.wait()?;
            return Ok(Look::Hung);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = out.join().map_err(|_| "a reader panicked")??;
    let error = err.join().map_err(|_| "a reader panicked")??;
    let panicked = error.contains("panicked at");
    if status.success() && text.ends_with("end\n") && !panicked {
        let records = text.lines().filter_map(|line| line.split_once(' '));
        return Ok(Look::Opened(
            records.filter_map(|(key, word)| Some((key.parse().ok()?, word == "intact"))).collect(),
        ));
    }
    let first = error.lines().next().unwrap_or_default().to_owned();
    Ok(if panicked || status.code().is_none() { Look::Crashed(first) } else { Look::Refused(first) })
}
