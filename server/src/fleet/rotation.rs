//! Who is ready for the next certificate authority.

use picket_common::id::{Digest, HostId};

use crate::clock::UnixSeconds;
use crate::fleet::{AgentStatus, Fleet, HostView};
use crate::metastore::MetastoreError;
use crate::pki::{CertificateAuthority, RotationError};

/// Most hosts named when an authority cannot be retired.
const NAMED_MAX: usize = 5;

/// An authority and the hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityView {
    /// SHA-256 of its certificate.
    pub digest: Digest,
    /// Whether the server shows its certificate.
    pub is_current: bool,
    /// Whether it issues the certificates of hosts.
    pub is_issuing: bool,
    /// Until when it is valid.
    pub not_after: UnixSeconds,
    /// Hosts that trust it, as far as they have said.
    pub hosts_trusting: u64,
    /// Hosts that use a certificate it issued, as far as is known.
    pub hosts_certified: u64,
}

/// Why the authorities cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// Some hosts would be locked out.
    #[error(
        "{count} hosts do not trust the next authority yet, or do not have a certificate of it ({named}): wait until they have \
         been connected, revoke them, or force it and enrol them again"
    )]
    NotReady {
        /// How many.
        count: usize,
        /// Some of them.
        named: String,
    },
    /// The step cannot be made.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// A task of the server died.
    #[error("the authorities could not be changed")]
    Internal,
}

fn trusts(view: &HostView, digest: &str) -> bool {
    status(view).is_some_and(|status| status.trust_anchors.iter().any(|anchor| anchor == digest))
}

fn is_certified(view: &HostView, digest: &str) -> bool {
    status(view).is_some_and(|status| status.certificate_authority == digest)
}

fn status(view: &HostView) -> Option<&AgentStatus> {
    view.record.status.as_ref()
}

impl Fleet {
    /// The authorities, the one in force first, and how many hosts are not revoked.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn authorities(&self) -> Result<(Vec<AuthorityView>, u64), MetastoreError> {
        let hosts = self.welcome().await?;
        let pair = self.authorities.pair();
        let view = |authority: &CertificateAuthority| {
            let digest = authority.digest();
            let text = digest.to_string();
            let count =
                |ready: fn(&HostView, &str) -> bool| hosts.iter().filter(|view| ready(view, &text)).count() as u64;
            AuthorityView {
                digest,
                is_current: digest == pair.current.digest(),
                is_issuing: digest == pair.issuing().digest(),
                not_after: authority.not_after(),
                hosts_trusting: count(trusts),
                hosts_certified: count(is_certified),
            }
        };
        Ok((pair.all().map(|authority| view(authority)).collect(), hosts.len() as u64))
    }

    /// Begins a rotation. Returns the next authority's digest.
    ///
    /// # Errors
    /// [`RetireError`].
    pub async fn rotate_authority(&self) -> Result<Digest, RetireError> {
        let authorities = self.authorities.clone();
        let rotated = tokio::task::spawn_blocking(move || authorities.rotate(UnixSeconds::now())).await;
        Ok(rotated.map_err(|_| RetireError::Internal)??)
    }

    /// Ends a rotation, if every host that is not revoked is ready for it or it is forced. Returns the retired
    /// authority's digest.
    ///
    /// # Errors
    /// [`RetireError`].
    pub async fn retire_authority(&self, force: bool) -> Result<Digest, RetireError> {
        let next = self.authorities.pair().next.ok_or(RotationError::NotUnderWay)?.digest().to_string();
        let hosts = self.welcome().await?;
        let is_ready = |view: &&HostView| trusts(view, &next) && is_certified(view, &next);
        let late: Vec<HostId> = hosts.iter().filter(|view| !is_ready(view)).map(|view| view.record.host).collect();
        if !late.is_empty() && !force {
            let named: Vec<String> = late.iter().take(NAMED_MAX).map(HostId::to_string).collect();
            return Err(RetireError::NotReady { count: late.len(), named: named.join(", ") });
        }
        let authorities = self.authorities.clone();
        let retired = tokio::task::spawn_blocking(move || authorities.retire()).await;
        Ok(retired.map_err(|_| RetireError::Internal)??)
    }

    async fn welcome(&self) -> Result<Vec<HostView>, MetastoreError> {
        let hosts = self.hosts().await?.into_iter();
        Ok(hosts.filter(|view| view.record.revoked.is_none()).collect())
    }
}
