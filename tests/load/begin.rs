//! What the agent costs while nothing happens, and how soon it sees after it was started.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use picket_tests::agent_report::AgentReport;
use picket_tests::sandbox::Sandbox;
use picket_tests::wait;

use crate::storm::write_program;
use crate::{alone, measured};

/// How often a program is started while the agent begins.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// How long the agent idles.
const IDLE: Duration = Duration::from_secs(30);

/// How long everything may take to be stored.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_program_that_starts_soon_after_the_agent_is_seen() {
    let _alone = alone();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: programs that end at once are seen only with the kernel's events, which need root");
        return;
    }
    let sandbox = Sandbox::new(std::path::Path::new(env!("CARGO_BIN_EXE_picket-demo"))).unwrap();
    let program = write_program(sandbox.folder()).unwrap();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = measured(sandbox.agent("agent"));
    agent.enroll(&server).unwrap();

    let (begin, is_over) = (SystemTime::now(), AtomicBool::new(false));
    let mut running = agent.spawn().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(Command::new(&program).status().unwrap().success());
                thread::sleep(PROBE_PAUSE);
            }
        });
        let first = running.wait_for("a first status", DEADLINE, |_| true);
        is_over.store(true, Ordering::Relaxed);
        first.unwrap();
    });
    let sql = format!(
        "SELECT CAST(coalesce(min(CAST(time AS BIGINT)), 0) AS BIGINT) AS first FROM process_activity \
         WHERE activity = 'start' AND NOT coalesce(seeded, false) AND executable = '{}'",
        program.display()
    );
    let first_us = wait::until("a first event", DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        match admin.query_number(&sql).map_err(|error| error.to_string())? {
            0 => Err("none".to_owned()),
            first_us => Ok(first_us.unsigned_abs()),
        }
    })
    .unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
    let after = (UNIX_EPOCH + Duration::from_micros(first_us)).duration_since(begin).unwrap();
    println!("first event {after:.0?} after the agent was started");
    assert!(after < DEADLINE);
}

#[test]
#[ignore = "half a minute in which nothing else should run"]
fn what_idling_costs() {
    let _alone = alone();
    let sandbox = Sandbox::new(std::path::Path::new(env!("CARGO_BIN_EXE_picket-demo"))).unwrap();
    let server = sandbox.server().start().unwrap();
    let agent = measured(sandbox.agent("agent"));
    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();
    // What runs already is reported first.
    thread::sleep(IDLE / 5);
    let report = || AgentReport::from_status(&running.status().unwrap());
    let before = report();
    thread::sleep(IDLE);
    let after = report();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "idle: {:.2} % of a core, {} events meanwhile; {:.1} MiB resident (load average {})",
        (after.cpu_seconds - before.cpu_seconds) / IDLE.as_secs_f64() * 100.0,
        after.events_accepted - before.events_accepted,
        after.resident_bytes as f64 / f64::from(1 << 20),
        load.split(' ').next().unwrap_or_default()
    );
    running.stop().unwrap();
    server.stop().unwrap();
}
