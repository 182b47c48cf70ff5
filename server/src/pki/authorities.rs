//! The authority in force, and the one that takes its place.
//!
//! A rotation has two steps, so that no host is left behind:
//! 1. **Rotate**: a second authority is made. From now on it issues the certificates of hosts; certificates of both are
//!    accepted, and agents are told to trust both and to renew. The server still shows a certificate of the first, which
//!    every host trusts, those that were offline too.
//! 2. **Retire**: the second one takes the place of the first. The server shows its certificate, agents are told to trust
//!    it alone, and what the first one issued is refused.
//!
//! Files in `<state>/pki`: `authority.pem` and, in between, `authority-next.pem` (both private). `<state>/ca.pem` holds the
//! certificates of both, for operators. Killed at any moment, the next start finds the state before or after a step.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::id::Digest;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::clock::UnixSeconds;
use crate::pki::{CertificateAuthority, PkiError};
use crate::secret::{self, SecretError};

/// The authorities.
pub struct Authorities {
    state: PathBuf,
    pair: watch::Sender<Pair>,
    changing: Mutex<()>,
}

/// The authority in force, and the one that is to take its place.
#[derive(Clone)]
pub struct Pair {
    /// The one whose certificate the server shows.
    pub current: Arc<CertificateAuthority>,
    /// The one that issues the certificates of hosts while a rotation is under way.
    pub next: Option<Arc<CertificateAuthority>>,
}

/// Why a step of a rotation cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The step before was made already.
    #[error("a rotation is under way: retire the authority {0} first")]
    UnderWay(Digest),
    /// There is nothing to retire.
    #[error("no rotation is under way: there is only one authority")]
    NotUnderWay,
    /// The authorities cannot be read or written.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Pair {
    /// The one that issues the certificates of hosts.
    pub fn issuing(&self) -> &Arc<CertificateAuthority> {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// Both certificates: what may be trusted.
    pub fn trust_bundle(&self) -> Vec<CertificateDer<'static>> {
        self.all().map(|authority| authority.certificate().clone()).collect()
    }

    /// Whose certificate a host shows, by the issuer's name in it.
    pub fn issuer_of(&self, issuer: &[u8]) -> Option<Digest> {
        self.all().find(|authority| authority.subject() == issuer).map(|authority| authority.digest())
    }

    /// The one in force first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<CertificateAuthority>> {
        std::iter::once(&self.current).chain(&self.next)
    }
}

impl Authorities {
    /// Reads the authorities below this state folder, or makes one when there has never been one.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn open(state: &Path, now: UnixSeconds) -> Result<Self, PkiError> {
        let current = Arc::new(CertificateAuthority::open(state, now)?);
        let next = next_path(state);
        let next = if next.exists() { Some(Arc::new(CertificateAuthority::read(&next)?)) } else { None };
        let pair = Pair { current, next };
        write_public(state, &pair)?;
        Ok(Self { state: state.to_owned(), pair: watch::Sender::new(pair), changing: Mutex::default() })
    }

    /// The authorities now.
    pub fn pair(&self) -> Pair {
        self.pair.borrow().clone()
    }

    /// The authorities now and whenever they change.
    pub fn subscribe(&self) -> watch::Receiver<Pair> {
        self.pair.subscribe()
    }

    /// The first step: makes the authority that is to take over. Returns its digest. Blocks on the disk.
    ///
    /// # Errors
    /// [`RotationError`].
    pub fn rotate(&self, now: UnixSeconds) -> Result<Digest, RotationError> {
        let _one_at_a_time = self.changing.lock();
        let pair = self.pair();
        if pair.next.is_some() {
            return Err(RotationError::UnderWay(pair.current.digest()));
        }
        let path = next_path(&self.state);
        CertificateAuthority::create(&path, now)?;
        let next = Arc::new(CertificateAuthority::read(&path)?);
        let digest = next.digest();
        self.change(Pair { next: Some(next), ..pair })?;
        Ok(digest)
    }

    /// The second step: the next authority takes the place of the present one, whose key is deleted. Returns the retired
    /// one's digest. Blocks on the disk.
    ///
    /// # Errors
    /// [`RotationError`].
    pub fn retire(&self) -> Result<Digest, RotationError> {
        let _one_at_a_time = self.changing.lock();
        let pair = self.pair();
        let current = pair.next.ok_or(RotationError::NotUnderWay)?;
        let target = current_path(&self.state);
        let failed = |source| PkiError::from(SecretError::Write { path: target.clone(), source });
        std::fs::rename(next_path(&self.state), &target).map_err(failed)?;
        if let Some(folder) = target.parent() {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        self.change(Pair { current, next: None })?;
        Ok(pair.current.digest())
    }

    fn change(&self, pair: Pair) -> Result<(), PkiError> {
        let written = write_public(&self.state, &pair);
        self.pair.send_replace(pair);
        written
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("state", &self.state).finish_non_exhaustive()
    }
}

fn current_path(state: &Path) -> PathBuf {
    state.join("pki").join("authority.pem")
}

fn next_path(state: &Path) -> PathBuf {
    state.join("pki").join("authority-next.pem")
}

/// The certificates of both, for operators.
fn write_public(state: &Path, pair: &Pair) -> Result<(), PkiError> {
    let certificates: String = pair.all().map(|authority| authority.certificate_pem()).collect();
    Ok(secret::write_public(&state.join("ca.pem"), certificates.as_bytes())?)
}
