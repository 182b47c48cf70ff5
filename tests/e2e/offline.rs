//! With no server the agent goes on; its memory and its buffer stay within their limits, and what had to go is counted.

use std::time::Duration;

use picket_tests::agent_report::AgentReport;
use picket_tests::recording;

use crate::support::{QUIET, check_chains, only_host, record, sandbox, wait_for_events, wait_until_stored};

/// The buffer's ceiling in this test, bytes.
const BUFFER_BYTES_MAX: u64 = 2 << 20;

/// How much more memory the agent may have after the buffer has long been full, bytes.
const GROWTH_MAX: u64 = 6 << 20;

/// Events a second.
const RATE: u32 = 10_000;

#[test]
fn with_no_server_the_agent_collects_within_its_limits_and_counts_what_had_to_go() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let recording = record(&sandbox, 6_000);
    // On a slow machine reading a recording at this rate takes more than one core: the budget's ladder is another test.
    let config = format!(
        "{}[buffer]\nbytes_max = {BUFFER_BYTES_MAX}\n[budget]\ncpu_percent_max = 400\n",
        recording::agent_config(&recording, RATE, 0)
    );
    let agent = sandbox.agent("agent").config(&config);
    agent.enroll(&server).unwrap();
    server.stop().unwrap();

    let mut running = agent.start().unwrap();
    let status = running
        .wait_for("the buffer to overflow", Duration::from_secs(60), |status| {
            AgentReport::from_status(status).events_lost.contains_key("buffer/buffer_full")
        })
        .unwrap();
    let full = AgentReport::from_status(&status);
    let later = wait_for_events(&mut running, full.events_accepted + 8 * u64::from(RATE));
    for report in [&full, &later] {
        assert!(report.buffer_bytes <= BUFFER_BYTES_MAX, "{report:?}");
    }
    assert!(later.events_lost["buffer/buffer_full"] > full.events_lost["buffer/buffer_full"], "{later:?}");
    assert!(
        later.resident_bytes < full.resident_bytes + GROWTH_MAX,
        "memory grew with the backlog: {} to {}",
        full.resident_bytes,
        later.resident_bytes
    );
    println!(
        "buffer {} of {} bytes, {} events lost, resident {} to {} bytes, peak {}",
        later.buffer_bytes,
        later.buffer_bytes_max,
        later.events_lost["buffer/buffer_full"],
        full.resident_bytes,
        later.resident_bytes,
        later.resident_bytes_peak
    );
    // The agent ends well without a server too; then everything is delivered or was counted.
    running.stop().unwrap();
    let counters = picket_agent::pipeline::ledger::Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let generated = counters.accepted + counters.reported.total();
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let quiet = agent.clone().config(QUIET);
    let running = quiet.start().unwrap();
    let epoch = counters.epoch.0;
    let stored = wait_until_stored(&mut admin, &host, "the rest", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= generated
    });
    assert_eq!(stored.events_of(epoch) + stored.lost_of(epoch), generated, "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    assert!(stored.lost_total().contains_key("buffer/buffer_full"), "{stored:?}");
    running.stop().unwrap();
    check_chains(&server);
    server.stop().unwrap();
}
