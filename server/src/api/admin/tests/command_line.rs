//! picketctl against a real server.

use clap::Parser as _;
use picket_learn::gate::Policy;
use serde_json::Value;

use super::server::{TestServer, script};
use crate::auth::Role;
use crate::ctl::arguments::Arguments;
use crate::ctl::error::CtlError;

/// An operator at a command line.
struct Operator {
    line: Vec<String>,
}

impl Operator {
    async fn new(server: &TestServer, role: Role) -> Self {
        Self { line: server.command_line(role).await }
    }

    /// Runs a command on a thread that may wait, as the binary does.
    async fn run(&self, command: &[&str]) -> Result<String, CtlError> {
        let mut line = self.line.clone();
        line.extend(command.iter().map(|part| (*part).to_owned()));
        let arguments = Arguments::try_parse_from(line).unwrap();
        let run = move || {
            let mut out = Vec::new();
            crate::ctl::run(arguments, Box::new(&mut out)).map(|()| String::from_utf8(out).unwrap())
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn json(&self, command: &[&str]) -> Value {
        let command: Vec<&str> = ["-o", "json"].into_iter().chain(command.iter().copied()).collect();
        serde_json::from_str(&self.run(&command).await.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_loop_from_the_command_line() {
    // A gate that holds what it sees: the script has far fewer malicious rows.
    let server = TestServer::start_with(Policy { positives_min: 1_000, ..Policy::default() }).await;
    let scripted = script(15);
    server.deliver(&scripted.iter().map(|scripted| scripted.event.clone()).collect::<Vec<_>>()).await;
    let engineer = Operator::new(&server, Role::Engineer).await;

    let table = engineer.run(&["host", "list"]).await.unwrap();
    assert!(table.contains(&server.host.to_string()) && table.contains("\\u{1b}[2J"), "{table}");
    assert_eq!(engineer.json(&["host", "list"]).await[0]["hostname"], "ada-laptop\u{1b}[2J");

    assert_eq!(engineer.json(&["lake", "commit"]).await["events_committed"], 90);
    let sql = "SELECT count(*) AS n FROM process_activity";
    assert_eq!(engineer.json(&["event", "query", "--sql", sql]).await[0]["n"], 90);
    assert!(engineer.run(&["event", "query", "--sql", sql]).await.unwrap().contains("90"));
    let lines =
        engineer.run(&["-o", "ndjson", "event", "query", "--sql", "SELECT 1 AS a UNION SELECT 2"]).await.unwrap();
    assert_eq!(lines.lines().count(), 2);

    let mut csv = "event_id,verdict,technique,group\n".to_owned();
    for scripted in &scripted {
        let key = scripted.event.key;
        let (verdict, technique) = if scripted.attack { ("malicious", "T1036") } else { ("benign", "") };
        let id = format!("{}/{}/{}", server.host, key.epoch.0, key.sequence.0);
        csv += &format!("{id},{verdict},{technique},{}\n", scripted.group);
    }
    let file = server.folder.path().join("labels.csv");
    std::fs::write(&file, csv).unwrap();
    assert_eq!(engineer.json(&["label", "import", file.to_str().unwrap()]).await["added"], 90);
    let first = format!("{}/{}/0", server.host, scripted[0].event.key.epoch.0);
    let add = ["label", "add", &first, "--verdict", "benign", "--group", "work-0"];
    assert_eq!(engineer.json(&add).await["added"], 1);
    let labels = engineer.json(&["label", "list", "--limit", "100000"]).await;
    assert_eq!(labels.as_array().unwrap().len(), 91);
    assert_eq!((&labels[90]["source"], &labels[0]["source"]), (&"analyst".into(), &"import".into()));

    let dataset = engineer.json(&["dataset", "build", "--subject", "process_start"]).await;
    let dataset_id = dataset["dataset_id"].as_str().unwrap();
    assert_eq!(engineer.json(&["dataset", "list"]).await[0]["dataset_id"], dataset_id);
    let shown = engineer.run(&["dataset", "show", dataset_id]).await.unwrap();
    assert!(shown.contains("\"lake_versions\""), "{shown}");

    let line = ["train", "--dataset", dataset_id, "--algorithm", "decision_tree", "--seed", "3"];
    let models = engineer.json(&line).await;
    let digest = models[0]["model_digest"].as_str().unwrap();
    let shown = engineer.run(&["model", "show", &digest[..8]]).await.unwrap();
    assert!(shown.contains("ROC-AUC") && shown.contains(digest), "{shown}");
    let judged = engineer.run(&["model", "judge", &digest[..8]]).await;
    let held = engineer.run(&["model", "push", &digest[..8]]).await;
    for refused in [judged.unwrap_err(), held.unwrap_err()] {
        assert_eq!(refused.exit_code(), 1, "{refused}");
    }
    let pushed = engineer.json(&["model", "push", &digest[..8], "--force"]).await;
    assert_eq!((&pushed["generation"], &pushed["gate"]["forced"]), (&1.into(), &true.into()));
    let shown = engineer.run(&["model", "show", &digest[..8]]).await.unwrap();
    assert!(shown.contains("hold, but released by force"), "{shown}");
    let rebuilt = engineer.json(&["model", "rebuild", &digest[..8], "--verify"]).await;
    assert_eq!(rebuilt["same"], true);
    assert_eq!(engineer.json(&["model", "list"]).await[0]["stage"], "production");

    let to = server.folder.path().join("exported.model");
    let export = ["model", "export", digest, "--to", to.to_str().unwrap()];
    engineer.run(&export).await.unwrap();
    assert_eq!(picket_common::id::Digest::of(&std::fs::read(&to).unwrap()).to_string(), digest);
    assert_eq!(engineer.run(&export).await.unwrap_err().exit_code(), 2, "it replaced a file unasked");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_exit_codes() {
    let server = TestServer::start().await;
    let viewer = Operator::new(&server, Role::Viewer).await;
    let code = async |operator: &Operator, command: &[&str]| operator.run(command).await.unwrap_err().exit_code();
    assert_eq!(code(&viewer, &["lake", "commit"]).await, 4);
    assert_eq!(code(&viewer, &["event", "query", "--sql", "SELECT nonsense"]).await, 2);
    assert_eq!(code(&viewer, &["model", "show", "abcdef"]).await, 2);
    assert_eq!(code(&viewer, &["model", "show", "abc"]).await, 2);
    assert_eq!(code(&viewer, &["dataset", "show", "none"]).await, 2);

    let admin = Operator::new(&server, Role::Admin).await;
    let token = admin.run(&["token", "create", "--valid-for", "2h", "--max-uses", "3"]).await.unwrap();
    assert_eq!(token.trim().split('.').count(), 3);
    assert_eq!(code(&admin, &["token", "create", "--valid-for", "31d"]).await, 2);

    let host = server.host.to_string();
    assert_eq!(code(&viewer, &["host", "revoke", &host]).await, 4, "only an administrator may");
    assert_eq!(code(&admin, &["host", "revoke", "no-host"]).await, 2);
    assert_eq!(code(&admin, &["host", "revoke", "00000000-0000-4000-8000-000000000007"]).await, 2);
    assert!(viewer.json(&["host", "list"]).await[0]["revoked"].is_null());
    let revoked = admin.json(&["host", "revoke", &host]).await;
    assert!(revoked["revoked"].is_string(), "{revoked}");
    assert_eq!(viewer.json(&["host", "list"]).await[0]["revoked"], revoked["revoked"]);

    // A token that was never made, and a server that the CA file does not vouch for.
    let mut stranger = Operator { line: viewer.line.clone() };
    let file = server.folder.path().join("stranger.token");
    std::fs::write(&file, format!("picket_{}", "00".repeat(32))).unwrap();
    stranger.line[6] = file.to_str().unwrap().to_owned();
    assert_eq!(code(&stranger, &["host", "list"]).await, 4);
    let other = TestServer::start().await;
    let mut mistaken = Operator { line: viewer.line.clone() };
    mistaken.line[4] = other.folder.path().join("ca.pem").to_str().unwrap().to_owned();
    assert_eq!(code(&mistaken, &["host", "list"]).await, 4);
    other.stop().await;
    server.stop().await;
}
