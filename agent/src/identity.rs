//! The host's identity: its key, its certificate, and whom it trusts.
//!
//! The key is made on the host and never leaves it. A join token (`<id>.<secret>.<SHA-256 of the CA certificate>`)
//! pins the server at the first connection; from then on the trust bundle that came with the certificate does. All of
//! it lies in one file, `identity/identity.json` (0600 in a 0700 folder), replaced as a whole, so that key and
//! certificate always belong together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::VerifyingKey;
use picket_common::id::HostId;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

pub use crate::identity::enrollment::{EnrollError, enroll, renew};
pub use crate::identity::join_token::{JoinToken, JoinTokenError};
pub use crate::identity::store::{IdentityStore, IdentityStoreError};

mod enrollment;
mod join_token;
mod key;
mod pin;
mod store;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tls;

/// The DNS name in every server certificate, whatever the server's address.
pub(crate) const SERVER_NAME: &str = "picket-server";

/// Who this host is, and whom it trusts.
#[derive(Clone)]
pub struct Identity {
    /// The host, as its certificate says.
    pub host_id: HostId,
    /// The server's address, `host:port`, as given at enrolment.
    pub server: String,
    /// The host's certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key, PKCS#8.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// Who may have issued the server's certificate.
    pub trust_bundle: Vec<CertificateDer<'static>>,
    /// Who may sign models.
    pub model_verifying_keys: Vec<VerifyingKey>,
    validity: Validity,
}

/// The key is not shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("host_id", &self.host_id).field("server", &self.server).finish_non_exhaustive()
    }
}

/// When a certificate is valid, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    not_before_s: i64,
    not_after_s: i64,
}

/// An identity that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the identity cannot be used: {what}")]
pub struct IdentityError {
    what: String,
}

impl IdentityError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// The parts an identity is made of, as they come from the server or a file.
pub(crate) struct IdentityParts {
    pub(crate) host_id: String,
    pub(crate) server: String,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) trust_bundle: Vec<Vec<u8>>,
    pub(crate) model_verifying_keys: Vec<Vec<u8>>,
}

/// Most trust anchors, and most keys for models.
const TRUST_MAX: usize = 16;

impl Identity {
    /// Checks the parts and that they belong together.
    pub(crate) fn from_parts(parts: IdentityParts) -> Result<Self, IdentityError> {
        let host_id: HostId = parts.host_id.parse().map_err(|_| IdentityError::new("its host id is not a UUID"))?;
        let validity = key::check_certificate(&parts.certificate, &parts.key, host_id)?;
        if parts.trust_bundle.is_empty() || parts.trust_bundle.len() > TRUST_MAX {
            return Err(IdentityError::new(format!("it needs 1 to {TRUST_MAX} trust anchors")));
        }
        if parts.model_verifying_keys.len() > TRUST_MAX {
            return Err(IdentityError::new(format!("it has more than {TRUST_MAX} keys for models")));
        }
        let model_verifying_keys = parts
            .model_verifying_keys
            .iter()
            .map(|bytes| bytes.as_slice().try_into().ok().and_then(|bytes| VerifyingKey::from_bytes(bytes).ok()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| IdentityError::new("a key for models is not an Ed25519 key"))?;
        Ok(Self {
            host_id,
            server: parts.server,
            certificate: parts.certificate.into(),
            key: parts.key,
            trust_bundle: parts.trust_bundle.into_iter().map(CertificateDer::from).collect(),
            model_verifying_keys,
            validity,
        })
    }

    /// Trusts these authorities from now on, and no others.
    ///
    /// # Errors
    /// [`IdentityError`] when they cannot be trusted: none, too many, or no certificates.
    pub(crate) fn replace_trust_bundle(&mut self, bundle: Vec<CertificateDer<'static>>) -> Result<(), IdentityError> {
        if bundle.is_empty() || bundle.len() > TRUST_MAX {
            return Err(IdentityError::new(format!("it needs 1 to {TRUST_MAX} trust anchors")));
        }
        let changed = Self { trust_bundle: bundle, ..self.clone() };
        // It must be usable for TLS before it replaces one that is.
        tls::mutual(&changed)?;
        *self = changed;
        Ok(())
    }

    /// How long from `now` until the certificate should be renewed: at 2/3 of its life. Zero when that has passed.
    pub fn renewal_due_in(&self, now: SystemTime) -> Duration {
        let life = self.validity.not_after_s.saturating_sub(self.validity.not_before_s);
        let due = self.validity.not_before_s.saturating_add(life.saturating_mul(2) / 3);
        Duration::from_secs(u64::try_from(due.saturating_sub(unix_seconds(now))).unwrap_or(0))
    }

    /// Signs with the host's key: ECDSA P-256 with SHA-256, ASN.1 DER.
    ///
    /// # Errors
    /// [`IdentityError`] when there is no randomness to sign with.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        key::sign(&self.key, message)
    }

    /// Whether the certificate has expired.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.validity.not_after_s
    }

    /// From when on it is refused, seconds since 1970.
    pub fn expires_unix_s(&self) -> i64 {
        self.validity.not_after_s
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The identity folder in a state folder.
pub(crate) fn folder_in(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}
