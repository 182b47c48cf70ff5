#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use picket_common::id::{Digest, HostId};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _,
};
use tempfile::TempDir;
use x509_parser::prelude::GeneralName;

use super::*;
use crate::clock::UnixSeconds;
use crate::fleet::HostInventory;
use crate::metastore::Metastore;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const LIFE: Duration = Duration::from_secs(86_400);

fn authority() -> (TempDir, CertificateAuthority) {
    let folder = TempDir::new().unwrap();
    let authority = CertificateAuthority::open(folder.path(), NOW).unwrap();
    (folder, authority)
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn the_authority_is_made_once_and_read_again() {
    let (folder, first) = authority();
    let again = CertificateAuthority::open(folder.path(), NOW).unwrap();
    assert_eq!(first.digest(), again.digest());
    let (_, parsed) = x509_parser::parse_x509_certificate(first.certificate()).unwrap();
    assert!(parsed.is_ca());
    parsed.verify_signature(None).unwrap();
}

#[test]
fn a_lost_or_damaged_authority_is_not_replaced_silently() {
    let (folder, _) = authority();
    fs::write(folder.path().join("ca.pem"), b"a copy").unwrap();
    let path = folder.path().join("pki/authority.pem");
    let content = fs::read(&path).unwrap();

    fs::remove_file(&path).unwrap();
    assert!(matches!(CertificateAuthority::open(folder.path(), NOW), Err(PkiError::Lost { .. })));

    let (_other, stranger) = authority();
    let mixed = [stranger.certificate_pem().as_bytes(), &content[content.len() / 2..]].concat();
    for damaged in [&content[..content.len() / 2], b"", &mixed] {
        crate::secret::write_private(&path, damaged).unwrap();
        let outcome = CertificateAuthority::open(folder.path(), NOW);
        assert!(matches!(outcome, Err(PkiError::Damaged { .. })), "{} bytes", damaged.len());
    }
}

#[test]
fn a_host_certificate_says_who_and_nothing_else() {
    let (_folder, authority) = authority();
    let host = HostId::from_random([7; 16]);
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        // A request may ask for more; it does not get it.
        let mut asks = CertificateParams::new(["picket-server".to_owned()]).unwrap();
        asks.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let asks = asks.serialize_request(&key).unwrap().der().to_vec();
        let issued = authority.issue_host(host, &HostKey::from_request(&asks).unwrap(), NOW, LIFE).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
        assert!(!parsed.is_ca());
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert_eq!(parsed.validity().not_after.timestamp(), NOW.0 + 86_400);
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert_eq!(parsed.public_key().subject_public_key.as_ref(), key.public_key_raw());
        let identity = PeerIdentity::from_certificate(&issued.der).unwrap();
        assert_eq!((identity.host, identity.serial), (host, issued.record.serial));
    }
    assert_eq!(PeerIdentity::from_certificate(authority.certificate()), None);
    assert_eq!(PeerIdentity::from_certificate(b"rubbish"), None);
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let good = request(&p256());
    assert_eq!(HostKey::from_request(b"").unwrap_err(), RequestError::Malformed);
    assert_eq!(HostKey::from_request(&[0x30; 100]).unwrap_err(), RequestError::Malformed);
    assert_eq!(HostKey::from_request(&[good.as_slice(), &[0]].concat()).unwrap_err(), RequestError::Malformed);
    assert_eq!(HostKey::from_request(&vec![0; 5_000]).unwrap_err(), RequestError::TooLarge(5_000));
    let p384 = request(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    assert_eq!(HostKey::from_request(&p384).unwrap_err(), RequestError::KeyType);

    let mut forged = good.clone();
    let at = forged.len() - 5;
    forged[at] ^= 1;
    assert!(matches!(HostKey::from_request(&forged), Err(RequestError::Signature | RequestError::Malformed)));
    // Somebody else's public key under one's own signature.
    let (mine, theirs) = (p256(), p256());
    let stolen = replace(&request(&mine), mine.public_key_raw(), theirs.public_key_raw());
    assert_eq!(HostKey::from_request(&stolen).unwrap_err(), RequestError::Signature);
}

#[test]
fn no_flipped_bit_of_a_request_is_a_panic_or_another_key() {
    let key = p256();
    let good = request(&key);
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x11;
        // Bytes that no reader looks at (unused bits of the signature) may differ; the key may not.
        if let Ok(read) = HostKey::from_request(&bad) {
            assert_eq!(read.public_key().der_bytes(), key.public_key_raw(), "byte {position}");
        }
    }
}

#[test]
fn the_server_certificate_is_renewed_after_two_thirds_of_its_life() {
    let folder = TempDir::new().unwrap();
    let authorities = Arc::new(Authorities::open(folder.path(), NOW).unwrap());
    let names = vec!["picket.example".to_owned(), "192.0.2.7".to_owned()];
    let certificate = ServerCertificate::new(authorities, names, LIFE, NOW).unwrap();
    let chain = certificate.chain();
    assert_eq!(chain.len(), 2, "the authority's certificate goes with it");
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let alternative = parsed.subject_alternative_name().unwrap().unwrap().value;
    let dns: Vec<&str> = alternative
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
        .collect();
    assert_eq!(dns, ["picket-server", "localhost", "picket.example"]);
    assert!(alternative.general_names.contains(&GeneralName::IPAddress(&[192, 0, 2, 7])));

    assert!(!certificate.renew_if_due(UnixSeconds(NOW.0 + 57_599)).unwrap());
    assert!(certificate.renew_if_due(UnixSeconds(NOW.0 + 57_600)).unwrap());
    assert_ne!(certificate.chain()[0], chain[0]);
    assert_eq!(certificate.chain()[1], chain[1]);
}

#[test]
fn an_authority_is_rotated_in_two_steps_and_each_survives_a_restart() {
    let folder = TempDir::new().unwrap();
    let open = || Authorities::open(folder.path(), NOW).unwrap();
    let public = || fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    let authorities = open();
    let first = authorities.pair().current.digest();
    assert_eq!(public(), authorities.pair().current.certificate_pem());
    assert!(matches!(authorities.retire(), Err(RotationError::NotUnderWay)));

    let second = authorities.rotate(NOW).unwrap();
    assert_ne!(first, second);
    assert!(matches!(authorities.rotate(NOW), Err(RotationError::UnderWay(digest)) if digest == first));
    for authorities in [&authorities, &open()] {
        let pair = authorities.pair();
        assert_eq!((pair.current.digest(), pair.issuing().digest()), (first, second));
        assert_eq!(pair.trust_bundle().len(), 2);
        let key = HostKey::from_request(&request(&p256())).unwrap();
        let issued = pair.issuing().issue_host(HostId::from_random([7; 16]), &key, NOW, LIFE).unwrap();
        let peer = PeerIdentity::from_certificate(&issued.der).unwrap();
        assert_eq!(pair.issuer_of(&peer.issuer), Some(second));
    }
    assert_eq!(public().matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!public().contains("PRIVATE"));

    assert_eq!(authorities.retire().unwrap(), first);
    for authorities in [&authorities, &open()] {
        let pair = authorities.pair();
        assert_eq!((pair.current.digest(), pair.trust_bundle().len()), (second, 1));
        assert!(pair.next.is_none());
    }
    assert_eq!(public().matches("BEGIN CERTIFICATE").count(), 1);
}

#[test]
fn a_name_that_is_none_is_refused() {
    let folder = TempDir::new().unwrap();
    let authorities = Arc::new(Authorities::open(folder.path(), NOW).unwrap());
    for name in ["käse", "not a name", "", "a..b", "1.2.3.4.5"] {
        let outcome = ServerCertificate::new(Arc::clone(&authorities), vec![name.to_owned()], LIFE, NOW);
        assert!(matches!(&outcome, Err(PkiError::ServerName { name: refused }) if refused == name), "{name}");
    }
}

#[test]
fn join_tokens_keep_their_secret() {
    let token = JoinToken::generate().unwrap();
    let text = token.reveal();
    let read: JoinToken = text.parse().unwrap();
    assert_eq!((read.id(), read.secret_sha256()), (token.id(), token.secret_sha256()));
    let (_, secret) = text.split_once('.').unwrap();
    assert!(!format!("{token:?}").contains(secret));
    for bad in ["", ".", "a.b", &text[1..], &text.to_uppercase(), &format!("{}0", *text), &format!("{}.ab", *text)] {
        assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
    }
}

async fn enrollment() -> (TempDir, Enrollment) {
    let folder = TempDir::new().unwrap();
    let authorities = Arc::new(Authorities::open(folder.path(), NOW).unwrap());
    let metastore = Metastore::open(&folder.path().join("metadata.sqlite")).await.unwrap();
    let config = EnrollmentConfig { host_certificate_life: LIFE, model_verifying_keys: vec![[3; 32]] };
    (folder, Enrollment::new(authorities, metastore, config))
}

/// What the agent sends: the token without the pin.
fn without_pin(token: &IssuedJoinToken) -> String {
    token.text.rsplit_once('.').unwrap().0.to_owned()
}

#[tokio::test]
async fn a_token_lets_a_host_in_and_pins_the_authority() {
    let (_folder, enrollment) = enrollment().await;
    let token = enrollment.create_token("admin", Duration::from_secs(60), 1, NOW).await.unwrap();
    let pin: Digest = token.text.rsplit_once('.').unwrap().1.parse().unwrap();
    let identity =
        enrollment.enroll(&without_pin(&token), &request(&p256()), HostInventory::default(), NOW).await.unwrap();
    assert_eq!(Digest::of(&identity.trust_bundle[0]), pin);
    assert_eq!(identity.model_verifying_keys, [[3; 32]]);
    assert_eq!(PeerIdentity::from_certificate(&identity.certificate).unwrap().host, identity.host);
    let renewed = enrollment.renew(identity.host, &request(&p256()), NOW).await.unwrap();
    assert_eq!(renewed.host, identity.host);
    assert_ne!(renewed.certificate, identity.certificate);
}

#[tokio::test]
async fn every_bad_token_gets_the_same_answer() {
    let (_folder, enrollment) = enrollment().await;
    let token = without_pin(&enrollment.create_token("admin", Duration::from_secs(60), 1, NOW).await.unwrap());
    let (id, _) = token.split_once('.').unwrap();
    let wrong_secret = format!("{id}.{}", "0".repeat(32));
    let enroll =
        async |token: &str, request: &[u8], now| enrollment.enroll(token, request, HostInventory::default(), now).await;
    let good = request(&p256());
    let unknown = JoinToken::generate().unwrap().reveal();
    for (bad, now) in [(wrong_secret.as_str(), NOW), (&unknown, NOW), ("x", NOW), (&token, UnixSeconds(NOW.0 + 60))] {
        assert!(matches!(enroll(bad, &good, now).await, Err(EnrollmentError::TokenRefused)), "{bad}");
    }
    assert!(matches!(enroll(&token, b"rubbish", NOW).await, Err(EnrollmentError::Request(_))));
    enroll(&token, &good, NOW).await.expect("a bad request does not use the token up");
    assert!(matches!(enroll(&token, &good, NOW).await, Err(EnrollmentError::TokenRefused)));
}

#[tokio::test]
async fn of_two_rivals_for_the_last_use_one_wins() {
    let (_folder, enrollment) = enrollment().await;
    for _ in 0..5 {
        let token = enrollment.create_token("admin", Duration::from_secs(60), 1, NOW).await.unwrap();
        let token = without_pin(&token);
        let requests = [request(&p256()), request(&p256())];
        let rivals = requests.iter().map(|request| enrollment.enroll(&token, request, HostInventory::default(), NOW));
        let outcomes = futures::future::join_all(rivals).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(EnrollmentError::TokenRefused))));
    }
}

#[tokio::test]
async fn enrolments_are_held_to_a_rate() {
    let (_folder, enrollment) = enrollment().await;
    let mut refused = false;
    for _ in 0..=10 * ENROLMENTS_PER_SECOND {
        let outcome = enrollment.enroll("x", b"", HostInventory::default(), NOW).await;
        refused |= matches!(outcome, Err(EnrollmentError::Rate));
    }
    assert!(refused);
}

#[tokio::test]
async fn a_token_has_limits() {
    let (_folder, enrollment) = enrollment().await;
    for (life, uses) in [(0, 1), (30 * 86_400 + 1, 1), (60, 0), (60, 100_001)] {
        let outcome = enrollment.create_token("admin", Duration::from_secs(life), uses, NOW).await;
        assert!(matches!(outcome, Err(EnrollmentError::TokenLimits)), "{life} s, {uses} uses");
    }
}

fn replace(within: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = within.windows(from.len()).position(|window| window == from).unwrap();
    [&within[..at], to, &within[at + from.len()..]].concat()
}
