//! The way between agent and server: connections that die without a word, and a server that is slow to answer.

use std::time::{Duration, Instant};

use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::sandbox::RunningAgent;
use picket_tests::wait;
use serde_json::Value;

use crate::relay::Relay;
use crate::support::{
    DELIVERY_DEADLINE, QUIET, check_accounts, check_chains, control, only_host, record, sandbox, wait_for_events,
    wait_until_stored,
};

/// How long the agent of these tests waits for a sign of life or an acknowledgement, milliseconds.
const PATIENCE_MS: u64 = 3_000;

/// From the moment a connection dies until the agent makes the next one, at most: its patience, the longest pause between
/// attempts, and what a busy machine takes.
const RECONNECTION_MAX: Duration = Duration::from_secs(15);

fn uplink(relay: &Relay) -> String {
    format!(
        "[uplink]\nserver = \"{}\"\nbackoff_max_ms = 200\nacknowledgement_timeout_ms = {PATIENCE_MS}\n\
         silence_max_ms = {PATIENCE_MS}\n",
        relay.address
    )
}

/// Waits until the agent has made a further connection; returns how long that took.
fn wait_for_reconnection(relay: &Relay, connections: usize) -> Duration {
    let begun = Instant::now();
    wait::until_true("a further connection", RECONNECTION_MAX, || relay.connections() > connections).unwrap();
    begun.elapsed()
}

fn wait_until_connected(running: &mut RunningAgent) -> Value {
    running.wait_for("a connection", DELIVERY_DEADLINE, |status| status["uplink"]["phase"] == "connected").unwrap()
}

#[test]
fn a_half_open_connection_is_given_up_in_time_and_every_event_is_accounted_for() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    let replay = recording::agent_config(&record(&sandbox, 3_000), 1_000, 0);
    let agent = sandbox.agent("agent").config(&format!("{replay}{}", uplink(&relay)));
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let running = agent.start().unwrap();
    let mut stored = 0;
    for cut in 1..=2 {
        stored = wait_until_stored(&mut admin, &host, "events", |found| found.events_total() > stored).events_total();
        let connections = relay.connections();
        relay.cut_silently();
        let noticed = wait_for_reconnection(&relay, connections);
        assert!(noticed >= Duration::from_millis(PATIENCE_MS / 2), "nobody told it: {noticed:?}");
        // The server still holds the dead connection; the agent's next one is not refused for it.
        stored = wait_until_stored(&mut admin, &host, "more", |found| found.events_total() > stored).events_total();
        println!("cut {cut}: connecting again after {noticed:?}");
    }
    let (hosts, _) = control(&server, &["host", "list"]);
    assert!(hosts[0]["quarantined"].is_null(), "{hosts}");
    running.stop().unwrap();
    check_accounts(&agent.config(&format!("{QUIET}{}", uplink(&relay))), &mut admin, &host, &[]);
    check_chains(&server);
    server.stop().unwrap();
}

#[test]
fn a_half_open_connection_over_which_nothing_passes_is_noticed_too() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    let agent = sandbox.agent("agent").config(&format!("{QUIET}{}", uplink(&relay)));
    agent.enroll(&server).unwrap();
    let mut running = agent.start().unwrap();
    wait_until_connected(&mut running);
    // Nothing is on its way: only the sign of life that does not come can show it.
    running.wait_for("an empty buffer", DELIVERY_DEADLINE, |status| status["buffer"]["records"] == 0).unwrap();
    let connections = relay.connections();
    relay.cut_silently();
    println!("connecting again after {:?}", wait_for_reconnection(&relay, connections));
    running
        .wait_for("a second connection", DELIVERY_DEADLINE, |status| {
            status["uplink"]["phase"] == "connected" && status["uplink"]["connections"] == 2
        })
        .unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_server_slow_to_answer_costs_neither_memory_nor_events_nor_the_connection() {
    const EVENTS: u64 = 20_000;
    /// Batches that may be on their way, see `picket_agent::uplink`.
    const WINDOW_BATCHES: u64 = 32;
    const GROWTH_MAX_BYTES: u64 = 12 << 20;
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    let replay = recording::agent_config(&record(&sandbox, 2_000), 4_000, EVENTS / 2_000);
    let uplink = format!("[uplink]\nserver = \"{}\"\nbackoff_max_ms = 200\n", relay.address);
    let config = format!("{replay}{uplink}[pipeline]\nbatch_events_max = 200\n");
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let mut running = agent.start().unwrap();
    wait_until_connected(&mut running);
    relay.hold_answers(true);
    // The window fills, and then nothing more is sent; all else waits on disk.
    let early = wait_for_events(&mut running, EVENTS / 10);
    let late = wait_for_events(&mut running, EVENTS);
    let status = running
        .wait_for("a full window", DELIVERY_DEADLINE, |status| {
            status["uplink"]["batches_unacknowledged"] == WINDOW_BATCHES
        })
        .unwrap();
    assert!(status["buffer"]["records"].as_u64().unwrap() > WINDOW_BATCHES, "{}", status["buffer"]);
    assert!(late.events_lost.is_empty(), "{late:?}");
    let growth = late.resident_bytes.saturating_sub(early.resident_bytes);
    assert!(growth < GROWTH_MAX_BYTES, "resident memory grew by {growth} bytes");
    println!("{} batches wait, resident memory grew by {growth} bytes", status["buffer"]["records"]);
    // They come at last, slowly.
    relay.slow_down(100_000);
    relay.hold_answers(false);
    let status = running
        .wait_for("an empty buffer", DELIVERY_DEADLINE, |status| {
            AgentReport::from_status(status).events_accepted >= EVENTS && status["buffer"]["records"] == 0
        })
        .unwrap();
    assert_eq!(status["uplink"]["connections"], 1, "slow is not dead: {}", status["uplink"]);
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| stored.events_total() >= EVENTS);
    assert_eq!((stored.events_total(), stored.duplicates, stored.lost.len()), (EVENTS, 0, 0), "{stored:?}");
    relay.slow_down(0);
    running.stop().unwrap();
    check_chains(&server);
    server.stop().unwrap();
}

#[test]
fn what_happens_now_does_not_wait_behind_a_long_backlog() {
    const EVENTS: u64 = 30_000;
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let relay = Relay::to(server.endpoints.agent);
    let uplink = format!("[uplink]\nserver = \"{}\"\nbackoff_max_ms = 200\n", relay.address);
    let small_batches = "[pipeline]\nbatch_events_max = 200\n";
    let replay = recording::agent_config(&record(&sandbox, 3_000), 0, EVENTS / 3_000);
    let agent = sandbox.agent("agent").config(&format!("{replay}{uplink}{small_batches}"));
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    relay.cut_silently();
    server.stop().unwrap();
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, EVENTS);
    running.stop().unwrap();

    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    // The backlog takes a while over this line; meanwhile another life of the agent sees something.
    relay.slow_down(30_000);
    let replay = recording::agent_config(&record(&sandbox, 30), 10, 0);
    let later = agent.clone().config(&format!("{replay}{uplink}{small_batches}"));
    let running = later.start().unwrap();
    let epoch = AgentReport::from_status(&running.status().unwrap()).epoch;
    let stored = wait_until_stored(&mut admin, &host, "events of now", |stored| stored.events_of(epoch) >= 20);
    let waiting = running.status().unwrap()["buffer"]["records"].as_u64().unwrap();
    let backlog = stored.events_total() - stored.events_of(epoch);
    println!("{backlog} of the backlog and {} of now are stored, {waiting} batches wait", stored.events_of(epoch));
    assert!(backlog > 0 && backlog < EVENTS && waiting > 10, "{stored:?}, {waiting} batches wait");
    relay.slow_down(0);
    wait_until_stored(&mut admin, &host, "the backlog", |stored| stored.events_total() >= EVENTS);
    running.stop().unwrap();
    check_accounts(&agent.config(&format!("{QUIET}{uplink}")), &mut admin, &host, &[]);
    check_chains(&server);
    server.stop().unwrap();
}
