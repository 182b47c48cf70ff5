//! Certificates of the wrong authority, and hosts that are not welcome any more.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use picket_tests::agent_report::AgentReport;
use picket_tests::process;
use picket_tests::recording;
use picket_tests::sandbox::{Agent, RunningAgent, Sandbox, Server, printed, succeed};
use serde_json::Value;

use crate::support::{QUIET, executable, only_host, record, sandbox, wait_for_events, wait_until_stored};

/// Events of an agent that plays its recording once.
const EVENTS: u32 = 1_500;

/// How long a connection may take to fail, and another one to stand.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);

/// How long a live stream may stay open after its host was revoked.
const REVOCATION_DEADLINE: Duration = Duration::from_secs(5);

/// An agent that plays `events_per_second` (0: all at once, and only once) and does not wait long between attempts.
fn impatient_agent(sandbox: &Sandbox, name: &str, events_per_second: u32, uplink: &str) -> Agent {
    let recording = record(sandbox, EVENTS);
    let replay = recording::agent_config(&recording, events_per_second, u64::from(events_per_second == 0));
    sandbox.agent(name).config(&format!("{replay}[uplink]\nbackoff_max_ms = 200\n{uplink}"))
}

/// Waits until a connection has failed; returns why.
fn wait_for_failure(running: &mut RunningAgent) -> String {
    let status = running.wait_for("a failed connection", CONNECTION_DEADLINE, |status| {
        !status["uplink"]["last_error"].as_str().unwrap_or_default().is_empty()
    });
    status.unwrap()["uplink"]["last_error"].as_str().unwrap().to_owned()
}

fn identity_file(agent: &Agent) -> PathBuf {
    agent.state_dir().join("identity/identity.json")
}

#[test]
fn a_certificate_of_a_foreign_authority_gets_no_further_than_the_handshake() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let other = Server::in_folder(sandbox.executable(), &sandbox.folder().join("other")).start().unwrap();
    let native = impatient_agent(&sandbox, "native", 0, "");
    native.enroll(&server).unwrap();
    let stranger = impatient_agent(&sandbox, "stranger", 0, "");
    stranger.enroll(&other).unwrap();

    // The stranger trusts the server and goes there, with the certificate that the other one gave it.
    let own: Value = serde_json::from_slice(&fs::read(identity_file(&stranger)).unwrap()).unwrap();
    let natives: Value = serde_json::from_slice(&fs::read(identity_file(&native)).unwrap()).unwrap();
    let mut mixed = own.clone();
    for key in ["server", "trust_bundle"] {
        mixed[key] = natives[key].clone();
    }
    fs::write(identity_file(&stranger), mixed.to_string()).unwrap();
    let mut running = stranger.start().unwrap();
    let error = wait_for_failure(&mut running);
    assert!(error.contains("not take this host's certificate"), "the server's TLS says no: {error}");
    assert!(error.contains("alert"), "and how: {error}");
    println!("a foreign client: {error}");
    // It goes on collecting, and others are served.
    let report = wait_for_events(&mut running, EVENTS.into());
    assert!(report.buffer_bytes > 0 && report.events_lost.is_empty(), "{report:?}");
    let native_running = native.start().unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    assert_eq!(host, natives["host_id"]);
    wait_until_stored(&mut admin, &host, "the native's events", |stored| stored.events_total() >= EVENTS.into());
    let foreign = own["host_id"].as_str().unwrap();
    let status = running.status().unwrap();
    assert_eq!(status["uplink"]["batches_sent"], 0, "{}", status["uplink"]);
    let stored = wait_until_stored(&mut admin, foreign, "an account", |_| true);
    assert_eq!(stored.events_total(), 0, "{stored:?}");

    // With its own authority again it delivers everything, without a restart.
    fs::write(identity_file(&stranger), own.to_string()).unwrap();
    let mut admin = other.admin().unwrap();
    let stored = wait_until_stored(&mut admin, foreign, "everything", |stored| stored.events_total() >= EVENTS.into());
    assert_eq!((stored.events_total(), stored.duplicates), (EVENTS.into(), 0));
    native_running.stop().unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
    other.stop().unwrap();
}

#[test]
fn a_server_of_a_foreign_authority_gets_nothing() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let other = Server::in_folder(sandbox.executable(), &sandbox.folder().join("other")).start().unwrap();
    let agent = impatient_agent(&sandbox, "agent", 0, "");
    agent.enroll(&server).unwrap();
    let misled = impatient_agent(&sandbox, "agent", 0, &format!("server = \"{}\"\n", other.endpoints.agent));
    let mut running = misled.start().unwrap();
    let error = wait_for_failure(&mut running);
    assert!(error.contains("certificate"), "the agent's TLS says no: {error}");
    println!("a foreign server: {error}");
    let report = wait_for_events(&mut running, EVENTS.into());
    assert!(report.buffer_bytes > 0 && report.events_lost.is_empty(), "{report:?}");
    assert_eq!(running.status().unwrap()["uplink"]["batches_sent"], 0);
    running.stop().unwrap();
    assert!(other.admin().unwrap().hosts().unwrap().is_empty());

    let running = agent.clone().config(QUIET).start().unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| stored.events_total() >= EVENTS.into());
    assert_eq!((stored.events_total(), stored.duplicates), (EVENTS.into(), 0));
    running.stop().unwrap();
    server.stop().unwrap();
    other.stop().unwrap();
}

#[test]
fn a_revoked_host_is_cut_off_at_once_and_stays_out() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = impatient_agent(&sandbox, "agent", 1_000, "");
    agent.enroll(&server).unwrap();
    let host = only_host(&mut admin);
    let bystander = impatient_agent(&sandbox, "bystander", 1_000, "");
    bystander.enroll(&server).unwrap();
    let (mut running, mut bystanding) = (agent.start().unwrap(), bystander.start().unwrap());
    let accepted = |status: &Value| status["uplink"]["batches_accepted"].as_u64().unwrap_or(0);
    for agent in [&mut running, &mut bystanding] {
        agent.wait_for("batches to be accepted", CONNECTION_DEADLINE, |status| accepted(status) > 0).unwrap();
    }

    let begun = Instant::now();
    let mut revoke = server.control(executable());
    revoke.args(["host", "revoke", &host, "-o", "json"]);
    let answer: Value = serde_json::from_str(&succeed(&mut revoke).unwrap()).unwrap();
    assert!(answer["revoked"].is_string(), "{answer}");
    let status = running
        .wait_for("the refusal", REVOCATION_DEADLINE, |status| {
            status["uplink"]["last_error"].as_str().unwrap_or_default().contains("revoked")
        })
        .unwrap();
    println!("cut off and told so after {:?}: {}", begun.elapsed(), status["uplink"]["last_error"]);
    assert!(begun.elapsed() < REVOCATION_DEADLINE);

    // Nothing more of it is taken; it collects all the same; others are not affected.
    let at_revocation = wait_until_stored(&mut admin, &host, "an account", |_| true).events_total();
    let before = AgentReport::from_status(&running.status().unwrap());
    let report = wait_for_events(&mut running, before.events_accepted + 3_000);
    assert!(report.buffer_bytes > before.buffer_bytes && report.events_lost.is_empty(), "{report:?}");
    let others = accepted(&bystanding.status().unwrap());
    bystanding.wait_for("to be served on", CONNECTION_DEADLINE, |status| accepted(status) > others).unwrap();
    assert_eq!(wait_until_stored(&mut admin, &host, "an account", |_| true).events_total(), at_revocation);
    let hosts = admin.hosts().unwrap();
    let revoked = hosts.iter().find(|listed| listed.host_id == host).unwrap();
    assert!(revoked.revoked_unix_s > 0 && !revoked.connected, "{revoked:?}");
    assert!(hosts.iter().any(|listed| listed.connected && listed.revoked_unix_s == 0), "{hosts:?}");
    running.stop().unwrap();

    // The way back is a new token: the machine is a new host, and what waited is delivered as that host's.
    let token = admin.create_token(600, 1).unwrap();
    let mut again = agent.command("enroll");
    again.args(["--server", &server.endpoints.agent.to_string(), "--token", &token]);
    let refused = process::output(&mut again).unwrap();
    assert!(printed(&refused).contains("--force"), "an identity is not replaced unasked: {}", printed(&refused));
    succeed(again.arg("--force")).unwrap();
    let quiet = agent.config(QUIET).start().unwrap();
    let old: Vec<String> = hosts.into_iter().map(|host| host.host_id).collect();
    let new = admin.hosts().unwrap().into_iter().find(|host| !old.contains(&host.host_id)).unwrap().host_id;
    wait_until_stored(&mut admin, &new, "what waited", |stored| stored.events_total() >= 3_000);
    quiet.stop().unwrap();
    bystanding.stop().unwrap();
    server.stop().unwrap();
}
