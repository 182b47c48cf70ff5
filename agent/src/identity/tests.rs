use std::sync::Arc;
use std::time::SystemTime;

use picket_common::id::Digest;

use super::*;
use crate::test_server::{TestAuthority, TestServer};

pub(crate) const HOST: &str = "0190b5c0-7c1d-4a5e-9c39-8a8f2d0f6a11";

/// An identity that the server of the test has issued.
pub(crate) async fn enrolled(server: &TestServer) -> Identity {
    server.script.lock().host_id = HOST.to_owned();
    let token: JoinToken = server.join_token().parse().unwrap();
    enroll(&server.address(), &token).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_enrols_and_keeps_its_identity_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = TestServer::start().await;
    let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key();
    server.script.lock().model_keys = vec![key.as_bytes().to_vec()];
    let identity = enrolled(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let store = IdentityStore::in_state_dir(dir.path());
    assert!(store.load().unwrap().is_none());
    store.save(&identity).unwrap();
    let loaded = store.load().unwrap().unwrap();
    assert_eq!((loaded.host_id.to_string().as_str(), loaded.server.clone()), (HOST, server.address()));
    assert_eq!(loaded.model_verifying_keys, [key]);
    assert_eq!((&loaded.certificate, &loaded.key), (&identity.certificate, &identity.key));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(store.path()), mode(store.path().parent().unwrap())), (0o600, 0o700));
    let shown = format!("{loaded:?}");
    assert!(shown.contains(HOST) && !shown.contains("key"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_server_the_token_names_is_trusted() {
    let server = TestServer::start().await;
    server.join_token();
    let other: JoinToken = format!("id.secret.{}", Digest::of(b"another authority")).parse().unwrap();
    let error = enroll(&server.address(), &other).await.unwrap_err();
    assert!(matches!(error, EnrollError::OtherServer { .. }), "{error}");

    // The right authority, but a certificate for another name: some other service of the same owner.
    let authority = Arc::new(TestAuthority::with_server_name("other-service"));
    let server = TestServer::start_at("127.0.0.1:0".parse().unwrap(), authority, Arc::default()).await;
    let token: JoinToken = server.join_token().parse().unwrap();
    let error = enroll(&server.address(), &token).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_and_an_unreachable_server_are_told_apart() {
    let server = TestServer::start().await;
    let token: JoinToken = format!("id.wrong.{}", server.authority.digest()).parse().unwrap();
    assert!(matches!(enroll(&server.address(), &token).await, Err(EnrollError::TokenRefused)));
    server.stop();
    crate::test_server::wait_for("closed port", || std::net::TcpStream::connect(server.address).is_err()).await;
    let error = enroll(&server.address(), &token).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error}");
    let error = enroll("no port", &token).await.unwrap_err();
    assert!(error.to_string().contains("expected host:port"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_do_not_belong_together_are_refused() {
    let server = TestServer::start().await;
    let identity = enrolled(&server).await;
    let parts = || IdentityParts {
        host_id: identity.host_id.to_string(),
        server: identity.server.clone(),
        certificate: identity.certificate.to_vec(),
        key: identity.key.clone(),
        trust_bundle: vec![server.authority.certificate()],
        model_verifying_keys: Vec::new(),
    };
    Identity::from_parts(parts()).unwrap();
    let refused = |change: &dyn Fn(&mut IdentityParts)| {
        let mut parts = parts();
        change(&mut parts);
        Identity::from_parts(parts).unwrap_err().to_string()
    };
    assert!(refused(&|parts| parts.host_id = HOST.replace('0', "1")).contains("not for this host id"));
    assert!(refused(&|parts| parts.host_id = "x".to_owned()).contains("not a UUID"));
    assert!(refused(&|parts| parts.key = key::generate().unwrap().key).contains("not for its key"));
    assert!(refused(&|parts| parts.key = Zeroizing::new(vec![1])).contains("key"));
    assert!(refused(&|parts| parts.certificate.push(0)).contains("follows"));
    assert!(refused(&|parts| parts.trust_bundle.clear()).contains("trust anchors"));
    assert!(refused(&|parts| parts.model_verifying_keys = vec![vec![1; 31]]).contains("Ed25519"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_refused_without_showing_the_key() {
    let server = TestServer::start().await;
    let identity = enrolled(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let store = IdentityStore::in_state_dir(dir.path());
    store.save(&identity).unwrap();
    let text = std::fs::read_to_string(store.path()).unwrap();
    let secret = data_encoding::BASE64.encode(&identity.key);
    assert!(text.contains(&secret));
    for damaged in [
        text[..text.len() / 2].to_owned(),
        text.replace("\"version\": 1", "\"version\": 9"),
        text.replace("\"key\": \"", "\"key\": \"!"),
        text.replace("\"server\"", "\"sever\""),
        String::new(),
    ] {
        std::fs::write(store.path(), damaged).unwrap();
        let error = store.load().unwrap_err();
        assert!(matches!(error, IdentityStoreError::Damaged { .. }));
        assert!(error.to_string().contains("enrol this host again"));
        assert!(!error.to_string().contains(&secret[..20]), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_is_due_at_two_thirds_of_the_life() {
    let server = TestServer::start().await;
    server.script.lock().certificate_life_s = 300;
    let identity = enrolled(&server).await;
    let now = SystemTime::now();
    let due = identity.renewal_due_in(now).as_secs();
    assert!((195..=200).contains(&due), "{due}");
    assert_eq!(identity.renewal_due_in(now + Duration::from_secs(250)), Duration::ZERO);
    assert!(!identity.is_expired(now) && identity.is_expired(now + Duration::from_secs(301)));
}
