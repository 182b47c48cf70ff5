//! Enrolment and renewal over the wire.

use picket_common::id::Digest;
use picket_proto::v1::BatchVerdict;
use tonic::Code;

use super::Bystander;
use super::agent::{Agent, Credentials};
use super::frames::Frames;
use super::server::TestServer;

#[tokio::test]
async fn an_enrolled_host_knows_whom_to_trust() {
    let server = TestServer::start().await;
    let agent = Agent::anonymous(&server.target).await.unwrap();
    let request = Credentials::request(&Credentials::new_key());
    let identity = agent.enroll(&server.join_token(1).await, &request).await.unwrap();
    assert_eq!(identity.trust_bundle_der.len(), 1);
    assert_eq!(Digest::of(&identity.trust_bundle_der[0]), server.enrollment.authority_digest());
    assert_eq!(identity.model_verifying_keys, [vec![3; 32]]);
    let hosts = server.fleet.hosts().await.unwrap();
    assert_eq!(hosts[0].record.host.to_string(), identity.host_id);
    assert_eq!(hosts[0].record.inventory.hostname, "test-host");
    server.stop().await;
}

#[tokio::test]
async fn what_lets_nobody_in_has_a_typed_answer() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = Agent::anonymous(&server.target).await.unwrap();
    let good = Credentials::request(&Credentials::new_key());
    let once = server.join_token(1).await;
    agent.enroll(&once, &good).await.unwrap();
    let fresh = server.join_token(1).await;
    let wrong = format!("{}.{}", fresh.split_once('.').unwrap().0, "0".repeat(32));
    let expired = server.expired_join_token().await;
    let huge = vec![0; 20_000];
    let cases: [(&str, &str, &[u8], Code); 8] = [
        ("a token that has expired", &expired, &good, Code::Unauthenticated),
        ("a token that is used up", &once, &good, Code::Unauthenticated),
        ("a token with a wrong secret", &wrong, &good, Code::Unauthenticated),
        ("no token", "", &good, Code::Unauthenticated),
        ("rubbish instead of a request", &fresh, b"rubbish", Code::InvalidArgument),
        ("no request", &fresh, b"", Code::InvalidArgument),
        ("a request that is too large", &fresh, &vec![0; 8_000], Code::InvalidArgument),
        ("a message that is too large", &fresh, &huge, Code::OutOfRange),
    ];
    for (what, token, request, code) in cases {
        let status = agent.enroll(token, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status}");
        assert!(!status.message().is_empty(), "{what}");
    }
    bystander.is_served().await;
    agent.enroll(&fresh, &good).await.expect("the token is still good");
    server.stop().await;
}

#[tokio::test]
async fn of_two_agents_with_one_use_left_one_is_let_in() {
    let server = TestServer::start().await;
    let token = server.join_token(1).await;
    let agents = [Agent::anonymous(&server.target).await.unwrap(), Agent::anonymous(&server.target).await.unwrap()];
    let request = Credentials::request(&Credentials::new_key());
    let outcomes = tokio::join!(agents[0].enroll(&token, &request), agents[1].enroll(&token, &request));
    let codes = [outcomes.0.map_err(|status| status.code()).err(), outcomes.1.map_err(|status| status.code()).err()];
    assert!(codes.contains(&None) && codes.contains(&Some(Code::Unauthenticated)), "{codes:?}");
    assert_eq!(server.fleet.hosts().await.unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn guessing_is_held_to_a_rate() {
    let server = TestServer::start().await;
    let agent = Agent::anonymous(&server.target).await.unwrap();
    let mut codes = Vec::new();
    while !codes.contains(&Code::ResourceExhausted) {
        assert!(codes.len() < 10_000, "never refused");
        codes.push(agent.enroll("0000000000000000.00000000000000000000000000000000", b"").await.unwrap_err().code());
    }
    assert!(codes[..codes.len() - 1].iter().all(|code| *code == Code::Unauthenticated));
    server.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_replaces_the_old_one_when_it_is_used() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    agent.renew().await.expect("an answer that got lost locks nobody out");
    let renewed = agent.renew().await.unwrap();
    agent.deliver().await.expect("the old certificate is good until then").finish().await.unwrap();

    let next = Agent::connect(&server.target, renewed).await.unwrap();
    assert_eq!(next.host(), agent.host());
    let mut delivery = next.deliver().await.unwrap();
    assert_eq!(delivery.send(Frames::new(7).next(1)).await.unwrap().verdict(), BatchVerdict::Accepted);
    let status = agent.deliver().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    server.stop().await;
}
