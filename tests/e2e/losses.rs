//! Losses of several kinds, accounted for to the last event.

use std::collections::BTreeMap;
use std::fs;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::wait;
use serde_json::Value;

use crate::support::{DELIVERY_DEADLINE, QUIET, check_chains, control, only_host, record, sandbox, wait_for_events};

/// Events a second while an agent is to be killed.
const RATE: u32 = 20_000;

/// Losses by `stage/reason` over all epochs.
fn by_cause(epochs: &Value) -> BTreeMap<String, u64> {
    let mut causes = BTreeMap::new();
    for loss in epochs.as_array().unwrap().iter().flat_map(|epoch| epoch["lost"].as_array().unwrap()) {
        let cause = format!("{}/{}", loss["stage"].as_str().unwrap(), loss["reason"].as_str().unwrap());
        *causes.entry(cause).or_default() += loss["events"].as_u64().unwrap();
    }
    causes
}

fn sum(epochs: &Value, key: &str) -> u64 {
    epochs.as_array().unwrap().iter().map(|epoch| epoch[key].as_u64().unwrap()).sum()
}

#[test]
fn losses_of_three_kinds_are_accounted_for_to_the_last_event() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let tiny_buffer = "[buffer]\nbytes_max = 1048576\n";
    let endless = format!("{}{tiny_buffer}", recording::agent_config(&recording, RATE, 0));
    let agent = sandbox.agent("agent").config(&endless);
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    let mut generated = BTreeMap::new();
    let mut note = || {
        let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
        generated.insert(counters.epoch.0, counters.accepted + counters.reported.total());
    };
    server.stop().unwrap();

    // No server: the buffer is full, then the agent is killed with events on their way.
    let mut running = agent.start().unwrap();
    running
        .wait_for("the buffer to overflow", DELIVERY_DEADLINE, |status| {
            AgentReport::from_status(status).events_lost.contains_key("buffer/buffer_full")
        })
        .unwrap();
    running.process.kill().unwrap();
    note();
    // Its store is damaged.
    for file in fs::read_dir(agent.state_dir().join("buffer/sled")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let mut bytes = fs::read(&path).unwrap();
            let length = bytes.len();
            bytes[length / 8..length * 7 / 8].iter_mut().for_each(|byte| *byte = 0xa5);
            fs::write(&path, bytes).unwrap();
        }
    }
    // Another life; this one waits for the server.
    let last = agent.clone().config(&recording::agent_config(&recording, 0, 1));
    let mut running = last.start().unwrap();
    wait_for_events(&mut running, 3_000);
    running.stop().unwrap();
    note();

    let server = home.start().unwrap();
    let mut running = agent.clone().config(&format!("{QUIET}[uplink]\ncheck_in_interval_ms = 2000\n")).start().unwrap();
    let epochs = wait::until("everything to be accounted for", DELIVERY_DEADLINE, || {
        let (epochs, exit) = control(&server, &["host", "losses", &host]);
        let open: u64 = ["waiting", "in_flight", "unaccounted"].iter().map(|key| sum(&epochs, key)).sum();
        let announced = epochs.as_array().unwrap().iter().flat_map(|epoch| epoch["lost"].as_array().unwrap());
        let is_told =
            announced.clone().count() > 0 && announced.clone().all(|loss| loss["announced"] == loss["events"]);
        let is_known =
            generated.keys().all(|epoch| epochs.as_array().unwrap().iter().any(|row| row["epoch"] == *epoch));
        if open == 0 && is_told && is_known && exit == Some(0) { Ok(epochs) } else { Err(format!("{epochs}")) }
    })
    .unwrap();
    println!("{epochs}");
    for (epoch, generated) in &generated {
        let row = epochs.as_array().unwrap().iter().find(|row| row["epoch"] == *epoch).unwrap();
        let number = |key: &str| row[key].as_u64().unwrap();
        assert_eq!(number("generated"), *generated, "{row}");
        assert_eq!(number("stored") + number("lost_total"), *generated, "{row}");
        assert_eq!(number("unaccounted"), 0, "{row}");
        assert!(row["reported"].is_string(), "{row}");
    }
    let causes = by_cause(&epochs);
    for cause in ["buffer/buffer_full", "buffer/store_damaged", "pipeline/agent_killed"] {
        assert!(causes.get(cause).is_some_and(|events| *events > 0), "{cause}: {causes:?}");
    }
    // All of it was declared: nothing was removed.
    check_chains(&server);

    // What waits on a host that is running is shown as waiting.
    running.process.kill().unwrap();
    server.stop().unwrap();
}
