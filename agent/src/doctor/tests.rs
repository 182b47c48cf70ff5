use std::time::{Duration, SystemTime};

use super::*;
use crate::test_server::TestServer;

#[test]
fn clocks_that_are_apart_are_told() {
    let now = SystemTime::now();
    let outcome = |server| server::clock(now, server).outcome;
    assert_eq!(outcome(None), Outcome::Ok);
    assert_eq!(outcome(Some(now - Duration::from_secs(2))), Outcome::Ok);
    assert_eq!(outcome(Some(now - Duration::from_secs(20))), Outcome::Warn);
    assert_eq!(outcome(Some(now + Duration::from_secs(20))), Outcome::Warn);
    assert_eq!(outcome(Some(now + Duration::from_secs(86_400))), Outcome::Fail);
    let past = server::clock(SystemTime::UNIX_EPOCH + Duration::from_secs(1), None);
    assert_eq!(past.outcome, Outcome::Fail);
}

#[tokio::test]
async fn the_life_of_a_certificate_is_told() {
    let server = TestServer::start().await;
    let identity = crate::identity::tests::enrolled(&server).await;
    let at = |seconds| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        identity::life(&identity, now).outcome
    };
    let expires = identity.expires_unix_s().unsigned_abs();
    assert_eq!(identity::life(&identity, SystemTime::now()).outcome, Outcome::Ok);
    assert_eq!(at(expires - 1), Outcome::Warn);
    assert_eq!(at(expires + 1), Outcome::Fail);
}

#[test]
fn what_is_open_to_others_and_what_is_not_there_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    assert_eq!(host::state_dir(dir.path()).outcome, Outcome::Ok);
    mode(0o755);
    let open = host::state_dir(dir.path());
    assert_eq!(open.outcome, Outcome::Fail);
    assert!(open.advice.contains("chmod 700"), "{open:?}");
    assert_eq!(host::state_dir(&dir.path().join("none")).outcome, Outcome::Fail);
    assert_eq!(host::disk(dir.path(), u64::MAX).outcome, Outcome::Warn);
    assert_eq!(host::disk(dir.path(), 1).outcome, Outcome::Ok);
    assert!(host::agent(dir.path())[0].outcome >= Outcome::Warn);
}
