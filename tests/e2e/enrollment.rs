//! How a host gets its identity, and how one that should not gets none.

use picket_tests::sandbox::{Agent, RunningServer, printed};

use crate::support::{only_host, replaying_agent, sandbox, wait_until_stored};

/// Exit code for identity and authentication.
const EXIT_IDENTITY: i32 = 4;

fn assert_refused(agent: &Agent, server: &RunningServer, token: &str, why: &str) {
    let output = agent.try_enroll(server, token).unwrap();
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(EXIT_IDENTITY), "{why}: {text}");
    assert!(text.to_lowercase().contains("token"), "{why}: {text}");
}

#[test]
fn an_enrolled_agent_delivers_and_its_events_can_be_queried() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = replaying_agent(&sandbox, "agent", 1_500);
    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();
    let host = only_host(&mut admin);
    let stored = wait_until_stored(&mut admin, &host, "1,500 events", |stored| stored.events_total() >= 1_500);
    assert_eq!((stored.events_total(), stored.duplicates), (1_500, 0));
    assert_eq!(admin.query_number("SELECT count(*) FROM process_activity WHERE activity = 'start'").unwrap(), 500);
    assert_eq!(admin.query_number("SELECT count(*) FROM network_activity").unwrap(), 500);
    assert_eq!(admin.query_number("SELECT count(*) FROM agent_activity").unwrap(), 1);
    running.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_wrong_an_expired_and_a_used_token_let_nobody_in() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();

    let good = admin.create_token(600, 1).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    assert_eq!(parts.len(), 3, "id, secret and digest");
    let turned: String = parts[1].chars().rev().collect();
    assert_refused(&sandbox.agent("wrong"), &server, &format!("{}.{turned}.{}", parts[0], parts[2]), "wrong secret");
    assert_refused(&sandbox.agent("rubbish"), &server, "rubbish", "not a token");

    let short_lived = admin.create_token(1, 1).unwrap();
    // Its second must pass; that it has is the fact that is waited for.
    let created = std::time::Instant::now();
    picket_tests::wait::until_true("the token to expire", std::time::Duration::from_secs(5), || {
        created.elapsed().as_millis() > 2_100
    })
    .unwrap();
    assert_refused(&sandbox.agent("late"), &server, &short_lived, "expired");

    let first = sandbox.agent("first");
    assert!(first.try_enroll(&server, &good).unwrap().status.success());
    assert_refused(&sandbox.agent("second"), &server, &good, "used up");
    assert_eq!(admin.hosts().unwrap().len(), 1);
    server.stop().unwrap();
}

#[test]
fn a_token_of_another_server_is_refused_before_anything_is_sent() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let other = picket_tests::sandbox::Server::in_folder(sandbox.executable(), &sandbox.folder().join("other"))
        .start()
        .unwrap();
    let foreign = other.admin().unwrap().create_token(600, 1).unwrap();
    let agent = sandbox.agent("agent");
    let output = agent.try_enroll(&server, &foreign).unwrap();
    assert_eq!(output.status.code(), Some(EXIT_IDENTITY), "{}", printed(&output));
    assert!(server.admin().unwrap().hosts().unwrap().is_empty());
    assert!(other.admin().unwrap().hosts().unwrap().is_empty());
    server.stop().unwrap();
    other.stop().unwrap();
}
