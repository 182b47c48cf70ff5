//! What an activity becomes when it is played: files, a service of its own perhaps, and root processes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::helper::{HelperPlan, NetStep};
use super::plan::PlannedInstance;
use super::tools::Tools;
use super::{Round, attack, benign};

/// Names the network tools of both sides go by.
const TOOL_NAMES: [&str; 10] =
    ["svc-client", "netc", "sync-agent", "fetchd", "relay", "pull", "collector", "apicall", "xfer", "queue-worker"];

/// What an instance does.
#[derive(Clone, Debug, PartialEq)]
pub enum Activity {
    /// Ordinary work.
    Benign(benign::Benign),
    /// A harmless imitation of an attack.
    Attack(attack::Attack),
}

impl Activity {
    /// What it is, for people and in instance ids.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Benign(benign) => benign.name(),
            Self::Attack(attack) => attack.technique().id(),
        }
    }

    /// Writes its files and says which processes to start.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn prepare(&self, stage: &mut Stage<'_>) -> io::Result<Prepared> {
        match self {
            Self::Benign(benign) => benign.prepare(stage),
            Self::Attack(attack) => attack.prepare(stage),
        }
    }
}

/// Addresses of the services both sides use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// An application's HTTP server.
    pub web: SocketAddr,
    /// An HTTP server with large files.
    pub mirror: SocketAddr,
    /// An HTTP server that takes uploads.
    pub storage: SocketAddr,
    /// An HTTP server like the others.
    pub metrics: SocketAddr,
    /// The login service.
    pub login: SocketAddr,
}

impl ServiceAddresses {
    /// The HTTP servers.
    pub fn http(&self) -> [SocketAddr; 4] {
        [self.web, self.mirror, self.storage, self.metrics]
    }
}

/// Accounts of the login service; the password is `login_server::password_of`.
pub const ACCOUNTS: [&str; 6] = ["alice", "bob", "carol", "deploy", "backup", "monitor"];

/// What an activity has at hand while it is prepared.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The range's folders.
    pub folders: &'a Folders,
    /// Programs of this machine.
    pub tools: &'a Tools,
    /// Services of the range.
    pub services: ServiceAddresses,
    /// Which play of the range.
    pub round: Round,
    /// Unique among the instances of this play.
    pub number: usize,
    /// Chooses what the plan left open: names, orders.
    pub rng: StdRng,
    files: usize,
}

impl<'a> Stage<'a> {
    /// A stage for an instance of `round`.
    pub fn new(
        folders: &'a Folders,
        tools: &'a Tools,
        services: ServiceAddresses,
        round: Round,
        planned: &PlannedInstance,
    ) -> Self {
        let rng = StdRng::seed_from_u64(planned.seed);
        Self { folders, tools, services, round, number: planned.number, rng, files: 0 }
    }

    /// A new folder of this instance below `parent`, with a name that says nothing.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn folder_in(&mut self, parent: &Path) -> io::Result<PathBuf> {
        let name: String = (0..6).map(|_| char::from(self.rng.random_range(b'a'..=b'z'))).collect();
        let folder = parent.join(format!("{name}{}{}", self.round.number(), self.number));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A home-like folder of one of a few users.
    pub fn home(&mut self) -> PathBuf {
        let user = ACCOUNTS[..3].choose(&mut self.rng).copied().unwrap_or(ACCOUNTS[0]);
        self.folders.home.join(user)
    }

    /// A path for bookkeeping of this instance, outside of what the activity sees.
    pub fn scaffold(&mut self, what: &str) -> PathBuf {
        self.files += 1;
        let (round, number) = (self.round.number(), self.number);
        self.folders.scaffold.join(format!("{round}-{number}-{}.{what}", self.files))
    }

    /// A network tool that plays `steps` against `address`. Its name and the form of its arguments come from one pool
    /// for both sides: they say nothing about what it does.
    pub fn tool(&mut self, address: SocketAddr, steps: Vec<NetStep>) -> Launch {
        let arguments = self.tool_arguments(address);
        let record = self.scaffold("connections");
        let plan = HelperPlan::Client { steps, record: record.clone() };
        let directory = self.folders.home.clone();
        Launch { program: Program::Helper { name: self.tool_name(), arguments, plan }, directory, record: Some(record) }
    }

    /// A name from the common pool.
    pub fn tool_name(&mut self) -> String {
        TOOL_NAMES.choose(&mut self.rng).copied().unwrap_or(TOOL_NAMES[0]).to_owned()
    }

    /// Arguments as any network tool has them.
    pub fn tool_arguments(&mut self, address: SocketAddr) -> Vec<String> {
        let port = if address == OWN_SERVICE { OWN_PORT.to_owned() } else { address.port().to_string() };
        let (ip, both) = (address.ip(), format!("{}:{port}", address.ip()));
        let number = self.rng.random_range(1..30);
        match self.rng.random_range(0..7) {
            0 => vec![format!("http://{both}/")],
            1 => vec!["--to".to_owned(), both],
            2 => vec![both],
            3 => vec![ip.to_string(), port],
            4 => vec!["--retry".to_owned(), number.to_string(), both],
            5 => vec!["-c".to_owned(), format!("job-{number}.conf")],
            _ => vec![ip.to_string()],
        }
    }

    /// One of the HTTP servers.
    pub fn any_http(&mut self) -> SocketAddr {
        self.services.http().choose(&mut self.rng).copied().unwrap_or(self.services.web)
    }
}

/// The range's folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Home-like: one folder per user.
    pub home: PathBuf,
    /// Source code and documents to look at.
    pub source: PathBuf,
    /// Configuration-like.
    pub etc: PathBuf,
    /// Job and mail spool-like.
    pub spool: PathBuf,
    /// For temporary files.
    pub tmp: PathBuf,
    /// Memory-backed temporary folder, when the machine has one; outside of the range's root.
    pub shm: Option<PathBuf>,
    /// Plans, records and ready files: the range's own.
    pub scaffold: PathBuf,
}

/// What to start for an instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// A service only this instance uses, started before its roots and stopped after them. Not part of the activity.
    pub service: Option<OwnService>,
    /// The activity's root processes, started one after another, each when the one before has ended.
    pub roots: Vec<Launch>,
    /// Ports that nothing else connects to while this instance is played.
    pub exclusive_ports: Vec<u16>,
}

impl Prepared {
    /// One root process and nothing else.
    pub fn root(launch: Launch) -> Self {
        Self { roots: vec![launch], ..Self::default() }
    }
}

/// A service of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnService {
    /// What it serves.
    pub plan: HelperPlan,
    /// Where its port appears.
    pub ready: PathBuf,
    /// Start it this long after the roots, not before them.
    pub late_by_ms: Option<u64>,
}

/// One root process.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What to run.
    pub program: Program,
    /// Where.
    pub directory: PathBuf,
    /// Where the program notes its connections, when it does.
    pub record: Option<PathBuf>,
}

/// What a root process runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// `sh -c <script>`.
    Shell {
        /// The script.
        script: String,
    },
    /// Any program.
    Command {
        /// Its path.
        path: PathBuf,
        /// Its arguments, without its name.
        arguments: Vec<String>,
        /// Standard input, when it has one.
        input: Option<PathBuf>,
    },
    /// A network program of the range.
    Helper {
        /// The name it is seen under.
        name: String,
        /// The arguments that are seen.
        arguments: Vec<String>,
        /// What it does.
        plan: HelperPlan,
    },
    /// `sh <path>`, a script file that may call network programs of the range.
    Script {
        /// Where the script is written.
        path: PathBuf,
        /// The script; `@TOOL0@`, `@TOOL1@` … stand for the programs.
        script: String,
        /// The programs: the name each is seen under, and what it does.
        tools: Vec<(String, HelperPlan)>,
    },
}

/// An address of loopback whose port is not known before its service runs; see [`resolve_own_service`].
pub const OWN_SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Text that stands for the port of the instance's own service in scripts and arguments.
pub const OWN_PORT: &str = "@PORT@";

/// Puts the port of the instance's own service where [`OWN_SERVICE`] and [`OWN_PORT`] stand.
pub fn resolve_own_service(prepared: &mut Prepared, port: u16) {
    for launch in &mut prepared.roots {
        match &mut launch.program {
            Program::Shell { script } => *script = script.replace(OWN_PORT, &port.to_string()),
            Program::Command { arguments, .. } => {
                for argument in arguments {
                    *argument = argument.replace(OWN_PORT, &port.to_string());
                }
            }
            Program::Helper { arguments, plan, .. } => {
                for argument in arguments {
                    *argument = argument.replace(OWN_PORT, &port.to_string());
                }
                set_port(plan, port);
            }
            Program::Script { script, tools, .. } => {
                *script = script.replace(OWN_PORT, &port.to_string());
                tools.iter_mut().for_each(|(_, plan)| set_port(plan, port));
            }
        }
    }
    prepared.exclusive_ports.push(port);
}

fn set_port(plan: &mut HelperPlan, port: u16) {
    let set = |address: &mut SocketAddr| {
        if *address == OWN_SERVICE {
            address.set_port(port);
        }
    };
    match plan {
        HelperPlan::ShellClient { address, .. } | HelperPlan::Relay { address, .. } => set(address),
        HelperPlan::Client { steps, .. } => {
            for step in steps {
                match step {
                    NetStep::Http { address, .. }
                    | NetStep::Probe { address, .. }
                    | NetStep::Login { address, .. }
                    | NetStep::Send { address, .. } => set(address),
                    NetStep::Pause { .. } => {}
                }
            }
        }
        HelperPlan::HttpServer { .. } | HelperPlan::LoginServer { .. } | HelperPlan::ShellOperator { .. } => {}
    }
}
