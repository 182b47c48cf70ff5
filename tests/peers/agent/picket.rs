//! Picket's agent: every sensor on, a model in force, everything it sees enriched, scored and durable on disk. Its server
//! is away during the loads, as the peers deliver nothing either.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use picket_tests::admin::AdminClient;
use picket_tests::agent_report::AgentReport;
use picket_tests::learning;
use picket_tests::process;
use picket_tests::sandbox::{Agent, RunningAgent, Sandbox, SandboxError, Server};
use picket_tests::wait;

use crate::collector::{Collector, Load, Seen};
use crate::control_group::ControlGroup;

/// Its name here.
pub(crate) const NAME: &str = "picket";

/// Programs started for each verdict, to learn from.
const LESSONS: usize = 60;

/// How long learning or delivery may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// When it delivers, it soon finds its server.
const CONFIG: &str = "[uplink]\nbackoff_max_ms = 1000\n";

/// Where its server and its agent keep their state.
pub(crate) fn folder(work: &Path) -> PathBuf {
    work.join(format!("picket-{}", std::process::id()))
}

pub(crate) struct Picket {
    program: PathBuf,
    _sandbox: Sandbox,
    home: Server,
    agent: Agent,
    running: Option<RunningAgent>,
}

impl Picket {
    /// Enrols an agent and puts a model in force.
    pub(crate) fn prepare(program: &Path, work: &Path) -> Result<Self, String> {
        let sandbox = Sandbox::in_folder(Path::new(env!("CARGO_BIN_EXE_picket-demo")), &folder(work))
            .map_err(|error| error.to_string())?;
        let (home, agent) = (sandbox.server(), sandbox.agent("agent").program(program));
        let mut picket = Self { program: program.to_owned(), _sandbox: sandbox, home, agent, running: None };
        picket.put_a_model_in_force().map_err(|error| error.to_string())?;
        Ok(picket)
    }

    fn put_a_model_in_force(&mut self) -> Result<(), SandboxError> {
        let server = self.home.start()?;
        let mut admin = server.admin()?;
        self.agent.enroll(&server)?;
        let host = admin.hosts()?.remove(0).host_id;
        let mut running = self.agent.start()?;
        let work = std::fs::canonicalize("/bin/true")?;
        let attack = self.agent.state_dir().with_file_name("updater");
        std::fs::copy(&work, &attack)?;
        for number in 0..LESSONS {
            process::output(Command::new(&work).arg(format!("--item={number}")))?;
            process::output(Command::new(&attack).arg(format!("--probe={number}")))?;
        }
        let is_malicious = |executable: &str| {
            let executable = Path::new(executable);
            (executable == attack || executable == work).then(|| executable == attack)
        };
        wait::until("the lessons to be stored", DEADLINE, || {
            admin.commit_lake().map_err(|error| error.to_string())?;
            let stored = starts_of(&mut admin, &attack).map_err(|error| error.to_string())?;
            if stored >= LESSONS as u64 { Ok(()) } else { Err(format!("{stored}")) }
        })
        .map_err(|source| SandboxError::TimedOut { source, log: running.log_tail() })?;
        let models = learning::train_on_process_starts(&mut admin, &host, &["random_forest"], is_malicious)?;
        let digest = &models[0].model_digest;
        admin.push_model(digest, true)?;
        running.wait_for("the model to be in force", DEADLINE, |status| {
            AgentReport::from_status(status).has_active("process_start", digest)
        })?;
        running.stop()?;
        server.stop()
    }
}

fn starts_of(admin: &mut AdminClient, program: &Path) -> Result<u64, SandboxError> {
    let sql = format!(
        "SELECT count(*) FROM process_activity WHERE activity = 'start' AND executable = '{}'",
        program.display()
    );
    Ok(admin.query_number(&sql)?.unsigned_abs())
}

impl Collector for Picket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        let output = process::output(Command::new(&self.program).arg("--version"));
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    fn start(&mut self, group: &ControlGroup, _folder: &Path) -> Result<(), String> {
        let mut running = self.agent.start().map_err(|error| error.to_string())?;
        group.take(running.process.pid())?;
        let is_seeing = |status: &serde_json::Value| {
            let report = AgentReport::from_status(status);
            !report.sensors.is_empty() && report.sensors.iter().all(|sensor| !sensor.mode.is_empty())
        };
        let status = running.wait_for("its sensors", DEADLINE, is_seeing).map_err(|error| error.to_string())?;
        let report = AgentReport::from_status(&status);
        self.running = Some(running);
        match report.sensors.iter().take(2).find(|sensor| sensor.mode != "ebpf") {
            Some(sensor) => Err(format!("{} by {} only: {}", sensor.name, sensor.mode, sensor.reason)),
            None => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<(), String> {
        self.running.take().map_or(Ok(()), |running| running.stop().map_err(|error| error.to_string()))
    }

    /// Delivers what waits, and asks the server.
    fn seen(&mut self, load: &Load<'_>, _folder: &Path) -> Result<Seen, String> {
        let mut look = || -> Result<Seen, SandboxError> {
            let server = self.home.start()?;
            let mut admin = server.admin()?;
            let mut running = self.agent.clone().config(CONFIG).start()?;
            running.wait_for("everything to be delivered", DEADLINE, |status| {
                let report = AgentReport::from_status(status);
                let before = report.epochs.iter().filter(|epoch| epoch.epoch != report.epoch);
                before.map(|epoch| epoch.waiting + epoch.in_flight).sum::<u64>() == 0 && report.buffer_bytes == 0
            })?;
            running.stop()?;
            admin.commit_lake()?;
            let starts = starts_of(&mut admin, load.program)?;
            let sql = format!(
                "SELECT count(*) FROM network_activity WHERE activity = 'close' AND remote_port = {}",
                load.port
            );
            let connections = admin.query_number(&sql)?.unsigned_abs();
            server.stop()?;
            Ok(Seen { starts: Some(starts), connections: Some(connections) })
        };
        look().map_err(|error| error.to_string())
    }
}

impl Drop for Picket {
    fn drop(&mut self) {
        self.running = None;
        if let Some(folder) = self.agent.state_dir().parent() {
            std::fs::remove_dir_all(folder).ok();
        }
    }
}
