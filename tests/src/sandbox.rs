//! A server and agents as real processes in a temporary folder.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::admin::{AdminClient, AdminError};
use crate::process::ManagedProcess;
use crate::role::Role;
use crate::wait::{self, TimedOut};

pub(crate) use crate::sandbox::agent::read_json_lines;
pub use crate::sandbox::agent::{Agent, RunningAgent};

mod agent;

/// How long a server or an agent may take to be ready. Generous: a debug build on a busy machine.
pub const READY_DEADLINE: Duration = Duration::from_secs(30);

/// How long a staged stop may take.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Ports that servers are given: below the range from which Linux gives ports out (`ip_local_port_range`).
const LISTEN_PORTS: Range<u16> = 10_000..32_000;
/// Ports that are tried.
const LISTEN_TRIES: usize = 50;

/// Lines of a log shown when something fails.
const LOG_LINES_SHOWN: usize = 30;

/// What went wrong around a process.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A file or a process.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A fact did not come true.
    #[error("{source}\n{log}")]
    TimedOut {
        /// Which.
        source: TimedOut,
        /// The end of the process's log.
        log: String,
    },
    /// A command ended with an error.
    #[error("{command} ended with {end}: {output}")]
    Command {
        /// Which.
        command: String,
        /// Its exit code.
        end: String,
        /// What it printed.
        output: String,
    },
    /// The admin API said no.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// The folder of a sandbox and how to start things in it.
#[derive(Debug)]
pub struct Sandbox {
    executable: PathBuf,
    folder: PathBuf,
    /// Removes the folder, unless it was given.
    _temporary: Option<tempfile::TempDir>,
}

impl Sandbox {
    /// A sandbox in a new temporary folder. `executable` is a `picket-demo`.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn new(executable: &Path) -> io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("picket-").tempdir()?;
        let folder = temporary.path().to_owned();
        Ok(Self { executable: executable.to_owned(), folder, _temporary: Some(temporary) })
    }

    /// A sandbox in a folder that stays.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn in_folder(executable: &Path, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { executable: executable.to_owned(), folder: folder.canonicalize()?, _temporary: None })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The binary that is every part.
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// A server that keeps its state in `server/`; not started yet.
    pub fn server(&self) -> Server {
        Server::in_folder(&self.executable, &self.folder.join("server"))
    }

    /// An agent that keeps its state in a folder called `name`; not enrolled yet.
    pub fn agent(&self, name: &str) -> Agent {
        Agent::in_folder(&self.executable, &self.folder.join(name))
    }
}

/// A server's state folder and settings.
#[derive(Clone, Debug)]
pub struct Server {
    executable: PathBuf,
    state_dir: PathBuf,
    config: String,
    addresses: Option<Endpoints>,
    environment: Vec<(String, OsString)>,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Endpoints {
    /// For agents.
    pub agent: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

impl Server {
    /// A server with its state in `state_dir`.
    pub fn in_folder(executable: &Path, state_dir: &Path) -> Self {
        Self {
            executable: executable.to_owned(),
            state_dir: state_dir.to_owned(),
            config: String::new(),
            addresses: None,
            environment: Vec::new(),
        }
    }

    /// A variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Its configuration file's text (TOML).
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// Where it shall listen, instead of anywhere.
    #[must_use]
    pub fn at(mut self, addresses: Endpoints) -> Self {
        self.addresses = Some(addresses);
        self
    }

    /// The state folder.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The command that runs it. It listens where it did before; the first time wherever there is room.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn command(&self) -> io::Result<Command> {
        fs::create_dir_all(&self.state_dir)?;
        let config = self.state_dir.with_extension("toml");
        fs::write(&config, &self.config)?;
        let mut command = Role::Server.command(&self.executable);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("serve").arg("--state-dir").arg(&self.state_dir).arg("--config").arg(config);
        let addresses = match self.addresses {
            Some(addresses) => addresses,
            None => Endpoints { agent: lasting_address()?, admin: lasting_address()? },
        };
        command.args(["--agent-address", &addresses.agent.to_string()]);
        command.args(["--admin-address", &addresses.admin.to_string()]);
        Ok(command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, ends, or is not ready in time.
    pub fn start(&mut self) -> Result<RunningServer, SandboxError> {
        let endpoints_file = self.state_dir.join("run/endpoints.json");
        // A file of an earlier life would say "ready" too early.
        remove_if_there(&endpoints_file)?;
        let log = Log::next(&self.state_dir)?;
        let mut process = log.spawn("picket-server", &mut self.command()?)?;
        let endpoints = wait::until("the server to be ready", READY_DEADLINE, || {
            if !process.is_running() {
                return Err("it ended".to_owned());
            }
            let text = fs::read(&endpoints_file).map_err(|error| error.to_string())?;
            serde_json::from_slice::<Endpoints>(&text).map_err(|error| error.to_string())
        })
        .map_err(|source| SandboxError::TimedOut { source, log: log.tail() })?;
        self.addresses = Some(endpoints);
        Ok(RunningServer { process, endpoints, state_dir: self.state_dir.clone(), log })
    }
}

/// A free loopback address that nobody is given while the server is down: outside the ports that Linux gives out itself.
fn lasting_address() -> io::Result<SocketAddr> {
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..LISTEN_TRIES {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(LISTEN_PORTS)));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => taken = error,
        }
    }
    Err(taken)
}

/// A server that runs; killed when dropped.
#[derive(Debug)]
pub struct RunningServer {
    /// The process.
    pub process: ManagedProcess,
    /// Where it listens.
    pub endpoints: Endpoints,
    state_dir: PathBuf,
    log: Log,
}

impl RunningServer {
    /// A connection to its admin API with the administrator's token.
    ///
    /// # Errors
    /// [`SandboxError::Io`] and [`SandboxError::Admin`].
    pub fn admin(&self) -> Result<AdminClient, SandboxError> {
        let token = fs::read_to_string(self.token_file())?;
        Ok(AdminClient::connect(self.endpoints.admin, &self.ca_file(), &token)?)
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.state_dir.join("ca.pem")
    }

    /// The administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.state_dir.join("admin.token")
    }

    /// A `picketctl` that talks to it as administrator.
    pub fn control(&self, executable: &Path) -> Command {
        let mut command = Role::Control.command(executable);
        command.args(["--server", &self.endpoints.admin.to_string()]);
        command.arg("--ca").arg(self.ca_file()).arg("--token-file").arg(self.token_file());
        command.stdin(Stdio::null());
        command
    }

    /// Stops it in stages (SIGTERM).
    ///
    /// # Errors
    /// It takes too long, or ends with an error.
    pub fn stop(mut self) -> Result<(), SandboxError> {
        let status = self.process.terminate(STOP_DEADLINE)?;
        self.log.check("picket-server", status)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.log.tail()
    }
}

/// Where a process writes what it has to say.
#[derive(Debug)]
pub(crate) struct Log(PathBuf);

impl Log {
    /// A new log file beside `state_dir`.
    pub(crate) fn next(state_dir: &Path) -> io::Result<Self> {
        let name = state_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = state_dir.parent().unwrap_or(Path::new(".")).join("logs");
        fs::create_dir_all(&folder)?;
        Ok(Self(folder.join(format!("{name}.log"))))
    }

    /// Starts `command` with both output streams appended to the log.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> io::Result<ManagedProcess> {
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        ManagedProcess::spawn(name, command)
    }

    /// Its last lines.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.0).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// An error when `status` is one.
    pub(crate) fn check(&self, command: &str, status: std::process::ExitStatus) -> Result<(), SandboxError> {
        if status.success() {
            return Ok(());
        }
        let end = crate::process::describe(status);
        Err(SandboxError::Command { command: command.to_owned(), end, output: self.tail() })
    }
}

/// The standard output of a finished command, or an error with what it printed.
///
/// # Errors
/// [`SandboxError::Command`] when it ended with an error.
pub fn succeed(command: &mut Command) -> Result<String, SandboxError> {
    let output = crate::process::output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(SandboxError::Command {
        command: format!("{command:?}"),
        end: crate::process::describe(output.status),
        output: printed(&output),
    })
}

/// Everything a command printed.
pub fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}{}", out.trim_end(), err.trim_end())
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
