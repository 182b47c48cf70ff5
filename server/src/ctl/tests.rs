//! Command lines that fail before a server is needed.

use std::io::Write as _;

use clap::Parser as _;

use super::*;

fn run_line(line: &[&str]) -> (Result<(), CtlError>, String) {
    let arguments = Arguments::try_parse_from(std::iter::once("picketctl").chain(line.iter().copied())).unwrap();
    let mut out = Vec::new();
    let result = run(arguments, Box::new(&mut out));
    (result, String::from_utf8(out).unwrap())
}

fn exit_code(line: &[&str]) -> u8 {
    run_line(line).0.unwrap_err().exit_code()
}

const EVENT: &str = "0190b5c0-7c1d-4a5e-9c39-8a8f2d0f6a11/1800000000000000000/42";

#[test]
fn bad_input_is_told_before_the_server_is_asked() {
    let (result, _) = run_line(&["label", "add", EVENT, "--verdict", "malicious", "--technique", "scan"]);
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("T1046 or T1059.004"), "{error}");
    assert_eq!(exit_code(&["label", "add", "not-an-event", "--verdict", "benign"]), 2);
    assert_eq!(exit_code(&["label", "import", "/does/not/exist.csv"]), 2);
    assert_eq!(exit_code(&["label", "import", "labels"]), 2);
}

#[test]
fn a_dry_run_needs_no_server() {
    let mut file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    writeln!(file, "event_id,verdict\n{EVENT},benign").unwrap();
    let path = file.path().to_str().unwrap();
    let (result, out) = run_line(&["-o", "json", "label", "import", path, "--dry-run"]);
    result.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), serde_json::json!({"labels": 1}));
}

#[test]
fn what_is_not_set_or_not_there_is_told_apart() {
    // The environment of the tests may set these; flags win.
    let folder = tempfile::TempDir::new().unwrap();
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let line = ["--server", "127.0.0.1:1", "--ca", &missing, "--token-file", &missing, "host", "list"];
    assert_eq!(exit_code(&line), 3);

    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["picket-server".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (ca, token) = (folder.path().join("ca.pem"), folder.path().join("token"));
    std::fs::write(&ca, certificate.pem()).unwrap();
    std::fs::write(&token, "picket_00").unwrap();
    // A port that was free a moment ago: nobody answers.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let line = ["--server", &address, "--ca", ca.to_str().unwrap(), "--token-file", token.to_str().unwrap()];
    let line: Vec<&str> = line.into_iter().chain(["host", "list"]).collect();
    let (result, _) = run_line(&line);
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("cannot reach the server at 127.0.0.1"), "{error}");
}

#[test]
fn help_is_no_error_and_nonsense_is_bad_input() {
    let code = |line: &[&str]| main(std::iter::once("picketctl").chain(line.iter().copied()).map(OsString::from));
    let as_text = |code: ExitCode| format!("{code:?}");
    assert_eq!(as_text(code(&["model", "list", "--help"])), as_text(ExitCode::SUCCESS));
    assert_eq!(as_text(code(&["model", "explode"])), as_text(ExitCode::from(2)));
}
