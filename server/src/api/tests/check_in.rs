//! Check-ins over the wire.

use std::time::Duration;

use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_proto::v1;
use tonic::Code;

use super::agent::{Agent, CheckIn, Credentials};
use super::server::TestServer;
use super::{Bystander, v1_inventory};
use crate::fleet::{DesiredModel, DesiredState, HostView};

fn desired(generation: u64) -> DesiredState {
    let digest = Digest::of(b"a model");
    let model = DesiredModel { subject: Subject::Connection, digest, bytes: 7, version: generation };
    DesiredState { generation, models: vec![model] }
}

fn report(epoch: u64) -> v1::CheckInRequest {
    let status = v1::AgentStatus { epoch, ..v1::AgentStatus::default() };
    v1::CheckInRequest {
        status: Some(status),
        inventory: Some(v1_inventory("renamed")),
        ..v1::CheckInRequest::default()
    }
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
    // A second one that does not say whose life it is has no claim.
    let mut second = agent.check_in().await.unwrap();
    second.desired().await.unwrap();
    second.report(v1::CheckInRequest::default()).await;
    assert_eq!(second.desired().await.unwrap_err().code(), Code::ResourceExhausted);
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
    check_in.report(v1::CheckInRequest { status: None, inventory, ..v1::CheckInRequest::default() }).await;
    assert_eq!(check_in.desired().await.unwrap_err().code(), Code::OutOfRange);
    bystander.is_served().await;
    server.stop().await;
}

/// A stream of the host on a connection of its own, up to the server's first answer. The server admits two connections of
/// a host and may take a moment to see that an earlier one is gone.
async fn open_stream(server: &TestServer, host: &Credentials) -> Result<CheckIn, tonic::Status> {
    let attempt = async || {
        let mut check_in = Agent::connect(&server.target, host.clone()).await?.check_in().await?;
        check_in.desired().await?;
        Ok::<_, tonic::Status>(check_in)
    };
    let give_up = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match attempt().await {
            Err(status)
                if matches!(status.code(), Code::Unknown | Code::Unavailable)
                    && tokio::time::Instant::now() < give_up =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcome => return outcome,
        }
    }
}

/// A check-in of the life `epoch`, `connection`; `Err`: how it was refused, `Ok`: still open.
async fn arrive(
    server: &TestServer,
    host: &Credentials,
    epoch: u64,
    connection: u64,
) -> Result<CheckIn, tonic::Status> {
    let mut check_in = open_stream(server, host).await?;
    let mut first = report(epoch);
    first.connection = connection;
    // Tells this report from the others.
    let mark = epoch * 1_000 + connection;
    first.status.as_mut().unwrap().alerts_total = mark;
    check_in.report(first).await;
    // Either the report is taken, or the stream ends.
    let taken = async {
        while view(server, host).await.record.status.is_none_or(|status| status.alerts_total != mark) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::select! {
        () = taken => None,
        answer = check_in.desired() => answer.err(),
    };
    ended.map_or(Ok(check_in), Err)
}

async fn view(server: &TestServer, host: &Credentials) -> HostView {
    let hosts = server.fleet.hosts().await.unwrap();
    hosts.into_iter().find(|view| view.record.host == host.host()).unwrap()
}

#[tokio::test]
async fn a_later_life_takes_the_place_of_the_one_before() {
    let server = TestServer::start().await;
    let host = server.enroll().await.into_credentials();
    let mut before = arrive(&server, &host, 7, 1).await.unwrap();
    // A connection that the server does not know to be dead yet, then a crash and a new start.
    let mut again = arrive(&server, &host, 7, 2).await.unwrap();
    assert!(before.desired().await.is_err(), "the old connection is cut");
    let _restarted = arrive(&server, &host, 8, 1).await.unwrap();
    assert!(again.desired().await.is_err());
    assert_eq!(server.fleet.connected(), 1);
    assert_eq!(view(&server, &host).await.record.quarantined, None);
    server.stop().await;
}

#[tokio::test]
async fn an_earlier_life_that_comes_again_puts_the_host_in_quarantine() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let host = server.enroll().await.into_credentials();
    let mut first = arrive(&server, &host, 7, 1).await.unwrap();
    let mut copy = arrive(&server, &host, 9, 1).await.unwrap();
    assert!(first.desired().await.is_err(), "it is taken for the connection before a restart");
    assert_eq!(arrive(&server, &host, 7, 2).await.unwrap_err().code(), Code::Aborted, "once may be a late message");
    assert!(view(&server, &host).await.connected, "the later one is not disturbed");
    let status = arrive(&server, &host, 7, 3).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::Unavailable | Code::Unknown), "{status}");
    assert!(copy.desired().await.is_err(), "both are cut off");
    for epoch in [7, 9] {
        let status = arrive(&server, &host, epoch, 9).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("enroll --force"), "{status}");
    }
    let quarantined = view(&server, &host).await;
    let reason = &quarantined.record.quarantine_reason;
    assert!(quarantined.record.quarantined.is_some() && reason.contains("started at 7"), "{quarantined:?}");
    bystander.is_served().await;

    // Whichever is left goes on once it is released.
    assert_eq!(server.fleet.release(host.host()).await.unwrap(), Some(true));
    assert_eq!(server.fleet.release(host.host()).await.unwrap(), Some(false));
    let _left = arrive(&server, &host, 7, 10).await.unwrap();
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
