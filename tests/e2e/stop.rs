//! Signals stop agent and server in stages: nothing is left half done, and the exit code says so.

use std::time::{Duration, Instant};

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::sandbox::STOP_DEADLINE;
use rustix::process::Signal;

use crate::support::{QUIET, only_host, record, sandbox, wait_for_events, wait_until_stored};

/// The signals that stop.
const SIGNALS: [Signal; 2] = [Signal::TERM, Signal::INT];

/// Events a second while the signal comes.
const RATE: u32 = 5_000;

#[test]
fn a_signal_stops_the_agent_with_everything_flushed_and_accounted() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let agent = sandbox.agent("agent").config(&recording::agent_config(&recording, RATE, 0));
    agent.enroll(&server).unwrap();
    // What is left is in the buffer, not with a server.
    server.stop().unwrap();
    let mut epochs = Vec::new();
    for signal in SIGNALS {
        let mut running = agent.start().unwrap();
        wait_for_events(&mut running, 3_000);
        let begun = Instant::now();
        running.process.signal(signal);
        let status = running.process.wait(STOP_DEADLINE).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", running.log_tail());
        let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
        let last = AgentReport::from_status(&agent.status().unwrap());
        assert!(last.stopped, "its last word was not its last");
        let account = last.epochs.iter().find(|account| account.epoch == counters.epoch.0).unwrap();
        assert_eq!(account.generated, counters.accepted + counters.reported.total());
        assert_eq!((account.waiting + account.delivered, account.in_flight), (account.generated, 0), "{account:?}");
        assert!(account.lost.is_empty(), "{account:?}");
        println!("{signal:?}: {} events, stopped in {:?}", account.generated, begun.elapsed());
        epochs.push((account.epoch, account.generated));
    }
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let running = agent.clone().config(QUIET).start().unwrap();
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| {
        epochs.iter().all(|(epoch, generated)| stored.events_of(*epoch) >= *generated)
    });
    for (epoch, generated) in epochs {
        assert_eq!((stored.events_of(epoch), stored.lost_of(epoch)), (generated, 0), "{stored:?}");
    }
    assert_eq!(stored.duplicates, 0);
    running.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_signal_stops_the_server_under_load_and_nothing_acknowledged_is_missing() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let mut server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let config = recording::agent_config(&recording, RATE, 0);
    let agent = sandbox.agent("agent").config(&format!("{config}[uplink]\nbackoff_max_ms = 200\n"));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    let mut running = agent.start().unwrap();
    let mut acknowledged = 0;
    for signal in SIGNALS {
        let delivered = |status: &serde_json::Value| status["uplink"]["batches_accepted"].as_u64().unwrap_or(0);
        let status = running
            .wait_for("batches to be acknowledged", Duration::from_secs(30), |status| delivered(status) > acknowledged)
            .unwrap();
        acknowledged = delivered(&status);
        let begun = Instant::now();
        server.process.signal(signal);
        let status = server.process.wait(STOP_DEADLINE).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", server.log_tail());
        assert!(!home.state_dir().join("run/endpoints.json").exists(), "it still says where it listens");
        println!("{signal:?}: the server stopped in {:?}", begun.elapsed());
        server = home.start().unwrap();
    }
    running.stop().unwrap();
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let generated = counters.accepted + counters.reported.total();
    let mut admin = server.admin().unwrap();
    let quiet = agent.clone().config(QUIET).start().unwrap();
    let epoch = counters.epoch.0;
    let stored =
        wait_until_stored(&mut admin, &host, "everything", |stored| stored.events_of(epoch) >= counters.accepted);
    assert_eq!((stored.events_of(epoch), stored.lost_of(epoch)), (generated, 0), "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    quiet.stop().unwrap();
    server.stop().unwrap();
}
