//! One identity on two machines is found out; a restart, a crash, a lost connection is not taken for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use picket_tests::recording;
use picket_tests::sandbox::{RunningAgent, succeed};
use picket_tests::wait;
use serde_json::Value;

use crate::support::{DELIVERY_DEADLINE, QUIET, control, executable, only_host, record, sandbox, wait_until_stored};

/// How long it may take until a clone is found out.
const DETECTION_DEADLINE: Duration = Duration::from_secs(30);

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn wait_until_connected(running: &mut RunningAgent) {
    running.wait_for("a connection", DELIVERY_DEADLINE, |status| status["uplink"]["phase"] == "connected").unwrap();
}

fn is_refused(status: &Value) -> bool {
    status["uplink"]["last_error"].as_str().unwrap_or_default().contains("quarantine")
}

#[test]
fn a_copied_state_folder_puts_the_host_in_quarantine_until_each_machine_has_its_own_identity() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let replay = recording::agent_config(&record(&sandbox, 3_000), 500, 0);
    let config = format!("{replay}[uplink]\nbackoff_max_ms = 300\n");
    let original = sandbox.agent("original").config(&config);
    original.enroll(&server).unwrap();
    let host = only_host(&mut admin);
    original.start().unwrap().stop().unwrap();
    let copy = sandbox.agent("copy").config(&config);
    copy_folder(original.state_dir(), copy.state_dir());

    let mut first = original.start().unwrap();
    wait_until_connected(&mut first);
    let mut second = copy.start().unwrap();
    let row = wait::until("the quarantine", DETECTION_DEADLINE, || {
        let (hosts, _) = control(&server, &["host", "list"]);
        if hosts[0]["quarantined"].is_string() { Ok(hosts[0].clone()) } else { Err(hosts.to_string()) }
    })
    .unwrap();
    println!("{}", row["quarantine_reason"]);
    for running in [&mut first, &mut second] {
        running.wait_for("the refusal", DELIVERY_DEADLINE, is_refused).unwrap();
    }
    // From then on nothing of either is taken.
    let before = wait_until_stored(&mut admin, &host, "an account", |_| true).events_total();
    let accepted = |running: &RunningAgent| running.status().unwrap()["events_accepted"].as_u64().unwrap();
    for running in [&mut first, &mut second] {
        let wanted = accepted(running) + 1_000;
        running
            .wait_for("more events", DELIVERY_DEADLINE, |status| {
                status["events_accepted"].as_u64().unwrap() >= wanted && is_refused(status)
            })
            .unwrap();
    }
    assert_eq!(wait_until_stored(&mut admin, &host, "an account", |_| true).events_total(), before);

    // Each machine gets an identity of its own, and both deliver what they kept.
    let (offer, exit) = control(&server, &["host", "reenroll", &host]);
    assert_eq!(exit, Some(0), "{offer}");
    let token = offer["join_token"].as_str().unwrap();
    let address = server.endpoints.agent.to_string();
    for agent in [&original, &copy] {
        succeed(agent.command("enroll").args(["--force", "--server", &address, "--token", token])).unwrap();
    }
    for running in [&mut first, &mut second] {
        wait_until_connected(running);
    }
    let hosts = wait::until("two new hosts to deliver", DELIVERY_DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        let hosts = admin.hosts().map_err(|error| error.to_string())?;
        let delivering = hosts.iter().filter(|listed| listed.host_id != host && listed.events_stored >= 1_000).count();
        if delivering == 2 { Ok(hosts) } else { Err(format!("{hosts:?}")) }
    })
    .unwrap();
    assert_eq!(hosts.len(), 3);
    assert!(hosts.iter().all(|listed| listed.host_id == host || listed.quarantined_unix_s == 0), "{hosts:?}");
    first.stop().unwrap();
    second.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_released_host_goes_on_with_the_agent_that_is_left() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let config = format!("{QUIET}[uplink]\nbackoff_max_ms = 300\n");
    let original = sandbox.agent("original").config(&config);
    original.enroll(&server).unwrap();
    let host = only_host(&mut admin);
    let copy = sandbox.agent("copy").config(&config);
    copy_folder(original.state_dir(), copy.state_dir());
    let mut first = original.start().unwrap();
    wait_until_connected(&mut first);
    let mut second = copy.start().unwrap();
    second.wait_for("the refusal", DETECTION_DEADLINE, is_refused).unwrap();
    second.stop().unwrap();
    // The one that started first is left.
    succeed(server.control(executable()).args(["host", "release", &host])).unwrap();
    wait_until_connected(&mut first);
    let row = wait::until("the host to be back", DELIVERY_DEADLINE, || {
        let (hosts, _) = control(&server, &["host", "list"]);
        if hosts[0]["connected"] == true { Ok(hosts[0].clone()) } else { Err(hosts.to_string()) }
    })
    .unwrap();
    assert!(row["quarantined"].is_null(), "{row}");
    first.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn restarts_crashes_and_lost_servers_are_not_taken_for_clones() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let mut server = home.start().unwrap();
    let replay = recording::agent_config(&record(&sandbox, 3_000), 2_000, 0);
    let agent = sandbox.agent("agent").config(&format!("{replay}[uplink]\nbackoff_max_ms = 100\n"));
    agent.enroll(&server).unwrap();
    for life in 0..12 {
        let mut running = agent.start().unwrap();
        wait_until_connected(&mut running);
        match life % 3 {
            0 => running.stop().unwrap(),
            1 => drop(running.process.kill().unwrap()),
            _ => {
                server.process.kill().unwrap();
                server = home.start().unwrap();
                running.process.kill().unwrap();
            }
        }
    }
    let mut running = agent.start().unwrap();
    wait_until_connected(&mut running);
    let (hosts, _) = control(&server, &["host", "list"]);
    assert!(hosts[0]["quarantined"].is_null(), "{hosts}");
    running.stop().unwrap();
    server.stop().unwrap();
}
