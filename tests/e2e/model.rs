//! Damaged models: refused wherever they turn up, and the agent goes on with what it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_proto::v1;
use picket_tests::admin::AdminClient;
use picket_tests::agent_report::AgentReport;
use picket_tests::learning;
use picket_tests::process;
use picket_tests::sandbox::{Agent, RunningAgent, RunningServer, Sandbox, printed, succeed};
use serde_json::Value;

use crate::support::{executable, only_host, replaying_agent, sandbox, wait_for_events, wait_until_stored};

/// Exit codes of `picket-agent score`.
const EXIT_OK: i32 = 0;
const EXIT_FINDINGS: i32 = 1;
const EXIT_BAD_INPUT: i32 = 2;

/// Places of a model file that are damaged, one at a time. That every bit and every length is refused is tested where
/// models are read (`picket_common::model`); here are the files, the exit code and the message.
const PLACES: usize = 16;

/// Bytes of a recording: as many events as a quick data set needs.
const EVENTS: u32 = 600;

/// How long an agent may take until a model is in force.
const IN_FORCE_DEADLINE: Duration = Duration::from_secs(30);

/// A server that has learned from an enrolled agent's events.
struct School {
    agent: Agent,
    running: RunningAgent,
    admin: AdminClient,
    models: Vec<v1::Model>,
}

fn learn(sandbox: &Sandbox, server: &RunningServer, algorithms: &[&str]) -> School {
    let mut admin = server.admin().unwrap();
    let agent = replaying_agent(sandbox, "agent", EVENTS);
    agent.enroll(server).unwrap();
    let running = agent.start().unwrap();
    let host = only_host(&mut admin);
    wait_until_stored(&mut admin, &host, "events", |stored| stored.events_total() >= u64::from(EVENTS));
    let is_malicious = |executable: &str| Some(executable == "/usr/bin/curl");
    let models = learning::train_on_process_starts(&mut admin, &host, algorithms, is_malicious).unwrap();
    assert_eq!(models.len(), algorithms.len());
    School { agent, running, admin, models }
}

#[test]
fn a_damaged_model_file_is_refused_with_its_name_and_an_exit_code() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let School { agent, running, models, .. } = learn(&sandbox, &server, &["decision_tree"]);
    let path = sandbox.folder().join("exported.model");
    let mut export = server.control(executable());
    export.args(["model", "export", &models[0].model_digest, "--to"]).arg(&path);
    succeed(&mut export).unwrap();
    let intact = fs::read(&path).unwrap();

    // With the agent's trusted keys: the signature counts.
    let recording = sandbox.folder().join(format!("recording-{EVENTS}.jsonl"));
    let score = || {
        let mut command = agent.command("score");
        command.arg("--model").arg(&path).arg("--input").arg(&recording).args(["-o", "ndjson"]);
        let output = process::output(&mut command).unwrap();
        (output.status.code(), printed(&output))
    };
    let (code, text) = score();
    assert!(matches!(code, Some(EXIT_OK | EXIT_FINDINGS)), "{text}");
    assert_eq!(text.lines().count(), EVENTS as usize / 3, "a verdict for each process start: {text}");

    let places = (0..PLACES).map(|place| place * (intact.len() - 1) / (PLACES - 1));
    let flipped = places.clone().map(|at| {
        let mut bytes = intact.clone();
        bytes[at] ^= 1 << (at % 8);
        (format!("a bit of byte {at} flipped"), bytes)
    });
    let truncated = places.map(|length| (format!("cut to {length} bytes"), intact[..length].to_vec()));
    let longer = [("one byte longer".to_owned(), [&intact[..], &[0]].concat())];
    for (damage, bytes) in flipped.chain(truncated).chain(longer) {
        fs::write(&path, bytes).unwrap();
        let (code, text) = score();
        assert_eq!(code, Some(EXIT_BAD_INPUT), "{damage}: {text}");
        assert!(text.contains("exported.model") && text.lines().count() == 1, "{damage}: {text}");
    }
    running.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_model_damaged_on_disk_gives_way_to_the_one_before_and_is_fetched_again() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let School { agent, mut running, mut admin, models } =
        learn(&sandbox, &server, &["decision_tree", "neural_network"]);
    let (first, second) = (&models[0].model_digest, &models[1].model_digest);
    for digest in [first, second] {
        // Of a few events, which are no evidence.
        admin.push_model(digest, true).unwrap();
        wait_until_in_force(&mut running, digest);
    }
    running.stop().unwrap();
    server.stop().unwrap();

    // One bit of the model in force: the one before takes over, and the agent says why.
    flip_a_bit(&model_file(&agent, second));
    let mut running = agent.start().unwrap();
    let report = wait_for_events(&mut running, u64::from(EVENTS));
    assert!(report.has_active("process_start", first), "{:?}", report.active_models);
    assert!(error_of(&report).contains("SHA-256"), "{:?}", report.active_models);
    let status = running.status().unwrap();
    assert!(scored(&status) >= u64::from(EVENTS) / 3, "the model before judges: {}", status["detector"]);
    running.stop().unwrap();

    // Both: nothing is in force, everything else goes on. One is cut to nothing, one is gone.
    fs::write(model_file(&agent, first), b"").unwrap();
    fs::remove_file(model_file(&agent, second)).unwrap();
    let mut running = agent.start().unwrap();
    let report = wait_for_events(&mut running, u64::from(EVENTS));
    assert!(report.active_models.iter().all(|model| model.model_digest.is_empty()), "{:?}", report.active_models);
    assert!(!error_of(&report).is_empty());
    assert_eq!(scored(&running.status().unwrap()), 0);

    // The server is back: what should be in force is fetched again, while the agent runs.
    let server = home.start().unwrap();
    let report = wait_until_in_force(&mut running, second);
    assert_eq!(error_of(&report), "");
    assert_eq!(picket_common::id::Digest::of(&fs::read(model_file(&agent, second)).unwrap()).to_string(), *second);
    running.stop().unwrap();
    server.stop().unwrap();
}

fn wait_until_in_force(running: &mut RunningAgent, digest: &str) -> AgentReport {
    let status = running
        .wait_for("the model to be in force", IN_FORCE_DEADLINE, |status| {
            AgentReport::from_status(status).has_active("process_start", digest)
        })
        .unwrap();
    AgentReport::from_status(&status)
}

/// Why the model of process starts that should be in force is not.
fn error_of(report: &AgentReport) -> String {
    let model = report.active_models.iter().find(|model| model.subject == "process_start");
    model.map(|model| model.last_error.clone()).unwrap_or_default()
}

fn scored(status: &Value) -> u64 {
    status["detector"]["scored"].as_u64().unwrap()
}

fn model_file(agent: &Agent, digest: &str) -> PathBuf {
    agent.state_dir().join("models").join(format!("{digest}.model"))
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}
