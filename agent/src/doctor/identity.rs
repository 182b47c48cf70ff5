//! Key and certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Area, Check};
use crate::identity::{Identity, IdentityStore, IdentityStoreError};

const SECONDS_PER_HOUR: u64 = 3_600;
const ENROLL: &str = "enrol this host: `picketctl token create` on the server, `picket-agent enroll` here";
const ENROLL_AGAIN: &str = "enrol this host again with a new join token: `picket-agent enroll --force`";

/// What is to be said of the identity.
pub(super) fn checks(store: &IdentityStore, identity: &Result<Option<Identity>, IdentityStoreError>) -> Vec<Check> {
    let found = match identity {
        Err(error) => {
            return vec![Check::fail(Area::Identity, "identity", crate::error_text::chain(error), ENROLL_AGAIN)];
        }
        Ok(None) => return vec![Check::fail(Area::Identity, "identity", "this host is not enrolled", ENROLL)],
        Ok(Some(identity)) => identity,
    };
    vec![
        Check::ok(Area::Identity, "identity", format!("host {}", found.host_id)),
        permissions(store),
        life(found, SystemTime::now()),
        chain(found),
    ]
}

fn permissions(store: &IdentityStore) -> Check {
    const NAME: &str = "identity file";
    let path = store.path().display();
    match std::fs::metadata(store.path()) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            Check::ok(Area::Identity, NAME, format!("{path} is for its owner only"))
        }
        Ok(metadata) => {
            let found =
                format!("{path} has mode {:o}: others can read this host's key", metadata.permissions().mode() & 0o777);
            Check::fail(
                Area::Identity,
                NAME,
                found,
                format!("`chmod 600 {path}`; if others did read it: {ENROLL_AGAIN}"),
            )
        }
        Err(error) => Check::fail(Area::Identity, NAME, format!("{path}: {error}"), ENROLL_AGAIN),
    }
}

/// How long the certificate lasts.
pub(super) fn life(identity: &Identity, now: SystemTime) -> Check {
    const NAME: &str = "certificate";
    let expires = UNIX_EPOCH + Duration::from_secs(identity.expires_unix_s().max(0).unsigned_abs());
    let left = expires.duration_since(now).unwrap_or_default().as_secs() / SECONDS_PER_HOUR;
    if identity.is_expired(now) {
        return Check::fail(Area::Identity, NAME, "it has expired", format!("check the clock; {ENROLL_AGAIN}"));
    }
    if identity.renewal_due_in(now).is_zero() {
        let found = format!("{left} hours left, and it should have been renewed");
        return Check::warn(
            Area::Identity,
            NAME,
            found,
            "start the agent where it can reach the server: it renews by itself",
        );
    }
    Check::ok(Area::Identity, NAME, format!("{left} hours left, renewed by itself at 2/3 of its life"))
}

/// Whether the certificate's issuer is one that this host trusts.
fn chain(identity: &Identity) -> Check {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    const NAME: &str = "certificate chain";
    let parse = |der: &'_ [u8]| {
        X509Certificate::from_der(der)
            .map(|(_, parsed)| (parsed.issuer().as_raw().to_vec(), parsed.subject().as_raw().to_vec()))
            .ok()
    };
    let issuer = parse(&identity.certificate).map(|(issuer, _)| issuer);
    let anchors: Vec<_> =
        identity.trust_bundle.iter().filter_map(|anchor| parse(anchor)).map(|(_, subject)| subject).collect();
    match issuer {
        Some(issuer) if anchors.contains(&issuer) => {
            Check::ok(Area::Identity, NAME, format!("issued by one of {} trusted authorities", anchors.len()))
        }
        _ => Check::fail(Area::Identity, NAME, "it was not issued by an authority that this host trusts", ENROLL_AGAIN),
    }
}
