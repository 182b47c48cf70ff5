//! The demo's stages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picket_common::id::EventKey;

use super::alerts::AlertFollower;
use super::console::Console;
use super::learn::{self, Candidate, SUBJECTS};
use super::options::Options;
use super::play::play;
use super::summary::{AgentCost, Events, Sensor, Summary, Vectors};
use super::{checks, detection, interrupt};
use crate::accounting::Stored;
use crate::admin::AdminClient;
use crate::agent_report::AgentReport;
use crate::observed::Observed;
use crate::range::Round;
use crate::range::label::{Attribution, attribute};
use crate::range::player::Range;
use crate::range::services::Services;
use crate::range::truth::GroundTruth;
use crate::sandbox::{Agent, RunningAgent, RunningServer, Sandbox, SandboxError, Server};
use crate::vectors::{self, VectorsError};
use crate::wait;

/// How long events may take from the agent into the lake.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);

/// How long a pushed model may take until it is in force.
const PUSH_DEADLINE: Duration = Duration::from_secs(20);

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A part of the sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] crate::admin::AdminError),
    /// A file, a process or the range.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The vectors could not be compared.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
    /// Something did not come true in time.
    #[error(transparent)]
    TimedOut(#[from] wait::TimedOut),
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
}

/// Everything that runs.
struct Stage<'a> {
    console: &'a Console,
    seed: u64,
    server_home: Server,
    agent_home: Agent,
    agent: RunningAgent,
    agent_started: Instant,
    host_id: String,
    epoch: u64,
    range: Range,
    services: Services,
}

/// Runs all stages; what was found is in `summary`, also when a later stage fails.
///
/// # Errors
/// Something kept a stage from being done. A check that fails is no error.
pub fn run(options: &Options, console: &Console, summary: &mut Summary) -> Result<(), DemoError> {
    let executable = std::env::current_exe()?;
    let sandbox = match &options.state_dir {
        Some(folder) => Sandbox::in_folder(&executable, folder)?,
        None => Sandbox::new(&executable)?,
    };
    let temporary = options.state_dir.is_none().then(|| sandbox.folder().to_owned());
    interrupt::watch(temporary.into_iter().chain(Range::memory_folder()).collect())?;

    let mut clock = StageClock::new();
    let (mut stage, server) = set_up(options, console, &sandbox, summary)?;
    clock.lap(summary, "set_up");

    let mut admin = server.admin()?;
    let (truth_one, attribution) = round_one(&mut stage, &mut admin, &mut clock, summary)?;
    label(&stage, &mut admin, &truth_one, &attribution, summary)?;
    clock.lap(summary, "label");
    let best = learn(&stage, &mut admin, summary)?;
    if let Some(folder) = &options.reports {
        write_reports(&mut admin, console, &best, folder)?;
    }
    clock.lap(summary, "learn");
    push(&mut stage, &mut admin, &best, summary)?;
    clock.lap(summary, "push");

    console.stage("the server stops; the agent is on its own");
    let offline_from_ns = unix_ns();
    drop(admin);
    server.stop()?;
    clock.lap(summary, "server_stop");

    let (truth_two, alerted) = round_two(&mut stage)?;
    clock.lap(summary, "round_two");

    console.stage("the server is back");
    let server = stage.server_home.start()?;
    let mut admin = server.admin()?;
    let offline_until_ns = unix_ns();
    catch_up(&mut stage, &mut admin)?;
    clock.lap(summary, "catch_up");

    let epoch = stage.epoch;
    let known = detection::variants(&truth_one);
    check_detection(&stage, &mut admin, &truth_two, &alerted, &known, summary)?;
    finish(stage, &mut admin, (offline_from_ns, offline_until_ns), summary)?;
    server.stop()?;
    console.now("vectors are computed again from the stored events");
    let compared = vectors::compare(&trace_file(&sandbox), sandbox.server().state_dir(), epoch)?;
    summary.vectors = Vectors { agent: compared.agent, compared: compared.compared, different: compared.different };
    clock.lap(summary, "checks");
    checks::add_figures(summary);
    Ok(())
}

/// Where the agent writes the vectors it scores.
fn trace_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("vectors.jsonl")
}

/// Times the stages.
struct StageClock(Instant);

impl StageClock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self, summary: &mut Summary, stage: &str) {
        summary.seconds.insert(stage.to_owned(), self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

fn set_up<'a>(
    options: &Options,
    console: &'a Console,
    sandbox: &Sandbox,
    summary: &mut Summary,
) -> Result<(Stage<'a>, RunningServer), DemoError> {
    console.stage("a server and an agent, each a process of its own");
    console.line(&format!("state in {}", sandbox.folder().display()));
    let mut server_home = sandbox.server();
    let server = server_home.start()?;
    console.line(&format!("server: agents at {}, operators at {}", server.endpoints.agent, server.endpoints.admin));
    let trace = trace_file(sandbox);
    let agent_home = sandbox.agent("agent").config(&agent_config(&trace));
    agent_home.enroll(&server)?;
    let mut agent = agent_home.start()?;
    let agent_started = Instant::now();
    let mut admin = server.admin()?;
    let host = wait::until("the agent to connect", DELIVERY_DEADLINE, || {
        let hosts = admin.hosts().map_err(|error| error.to_string())?;
        hosts.into_iter().find(|host| host.connected).ok_or_else(|| "no host is connected".to_owned())
    })?;
    let status = agent.wait_for("its sensors", DELIVERY_DEADLINE, |status| {
        let report = AgentReport::from_status(status);
        report.epoch > 0 && !report.sensors.is_empty()
    })?;
    let report = AgentReport::from_status(&status);
    console.line(&format!("agent: enrolled as {}", host.host_id));
    for sensor in &report.sensors {
        let reason = if sensor.reason.is_empty() { String::new() } else { format!(" ({})", sensor.reason) };
        console.line(&format!("sensor {}: {}{reason}", sensor.name, sensor.mode));
        summary.sensors.push(Sensor {
            name: sensor.name.clone(),
            mode: sensor.mode.clone(),
            reason: sensor.reason.clone(),
        });
    }
    let range = Range::build(sandbox.executable(), &sandbox.folder().join("range"))?;
    let missing = range.tools().missing();
    if !missing.is_empty() {
        console.line(&format!("not on this machine, done without: {}", missing.join(", ")));
    }
    let services = range.start_services()?;
    let stage = Stage {
        console,
        seed: options.seed,
        server_home,
        agent_home,
        agent,
        agent_started,
        host_id: host.host_id,
        epoch: report.epoch,
        range,
        services,
    };
    Ok((stage, server))
}

fn round_one(
    stage: &mut Stage<'_>,
    admin: &mut AdminClient,
    clock: &mut StageClock,
    summary: &mut Summary,
) -> Result<(GroundTruth, Attribution), DemoError> {
    let console = stage.console;
    console.stage("round one: benign work and harmless imitations of attacks");
    let truth = play(&stage.range, &stage.services, Round::One, stage.seed, console, || Ok(()))?;
    clock.lap(summary, "round_one");
    catch_up(stage, admin)?;
    clock.lap(summary, "deliver");
    let attribution = attributed(stage, admin, &truth)?;
    summary.round_one = detection::played(&truth, &attribution);
    let played = &summary.round_one;
    console.line(&format!(
        "{} pieces of work and {} attacks played; {} process starts and connections of theirs stored, {} of others",
        played.benign_instances, played.attack_instances, played.subjects, played.background_subjects
    ));
    Ok((truth, attribution))
}

fn label(
    stage: &Stage<'_>,
    admin: &mut AdminClient,
    truth: &GroundTruth,
    attribution: &Attribution,
    summary: &mut Summary,
) -> Result<(), DemoError> {
    stage.console.stage("the script's truth becomes labels");
    let labels = learn::labels(truth, attribution, &stage.host_id);
    let added = admin.add_labels(&labels)?;
    let malicious = labels.iter().filter(|label| !label.technique.is_empty()).count();
    stage.console.line(&format!("{added} labels, {malicious} malicious; each with the activity it belongs to"));
    summary.labels = added;
    summary.check("every label is stored", added == labels.len() as u64, format!("{added} of {}", labels.len()));
    Ok(())
}

fn learn(stage: &Stage<'_>, admin: &mut AdminClient, summary: &mut Summary) -> Result<Vec<Candidate>, DemoError> {
    let console = stage.console;
    console.stage("data sets, and four algorithms on each");
    let (mut all, mut chosen) = (Vec::new(), Vec::new());
    for subject in SUBJECTS {
        let mut candidates = learn::train(admin, console, subject, stage.seed)?;
        let best = learn::best(&mut candidates)
            .ok_or_else(|| DemoError::Missing(format!("no model for {subject} was trained")))?;
        best.summary.pushed = true;
        chosen.push(best.clone());
        all.extend(candidates);
    }
    console.line(&learn::table(&all));
    console.line("held-out rows of attacks and work the models have not seen; rec@1%: recall with 1 % false positives");
    summary.model_bytes = chosen.iter().map(|candidate| candidate.summary.bytes).sum();
    summary.models = all.into_iter().map(|candidate| candidate.summary).collect();
    Ok(chosen)
}

fn write_reports(
    admin: &mut AdminClient,
    console: &Console,
    chosen: &[Candidate],
    folder: &Path,
) -> Result<(), DemoError> {
    std::fs::create_dir_all(folder)?;
    for candidate in chosen {
        let file = folder.join(format!("{}.html", candidate.summary.subject));
        std::fs::write(&file, admin.report_page(&candidate.digest)?)?;
        console.line(&format!("{}: all about it in {}", candidate.summary.subject, file.display()));
    }
    Ok(())
}

fn push(
    stage: &mut Stage<'_>,
    admin: &mut AdminClient,
    chosen: &[Candidate],
    summary: &mut Summary,
) -> Result<(), DemoError> {
    stage.console.stage("the best of each is signed, pushed, verified and in force");
    for candidate in chosen {
        match admin.push_model(&candidate.digest, false) {
            // A play of the range is small: now and then too small for the gate.
            Err(held) if held.is_held() => {
                stage.console.line(&format!("{held}; released by force, so that round two can be played"));
                admin.push_model(&candidate.digest, true)?;
            }
            pushed => drop(pushed?),
        }
    }
    let in_force = |report: &AgentReport| {
        chosen.iter().all(|candidate| report.has_active(&candidate.summary.subject, &candidate.digest))
    };
    let status = stage
        .agent
        .wait_for("the pushed models in force", PUSH_DEADLINE, |status| in_force(&AgentReport::from_status(status)))?;
    for model in &AgentReport::from_status(&status).active_models {
        let digest = model.model_digest.get(..12).unwrap_or(&model.model_digest);
        stage.console.line(&format!("{}: model {digest} in force on the agent", model.subject));
    }
    summary.check("the pushed models are in force on the agent", true, format!("{} models", chosen.len()));
    Ok(())
}

fn round_two(stage: &mut Stage<'_>) -> Result<(GroundTruth, BTreeSet<EventKey>), DemoError> {
    let console = stage.console;
    console.stage("round two: other parameters, variants never seen; alerts of the agent as they come");
    let mut follower = AlertFollower::new(stage.agent_home.alerts_file());
    let truth = play(&stage.range, &stage.services, Round::Two, stage.seed, console, || follower.follow(console))?;
    // The last events are on their way through the agent: its next status but one was taken after they had been judged.
    for _ in 0..2 {
        let before = stage.agent.status()?;
        stage.agent.wait_for("the last events", DELIVERY_DEADLINE, |status| *status != before)?;
    }
    follower.follow(console)?;
    console.line(&format!(
        "{} alerts, {} of them like others and not shown",
        follower.alerted.len(),
        follower.not_shown()
    ));
    Ok((truth, follower.alerted))
}

/// Waits until everything the agent has accepted so far can be queried.
fn catch_up(stage: &mut Stage<'_>, admin: &mut AdminClient) -> Result<(), DemoError> {
    let console = stage.console;
    let status = stage.agent.wait_for("a status", DELIVERY_DEADLINE, |_| true)?;
    let accepted = AgentReport::from_status(&status).events_accepted;
    let began = Instant::now();
    wait::until("everything to be delivered and stored", DELIVERY_DEADLINE, || {
        let stored =
            admin.commit_lake().and_then(|_| Stored::read(admin, &stage.host_id)).map_err(|error| error.to_string())?;
        let known = stored.events_of(stage.epoch) + stored.lost_of(stage.epoch);
        console.now(&format!("{known} of {accepted} events stored"));
        if known >= accepted { Ok(()) } else { Err(format!("{known} of {accepted} events")) }
    })?;
    console.line(&format!("{accepted} events delivered and stored {:.1} s later", began.elapsed().as_secs_f64()));
    Ok(())
}

fn attributed(stage: &Stage<'_>, admin: &mut AdminClient, truth: &GroundTruth) -> Result<Attribution, DemoError> {
    let observed = Observed::read(admin, &stage.host_id, stage.epoch)?.between(truth);
    Ok(attribute(truth, &observed.processes, &observed.connections))
}

fn check_detection(
    stage: &Stage<'_>,
    admin: &mut AdminClient,
    truth: &GroundTruth,
    alerted: &BTreeSet<EventKey>,
    known: &BTreeSet<String>,
    summary: &mut Summary,
) -> Result<(), DemoError> {
    let attribution = attributed(stage, admin, truth)?;
    summary.round_two = detection::judge(truth, &attribution, alerted, known);
    let console = stage.console;
    console.stage("what the agent found by itself");
    for (variant, found) in &summary.round_two.variants {
        let new = if found.new { "  never played before" } else { "" };
        console.line(&format!("{variant:<26} {} of {}{new}", found.found, found.played));
    }
    let two = &summary.round_two;
    console.line(&format!(
        "benign: {} of {} alerted {:?}; of attacks {} of {}; of this machine's other processes {} of {}",
        two.benign_alerted,
        two.benign_subjects,
        two.benign_alerted_by_kind,
        two.malicious_alerted,
        two.malicious_subjects,
        two.background_alerted,
        two.background_subjects
    ));
    Ok(())
}

/// Stops the agent and accounts for its whole life.
fn finish(
    stage: Stage<'_>,
    admin: &mut AdminClient,
    offline_ns: (i64, i64),
    summary: &mut Summary,
) -> Result<(), DemoError> {
    let console = stage.console;
    console.stage("accounting");
    drop(stage.services);
    stage.agent.stop()?;
    let report = AgentReport::from_status(&stage.agent_home.status()?);
    admin.commit_lake()?;
    let stored = Stored::read(admin, &stage.host_id)?;
    let offline = admin.query_number(&format!(
        "SELECT count(*) FROM (SELECT host_id, epoch, time FROM process_activity UNION ALL \
         SELECT host_id, epoch, time FROM network_activity) AS e WHERE host_id = '{}' AND epoch = {} \
         AND CAST(time AS BIGINT) BETWEEN {} AND {}",
        stage.host_id,
        stage.epoch,
        offline_ns.0 / 1000,
        offline_ns.1 / 1000
    ))?;
    let generated = report.generated();
    let known = stored.events_of(stage.epoch) + stored.lost_of(stage.epoch);
    summary.events = Events {
        generated,
        stored: stored.events_of(stage.epoch),
        lost: stored.lost_total(),
        duplicates: stored.duplicates,
        unaccounted: generated.cast_signed() - known.cast_signed(),
        offline: offline.unsigned_abs(),
    };
    summary.agent = AgentCost {
        cpu_seconds: report.cpu_seconds,
        wall_seconds: stage.agent_started.elapsed().as_secs_f64(),
        peak_rss_bytes: report.resident_bytes_peak,
    };
    console.line(&format!(
        "agent: {:.1} s of processor time in {:.0} s, {:.1} MiB at most",
        summary.agent.cpu_seconds,
        summary.agent.wall_seconds,
        summary.agent.peak_rss_bytes as f64 / f64::from(1 << 20)
    ));
    Ok(())
}

fn unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The agent's configuration: the defaults, but every alert written (the figures are about single subjects), quick to
/// find its server again, and with a trace of the vectors it scores.
fn agent_config(trace: &Path) -> String {
    format!("[detector]\nalert_repeats_max = 0\ntrace_vectors = {trace:?}\n[uplink]\nbackoff_max_ms = 1000\n")
}

impl Agent {
    /// Where its alerts are.
    pub fn alerts_file(&self) -> PathBuf {
        self.state_dir().join("alerts.jsonl")
    }
}
