//! The network programs of the range: one process of this binary per program, told what to do by a plan file.
//!
//! The plan's path comes in the environment, not in the arguments: the argument vector is part of what the agent sees
//! and belongs to the activity that is imitated.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

pub mod client;
pub mod http_server;
pub mod login_server;
pub mod shell;

/// Environment variable with the path of the plan file.
pub const PLAN_VARIABLE: &str = "PICKET_RANGE_PLAN";

/// Largest body that is asked for, sent or taken, in bytes.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// Most connections a service of the range serves at a time; more wait in the accept queue.
const SERVICE_CONNECTIONS_MAX: usize = 64;

/// What a helper process does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum HelperPlan {
    /// Connects, step by step, and notes each connection.
    Client {
        /// What to do, in order.
        steps: Vec<NetStep>,
        /// Where to note each connection, one [`client::ConnectionRecord`] a line.
        record: PathBuf,
    },
    /// Serves HTTP until it is stopped.
    HttpServer {
        /// Where to write the port once it listens.
        ready: PathBuf,
        /// Port to take; 0: any.
        port: u16,
        /// Where to note who named an instance.
        record: PathBuf,
    },
    /// Lets accounts in by password until it is stopped.
    LoginServer {
        /// Where to write the port once it listens.
        ready: PathBuf,
        /// User names; the password of each is [`login_server::password_of`].
        accounts: Vec<String>,
    },
    /// The far end of a reverse shell: waits for one connection and sends it commands.
    ShellOperator {
        /// Where to write the port once it listens.
        ready: PathBuf,
        /// Commands, sent one after another.
        commands: Vec<String>,
        /// Pause before each command.
        pause_ms: u64,
    },
    /// The near end: connects and starts a shell on the socket.
    ShellClient {
        /// Where the operator listens.
        address: SocketAddr,
        /// Where to note the connection.
        record: PathBuf,
    },
    /// Copies standard input to a connection and the connection to standard output.
    Relay {
        /// Where to connect.
        address: SocketAddr,
        /// Where to note the connection.
        record: PathBuf,
    },
}

/// One step of a network client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum NetStep {
    /// One connection with one or more HTTP requests.
    Http {
        /// The server.
        address: SocketAddr,
        /// The requests, in order, on one connection.
        requests: Vec<HttpRequest>,
        /// Pause between two requests.
        gap_ms: u64,
    },
    /// Connects and closes, perhaps after reading what the other end says first.
    Probe {
        /// The port.
        address: SocketAddr,
        /// Wait this long for a first word; 0: close at once.
        banner_ms: u64,
    },
    /// Asks the login service to be let in.
    Login {
        /// The service.
        address: SocketAddr,
        /// User name and password of each try on this connection.
        tries: Vec<(String, String)>,
        /// Lines exchanged once let in.
        session_lines: u32,
        /// Pause between lines.
        pause_ms: u64,
    },
    /// Sends bytes without any protocol.
    Send {
        /// Where to.
        address: SocketAddr,
        /// How many.
        bytes: usize,
        /// Bytes per write.
        chunk_bytes: usize,
        /// Pause between writes.
        gap_ms: u64,
    },
    /// Does nothing for a while.
    Pause {
        /// How long.
        ms: u64,
    },
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `/` answers a few bytes, `/blob/<n>` answers n bytes.
    pub path: String,
    /// Bytes posted; 0: a GET.
    pub post_bytes: usize,
}

impl HttpRequest {
    /// A GET that is answered with `bytes` bytes.
    pub fn get(bytes: usize) -> Self {
        Self { path: format!("/blob/{bytes}"), post_bytes: 0 }
    }

    /// A POST of `bytes` bytes.
    pub fn post(bytes: usize) -> Self {
        Self { path: "/submit".to_owned(), post_bytes: bytes }
    }
}

/// The helper's `main`: does what the plan at `plan` says.
pub fn main(plan: &Path) -> ExitCode {
    match read_plan(plan).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("range helper: {}: {error}", plan.display());
            ExitCode::FAILURE
        }
    }
}

fn read_plan(path: &Path) -> io::Result<HelperPlan> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

fn run(plan: HelperPlan) -> io::Result<()> {
    match plan {
        HelperPlan::Client { steps, record } => client::run(&steps, &record),
        HelperPlan::HttpServer { ready, port, record } => http_server::run(port, &ready, &record),
        HelperPlan::LoginServer { ready, accounts } => login_server::run(&accounts, &ready),
        HelperPlan::ShellOperator { ready, commands, pause_ms } => shell::operate(&ready, &commands, pause_ms),
        HelperPlan::ShellClient { address, record } => shell::connect_back(address, &record),
        HelperPlan::Relay { address, record } => shell::relay(address, &record),
    }
}

/// Tells whoever waits that `port` is open. The file appears whole or not at all.
fn announce(ready: &Path, port: u16) -> io::Result<()> {
    let unfinished = ready.with_extension("unfinished");
    std::fs::write(&unfinished, port.to_string())?;
    std::fs::rename(&unfinished, ready)
}

/// Serves each connection of `listener` on its own thread, at most [`SERVICE_CONNECTIONS_MAX`] at a time, for ever.
fn serve(
    listener: &std::net::TcpListener,
    handle: impl Fn(std::net::TcpStream) -> io::Result<()> + Send + Sync,
) -> io::Result<()> {
    let (free, taken) = std::sync::mpsc::sync_channel::<()>(SERVICE_CONNECTIONS_MAX);
    let taken = std::sync::Mutex::new(taken);
    std::thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept()?;
            // Room in the channel is room for one more connection.
            free.send(()).map_err(io::Error::other)?;
            let (handle, taken) = (&handle, &taken);
            scope.spawn(move || {
                // A client that goes away in the middle is that client's affair.
                handle(stream).ok();
                if let Ok(taken) = taken.lock() {
                    taken.recv().ok();
                }
            });
        }
    })
}
