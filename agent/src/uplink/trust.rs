//! Whom the agent trusts: as the server says, over the connection that it trusts already.

use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::id::Digest;
use picket_proto::v1;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use crate::identity::IdentityStore;
use crate::uplink::{UplinkError, blocking};

/// Keeps what the server says of trust. Clones share it.
#[derive(Clone)]
pub(crate) struct TrustKeeper {
    identities: IdentityStore,
    bundle: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    /// Told when the certificate is to be renewed now.
    renew: Arc<Notify>,
}

impl TrustKeeper {
    pub(crate) fn new(identities: IdentityStore, bundle: Vec<CertificateDer<'static>>) -> Self {
        Self { identities, bundle: Arc::new(Mutex::new(bundle)), renew: Arc::default() }
    }

    /// SHA-256 of each authority that is trusted.
    pub(crate) fn anchors(&self) -> Vec<Vec<u8>> {
        self.bundle.lock().iter().map(|anchor| Digest::of(anchor).as_bytes().to_vec()).collect()
    }

    /// Ends when the server wants the certificate to be renewed before its time.
    pub(crate) async fn renewal_wanted(&self) {
        self.renew.notified().await;
    }

    /// Takes what the server says, durably. `true`: it is something new.
    pub(crate) async fn take(&self, trust: v1::Trust) -> Result<bool, UplinkError> {
        let bundle: Vec<CertificateDer<'static>> =
            trust.trust_bundle_der.into_iter().map(CertificateDer::from).collect();
        let is_new = *self.bundle.lock() != bundle;
        if is_new {
            let (identities, owned) = (self.identities.clone(), bundle.clone());
            let kept = blocking(move || identities.replace_trust_bundle(owned)).await?;
            // An agent does not stop to deliver because it is told nonsense: it trusts whom it trusted before.
            if let Err(error) = kept {
                tracing::error!(%error, "what the server says of trust was not kept");
                return Ok(false);
            }
            tracing::info!(authorities = bundle.len(), "the server named the authorities to trust");
            *self.bundle.lock() = bundle;
        }
        if trust.renew {
            self.renew.notify_one();
        }
        Ok(is_new)
    }
}
