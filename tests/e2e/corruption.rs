//! Damaged files of the agent's store and accounts, each in turn.

use std::fs;
use std::path::{Path, PathBuf};

use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::sandbox::Agent;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::{DELIVERY_DEADLINE, record, sandbox, wait_for_events};

/// Events of each life.
const EVENTS: u64 = 3_000;

/// What the agent keeps and would lose: the buffer with everything in it, and the two files of its accounts.
const KEPT: [&str; 3] = ["buffer", "ledger", "ledger.history"];

/// Ways to damage a file.
const DAMAGES: [(&str, fn(&mut Vec<u8>)); 4] = [
    ("random bytes", |bytes| StdRng::seed_from_u64(7).fill(&mut bytes[..])),
    ("random bytes in the middle", |bytes| {
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        StdRng::seed_from_u64(8).fill(&mut bytes[from..to]);
    }),
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
    ("emptied", Vec::clear),
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

/// Lets the agent begin another life on what is in its folder; returns its last status.
fn live_on(agent: &Agent, case: &str) -> Value {
    let mut running = agent.start().unwrap_or_else(|error| panic!("{case}: {error}"));
    wait_for_events(&mut running, EVENTS);
    let status = running
        .wait_for("all of them to be stored", DELIVERY_DEADLINE, |status| {
            let report = AgentReport::from_status(status);
            report.epochs.last().is_some_and(|epoch| epoch.in_flight == 0 && epoch.waiting >= EVENTS)
        })
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    running.stop().unwrap_or_else(|error| panic!("{case}: {error}"));
    status
}

#[test]
fn each_damaged_file_is_survived_reported_and_accounted_for() {
    let sandbox = sandbox();
    let recording = record(&sandbox, 3_000);
    // It is not enrolled: everything waits.
    let config = format!("{}[agent]\nstop_drain_ms = 0\n", recording::agent_config(&recording, 0, 1));
    let agent = sandbox.agent("agent").config(&config);
    let before = live_on(&agent, "undamaged");
    let epoch = AgentReport::from_status(&before).epoch;
    let pristine = sandbox.folder().join("pristine");
    for kept in KEPT {
        fs::create_dir_all(&pristine).unwrap();
        copy(&agent.state_dir().join(kept), &pristine.join(kept));
    }
    let files = files_below(&pristine);
    assert!(files.len() >= 5, "{files:?}");
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
            // The earlier life's events wait or are lost, and none of them is forgotten.
            let report = AgentReport::from_status(&status);
            let account = report.epochs.iter().find(|account| account.epoch == epoch);
            let account = account.unwrap_or_else(|| panic!("{case}: the account is gone: {status}"));
            let lost: u64 = account.lost.values().sum();
            assert_eq!(account.generated, EVENTS, "{case}: {account:?}");
            assert_eq!(account.waiting + lost, EVENTS, "{case}: {account:?}");
        }
    }
    println!("{cases} cases, {set_aside} stores set aside");
    assert!(set_aside > 0);
}
