//! The services of the range, for as long as a round lasts.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::activity::{ACCOUNTS, Folders, ServiceAddresses};
use super::helper::http_server::Visit;
use super::helper::{HelperPlan, PLAN_VARIABLE};
use crate::process::ManagedProcess;
use crate::wait;

/// How long a service may take to listen.
const READY_DEADLINE: Duration = Duration::from_secs(10);

/// The running services; stopped when dropped.
#[derive(Debug)]
pub struct Services {
    /// Where they listen.
    pub addresses: ServiceAddresses,
    processes: Vec<ManagedProcess>,
}

impl Services {
    /// Starts all and waits until each listens.
    ///
    /// # Errors
    /// One could not be started or did not listen in time.
    pub fn start(executable: &Path, folders: &Folders) -> io::Result<Self> {
        let mut processes = Vec::new();
        let mut start = |name: &str, plan: &dyn Fn(PathBuf) -> HelperPlan| -> io::Result<SocketAddr> {
            let ready = folders.scaffold.join(format!("{name}.port"));
            remove_if_there(&ready)?;
            let plan_file = folders.scaffold.join(format!("{name}.plan"));
            let mut process = spawn_helper(executable, name, &plan(ready.clone()), &plan_file)?;
            let port = wait_for_port(&mut process, &ready)?;
            processes.push(process);
            Ok((Ipv4Addr::LOCALHOST, port).into())
        };
        let http = |ready: PathBuf| {
            let record = ready.with_extension("visits");
            HelperPlan::HttpServer { ready, port: 0, record }
        };
        let login = |ready| HelperPlan::LoginServer {
            ready,
            accounts: ACCOUNTS.iter().map(|account| (*account).to_owned()).collect(),
        };
        let addresses = ServiceAddresses {
            web: start("web", &http)?,
            mirror: start("mirror", &http)?,
            storage: start("storage", &http)?,
            metrics: start("metrics", &http)?,
            login: start("logind", &login)?,
        };
        Ok(Self { addresses, processes })
    }

    /// Connections whose clients said which instance they are part of, since the services were started.
    ///
    /// # Errors
    /// A service's notes cannot be read.
    pub fn visits(&self, folders: &Folders) -> io::Result<Vec<Visit>> {
        let mut visits = Vec::new();
        for process in &self.processes {
            let record = folders.scaffold.join(format!("{}.visits", process.name()));
            match fs::read_to_string(&record) {
                Ok(text) => visits.extend(text.lines().filter_map(|line| serde_json::from_str::<Visit>(line).ok())),
                // The login service notes nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(visits)
    }

    /// Process ids of the services.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(ManagedProcess::pid).collect()
    }
}

/// Starts `executable` as a helper seen under `name`.
///
/// # Errors
/// The plan cannot be written or the process not started.
pub fn spawn_helper(executable: &Path, name: &str, plan: &HelperPlan, plan_file: &Path) -> io::Result<ManagedProcess> {
    fs::write(plan_file, serde_json::to_vec(plan)?)?;
    let mut command = Command::new(executable);
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    command.env(PLAN_VARIABLE, plan_file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ManagedProcess::spawn(name, &mut command)
}

/// Waits until a helper has written its port.
///
/// # Errors
/// It ended, or took longer than 10 s.
pub fn wait_for_port(process: &mut ManagedProcess, ready: &Path) -> io::Result<u16> {
    let name = process.name().to_owned();
    wait::until(format!("{name} of the range to listen"), READY_DEADLINE, || {
        if !process.is_running() {
            return Err("it ended".to_owned());
        }
        let text = fs::read_to_string(ready).map_err(|error| error.to_string())?;
        text.parse::<u16>().map_err(|error| error.to_string())
    })
    .map_err(io::Error::other)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
