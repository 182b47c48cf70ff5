//! Damaged files of the agent's store and accounts, each in turn.

use std::fs;
use std::path::{Path, PathBuf};

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::sandbox::Agent;
use picket_tests::wait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::{DELIVERY_DEADLINE, record, sandbox, wait_for_events};

/// Events of each life.
const EVENTS: u64 = 3_000;

/// What the agent keeps: the buffer with everything in it, the two files of its accounts, and who it is.
const KEPT: [&str; 4] = ["buffer", "ledger", "ledger.history", "identity"];

/// Does something to the bytes of a file.
type Damage = fn(&mut Vec<u8>);

/// Ways to damage a file.
const DAMAGES: [(&str, Damage); 3] = [
    ("random bytes", |bytes| StdRng::seed_from_u64(7).fill(&mut bytes[..])),
    ("random bytes in the middle", |bytes| {
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        StdRng::seed_from_u64(8).fill(&mut bytes[from..to]);
    }),
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
];

fn files_below(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| files_below(&entry)).collect()
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Lets the agent live on what is in its folder until it has seen all its events; returns its last status.
fn live_on(agent: &Agent, case: &str) -> Value {
    let ledger = agent.state_dir().join("ledger");
    let before = Ledger::read(&ledger).unwrap().map(|counters| counters.epoch);
    let mut running = agent.spawn().unwrap_or_else(|error| panic!("{case}: {error}"));
    wait::until_true(format!("{case}: the events of this life"), DELIVERY_DEADLINE, || {
        assert!(running.process.is_running(), "{case}: {}", running.log_tail());
        let counters = Ledger::read(&ledger).unwrap();
        counters.is_some_and(|counters| Some(counters.epoch) != before && counters.accepted >= EVENTS)
    })
    .unwrap();
    running.stop().unwrap_or_else(|error| panic!("{case}: {error}"));
    let status = agent.status().unwrap();
    assert_eq!(status["stopped"], true, "{case}");
    status
}

#[test]
fn each_damaged_file_is_survived_reported_and_accounted_for() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let recording = record(&sandbox, 3_000);
    let config = format!("{}[agent]\nstop_drain_ms = 0\n", recording::agent_config(&recording, 0, 1));
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    // A life whose events are delivered, and one whose events wait.
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, EVENTS);
    running.wait_for("delivery", DELIVERY_DEADLINE, |status| status["buffer"]["records"] == 0).unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
    let before = live_on(&agent, "undamaged");
    let epoch = AgentReport::from_status(&before).epoch;
    let pristine = sandbox.folder().join("pristine");
    fs::create_dir_all(&pristine).unwrap();
    for kept in KEPT {
        copy(&agent.state_dir().join(kept), &pristine.join(kept));
    }
    let mut files = files_below(&pristine);
    files.retain(|file| !file.starts_with(pristine.join("identity")));
    assert!(files.len() >= 6, "{files:?}");
    let mut set_aside = 0;
    let mut cases = 0;
    for file in &files {
        let relative = file.strip_prefix(&pristine).unwrap();
        let whole = fs::read(file).unwrap();
        for (kind, damage) in DAMAGES {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            if bytes == whole {
                continue;
            }
            for leftover in fs::read_dir(agent.state_dir()).unwrap().map(|entry| entry.unwrap().path()) {
                if leftover.is_dir() {
                    fs::remove_dir_all(leftover).unwrap()
                } else {
                    fs::remove_file(leftover).unwrap()
                }
            }
            copy(&pristine, agent.state_dir());
            fs::write(agent.state_dir().join(relative), bytes).unwrap();
            let case = format!("{} ({kind})", relative.display());
            let status = live_on(&agent, &case);
            let aside = status["buffer"]["stores_set_aside"].as_u64().unwrap();
            let unreadable = status["buffer"]["records_unreadable"].as_u64().unwrap();
            println!("{case}: {aside} stores set aside, {unreadable} records unreadable, {}", status["degraded"]);
            set_aside += aside;
            cases += 1;
            if aside > 0 {
                let damaged = agent.state_dir().join("buffer.damaged-0");
                assert!(damaged.is_dir(), "{case}: it is kept for people to look at");
                assert!(status["degraded"].to_string().contains("set aside"), "{case}: {}", status["degraded"]);
            }
            // Its events and those of the life before wait or are lost, and none of them is forgotten.
            let report = AgentReport::from_status(&status);
            for epoch in [epoch, report.epoch] {
                let account = report.epochs.iter().find(|account| account.epoch == epoch);
                let account = account.unwrap_or_else(|| panic!("{case}: the account is gone: {status}"));
                let lost: u64 = account.lost.values().sum();
                assert_eq!((account.generated, account.waiting + lost), (EVENTS, EVENTS), "{case}: {account:?}");
            }
        }
    }
    println!("{cases} cases, {set_aside} stores set aside");
    assert!(set_aside > 0);
}
