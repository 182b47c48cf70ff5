#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;
use crate::metastore::{CertificateRecord, JoinTokenStore as _, NewHost, NewJoinToken};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

async fn fleet() -> (TempDir, Arc<Fleet>, HostId) {
    let folder = TempDir::new().unwrap();
    let metastore = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
    let host = HostId::from_random([1; 16]);
    let token = NewJoinToken {
        token_id: "a".into(),
        secret_sha256: [0; 32],
        author: "admin".into(),
        created: NOW,
        expires: UnixSeconds(NOW.0 + 1),
        max_uses: 1,
    };
    metastore.create_join_token(&token).await.unwrap();
    let certificate = CertificateRecord { serial: vec![1], issued: NOW, not_after: UnixSeconds(NOW.0 + 1) };
    let new = NewHost { host, join_token_id: "a".into(), inventory: HostInventory::default(), certificate };
    metastore.enroll(&new, NOW).await.unwrap();
    let (_, desired) = watch::channel(DesiredState::default());
    (folder, Arc::new(Fleet::new(metastore, Arc::default(), desired)), host)
}

fn status(epoch: u64) -> Option<AgentStatus> {
    Some(AgentStatus { epoch, ..AgentStatus::default() })
}

#[tokio::test]
async fn a_report_is_seen_at_once_and_written_later() {
    let (_folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host).unwrap();
    check_in.report(status(7), None, NOW).unwrap();
    let view = fleet.hosts().await.unwrap().remove(0);
    assert!(view.connected);
    assert_eq!(view.record.status, status(7));
    assert_eq!(fleet.metastore.host(host).await.unwrap().unwrap().status, None);

    drop(check_in);
    assert_eq!(fleet.connected(), 0);
    fleet.save_reports().await.unwrap();
    assert!(fleet.agents.lock().is_empty(), "nothing is kept for who is gone and written");
    let view = fleet.hosts().await.unwrap().remove(0);
    assert_eq!((view.connected, view.record.last_seen, view.record.status), (false, Some(NOW), status(7)));
}

#[tokio::test]
async fn an_inventory_stays_until_the_next() {
    let (_folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host).unwrap();
    let inventory = HostInventory { hostname: "a".into(), ..HostInventory::default() };
    check_in.report(status(1), Some(inventory.clone()), NOW).unwrap();
    check_in.report(status(2), None, NOW).unwrap();
    fleet.save_reports().await.unwrap();
    let record = fleet.metastore.host(host).await.unwrap().unwrap();
    assert_eq!((record.inventory, record.status), (inventory, status(2)));
}

#[tokio::test]
async fn reports_that_could_not_be_written_are_written_the_next_time() {
    let (folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host).unwrap();
    check_in.report(status(1), None, NOW).unwrap();
    drop(check_in);
    fleet.metastore.close().await;
    fleet.save_reports().await.unwrap_err();
    assert!(fleet.agents.lock()[&host].unsaved);

    let metastore = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
    let fleet = Fleet { metastore, ..Arc::try_unwrap(fleet).unwrap() };
    fleet.save_reports().await.unwrap();
    assert_eq!(fleet.metastore.host(host).await.unwrap().unwrap().status, status(1));
}

#[tokio::test]
async fn one_check_in_for_each_host_and_not_too_many_reports() {
    let (_folder, fleet, host) = fleet().await;
    let mut first = fleet.check_in(host).unwrap();
    assert_eq!(fleet.check_in(host).unwrap_err(), CheckInError::SecondStream);
    fleet.check_in(HostId::from_random([2; 16])).unwrap();
    let outcomes: Vec<_> = (0..100).map(|_| first.report(None, None, NOW)).collect();
    assert!(outcomes[..10].iter().all(Result::is_ok));
    assert!(outcomes.contains(&Err(CheckInError::Rate)));
    drop(first);
    fleet.check_in(host).unwrap();
}

#[tokio::test]
async fn stopping_writes_what_is_left() {
    let (_folder, fleet, host) = fleet().await;
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Arc::clone(&fleet).keep_reports(stop.clone()));
    fleet.check_in(host).unwrap().report(status(3), None, NOW).unwrap();
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(fleet.metastore.host(host).await.unwrap().unwrap().status, status(3));
}
