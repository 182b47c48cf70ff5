//! `picket-agent replay`: a recording through the whole pipeline, and then it ends.

use picket_tests::sandbox::{Agent, printed};

use crate::support::{only_host, record, sandbox, wait_until_stored};

/// Events of the recording. The agent adds that it started.
const EVENTS: u32 = 1_500;

fn replay(agent: &Agent, arguments: &[&str]) -> std::process::Output {
    agent.command("replay").args(arguments).output().unwrap()
}

#[test]
fn a_recording_goes_to_the_server_or_waits_in_the_buffer() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let recording = record(&sandbox, EVENTS);
    let recording = recording.to_str().unwrap();

    // Without an identity: kept.
    let agent = sandbox.agent("agent");
    let output = replay(&agent, &[recording, "--now"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("0 delivered, 1500 in the buffer, 0 lost"), "{}", printed(&output));

    // With one, both times go out.
    agent.enroll(&server).unwrap();
    let output = replay(&agent, &[recording]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("0 in the buffer, 0 lost"), "{}", printed(&output));
    let host = only_host(&mut admin);
    let both = u64::from(2 * EVENTS);
    let stored = wait_until_stored(&mut admin, &host, "both replays", |stored| stored.events_total() >= both);
    assert_eq!((stored.events_total(), stored.duplicates), (both, 0));
    server.stop().unwrap();
}

#[test]
fn a_recording_that_is_none_is_refused_with_its_line() {
    let sandbox = sandbox();
    let path = sandbox.folder().join("bad.jsonl");
    std::fs::write(&path, "{\"kind\": 7}\n").unwrap();
    let output = replay(&sandbox.agent("agent"), &[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
    assert!(printed(&output).contains("line 1"), "{}", printed(&output));
}
