//! Plays a plan: starts each instance at its time, ends what does not end, and keeps the truth.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Round;
use super::activity::{Activity, Folders, Launch, Prepared, Program, Stage, resolve_own_service};
use super::helper::client::ConnectionRecord;
use super::helper::{HelperPlan, PLAN_VARIABLE};
use super::plan::{Plan, PlannedInstance};
use super::services::{Services, spawn_helper, wait_for_port};
use super::tools::Tools;
use super::truth::{GroundTruth, InstanceTruth, RootProcess};
use crate::process::{self, ManagedProcess};

/// How long one root process may run.
const ROOT_DEADLINE: Duration = Duration::from_secs(25);

/// Instances played at the same time; more wait.
const INSTANCES_AT_ONCE_MAX: usize = 12;

/// How often a waiting player looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The range's folders on this machine, removed with whatever is left in them when dropped.
#[derive(Debug)]
pub struct Range {
    executable: PathBuf,
    folders: Folders,
    tools: Tools,
}

impl Range {
    /// Builds the range's folders below `root`. `executable` is a `picket-demo`.
    ///
    /// # Errors
    /// A folder or file cannot be written.
    pub fn build(executable: &Path, root: &Path) -> io::Result<Self> {
        let folders = Folders {
            home: root.join("home"),
            source: root.join("src"),
            etc: root.join("etc"),
            spool: root.join("spool"),
            tmp: root.join("tmp"),
            shm: Self::memory_folder(),
            scaffold: root.join("scaffold"),
        };
        let range = Self { executable: executable.to_owned(), folders, tools: Tools::detect() };
        range.write_folders()?;
        Ok(range)
    }

    /// This process's folder in memory, outside of the range's root; none where there is no such place.
    pub fn memory_folder() -> Option<PathBuf> {
        let shm = Path::new("/dev/shm");
        shm.is_dir().then(|| shm.join(format!("picket-range-{}", std::process::id())))
    }

    /// Programs of this machine.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    fn write_folders(&self) -> io::Result<()> {
        let folders = &self.folders;
        for folder in [&folders.home, &folders.etc, &folders.spool, &folders.tmp, &folders.scaffold] {
            fs::create_dir_all(folder)?;
        }
        for user in &super::activity::ACCOUNTS[..3] {
            fs::create_dir_all(folders.home.join(user))?;
            fs::write(folders.home.join(user).join("notes.txt"), "remember the milk\n".repeat(50))?;
        }
        if let Some(shm) = &folders.shm {
            fs::create_dir_all(shm)?;
        }
        for module in 0..4 {
            let folder = folders.source.join(format!("module{module}"));
            fs::create_dir_all(&folder)?;
            for file in ["code.c", "list.c", "main.c"] {
                fs::write(
                    folder.join(file),
                    format!("#include <stdio.h>\n/* TODO: {module} */\nint value;\n").repeat(40),
                )?;
            }
            fs::write(folder.join("notes.txt"), "a note about the module\nanother one\n".repeat(100))?;
        }
        Ok(())
    }

    /// Starts the shared services.
    ///
    /// # Errors
    /// One does not come up.
    pub fn start_services(&self) -> io::Result<Services> {
        Services::start(&self.executable, &self.folders)
    }

    /// Plays `plan` and returns the truth about it.
    ///
    /// `progress` is told how many instances have ended. When `stop` becomes true nothing new is started, what runs is
    /// killed, and the truth so far is returned.
    ///
    /// # Errors
    /// The clock is before 1970. An instance that fails says so in its own truth.
    pub fn play(
        &self,
        plan: &Plan,
        services: &Services,
        stop: &AtomicBool,
        progress: &(dyn Fn(usize) + Sync),
    ) -> io::Result<GroundTruth> {
        let began = Instant::now();
        let started_unix_ns = unix_ns()?;
        let running = AtomicUsize::new(0);
        let ended = AtomicUsize::new(0);
        let instances = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for planned in &plan.instances {
                while !stop.load(Ordering::Relaxed)
                    && (began.elapsed() < planned.offset || running.load(Ordering::Acquire) >= INSTANCES_AT_ONCE_MAX)
                {
                    std::thread::sleep(LOOK_INTERVAL);
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                running.fetch_add(1, Ordering::AcqRel);
                let (running, ended) = (&running, &ended);
                threads.push(scope.spawn(move || {
                    let truth = self.play_instance(plan.round, planned, services, stop);
                    running.fetch_sub(1, Ordering::AcqRel);
                    progress(ended.fetch_add(1, Ordering::AcqRel) + 1);
                    truth
                }));
            }
            threads.into_iter().map(|thread| thread.join().map_err(|_| io::Error::other("a player died"))?).collect()
        });
        let instances: io::Result<Vec<InstanceTruth>> = instances;
        let mut instances = instances?;
        for visit in services.visits(&self.folders)? {
            // The services outlive a round, the numbers of its instances do not.
            if visit.connection.time_unix_ns >= started_unix_ns
                && let Some(instance) = instances.get_mut(visit.instance)
            {
                instance.connections.push(visit.connection);
            }
        }
        Ok(GroundTruth {
            round: plan.round,
            instances,
            service_pids: services.pids(),
            started_unix_ns,
            ended_unix_ns: unix_ns()?,
        })
    }

    fn play_instance(
        &self,
        round: Round,
        planned: &PlannedInstance,
        services: &Services,
        stop: &AtomicBool,
    ) -> io::Result<InstanceTruth> {
        let (technique, style) = match &planned.activity {
            Activity::Attack(attack) => (Some(attack.technique()), attack.style()),
            Activity::Benign(benign) => (None, benign.name().to_owned()),
        };
        let mut truth = InstanceTruth {
            id: planned.id.clone(),
            technique,
            style,
            roots: Vec::new(),
            service_pids: Vec::new(),
            connections: Vec::new(),
            exclusive_ports: Vec::new(),
            started_unix_ns: unix_ns()?,
            ended_unix_ns: 0,
            failure: None,
        };
        let mut stage = Stage::new(&self.folders, &self.tools, services.addresses, round, planned);
        if let Err(error) = self.run_activity(planned, &mut stage, &mut truth, stop) {
            truth.failure = Some(error.to_string());
        }
        truth.ended_unix_ns = unix_ns()?;
        Ok(truth)
    }

    fn run_activity(
        &self,
        planned: &PlannedInstance,
        stage: &mut Stage<'_>,
        truth: &mut InstanceTruth,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut prepared = planned.activity.prepare(stage)?;
        let mut service = self.start_own_service(&mut prepared, stage)?;
        if let OwnServiceState::Running(process) = &service {
            truth.service_pids.push(process.pid());
        }
        truth.exclusive_ports.clone_from(&prepared.exclusive_ports);
        for launch in &prepared.roots {
            let mut process = self.launch(launch, stage)?;
            let started_unix_ns = unix_ns()?;
            let outcome = self.wait_for_root(&mut process, &mut service, truth, stop);
            truth.roots.push(RootProcess { pid: process.pid(), started_unix_ns, ended_unix_ns: unix_ns()? });
            if let Some(record) = &launch.record {
                truth.connections.extend(read_records(record)?);
            }
            outcome?;
        }
        Ok(())
    }

    fn start_own_service(&self, prepared: &mut Prepared, stage: &mut Stage<'_>) -> io::Result<OwnServiceState> {
        let Some(own) = prepared.service.clone() else {
            return Ok(OwnServiceState::None);
        };
        let plan_file = stage.scaffold("plan");
        let name = stage.tool_name();
        let Some(late_by_ms) = own.late_by_ms else {
            let mut process = spawn_helper(&self.executable, &name, &own.plan, &plan_file)?;
            resolve_own_service(prepared, wait_for_port(&mut process, &own.ready)?);
            return Ok(OwnServiceState::Running(process));
        };
        // The port must be known now although its service comes later: take a free one and let it go again.
        let port = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        resolve_own_service(prepared, port);
        let mut plan = own.plan;
        let HelperPlan::HttpServer { port: asked, .. } = &mut plan else {
            return Err(io::Error::other("only an HTTP server can come late"));
        };
        *asked = port;
        let due = Instant::now() + Duration::from_millis(late_by_ms);
        Ok(OwnServiceState::Late { due, name, plan, plan_file })
    }

    fn launch(&self, launch: &Launch, stage: &mut Stage<'_>) -> io::Result<ManagedProcess> {
        let mut command = match &launch.program {
            Program::Shell { script } => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(script);
                command
            }
            Program::Command { path, arguments, input } => {
                let mut command = Command::new(path);
                command.args(arguments);
                if let Some(input) = input {
                    command.stdin(fs::File::open(input)?);
                }
                command
            }
            Program::Helper { name, arguments, plan } => {
                let plan_file = stage.scaffold("plan");
                fs::write(&plan_file, serde_json::to_vec(plan)?)?;
                let mut command = Command::new(&self.executable);
                std::os::unix::process::CommandExt::arg0(&mut command, name);
                command.args(arguments).env(PLAN_VARIABLE, plan_file);
                command
            }
            Program::Script { path, script, tools } => {
                let mut script = script.clone();
                for (index, (name, plan)) in tools.iter().enumerate() {
                    let plan_file = stage.scaffold("plan");
                    fs::write(&plan_file, serde_json::to_vec(plan)?)?;
                    let bin = stage.scaffold("bin");
                    fs::create_dir_all(&bin)?;
                    symlink(&self.executable, bin.join(name))?;
                    let call = format!("{PLAN_VARIABLE}={} {}/{name}", plan_file.display(), bin.display());
                    script = script.replace(&format!("@TOOL{index}@"), &call);
                }
                fs::write(path, script)?;
                let mut command = Command::new("/bin/sh");
                command.arg(path);
                command
            }
        };
        command.current_dir(&launch.directory).stdout(Stdio::null()).stderr(Stdio::null());
        if !matches!(launch.program, Program::Command { input: Some(_), .. }) {
            command.stdin(Stdio::null());
        }
        ManagedProcess::spawn("a process of the range", &mut command)
    }

    fn wait_for_root(
        &self,
        root: &mut ManagedProcess,
        service: &mut OwnServiceState,
        truth: &mut InstanceTruth,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let deadline = Instant::now() + ROOT_DEADLINE;
        let status = loop {
            if let Some(status) = root.try_wait()? {
                break status;
            }
            if stop.load(Ordering::Relaxed) {
                root.kill()?;
                return Err(io::Error::other("stopped"));
            }
            if Instant::now() >= deadline {
                root.kill()?;
                return Err(io::Error::other(format!("killed after {} s", ROOT_DEADLINE.as_secs())));
            }
            if let Some(started) = service.start_when_due(&self.executable)? {
                truth.service_pids.push(started);
            }
            std::thread::sleep(LOOK_INTERVAL);
        };
        if status.success() { Ok(()) } else { Err(io::Error::other(process::describe(status))) }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(shm) = &self.folders.shm {
            // Best effort: the folder is named after this process, a later run never meets it.
            fs::remove_dir_all(shm).ok();
        }
    }
}

/// A service of one instance.
enum OwnServiceState {
    None,
    Late { due: Instant, name: String, plan: HelperPlan, plan_file: PathBuf },
    Running(ManagedProcess),
}

impl OwnServiceState {
    /// Starts a late service when its time has come; its process id when that is now.
    fn start_when_due(&mut self, executable: &Path) -> io::Result<Option<u32>> {
        let Self::Late { due, name, plan, plan_file } = self else {
            return Ok(None);
        };
        if Instant::now() < *due {
            return Ok(None);
        }
        let process = spawn_helper(executable, name, plan, plan_file)?;
        let pid = process.pid();
        *self = Self::Running(process);
        Ok(Some(pid))
    }
}

fn read_records(path: &Path) -> io::Result<Vec<ConnectionRecord>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // The program did not get as far as its first connection.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // A killed program may leave half a line at the end.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn unix_ns() -> io::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    i64::try_from(since.as_nanos()).map_err(io::Error::other)
}
