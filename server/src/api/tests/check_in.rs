//! Check-ins over the wire.

use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_proto::v1;
use tonic::Code;

use super::server::TestServer;
use super::{Bystander, v1_inventory};
use crate::fleet::{DesiredModel, DesiredState};

fn desired(generation: u64) -> DesiredState {
    let digest = Digest::of(b"a model");
    let model = DesiredModel { subject: Subject::Connection, digest, bytes: 7, version: generation };
    DesiredState { generation, models: vec![model] }
}

fn report(epoch: u64) -> v1::CheckInRequest {
    let status = v1::AgentStatus { epoch, ..v1::AgentStatus::default() };
    v1::CheckInRequest { status: Some(status), inventory: Some(v1_inventory("renamed")) }
}

#[tokio::test]
async fn the_desired_state_comes_at_once_and_when_it_changes() {
    let server = TestServer::start().await;
    server.desired.send_replace(desired(1));
    let mut check_in = server.enroll().await.check_in().await.unwrap();
    let state = check_in.desired().await.unwrap();
    assert_eq!(state.generation, 1);
    assert_eq!(state.models[0].subject, "connection");
    assert_eq!(state.models[0].model_digest, Digest::of(b"a model").to_string());
    for generation in 2..5 {
        server.desired.send_replace(desired(generation));
        assert_eq!(check_in.desired().await.unwrap().generation, generation);
    }
    check_in.finish().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn reports_are_seen_and_outlive_the_stream() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    let mut check_in = agent.check_in().await.unwrap();
    check_in.desired().await.unwrap();
    check_in.report(report(9)).await;
    // The answer to the next change comes after the report was taken or before it; the end of the stream after it.
    check_in.finish().await.unwrap();
    assert_eq!(server.fleet.connected(), 0);
    let host = server.fleet.hosts().await.unwrap().remove(0);
    assert_eq!(host.record.status.unwrap().epoch, 9);
    assert_eq!(host.record.inventory.hostname, "renamed");
    assert!(host.record.last_seen.is_some());
    server.stop().await;
}

#[tokio::test]
async fn one_check_in_for_each_host() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    let first = agent.check_in().await.unwrap();
    assert_eq!(server.fleet.connected(), 1);
    assert_eq!(agent.check_in().await.unwrap_err().code(), Code::ResourceExhausted);
    first.finish().await.unwrap();
    agent.check_in().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_reports_without_end_or_too_much_is_stopped() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = server.enroll().await;
    let mut check_in = agent.check_in().await.unwrap();
    check_in.desired().await.unwrap();
    for epoch in 0..20 {
        check_in.report(report(epoch)).await;
    }
    assert_eq!(check_in.desired().await.unwrap_err().code(), Code::ResourceExhausted);

    let mut check_in = agent.check_in().await.unwrap();
    check_in.desired().await.unwrap();
    let inventory = Some(v1_inventory(&"x".repeat(70_000)));
    check_in.report(v1::CheckInRequest { status: None, inventory }).await;
    assert_eq!(check_in.desired().await.unwrap_err().code(), Code::OutOfRange);
    bystander.is_served().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let server = TestServer::start().await;
    let mut check_in = server.enroll().await.check_in().await.unwrap();
    check_in.desired().await.unwrap();
    let stopping = tokio::spawn(server.stop());
    assert_eq!(check_in.desired().await.unwrap_err().code(), Code::Unavailable);
    stopping.await.unwrap();
}
