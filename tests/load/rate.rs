//! Capture is complete: of everything that was done at a rate, each event is stored or counted as lost.
//!
//! The server is away during the load, so that it does not share the processor with agent and generator; what the agent
//! kept meanwhile is delivered afterwards. Each test has a short form, and a long one that is run by name:
//! `cargo test --workspace --test load -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::accounting::Stored;
use picket_tests::agent_report::AgentReport;
use picket_tests::sandbox::Sandbox;
use picket_tests::wait;

use crate::storm::{Done, Storm, write_program};
use crate::{alone, measured};

/// The full rate.
const PROCESSES_PER_SECOND: u32 = 5_000;
const CONNECTIONS_PER_SECOND: u32 = 20_000;

/// Seconds of a short and of a long run.
const SHORT: u32 = 2;
const LONG: u32 = 60;

/// Processes of a burst.
const BURST_SHORT: u32 = 5_000;
const BURST_LONG: u32 = 100_000;

/// How long everything may take to be stored.
const DEADLINE: Duration = Duration::from_secs(600);

fn at_full_rate(seconds: u32) -> Storm {
    at_part_of_rate(1, seconds)
}

fn at_part_of_rate(part: u32, seconds: u32) -> Storm {
    let (processes_per_second, connections_per_second) = (PROCESSES_PER_SECOND / part, CONNECTIONS_PER_SECOND / part);
    Storm {
        processes_per_second,
        processes: processes_per_second * seconds,
        connections_per_second,
        connections: connections_per_second * seconds,
    }
}

fn burst(processes: u32) -> Storm {
    Storm { processes_per_second: u32::MAX, processes, connections_per_second: 1, connections: 0 }
}

#[test]
fn what_happens_at_full_rate_is_stored_or_counted() {
    capture("full rate", at_full_rate(SHORT));
}

#[test]
fn a_burst_of_short_lived_processes_is_stored_or_counted() {
    capture("burst of processes", burst(BURST_SHORT));
}

#[test]
#[ignore = "a minute and more"]
fn a_minute_at_full_rate_is_stored_or_counted() {
    capture("a minute at full rate", at_full_rate(LONG));
}

#[test]
#[ignore = "a minute and more"]
fn a_minute_at_half_rate_loses_nothing() {
    if let Some(captured) = capture("a minute at half rate", at_part_of_rate(2, LONG)) {
        assert_eq!(captured.lost, 0, "{captured}");
    }
}

#[test]
#[ignore = "a minute and more"]
fn a_burst_of_100_000_short_lived_processes_is_stored_or_counted() {
    capture("burst of 100,000 processes", burst(BURST_LONG));
}

/// What came of a storm.
struct Captured {
    done: Done,
    /// The same without an agent.
    alone: Done,
    generated: u64,
    stored: u64,
    /// Of these, what the storm did itself.
    stored_of_storm: u64,
    /// What is stored of it, by kind.
    told: BTreeMap<String, u64>,
    lost: u64,
    causes: String,
    cpu_seconds: f64,
    resident_bytes_peak: u64,
}

/// Runs a storm beside an agent and follows up what it saw. `None` where it cannot see it.
fn capture(what: &str, storm: Storm) -> Option<Captured> {
    let _alone = alone();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the agent sees this load only with the kernel's events, which need root");
        return None;
    }
    let sandbox = Sandbox::new(std::path::Path::new(env!("CARGO_BIN_EXE_picket-demo"))).unwrap();
    let program = write_program(sandbox.folder()).unwrap();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let agent = measured(sandbox.agent("agent"));
    agent.enroll(&server).unwrap();
    let host = server.admin().unwrap().hosts().unwrap().remove(0).host_id;
    server.stop().unwrap();

    let alone = storm.run(&program);
    let running = agent.start().unwrap();
    let before = AgentReport::from_status(&running.status().unwrap());
    if let Some(blind) = before.sensors.iter().take(2).find(|sensor| sensor.mode != "ebpf") {
        println!("skipped: the sensor of {} works by {} here: {}", blind.name, blind.mode, blind.reason);
        return None;
    }
    let done = storm.run(&program);
    running.stop().unwrap();
    let last = AgentReport::from_status(&agent.status().unwrap());
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let (epoch, generated) = (counters.epoch.0, counters.accepted + counters.reported.total());

    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let rest = agent.config("[sensor.process]\nmode = \"off\"\n[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n[sensor.kernel]\nmode = \"off\"\n").start().unwrap();
    let stored = wait::until("everything to be stored", DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        let stored = Stored::read(&mut admin, &host).map_err(|error| error.to_string())?;
        let settled = stored.events_of(epoch) + stored.lost_of(epoch) >= generated;
        if settled { Ok(stored) } else { Err(format!("{stored:?}")) }
    })
    .unwrap();
    rest.stop().unwrap();

    let program = program.to_str().unwrap();
    let port = done.port;
    // A process whose start was lost has no name.
    let by_kind = format!(
        "SELECT CASE executable WHEN '{program}' THEN activity ELSE activity || ' without a name' END AS kind, count(*) AS n \
         FROM process_activity WHERE epoch = {epoch} AND (executable = '{program}' OR coalesce(executable, '') = '') \
         GROUP BY 1 UNION ALL \
         SELECT activity || CASE WHEN local_port = {port} THEN ', accepting end' ELSE ', calling end' END, count(*) \
         FROM network_activity WHERE epoch = {epoch} AND (local_port = {port} OR remote_port = {port}) GROUP BY 1"
    );
    let kinds = admin.query(&by_kind).unwrap();
    let told: BTreeMap<String, u64> =
        kinds.iter().map(|row| (row["kind"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect();
    let of = |kind: &str| told.get(kind).copied().unwrap_or_default();
    // Nameless starts are none of the storm's; nameless ends at most as many as it has processes.
    let exits = (of("exit") + of("exit without a name")).min(done.processes);
    let of_connections: u64 = told.iter().filter(|(kind, _)| kind.ends_with(" end")).map(|(_, events)| events).sum();
    let stored_of_storm = of("start") + exits + of_connections;
    server.stop().unwrap();
    let captured = Captured {
        done,
        alone,
        generated,
        stored: stored.events_of(epoch),
        stored_of_storm,
        told,
        lost: stored.lost_of(epoch),
        causes: format!("{:?}", stored.lost.get(&epoch).cloned().unwrap_or_default()),
        cpu_seconds: last.cpu_seconds - before.cpu_seconds,
        resident_bytes_peak: last.resident_bytes_peak,
    };
    println!("{what}: {captured}");
    captured.check(stored.duplicates);
    Some(captured)
}

impl Captured {
    fn check(&self, duplicates: u64) {
        assert_eq!(duplicates, 0);
        assert_eq!(self.stored + self.lost, self.generated, "{self}");
        let done = self.done.events();
        // That the storm's own socket listens is told as well.
        assert!(self.stored_of_storm <= done + 1, "more than was done: {self}");
        assert!(done.saturating_sub(self.stored_of_storm) <= self.lost, "missing and not counted: {self}");
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.done.events();
        writeln!(out, "{}", self.done)?;
        writeln!(out, "  without the agent: {}", self.alone)?;
        writeln!(
            out,
            "  {events} events done, {} of them stored; {} generated in all = {} stored + {} lost {}",
            self.stored_of_storm, self.generated, self.stored, self.lost, self.causes
        )?;
        writeln!(out, "  {:?}", self.told)?;
        write!(
            out,
            "  agent: {:.2} s of processor, {:.1} us an event, {:.0} % of one; peak memory {:.1} MiB",
            self.cpu_seconds,
            self.cpu_seconds * 1e6 / events as f64,
            self.cpu_seconds / self.done.took().as_secs_f64() * 100.0,
            self.resident_bytes_peak as f64 / f64::from(1 << 20)
        )
    }
}
