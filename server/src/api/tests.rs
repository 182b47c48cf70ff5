//! Real clients against real listeners: every wrong thing an agent can do gets its typed answer, and the stream of
//! another agent on the same server goes on.

#![allow(clippy::unwrap_used)]

use picket_common::batch::limits;
use picket_proto::v1::{self, BatchVerdict, RejectReason};
use tonic::Code;

use self::agent::{Agent, Delivery};
use self::frames::{Frames, bomb, with_checksum};
use self::server::TestServer;
use crate::ingest::IN_FLIGHT_MAX;

pub(crate) mod agent;
mod check_in;
mod connection;
mod disk;
mod enrollment;
pub(crate) mod frames;
mod model;
mod server;

/// An agent whose stream goes on whatever others do; proves it when asked.
struct Bystander {
    delivery: Delivery,
    frames: Frames,
}

impl Bystander {
    async fn new(server: &TestServer) -> Self {
        let delivery = server.enroll().await.deliver().await.unwrap();
        let mut bystander = Self { delivery, frames: Frames::new(1) };
        bystander.is_served().await;
        bystander
    }

    async fn is_served(&mut self) {
        let answer = self.delivery.send(self.frames.next(3)).await.unwrap();
        assert_eq!(answer.verdict(), BatchVerdict::Accepted);
    }
}

#[tokio::test]
async fn a_batch_is_accepted_once_and_then_a_duplicate() {
    let server = TestServer::start().await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    let mut frames = Frames::new(7);
    let first = frames.next(10);
    let mut verdicts = Vec::new();
    for frame in [first.clone(), first.clone(), frames.next(1), first] {
        verdicts.push(delivery.send(frame).await.unwrap().verdict());
    }
    use BatchVerdict::{Accepted, Duplicate};
    assert_eq!(verdicts, [Accepted, Duplicate, Accepted, Duplicate]);
    let counters = server.ingest.counters();
    assert_eq!((counters.batches_accepted, counters.events_accepted, counters.batches_duplicate), (2, 11, 2));
    delivery.finish().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_batch_delivered_twice_at_once_is_accepted_once() {
    let server = TestServer::start().await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    let frame = Frames::new(7).next(5);
    for id in 0..8 {
        delivery.push(id, frame.clone()).await;
    }
    let mut accepted = 0;
    for _ in 0..8 {
        match delivery.answer().await.unwrap().verdict() {
            BatchVerdict::Accepted => accepted += 1,
            verdict => assert_eq!(verdict, BatchVerdict::Duplicate),
        }
    }
    assert_eq!(accepted, 1);
    server.stop().await;
}

#[tokio::test]
async fn each_delivery_is_answered_and_many_run_at_a_time() {
    let server = TestServer::start().await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    let mut frames = Frames::new(7);
    let total = 4 * IN_FLIGHT_MAX as u64;
    let mut sender = delivery.sender();
    let sending = tokio::spawn(async move {
        for id in 0..total {
            sender.push(id, frames.next(2)).await;
        }
    });
    let mut answered: Vec<u64> = Vec::new();
    for _ in 0..total {
        let answer = delivery.answer().await.unwrap();
        assert_eq!(answer.verdict(), BatchVerdict::Accepted);
        answered.push(answer.delivery_id);
    }
    sending.await.unwrap();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..total));
    let counters = server.wal.counters();
    assert_eq!(counters.records, total);
    assert!(counters.fsyncs < total, "{} fsyncs for {total} batches: appends run one after the other", counters.fsyncs);
    server.stop().await;
}

#[tokio::test]
async fn a_bad_batch_is_rejected_with_its_reason_and_disturbs_nothing() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    let good = Frames::new(7).next(3);

    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut future = good.to_vec();
    future[8] = 200;
    let mut codec = good.to_vec();
    codec[9] = 9;
    let too_large = vec![0; limits::BATCH_FRAME_BYTES_MAX + 1];
    let mut claims = good.to_vec();
    claims[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut payload = good.to_vec();
    payload.truncate(48);
    payload.extend_from_slice(b"not what zstd makes");
    payload[12..16].copy_from_slice(&19_u32.to_le_bytes());

    use RejectReason::{Checksum, Malformed, TooLarge, UnsupportedVersion};
    let cases = [
        ("a flipped bit", flipped, Checksum),
        ("a future version", with_checksum(future), UnsupportedVersion),
        ("an unknown codec", with_checksum(codec), UnsupportedVersion),
        ("nothing", Vec::new(), Malformed),
        ("rubbish", b"rubbish that is no batch at all, but long enough for a header".to_vec(), Malformed),
        ("a frame that is too large", too_large, TooLarge),
        ("a claim to be huge", with_checksum(claims), TooLarge),
        ("a bomb", bomb(), TooLarge),
        ("a rubbish payload", with_checksum(payload), Malformed),
        ("a truncated frame", good[..20].to_vec(), Malformed),
    ];
    for (what, frame, reason) in cases {
        let answer = delivery.send(frame.into()).await.unwrap();
        assert_eq!(answer.verdict(), BatchVerdict::Rejected, "{what}");
        assert_eq!(answer.reject_reason(), reason, "{what}: {}", answer.reason);
        assert!(!answer.reason.is_empty(), "{what}");
        bystander.is_served().await;
    }
    assert_eq!(delivery.send(good).await.unwrap().verdict(), BatchVerdict::Accepted, "the same stream goes on, too");
    assert_eq!(server.ingest.counters().batches_rejected, 10);
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_own_stream_only() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    let status = delivery.send(vec![0; 1024 * 1024 + 1].into()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    bystander.is_served().await;
    server.stop().await;
}

#[tokio::test]
async fn rubbish_instead_of_a_message_ends_its_own_stream_only() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = server.enroll().await;
    for body in [&b"\0\0\0\0\x05\xff\xff\xff\xff\xff"[..], b"\x07\0\0\0\0", b"\x01\0\0\0\x01x"] {
        let code = agent.post("/picket.v1.IngestService/Deliver", body).await;
        assert!(matches!(code, Code::Internal | Code::Unimplemented | Code::InvalidArgument), "{code:?}");
        bystander.is_served().await;
    }
    assert_eq!(agent.post("/picket.v1.NoService/None", b"").await, Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn only_an_enrolled_host_delivers() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;

    let anonymous = Agent::anonymous(&server.target).await.unwrap();
    assert_eq!(anonymous.deliver().await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(anonymous.check_in().await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(anonymous.fetch("00", 0).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(anonymous.renew().await.unwrap_err().code(), Code::Unauthenticated);

    // Of another authority: the handshake fails.
    let other = TestServer::start().await;
    let foreign = other.enroll().await.connect_to(&server.target).await;
    let error = match foreign {
        Ok(agent) => agent.deliver().await.unwrap_err(),
        Err(error) => error,
    };
    let cause = agent::causes(&error);
    assert!(cause.contains("fatal alert: UnknownCA"), "{error:?}: {cause}");
    bystander.is_served().await;

    // Of this authority, but not on record.
    let unknown = server.agent_off_the_record().await;
    let status = unknown.deliver().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("enrol again"));
    bystander.is_served().await;
    other.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_revoked_host_is_cut_off_and_told_why() {
    let server = TestServer::start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = server.enroll().await;
    let mut delivery = agent.deliver().await.unwrap();
    let mut frames = Frames::new(7);
    delivery.send(frames.next(1)).await.unwrap();

    assert!(server.fleet.revoke(agent.host()).await.unwrap().is_some());
    delivery.send(frames.next(1)).await.unwrap_err();
    let status = agent.reconnect(&server.target).await.unwrap().deliver().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let status = agent.reconnect(&server.target).await.unwrap().renew().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    bystander.is_served().await;
    server.stop().await;
}

#[tokio::test]
async fn a_second_stream_is_refused_until_the_first_has_ended() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    let first = agent.deliver().await.unwrap();
    assert_eq!(agent.deliver().await.unwrap_err().code(), Code::ResourceExhausted);
    let elsewhere = agent.reconnect(&server.target).await.unwrap();
    assert_eq!(elsewhere.deliver().await.unwrap_err().code(), Code::ResourceExhausted);
    first.finish().await.unwrap();
    let mut next = elsewhere.deliver().await.unwrap();
    assert_eq!(next.send(Frames::new(7).next(1)).await.unwrap().verdict(), BatchVerdict::Accepted);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_far_over_its_rate_is_stopped_and_others_are_not() {
    // Eight small batches at once, and then one an hour.
    let server = TestServer::builder().agent_rate(1, 8 * 4096).start().await;
    let mut bystander = Bystander::new(&server).await;
    let agent = server.enroll().await;
    let mut delivery = agent.deliver().await.unwrap();
    let mut frames = Frames::new(7);
    for _ in 0..8 {
        assert_eq!(delivery.send(frames.next(1)).await.unwrap().verdict(), BatchVerdict::Accepted);
    }
    assert_eq!(delivery.send(frames.next(1)).await.unwrap_err().code(), Code::ResourceExhausted);
    // A new stream or connection does not help.
    let mut delivery = agent.reconnect(&server.target).await.unwrap().deliver().await.unwrap();
    assert_eq!(delivery.send(frames.next(1)).await.unwrap_err().code(), Code::ResourceExhausted);
    bystander.is_served().await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_acknowledges_what_it_took_and_says_so() {
    let server = TestServer::start().await;
    let mut delivery = server.enroll().await.deliver().await.unwrap();
    delivery.send(Frames::new(7).next(1)).await.unwrap();
    let stopping = tokio::spawn(server.stop());
    let status = delivery.answer().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn watchers_see_events_as_they_become_durable() {
    let server = TestServer::start().await;
    let mut tail = server.ingest.subscribe();
    let agent = server.enroll().await;
    let mut delivery = agent.deliver().await.unwrap();
    delivery.send(Frames::new(7).next(4)).await.unwrap();
    let batch = tail.recv().await.unwrap();
    assert_eq!((batch.host, batch.events.len()), (agent.host(), 4));
    server.stop().await;
}

fn v1_inventory(hostname: &str) -> v1::HostInventory {
    v1::HostInventory { hostname: hostname.into(), ..v1::HostInventory::default() }
}
