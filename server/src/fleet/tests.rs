#![allow(clippy::unwrap_used)]

use tempfile::TempDir;

use super::*;
use crate::metastore::{AccountStore as _, CertificateRecord, JoinTokenStore as _, NewHost, NewJoinToken};

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
    let authorities = Arc::new(Authorities::open(folder.path(), NOW).unwrap());
    (folder, Arc::new(Fleet::new(metastore, Arc::default(), desired, authorities)), host)
}

fn status(epoch: u64) -> Option<AgentStatus> {
    Some(AgentStatus { epoch, ..AgentStatus::default() })
}

#[tokio::test]
async fn a_report_is_seen_at_once_and_written_later() {
    let (_folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host, CancellationToken::new());
    check_in.report(status(7), None, 0, NOW).await.unwrap();
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
    let mut check_in = fleet.check_in(host, CancellationToken::new());
    let inventory = HostInventory { hostname: "a".into(), ..HostInventory::default() };
    check_in.report(status(1), Some(inventory.clone()), 0, NOW).await.unwrap();
    check_in.report(status(2), None, 0, NOW).await.unwrap();
    fleet.save_reports().await.unwrap();
    let record = fleet.metastore.host(host).await.unwrap().unwrap();
    assert_eq!((record.inventory, record.status), (inventory, status(2)));
}

#[tokio::test]
async fn reports_that_could_not_be_written_are_written_the_next_time() {
    let (folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host, CancellationToken::new());
    check_in.report(status(1), None, 0, NOW).await.unwrap();
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
    let mut first = fleet.check_in(host, CancellationToken::new());
    let mut second = fleet.check_in(host, CancellationToken::new());
    assert!(matches!(second.report(None, None, 0, NOW).await, Err(CheckInError::SecondStream)));
    drop(second);
    assert_eq!(fleet.connected(), 1, "the first one still counts");
    let mut outcomes = Vec::new();
    for _ in 0..100 {
        outcomes.push(first.report(None, None, 0, NOW).await);
    }
    assert!(outcomes[..10].iter().all(Result::is_ok));
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(CheckInError::Rate))));
    drop(first);
    assert_eq!(fleet.connected(), 0);
}

#[tokio::test]
async fn accounts_are_written_when_they_change() {
    let (_folder, fleet, host) = fleet().await;
    let mut check_in = fleet.check_in(host, CancellationToken::new());
    let account = |epoch, accepted| EpochAccount { epoch, accepted, ..EpochAccount::default() };
    let reported = |epochs| Some(AgentStatus { epoch: 2, epochs, ..AgentStatus::default() });
    check_in.report(reported(vec![account(1, 5), account(2, 6)]), None, 0, NOW).await.unwrap();
    fleet.save_reports().await.unwrap();
    let later = UnixSeconds(NOW.0 + 30);
    check_in.report(reported(vec![account(1, 5), account(2, 9)]), None, 0, later).await.unwrap();
    fleet.save_reports().await.unwrap();
    let kept = fleet.metastore.accounts(Some(host)).await.unwrap();
    let kept: Vec<_> =
        kept.iter().map(|record| (record.account.epoch, record.account.accepted, record.reported)).collect();
    assert_eq!(kept, [(1, 5, NOW), (2, 9, later)], "what did not change is not written again");
}

#[tokio::test]
async fn stopping_writes_what_is_left() {
    let (_folder, fleet, host) = fleet().await;
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Arc::clone(&fleet).keep_reports(stop.clone()));
    let mut check_in = fleet.check_in(host, CancellationToken::new());
    check_in.report(status(3), None, 0, NOW).await.unwrap();
    drop(check_in);
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(fleet.metastore.host(host).await.unwrap().unwrap().status, status(3));
}
