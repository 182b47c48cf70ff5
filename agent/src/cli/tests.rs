use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::*;
use crate::app::AppError;
use crate::identity::IdentityStoreError;

#[test]
fn the_definition_holds_together() {
    Arguments::command().debug_assert();
}

#[test]
fn flags_become_settings() {
    let line = ["picket-agent", "run", "--state-dir", "/s", "--server", "h:1", "--config", "/c"];
    let Command::Run(arguments) = Arguments::try_parse_from(line).unwrap().command else { panic!("not run") };
    let overrides = arguments.into_overrides();
    assert_eq!(overrides.config, Some(PathBuf::from("/c")));
    let flags = [("--state-dir", "agent.state_dir", "/s".to_owned()), ("--server", "uplink.server", "h:1".to_owned())];
    assert_eq!(overrides.flags, flags);
}

/// The exit code of a command line, as a number.
fn exit_code(arguments: &[&str]) -> u8 {
    let code = main(std::iter::once("picket-agent").chain(arguments.iter().copied()).map(OsString::from));
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap()
}

#[test]
fn exit_codes_tell_failures_apart() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let config = dir.path().join("agent.toml");
    let run = |text: &str, config: &Path| {
        std::fs::write(config, text).unwrap();
        exit_code(&["run", "--state-dir", &state, "--config", &config.display().to_string()])
    };
    assert_eq!(run("[bufer]\n", &config), exit::CONFIGURATION);
    assert_eq!(exit_code(&["status", "--state-dir", &dir.path().join("none").display().to_string()]), 3);
    assert_eq!(exit_code(&["frobnicate"]), exit::BAD_INPUT);
    assert_eq!(exit_code(&["--version"]), 0);
    let enroll =
        |token: &str, server: &str| exit_code(&["enroll", "--state-dir", &state, "--server", server, "--token", token]);
    assert_eq!(enroll("not a token", "127.0.0.1:1"), exit::IDENTITY);
    let token = format!("id.secret.{}", picket_common::id::Digest::of(b"x"));
    assert_eq!(enroll(&token, "127.0.0.1:1"), exit::UNREACHABLE);
    assert_eq!(exit_code(&["enroll", "--state-dir", &state, "--server", "h:1", "--token-file", "/none"]), 2);
    assert_eq!(exit_code(&["enroll", "--state-dir", &state, "--server", "h:1"]), exit::BAD_INPUT);
}

#[test]
fn a_token_is_not_shown() {
    let line = ["picket-agent", "enroll", "--server", "h:1", "--token", "id.topsecret.x"];
    let arguments = Arguments::try_parse_from(line).unwrap();
    assert!(!format!("{arguments:?}").contains("topsecret"));
}

#[test]
fn what_ends_the_agent_decides_its_exit_code() {
    let path = PathBuf::from("/state");
    let source = || std::io::Error::other("for the test");
    for (error, code) in [
        (AppError::Locked { path: path.clone() }, 3),
        (AppError::StateDir { path: path.clone(), source: source() }, 3),
        (AppError::Identity(IdentityStoreError::File { path, source: source() }), 4),
        (AppError::Threads(source()), 70),
    ] {
        assert_eq!(exit::app(&error), ExitCode::from(code), "{error}");
    }
}
