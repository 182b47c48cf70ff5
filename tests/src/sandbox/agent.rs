//! Agents of a sandbox.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use super::{Log, READY_DEADLINE, RunningServer, STOP_DEADLINE, SandboxError};
use crate::process::{self, ManagedProcess};
use crate::role::Role;
use crate::wait;

/// An agent's state folder and settings.
#[derive(Clone, Debug)]
pub struct Agent {
    executable: PathBuf,
    /// A `picket-agent`, instead of the binary that is every part.
    program: Option<PathBuf>,
    state_dir: PathBuf,
    config: String,
    environment: Vec<(String, OsString)>,
}

impl Agent {
    /// An agent with its state in `state_dir`.
    pub fn in_folder(executable: &Path, state_dir: &Path) -> Self {
        let (executable, state_dir) = (executable.to_owned(), state_dir.to_owned());
        Self { executable, program: None, state_dir, config: String::new(), environment: Vec::new() }
    }

    /// A variable in the environment of all its processes.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Is this `picket-agent`: for figures of a build that is shipped.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Its configuration file's text (TOML).
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// The state folder.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// `picket-agent <verb> --state-dir …`.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => Role::Agent.command(&self.executable),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(verb).arg("--state-dir").arg(&self.state_dir);
        command
    }

    /// Tries to enrol with `token`.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn try_enroll(&self, server: &RunningServer, token: &str) -> io::Result<Output> {
        fs::create_dir_all(&self.state_dir)?;
        let mut command = self.command("enroll");
        command.args(["--server", &server.endpoints.agent.to_string(), "--token", token]);
        process::output(&mut command)
    }

    /// Enrols with a fresh token.
    ///
    /// # Errors
    /// The server or the agent refused.
    pub fn enroll(&self, server: &RunningServer) -> Result<(), SandboxError> {
        let token = server.admin()?.create_token(600, 1)?;
        let output = self.try_enroll(server, &token)?;
        if output.status.success() {
            return Ok(());
        }
        let end = process::describe(output.status);
        Err(SandboxError::Command { command: "picket-agent enroll".to_owned(), end, output: super::printed(&output) })
    }

    /// The command that runs it.
    ///
    /// # Errors
    /// The configuration file cannot be written.
    pub fn run_command(&self) -> io::Result<Command> {
        let config = self.state_dir.with_extension("toml");
        fs::write(&config, &self.config)?;
        let mut command = self.command("run");
        command.arg("--config").arg(config);
        Ok(command)
    }

    /// Starts it; does not wait for anything.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self) -> Result<RunningAgent, SandboxError> {
        let log = Log::next(&self.state_dir)?;
        let process = log.spawn("picket-agent", &mut self.run_command()?)?;
        Ok(RunningAgent { process, state_dir: self.state_dir.clone(), log })
    }

    /// Starts it and waits until it reports its status.
    ///
    /// # Errors
    /// It ends, or does not report in time.
    pub fn start(&self) -> Result<RunningAgent, SandboxError> {
        let status_file = self.state_dir.join("run/status.json");
        super::remove_if_there(&status_file)?;
        let mut agent = self.spawn()?;
        agent.wait_for("a first status", READY_DEADLINE, |_| true)?;
        Ok(agent)
    }

    /// Its alerts so far, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn alerts(&self) -> io::Result<Vec<Value>> {
        read_json_lines(&self.state_dir.join("alerts.jsonl"))
    }

    /// What its status file says.
    ///
    /// # Errors
    /// There is none, or it is not JSON.
    pub fn status(&self) -> io::Result<Value> {
        read_status(&self.state_dir)
    }
}

/// An agent that runs; killed when dropped.
#[derive(Debug)]
pub struct RunningAgent {
    /// The process.
    pub process: ManagedProcess,
    state_dir: PathBuf,
    log: Log,
}

impl RunningAgent {
    /// What its status file says.
    ///
    /// # Errors
    /// There is none yet, or it is not JSON.
    pub fn status(&self) -> io::Result<Value> {
        read_status(&self.state_dir)
    }

    /// Waits until its status is as wanted; returns that status.
    ///
    /// # Errors
    /// It ended, or the status did not come in time.
    pub fn wait_for(
        &mut self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value, SandboxError> {
        let state_dir = self.state_dir.clone();
        wait::until(format!("the agent: {what}"), deadline, || {
            let status = read_status(&state_dir);
            match status {
                Ok(status) if wanted(&status) => Ok(status),
                _ if !self.process.is_running() => Err("it ended".to_owned()),
                Ok(status) => Err(format!("status is {status}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .map_err(|source| SandboxError::TimedOut { source, log: self.log.tail() })
    }

    /// Stops it in stages (SIGTERM).
    ///
    /// # Errors
    /// It takes too long, or ends with an error.
    pub fn stop(mut self) -> Result<(), SandboxError> {
        let status = self.process.terminate(STOP_DEADLINE)?;
        self.log.check("picket-agent", status)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.log.tail()
    }
}

fn read_status(state_dir: &Path) -> io::Result<Value> {
    let bytes = fs::read(state_dir.join("run/status.json"))?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// The JSON values of a file, one a line; none when there is no file. A line that is being written is left out.
pub(crate) fn read_json_lines(path: &Path) -> io::Result<Vec<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}
