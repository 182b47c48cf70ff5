//! `picket-agent doctor`: what is wrong is found, said with what to do, and told apart by the exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use picket_tests::process;
use picket_tests::sandbox::{Agent, printed};
use serde_json::Value;

use crate::support::{QUIET, sandbox};

/// Exit code, and the checks that are not `ok`, each with outcome, finding and advice.
fn examine(agent: &Agent) -> (i32, Vec<Value>) {
    let mut command = agent.command("doctor");
    command.args(["-o", "json"]);
    let output = process::output(&mut command).unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let checks = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let code = output.status.code().unwrap_or_else(|| panic!("{}", printed(&output)));
    (code, checks.filter(|check| check["outcome"] != "ok").collect())
}

/// The check of this name fails, and says what to do.
fn assert_fails(checks: &[Value], name: &str, advice: &str) {
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("{name} should not be ok: {checks:?}"));
    assert_eq!(check["outcome"], "fail", "{check}");
    assert!(check["advice"].as_str().unwrap().contains(advice), "{check}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let agent = sandbox.agent("agent").config(QUIET);
    fs::create_dir(agent.state_dir()).unwrap();
    set_mode(agent.state_dir(), 0o700);
    let (code, checks) = examine(&agent);
    assert_eq!(code, 4, "{checks:?}");
    assert_fails(&checks, "identity", "picket-agent enroll");

    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();
    let (code, checks) = examine(&agent);
    assert_eq!(code, 0, "{checks:?}");
    assert!(checks.iter().all(|check| check["outcome"] == "warn"), "{checks:?}");
    running.stop().unwrap();

    set_mode(agent.state_dir(), 0o755);
    let (code, checks) = examine(&agent);
    assert_eq!(code, 1, "{checks:?}");
    assert_fails(&checks, "state folder", "chmod 700");
    set_mode(agent.state_dir(), 0o700);

    let identity = agent.state_dir().join("identity/identity.json");
    set_mode(&identity, 0o644);
    let (code, checks) = examine(&agent);
    assert_eq!(code, 4, "{checks:?}");
    assert_fails(&checks, "identity file", "chmod 600");
    set_mode(&identity, 0o600);

    server.stop().unwrap();
    let (code, checks) = examine(&agent);
    assert_eq!(code, 5, "{checks:?}");
    assert_fails(&checks, "server: TCP", "firewalls");
}

#[test]
fn doctor_tells_another_server_from_none() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let agent = sandbox.agent("agent").config(QUIET);
    agent.enroll(&server).unwrap();
    let mut other = picket_tests::sandbox::Server::in_folder(sandbox.executable(), &sandbox.folder().join("other"));
    let other = other.start().unwrap();
    let mut command = agent.command("doctor");
    command.args(["--server", &other.endpoints.agent.to_string()]);
    let output = process::output(&mut command).unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", printed(&output));
    assert!(printed(&output).contains("server: TLS"), "{}", printed(&output));
    other.stop().unwrap();
    server.stop().unwrap();
}
