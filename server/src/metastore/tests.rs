#![allow(clippy::unwrap_used)]

use picket_common::id::HostId;
use tempfile::TempDir;

use super::*;
use crate::auth::Role;
use crate::clock::UnixSeconds;
use crate::fleet::{AgentStatus, HostInventory};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

async fn store() -> (TempDir, Metastore) {
    let directory = TempDir::new().unwrap();
    let store = Metastore::open(&directory.path().join("metadata.sqlite")).await.unwrap();
    (directory, store)
}

fn join_token(token_id: &str, max_uses: u32) -> NewJoinToken {
    NewJoinToken {
        token_id: token_id.into(),
        secret_sha256: [7; 32],
        author: "admin".into(),
        created: NOW,
        expires: UnixSeconds(NOW.0 + 60),
        max_uses,
    }
}

fn certificate(serial: u8) -> CertificateRecord {
    CertificateRecord { serial: vec![serial; 16], issued: NOW, not_after: UnixSeconds(NOW.0 + 1_000) }
}

fn host(seed: u8, token: &str) -> NewHost {
    NewHost {
        host: HostId::from_random([seed; 16]),
        join_token_id: token.into(),
        inventory: HostInventory { hostname: format!("host-{seed}"), ..HostInventory::default() },
        certificate: certificate(seed),
    }
}

#[tokio::test]
async fn a_join_token_is_kept_listed_and_revoked() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 2)).await.unwrap();
    let record = store.join_token("a").await.unwrap().unwrap();
    assert_eq!((record.max_uses, record.uses, record.secret_sha256), (2, 0, [7; 32]));
    assert!(record.is_usable(NOW));
    assert!(!record.is_usable(UnixSeconds(NOW.0 + 60)), "not at its expiry any more");
    assert!(store.join_token("b").await.unwrap().is_none());
    assert_eq!(store.join_tokens().await.unwrap().len(), 1);
    assert!(store.revoke_join_token("a", NOW).await.unwrap());
    assert!(!store.revoke_join_token("b", NOW).await.unwrap());
    assert!(!store.join_token("a").await.unwrap().unwrap().is_usable(NOW));
    assert!(matches!(store.enroll(&host(1, "a"), NOW).await, Err(EnrollError::TokenRefused)));
}

#[tokio::test]
async fn a_join_token_admits_as_many_hosts_as_it_says_and_only_in_time() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 2)).await.unwrap();
    store.enroll(&host(1, "a"), NOW).await.unwrap();
    let late = UnixSeconds(NOW.0 + 60);
    assert!(matches!(store.enroll(&host(2, "a"), late).await, Err(EnrollError::TokenRefused)));
    store.enroll(&host(2, "a"), NOW).await.unwrap();
    assert!(matches!(store.enroll(&host(3, "a"), NOW).await, Err(EnrollError::TokenRefused)));
    assert!(matches!(store.enroll(&host(4, "unknown"), NOW).await, Err(EnrollError::TokenRefused)));
    assert_eq!(store.hosts().await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_last_use_of_a_join_token_is_won_once() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 1)).await.unwrap();
    let rivals = (1..=16).map(|seed| {
        let store = store.clone();
        tokio::spawn(async move { store.enroll(&host(seed, "a"), NOW).await })
    });
    let outcomes = futures::future::join_all(rivals.collect::<Vec<_>>()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count(), 1);
    assert_eq!(store.hosts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_enrolment_that_fails_midway_changes_nothing() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 5)).await.unwrap();
    store.enroll(&host(1, "a"), NOW).await.unwrap();
    let clash = NewHost { certificate: certificate(1), ..host(2, "a") };
    assert!(matches!(store.enroll(&clash, NOW).await, Err(EnrollError::Metastore(_))), "the serial is taken");
    assert_eq!(store.join_token("a").await.unwrap().unwrap().uses, 1);
    assert_eq!(store.hosts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_certificate_is_superseded_when_a_later_one_is_used() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 1)).await.unwrap();
    let id = host(1, "a").host;
    store.enroll(&host(1, "a"), NOW).await.unwrap();
    for serial in [2, 3] {
        store.record_certificate(id, &certificate(serial)).await.unwrap();
    }
    let admit = async |serial: u8| store.admit(id, &[serial; 16], NOW).await.unwrap();
    assert_eq!(admit(1).await, Admission::Admitted, "the answers with 2 and 3 may have been lost");
    assert_eq!(admit(3).await, Admission::Admitted);
    assert_eq!(admit(1).await, Admission::Superseded);
    assert_eq!(admit(2).await, Admission::Superseded);
    assert_eq!(admit(3).await, Admission::Admitted);
    assert_eq!(admit(4).await, Admission::Unknown);
    let other = HostId::from_random([9; 16]);
    assert_eq!(store.admit(other, &[3; 16], NOW).await.unwrap(), Admission::Unknown, "another host's certificate");
}

#[tokio::test]
async fn certificates_of_a_host_that_renews_without_end_are_forgotten() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 1)).await.unwrap();
    let id = host(1, "a").host;
    store.enroll(&host(1, "a"), NOW).await.unwrap();
    for serial in 2..=100 {
        store.record_certificate(id, &certificate(serial)).await.unwrap();
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM host_certificates").fetch_one(store.read()).await.unwrap();
    assert_eq!(kept, 9);
    assert_eq!(store.admit(id, &[1; 16], NOW).await.unwrap(), Admission::Admitted, "the one in use stays");
    assert_eq!(store.admit(id, &[50; 16], NOW).await.unwrap(), Admission::Unknown);
    assert_eq!(store.admit(id, &[100; 16], NOW).await.unwrap(), Admission::Admitted);
}

#[tokio::test]
async fn a_revoked_host_is_not_admitted() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 1)).await.unwrap();
    let new = host(1, "a");
    store.enroll(&new, NOW).await.unwrap();
    assert_eq!(store.revoke_host(new.host, NOW).await.unwrap(), Some(NOW));
    assert_eq!(store.revoke_host(new.host, UnixSeconds(NOW.0 + 60)).await.unwrap(), Some(NOW), "the first time stays");
    assert_eq!(store.revoke_host(HostId::from_random([9; 16]), NOW).await.unwrap(), None);
    assert_eq!(store.admit(new.host, &[1; 16], NOW).await.unwrap(), Admission::Revoked);
    assert_eq!(store.host(new.host).await.unwrap().unwrap().revoked, Some(NOW));
}

#[tokio::test]
async fn reports_replace_what_they_bring_and_keep_the_rest() {
    let (_directory, store) = store().await;
    store.create_join_token(&join_token("a", 1)).await.unwrap();
    let new = host(1, "a");
    store.enroll(&new, NOW).await.unwrap();
    let status = AgentStatus {
        epoch: 5,
        events_lost: [("sensor/queue_full".to_owned(), 3)].into(),
        cpu_seconds: 1.5,
        ..AgentStatus::default()
    };
    let report = HostReport {
        host: new.host,
        last_seen: NOW,
        inventory: None,
        status: Some(status.clone()),
        accounts: Vec::new(),
    };
    let stranger = HostReport { host: HostId::from_random([9; 16]), ..report.clone() };
    store.record_reports(&[stranger, report.clone()]).await.unwrap();
    let earlier = HostReport { last_seen: UnixSeconds(NOW.0 - 5), status: None, ..report };
    store.record_reports(&[earlier]).await.unwrap();
    let record = store.host(new.host).await.unwrap().unwrap();
    assert_eq!(record.status, Some(status));
    assert_eq!(record.inventory, new.inventory);
    assert_eq!(record.last_seen, Some(NOW));
}

#[tokio::test]
async fn api_tokens_are_found_by_their_secret() {
    let (_directory, store) = store().await;
    let new = NewApiToken { name: "ada".into(), role: Role::Analyst, secret_sha256: [1; 32], created: NOW };
    let id = store.create_api_token(&new).await.unwrap();
    let found = store.api_token_by_secret(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((found.token_id, found.name.as_str(), found.role), (id, "ada", Role::Analyst));
    assert!(store.api_token_by_secret(&[2; 32]).await.unwrap().is_none());
    assert!(store.create_api_token(&new).await.is_err(), "a secret belongs to one token");
    assert!(store.revoke_api_token(id, NOW).await.unwrap());
    assert!(!store.revoke_api_token(id + 1, NOW).await.unwrap());
    assert_eq!(store.api_tokens().await.unwrap()[0].revoked, Some(NOW));
}

#[tokio::test]
async fn settings_are_replaced() {
    let (_directory, store) = store().await;
    assert_eq!(store.setting("generation").await.unwrap(), None);
    for value in ["1", "2"] {
        store.put_setting("generation", value).await.unwrap();
        assert_eq!(store.setting("generation").await.unwrap().as_deref(), Some(value));
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let (directory, store) = store().await;
    store.put_setting("generation", "7").await.unwrap();
    store.close().await;
    let again = Metastore::open(&directory.path().join("metadata.sqlite")).await.unwrap();
    assert_eq!(again.setting("generation").await.unwrap().as_deref(), Some("7"));
}

#[tokio::test]
async fn the_database_is_opened_as_promised() {
    let (_directory, store) = store().await;
    let pragma = async |pool: &SqlitePool, name: &'static str| -> String {
        sqlx::query_scalar::<_, String>(name).fetch_one(pool).await.unwrap()
    };
    for pool in [&store.reads, &store.writes] {
        assert_eq!(pragma(pool, "SELECT journal_mode FROM pragma_journal_mode").await, "wal");
        assert_eq!(pragma(pool, "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await, "2");
        assert_eq!(pragma(pool, "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys").await, "1");
    }
    let refused = sqlx::query("DELETE FROM settings").execute(store.read()).await;
    assert!(refused.is_err(), "the read connections do not write");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (directory, store) = store().await;
    let path = directory.path().join("metadata.sqlite");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .execute(&store.writes)
    .await
    .unwrap();
    store.close().await;
    let error = Metastore::open(&path).await.unwrap_err();
    assert!(matches!(error, MetastoreError::NewerSchema { found: 9999, .. }), "{error}");
    assert!(error.to_string().contains("run the newer server"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("metadata.sqlite");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert!(matches!(Metastore::open(&path).await, Err(MetastoreError::Open { .. })));
}
