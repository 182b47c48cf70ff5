//! Disks that are full or fail: nothing is acknowledged that is not durable.

use picket_proto::v1::BatchVerdict;
use tonic::Code;

use super::frames::Frames;
use super::server::TestServer;

#[tokio::test]
async fn a_full_disk_is_waited_out() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    let mut frames = Frames::new(7);
    let (stored, refused) = (frames.next(2), frames.next(3));
    let mut delivery = agent.deliver().await.unwrap();
    delivery.send(stored.clone()).await.unwrap();

    server.wal.faults().disk_is_full(Some(10));
    let status = delivery.send(refused.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let mut delivery = agent.deliver().await.unwrap();
    assert_eq!(delivery.send(stored.clone()).await.unwrap().verdict(), BatchVerdict::Duplicate, "this one is durable");
    assert_eq!(delivery.send(refused.clone()).await.unwrap_err().code(), Code::Unavailable);

    server.wal.faults().disk_is_full(None);
    let mut delivery = agent.deliver().await.unwrap();
    assert_eq!(delivery.send(refused).await.unwrap().verdict(), BatchVerdict::Accepted);
    assert_eq!(server.ingest.counters().events_accepted, 5);
    server.stop().await;
}

#[tokio::test]
async fn a_disk_that_does_not_keep_its_promise_ends_acknowledgements() {
    let server = TestServer::start().await;
    let agent = server.enroll().await;
    let mut frames = Frames::new(7);
    let mut delivery = agent.deliver().await.unwrap();
    delivery.send(frames.next(1)).await.unwrap();
    server.wal.faults().syncs_fail();
    let lost = frames.next(1);
    for _ in 0..3 {
        assert_eq!(delivery.send(lost.clone()).await.unwrap_err().code(), Code::Unavailable);
        delivery = agent.deliver().await.unwrap();
    }
    assert_eq!(server.ingest.counters().batches_accepted, 1);
    server.stop().await;
}
