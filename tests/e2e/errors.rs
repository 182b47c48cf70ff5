//! What people get wrong: each a clear message and an exit code, nothing else lost or stopped.

use std::net::TcpListener;
use std::process::Command;

use picket_proto::v1;
use picket_tests::admin::{AdminClient, AdminError};
use picket_tests::process;
use picket_tests::sandbox::{Endpoints, printed};
use tonic::Code;

use crate::support::{executable, only_host, replaying_agent, sandbox, wait_until_stored};

const EXIT_BAD_INPUT: i32 = 2;
const EXIT_CONFIGURATION: i32 = 3;
const EXIT_IDENTITY: i32 = 4;
const EXIT_UNREACHABLE: i32 = 5;

fn assert_fails(command: &mut Command, code: i32, words: &[&str]) {
    let output = process::output(command).unwrap();
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{command:?} should mention {word:?}: {text}");
    }
}

#[test]
fn an_unknown_key_of_the_configuration_is_an_error_that_names_the_nearest() {
    let sandbox = sandbox();
    let server = sandbox.server().config("[ingest]\nagent_burst_byte = 1\n");
    assert_fails(
        &mut server.command().unwrap(),
        EXIT_CONFIGURATION,
        &["ingest.agent_burst_byte", "ingest.agent_burst_bytes"],
    );
    let agent = sandbox.agent("agent").config("[sensor.proces]\nmode = \"off\"\n");
    assert_fails(&mut agent.run_command().unwrap(), EXIT_CONFIGURATION, &["sensor.proces", "sensor.process"]);
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let sandbox = sandbox();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, any) = (taken.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap());
    for addresses in [Endpoints { agent: taken, admin: any }, Endpoints { agent: any, admin: taken }] {
        let output = process::output(&mut sandbox.server().at(addresses).command().unwrap()).unwrap();
        let text = printed(&output);
        assert!(!output.status.success() && output.status.code().is_some(), "{text}");
        assert!(text.contains(&taken.to_string()) && text.contains("in use"), "{text}");
    }
}

#[test]
fn a_label_for_an_unknown_event_is_refused_with_everything_beside_it() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = replaying_agent(&sandbox, "agent", 30);
    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();
    let host_id = only_host(&mut admin);
    wait_until_stored(&mut admin, &host_id, "30 events", |stored| stored.events_total() >= 30);
    let epoch = admin.query_number("SELECT max(epoch) FROM process_activity").unwrap().unsigned_abs();
    let label = |sequence| v1::Label {
        event: Some(v1::EventReference { host_id: host_id.clone(), epoch, sequence }),
        verdict: v1::Verdict::Malicious.into(),
        technique: "T1046".to_owned(),
        source: "test".to_owned(),
        group: "test".to_owned(),
        ..v1::Label::default()
    };
    let error = admin.add_labels(&[label(5), label(987_654)]).unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound), "{error}");
    assert!(error.to_string().contains("987654"), "it names the event: {error}");
    assert_eq!(admin.label_count().unwrap(), 0, "all or nothing");
    assert_eq!(admin.add_labels(&[label(5)]).unwrap(), 1);
    assert_eq!(admin.label_count().unwrap(), 1);
    running.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn wrong_sql_is_answered_and_nothing_but_select_is_run() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    for sql in [
        "SELEC 1",
        "SELECT no_such_column FROM process_activity",
        "SELECT * FROM no_such_table",
        "DROP TABLE process_activity",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO sensor_loss SELECT * FROM sensor_loss",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO 'out.csv'",
        "SET datafusion.execution.batch_size = 1",
        "",
    ] {
        let error = admin.query(sql).expect_err(sql);
        assert_eq!(error.code(), Some(Code::InvalidArgument), "{sql}: {error}");
    }
    assert_eq!(admin.query_number("SELECT 40 + 2").unwrap(), 42);
    let mut command = server.control(executable());
    command.args(["event", "query", "--sql", "SELECT no_such_column FROM process_activity"]);
    assert_fails(&mut command, EXIT_BAD_INPUT, &["no_such_column"]);
    server.stop().unwrap();
}

#[test]
fn a_wrong_api_token_and_an_absent_server_are_told_apart() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let ca_file = server.ca_file();
    let mut stranger = AdminClient::connect(server.endpoints.admin, &ca_file, "not-the-token").unwrap();
    let error = stranger.hosts().unwrap_err();
    assert!(matches!(error, AdminError::Call { .. }) && error.code() == Some(Code::Unauthenticated), "{error}");

    let wrong = sandbox.folder().join("wrong.token");
    std::fs::write(&wrong, "not-the-token").unwrap();
    let control = |token: &std::path::Path| {
        let mut command = picket_tests::role::Role::Control.command(executable());
        command.args(["--server", &server.endpoints.admin.to_string()]);
        command.arg("--ca").arg(&ca_file).arg("--token-file").arg(token).args(["host", "list"]);
        command
    };
    assert_fails(&mut control(&wrong), EXIT_IDENTITY, &[]);
    let mut while_it_runs = control(&server.token_file());
    assert!(process::output(&mut while_it_runs).unwrap().status.success());
    let mut after = control(&server.token_file());
    server.stop().unwrap();
    assert_fails(&mut after, EXIT_UNREACHABLE, &[]);
}
