//! Connections: whoever is silent, rude or too many does not keep others out.

use std::time::Duration;

use picket_proto::v1::BatchVerdict;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use super::Bystander;
use super::agent::Agent;
use super::frames::Frames;
use super::server::TestServer;
use crate::listener::{HOST_CONNECTIONS_MAX, Timeouts};

const SOON: Duration = Duration::from_millis(50);

/// Waits until the server has closed this connection; says what it sent.
async fn closed(mut socket: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset is an end, too.
    socket.read_to_end(&mut received).await.ok();
    received
}

#[tokio::test]
async fn who_does_not_shake_hands_is_cut_off() {
    let server = TestServer::builder().timeouts(Timeouts { handshake: SOON, ..Timeouts::default() }).start().await;
    let mut bystander = Bystander::new(&server).await;
    let silent = TcpStream::connect(server.target.address).await.unwrap();
    assert!(closed(silent).await.is_empty());
    bystander.is_served().await;
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_speak_tls_is_cut_off() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4096]] {
        let mut rude = TcpStream::connect(server.target.address).await.unwrap();
        rude.write_all(words).await.unwrap();
        closed(rude).await;
        bystander.is_served().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn who_has_nothing_to_say_is_cut_off() {
    let server = TestServer::builder().timeouts(Timeouts { idle: SOON, ..Timeouts::default() }).start().await;
    let agent = server.enroll().await;
    let mut delivery = agent.deliver().await.unwrap();
    delivery.send(Frames::new(7).next(1)).await.unwrap();
    // The stream keeps its connection; without streams it goes away, and the next call makes a new one.
    delivery.finish().await.unwrap();
    while server.hosts.hosts_connected() > 0 {
        tokio::task::yield_now().await;
    }
    agent.deliver().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_is_nobody_does_not_stay() {
    let timeouts = Timeouts { anonymous: SOON, drain: SOON, ..Timeouts::default() };
    let server = TestServer::builder().timeouts(timeouts).start().await;
    let mut bystander = Bystander::new(&server).await;
    let anonymous = Agent::tls_only(&server.target).await;
    assert!(!closed_tls(anonymous).await, "closed without an answer to nothing");
    bystander.is_served().await;
    server.stop().await;
}

/// Waits until the server closes a TLS connection on which nothing was asked. True if it sent anything but HTTP/2's
/// own frames.
async fn closed_tls(mut connection: tokio_rustls::client::TlsStream<TcpStream>) -> bool {
    let mut received = Vec::new();
    connection.read_to_end(&mut received).await.ok();
    // SETTINGS, WINDOW_UPDATE and GOAWAY at most.
    received.len() > 200
}

#[tokio::test]
async fn an_old_connection_ends_in_order_and_nothing_is_lost() {
    let server = TestServer::builder().connection_age(SOON).start().await;
    let agent = server.enroll().await;
    let mut frames = Frames::new(7);
    let mut delivery = agent.deliver().await.unwrap();
    let mut accepted = 0;
    let status = loop {
        match delivery.send(frames.next(1)).await {
            Ok(answer) => {
                assert_eq!(answer.verdict(), BatchVerdict::Accepted);
                accepted += 1;
            }
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(server.ingest.counters().batches_accepted >= accepted, "what was acknowledged is durable");
    agent.deliver().await.expect("the next connection is a new one");
    server.stop().await;
}

#[tokio::test]
async fn a_host_has_two_connections() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let first = server.enroll().await;
    let delivery = first.deliver().await.unwrap();
    let second = first.reconnect(&server.target).await.unwrap();
    second.check_in().await.unwrap();
    assert_eq!(HOST_CONNECTIONS_MAX, 2);
    let third = match first.reconnect(&server.target).await {
        Ok(third) => third.check_in().await.map(drop),
        Err(refused) => Err(refused),
    };
    third.unwrap_err();
    bystander.is_served().await;
    drop((first, delivery));
    // Its place is free as soon as the server has noticed.
    loop {
        if let Ok(next) = second.reconnect(&server.target).await
            && next.renew().await.is_ok()
        {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let server = TestServer::builder().connections_max(2).start().await;
    let agent = server.enroll().await;
    let mut delivery = agent.deliver().await.unwrap();
    delivery.send(Frames::new(7).next(1)).await.unwrap();
    // The enrolment's connection has gone or goes; this one takes the second place.
    let squatter = Agent::tls_only(&server.target).await;
    let waiting = tokio::spawn({
        let address = server.target.address;
        async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"rubbish").await.unwrap();
            closed(socket).await
        }
    });
    let mut frames = Frames::new(8);
    for _ in 0..20 {
        delivery.send(frames.next(1)).await.unwrap();
    }
    assert!(!waiting.is_finished(), "nobody has looked at it yet");
    drop(squatter);
    waiting.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn headers_have_a_limit() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = server.enroll().await;
    let path = "/picket.v1.ModelService/Fetch";
    let answer = agent.post_with_header(path, b"", "x-long", &"x".repeat(20_000)).await;
    assert!(answer.is_err() || answer.is_ok_and(|code| code != Code::Ok));
    bystander.is_served().await;
    agent.deliver().await.expect("the connection is still good");
    server.stop().await;
}
