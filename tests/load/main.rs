//! The agent under the load it is made for, with a model in force: what it sees, counts, uses, and how soon it alerts.
//!
//! A test program of its own: Cargo runs these one after the other, so that no other test takes the processor away.
//! Needs root for the kernel's events; prints `skipped: …` without it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::accounting::Stored;
use picket_tests::admin::AdminClient;
use picket_tests::agent_report::AgentReport;
use picket_tests::learning;
use picket_tests::sandbox::{Agent, RunningAgent, Sandbox};
use picket_tests::wait;

use crate::alerts::AlertWatch;
use crate::generator::{Load, Spawned};

mod alerts;
mod begin;
mod generator;
mod rate;
mod storm;

/// One test at a time: each wants the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another `picket-agent` to measure: one that was built as it is shipped.
const PROGRAM_VARIABLE: &str = "PICKET_AGENT_PROGRAM";

/// The agent with the program that is to be measured, where one is named.
fn measured(agent: Agent) -> Agent {
    match std::env::var_os(PROGRAM_VARIABLE) {
        Some(program) => agent.program(Path::new(&program)),
        None => agent,
    }
}

/// The load.
const PROCESSES_PER_SECOND: u32 = 500;
const CONNECTIONS_PER_SECOND: u32 = 1_000;
const SECONDS: u32 = 8;

/// Most memory the agent may use, bytes. Here the pages of a binary that is the server too are part of it; what is the
/// agent's own is printed beside it.
const MEMORY_MAX: u64 = 64 << 20;

/// How soon half of the alerts must be there. Each of them should be, but other work of the machine is in these times.
const LATENCY_MAX: Duration = Duration::from_millis(250);

/// Programs started for each verdict, to learn from.
const LESSONS: usize = 60;

/// Programs started to see how soon they are alerted.
const PROBES: usize = 50;

/// How long anything else may take.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn full_load_is_accounted_for_in_bounded_memory_and_alerts_come_at_once() {
    let _alone = alone();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the agent sees this load only with the kernel's events, which need root");
        return;
    }
    let sandbox = Sandbox::new(Path::new(env!("CARGO_BIN_EXE_picket-demo"))).unwrap();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = measured(sandbox.agent("agent")).config("[detector]\nalert_repeats_max = 0\n");
    agent.enroll(&server).unwrap();
    let host = admin.hosts().unwrap().remove(0).host_id;
    let mut running = agent.start().unwrap();
    let sensors = AgentReport::from_status(&running.status().unwrap()).sensors;
    if let Some(blind) = sensors.iter().find(|sensor| sensor.mode == "polling") {
        println!("skipped: the sensor of {} works by {} here: {}", blind.name, blind.mode, blind.reason);
        return;
    }

    let programs = Programs::make(sandbox.folder());
    put_a_model_in_force(&mut running, &mut admin, &host, &programs);
    let watch = AlertWatch::start(&agent.state_dir().join("alerts.jsonl"));
    let quiet: Vec<Duration> = (0..PROBES)
        .map(|number| {
            let probe = Spawned::run(&programs.attack, &format!("--probe={number}"));
            watch.latency(&probe, DEADLINE).expect("an alert about every probe")
        })
        .collect();

    let before = cpu_seconds(&running);
    let load = Load::run(&programs.work, PROCESSES_PER_SECOND, CONNECTIONS_PER_SECOND, SECONDS, &programs.attack);
    let spent = cpu_seconds(&running) - before;
    let under_load: Vec<Duration> =
        load.probes.iter().filter_map(|probe| watch.latency(probe, Duration::from_secs(5))).collect();
    let memory = Memory::of(running.process.pid());
    running.stop().unwrap();

    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let last = AgentReport::from_status(&agent.status().unwrap());
    let (epoch, generated) = (counters.epoch.0, counters.accepted + counters.reported.total());
    // What it could not deliver while it stopped.
    let rest = agent.config("[sensor.process]\nmode = \"off\"\n[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n[sensor.kernel]\nmode = \"off\"\n").start().unwrap();
    let stored = wait::until("everything to be stored", DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        let stored = Stored::read(&mut admin, &host).map_err(|error| error.to_string())?;
        let settled = stored.events_of(epoch) + stored.lost_of(epoch) >= generated;
        if settled { Ok(stored) } else { Err(format!("{stored:?}")) }
    })
    .unwrap();
    rest.stop().unwrap();

    println!("{load}");
    println!("{generated} events generated, {} stored, lost {:?}", stored.events_of(epoch), stored.lost_total());
    println!("{memory}, {spent:.2} s of processor under load");
    println!("process start to alert, quiet: {}", distribution(&quiet));
    println!("process start to alert, under load ({} probes): {}", load.probes.len(), distribution(&under_load));

    assert_eq!(stored.events_of(epoch) + stored.lost_of(epoch), generated, "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    check_what_was_seen(&mut admin, &load, stored.lost_of(epoch));
    let said = last.resident_bytes_peak;
    assert!(memory.peak < MEMORY_MAX && said < MEMORY_MAX, "{memory}, {said} bytes as the agent says");
    assert!(median(&quiet) < LATENCY_MAX, "{}", distribution(&quiet));
    server.stop().unwrap();
}

/// Two programs that do nothing.
struct Programs {
    work: PathBuf,
    attack: PathBuf,
}

impl Programs {
    fn make(folder: &Path) -> Self {
        let work = std::fs::canonicalize("/bin/true").unwrap();
        let attack = folder.join("updater");
        std::fs::copy(&work, &attack).unwrap();
        Self { work, attack }
    }
}

/// From the agent's own events to a model that it judges with.
fn put_a_model_in_force(running: &mut RunningAgent, admin: &mut AdminClient, host: &str, programs: &Programs) {
    for number in 0..LESSONS {
        Spawned::run(&programs.work, &format!("--item={number}"));
        Spawned::run(&programs.attack, &format!("--probe={number}"));
    }
    let attack = programs.attack.to_str().unwrap();
    wait::until_true("the lessons to be stored", DEADLINE, || {
        admin.commit_lake().unwrap();
        let sql = format!("SELECT count(*) FROM process_activity WHERE activity = 'start' AND executable = '{attack}'");
        admin.query_number(&sql).unwrap() >= LESSONS as i64
    })
    .unwrap();
    let work = programs.work.to_str().unwrap();
    let is_malicious = |program: &str| (program == attack || program == work).then_some(program == attack);
    let models = learning::train_on_process_starts(admin, host, &["decision_tree"], is_malicious).unwrap();
    let digest = &models[0].model_digest;
    admin.push_model(digest, true).unwrap();
    running
        .wait_for("the model to be in force", DEADLINE, |status| {
            AgentReport::from_status(status).has_active("process_start", digest)
        })
        .unwrap();
}

/// Of what was really done, no more is missing than was counted as lost.
fn check_what_was_seen(admin: &mut AdminClient, load: &Load, lost: u64) {
    let mut missing = 0;
    for activity in ["start", "exit"] {
        let sql = format!(
            "SELECT pid, count(*) AS n FROM process_activity WHERE activity = '{activity}' \
             AND (seeded IS NULL OR NOT seeded) GROUP BY pid"
        );
        let number = |row: &serde_json::Map<String, serde_json::Value>, key: &str| row[key].as_u64().unwrap();
        let seen: BTreeMap<u64, u64> =
            admin.query(&sql).unwrap().iter().map(|row| (number(row, "pid"), number(row, "n"))).collect();
        for (pid, times) in load.processes_by_pid() {
            missing += times.saturating_sub(seen.get(&u64::from(pid)).copied().unwrap_or(0));
        }
    }
    for end in ["local_port", "remote_port"] {
        let sql = format!("SELECT count(*) FROM network_activity WHERE activity = 'close' AND {end} = {}", load.port);
        let seen = admin.query_number(&sql).unwrap().unsigned_abs();
        assert!(seen <= load.connections, "{seen} ends of {} connections", load.connections);
        missing += load.connections - seen;
    }
    assert!(missing <= lost, "{missing} events are missing, {lost} were counted as lost");
}

fn cpu_seconds(running: &RunningAgent) -> f64 {
    AgentReport::from_status(&running.status().unwrap()).cpu_seconds
}

/// The kernel's word for what a process uses, bytes.
struct Memory {
    peak: u64,
    now: u64,
    /// Of these, parts of the program file and its libraries.
    of_files: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Self { peak: bytes("VmHWM:"), now: bytes("VmRSS:"), of_files: bytes("RssFile:") }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [peak, now, of_files] = [self.peak, self.now, self.of_files].map(|bytes| bytes as f64 / f64::from(1 << 20));
        write!(out, "peak memory {peak:.1} MiB; {now:.1} MiB at the end, {of_files:.1} MiB of them mapped files")
    }
}

fn median(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}

/// The smallest time that this share of all times does not exceed.
fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

fn distribution(times: &[Duration]) -> String {
    let [half, most, nearly_all, all] = [0.5, 0.9, 0.99, 1.0].map(|share| quantile(times, share));
    format!("{} alerts, p50 {half:?}, p90 {most:?}, p99 {nearly_all:?}, longest {all:?}", times.len())
}
