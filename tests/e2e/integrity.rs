//! What is taken out of a stopped agent's buffer is missed by the server, by number.

use picket_agent::buffer::{Buffer, BufferConfig};
use picket_common::batch;
use picket_tests::recording;
use picket_tests::sandbox::Agent;
use picket_tests::wait;
use serde_json::{Value, json};

use crate::support::{
    DELIVERY_DEADLINE, QUIET, check_chains, control, only_host, record, sandbox, wait_for_events, wait_until_stored,
};

/// Events of each life, and how many of them share a batch.
const EVENTS: u32 = 2_000;
const BATCH_EVENTS: u32 = 100;

/// Removes the batches with these sequence numbers from the buffer of a stopped agent, and returns their epoch.
fn remove_batches(agent: &Agent, removed: &[u64]) -> u64 {
    let config = BufferConfig::in_sled(1 << 30);
    let (mut buffer, damage) = Buffer::open(&agent.state_dir().join("buffer"), config).unwrap();
    assert!(damage.is_none());
    let lease = buffer.lease(10_000, usize::MAX).unwrap();
    let mut epoch = None;
    for record in &lease.records {
        let header = batch::peek_header(&record.payload).unwrap();
        // The last life's.
        if removed.contains(&header.batch_sequence.0) && epoch.is_none_or(|epoch| epoch == header.epoch.0) {
            epoch = Some(header.epoch.0);
            buffer.commit(record.info.number, &[]).unwrap();
        }
    }
    buffer.flush().unwrap();
    epoch.unwrap()
}

fn epoch_of(epochs: &Value, epoch: u64) -> Value {
    epochs.as_array().unwrap().iter().find(|report| report["epoch"] == epoch).cloned().unwrap_or_default()
}

#[test]
fn batches_taken_out_of_a_stopped_agents_buffer_are_named() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let replay = recording::agent_config(&record(&sandbox, EVENTS), 0, 1);
    let config = format!("{replay}[pipeline]\nbatch_events_max = {BATCH_EVENTS}\n[uplink]\nbackoff_max_ms = 200\n");
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    // A life with the server, in which nothing goes missing.
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, EVENTS.into());
    wait_until_stored(&mut admin, &host, "the first life", |stored| stored.events_total() == u64::from(EVENTS));
    running.stop().unwrap();
    check_chains(&server);
    server.stop().unwrap();

    // A life without it. Then somebody takes four batches away.
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, EVENTS.into());
    running.stop().unwrap();
    let epoch = remove_batches(&agent, &[5, 6, 7, 11]);

    let server = home.start().unwrap();
    let running = agent.clone().config(QUIET).start().unwrap();
    let report = wait::until("the missing batches to be named", DELIVERY_DEADLINE, || {
        let (epochs, exit) = control(&server, &["host", "chain", &host]);
        let report = epoch_of(&epochs, epoch);
        let is_named = report["missing"].as_array().is_some_and(|missing| missing.len() == 2);
        if is_named && exit == Some(1) { Ok(report) } else { Err(format!("exit {exit:?}: {epochs}")) }
    })
    .unwrap();
    println!("{report}");
    let missing = json!([{"first": 5, "last": 7, "batches": 3}, {"first": 11, "last": 11, "batches": 1}]);
    assert_eq!(report["missing"], missing);
    assert_eq!((&report["declared_lost"], &report["waiting"]), (&json!(0), &json!(0)), "{report}");
    let (stored, batches) = (report["stored"].as_u64().unwrap(), report["batches"].as_u64().unwrap());
    assert_eq!(stored + 4, batches, "{report}");
    assert_eq!(report["verified"], stored, "{report}");
    assert_eq!(report["altered"], json!([]));
    assert_eq!(report["verdict"], "broken");
    // Their events are accounted for, too: the agent finds them gone.
    let mut admin = server.admin().unwrap();
    let stored = wait_until_stored(&mut admin, &host, "the account", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= EVENTS.into()
    });
    assert_eq!(stored.lost[&epoch]["buffer/store_damaged"], 4 * u64::from(BATCH_EVENTS), "{stored:?}");
    // The epochs before and after are whole, and what was found survives a restart of the server.
    running.stop().unwrap();
    server.stop().unwrap();
    let server = home.start().unwrap();
    let (epochs, exit) = control(&server, &["host", "chain"]);
    assert_eq!((epochs.as_array().unwrap().len(), exit), (3, Some(1)), "{epochs}");
    for other in epochs.as_array().unwrap() {
        let verdict = if other["epoch"] == epoch { "broken" } else { "intact" };
        assert_eq!(other["verdict"], verdict, "{other}");
    }
    assert_eq!(epoch_of(&epochs, epoch)["missing"], missing);
    server.stop().unwrap();
}

#[test]
fn the_end_of_an_epoch_taken_away_is_named() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let replay = recording::agent_config(&record(&sandbox, EVENTS), 0, 1);
    let config = format!("{replay}[pipeline]\nbatch_events_max = {BATCH_EVENTS}\n[uplink]\nbackoff_max_ms = 200\n");
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let quiet = agent.clone().config(QUIET);
    let running = quiet.start().unwrap();
    wait::until("a first statement", DELIVERY_DEADLINE, || {
        let (epochs, _) = control(&server, &["host", "chain"]);
        if epochs[0]["verdict"] == "intact" { Ok(()) } else { Err(epochs.to_string()) }
    })
    .unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, EVENTS.into());
    running.stop().unwrap();
    let all: Vec<u64> = (0..10_000).collect();
    let epoch = remove_batches(&agent, &all[10..]);

    let server = home.start().unwrap();
    let running = quiet.start().unwrap();
    let report = wait::until("the missing batches to be named", DELIVERY_DEADLINE, || {
        let (epochs, _) = control(&server, &["host", "chain", &host]);
        let report = epoch_of(&epochs, epoch);
        if report["missing"] == json!([]) || report.is_null() { Err(epochs.to_string()) } else { Ok(report) }
    })
    .unwrap();
    let batches = report["batches"].as_u64().unwrap();
    assert_eq!(report["missing"], json!([{"first": 10, "last": batches - 1, "batches": batches - 10}]), "{report}");
    assert!(batches >= u64::from(EVENTS / BATCH_EVENTS), "{report}");
    running.stop().unwrap();
    server.stop().unwrap();
}
