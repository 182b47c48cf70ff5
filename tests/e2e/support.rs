//! What several tests need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_tests::accounting::Stored;
use picket_tests::admin::AdminClient;
use picket_tests::agent_report::AgentReport;
use picket_tests::process;
use picket_tests::recording;
use picket_tests::sandbox::{Agent, RunningAgent, RunningServer, Sandbox, printed};
use picket_tests::wait;
use serde_json::{Map, Value};

/// How long delivery may take.
pub(crate) const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);

/// The binary that is every part (see `picket_tests::role`).
pub(crate) fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_picket-demo"))
}

/// Configuration of an agent that only delivers.
pub(crate) const QUIET: &str = "[sensor.process]\nmode = \"off\"\n[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n[sensor.kernel]\nmode = \"off\"\n";

/// A new sandbox.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new(executable()).unwrap()
}

/// Whether the test may do what only root may; says that it is skipped otherwise.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}

/// A recording of `events` events in the sandbox.
pub(crate) fn record(sandbox: &Sandbox, events: u32) -> PathBuf {
    let path = sandbox.folder().join(format!("recording-{events}.jsonl"));
    recording::write(&path, events).unwrap();
    path
}

/// An agent called `name` that plays a recording of `events` events once, as fast as it can.
pub(crate) fn replaying_agent(sandbox: &Sandbox, name: &str, events: u32) -> Agent {
    sandbox.agent(name).config(&recording::agent_config(&record(sandbox, events), 0, 1))
}

/// Waits until the agent has accepted `events` events in its epoch.
pub(crate) fn wait_for_events(agent: &mut RunningAgent, events: u64) -> AgentReport {
    let status = agent
        .wait_for(&format!("{events} events"), DELIVERY_DEADLINE, |status| {
            AgentReport::from_status(status).events_accepted >= events
        })
        .unwrap();
    AgentReport::from_status(&status)
}

/// The only host of a server.
pub(crate) fn only_host(admin: &mut AdminClient) -> String {
    let hosts = admin.hosts().unwrap();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    hosts[0].host_id.clone()
}

/// Waits until `wanted` holds for what is stored of the host.
pub(crate) fn wait_until_stored(
    admin: &mut AdminClient,
    host_id: &str,
    what: &str,
    wanted: impl Fn(&Stored) -> bool,
) -> Stored {
    wait::until(what, DELIVERY_DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        let stored = Stored::read(admin, host_id).map_err(|error| error.to_string())?;
        if wanted(&stored) { Ok(stored) } else { Err(format!("{stored:?}")) }
    })
    .unwrap()
}

/// Waits until a query gives so many rows.
pub(crate) fn rows(admin: &mut AdminClient, sql: &str, count: usize) -> Vec<Map<String, Value>> {
    wait::until(sql, DELIVERY_DEADLINE, || {
        admin.commit_lake().map_err(|error| error.to_string())?;
        let rows = admin.query(sql).map_err(|error| error.to_string())?;
        if rows.len() == count { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .unwrap()
}

/// What `picketctl <arguments> -o json` prints, and its exit code.
pub(crate) fn control(server: &RunningServer, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = process::output(server.control(executable()).args(arguments).args(["-o", "json"])).unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", printed(&output)));
    (value, output.status.code())
}

/// Nothing was removed or altered on the way from any host, as far as the server can tell.
pub(crate) fn check_chains(server: &RunningServer) {
    let (epochs, exit) = control(server, &["host", "chain"]);
    assert!(!epochs.as_array().unwrap().is_empty());
    for epoch in epochs.as_array().unwrap() {
        assert_eq!(epoch["verdict"], "intact", "{epoch}");
    }
    assert_eq!(exit, Some(0), "{epochs}");
}

/// Lets a last, quiet life of the agent deliver what waits, and compares its whole account with what is stored: each
/// event of each epoch is stored once or counted as lost for one of these `stage/reason`s.
pub(crate) fn check_accounts(quiet: &Agent, admin: &mut AdminClient, host: &str, causes: &[&str]) -> Stored {
    let mut running = quiet.start().unwrap();
    let status = running
        .wait_for("everything to be delivered", DELIVERY_DEADLINE, |status| {
            status["uplink"]["phase"] == "connected" && status["buffer"]["records"] == 0
        })
        .unwrap();
    let report = AgentReport::from_status(&status);
    let found = |stored: &Stored, epoch: u64| stored.events_of(epoch) + stored.lost_of(epoch);
    let stored = wait_until_stored(admin, host, "the whole account", |stored| {
        report.epochs.iter().all(|epoch| found(stored, epoch.epoch) >= epoch.generated)
    });
    for epoch in &report.epochs {
        assert_eq!(found(&stored, epoch.epoch), epoch.generated, "{epoch:?}: {stored:?}");
    }
    assert_eq!(stored.duplicates, 0, "{stored:?}");
    let strange: Vec<String> =
        stored.lost_total().into_keys().filter(|cause| !causes.contains(&cause.as_str())).collect();
    assert!(strange.is_empty(), "lost for {strange:?}: {stored:?}");
    running.stop().unwrap();
    stored
}
