//! How the agent does TLS: version 1.3 on ring, nothing negotiable.

use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::id::Digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::identity::pin::PinnedAuthority;
use crate::identity::{Identity, IdentityError};

/// For the first connection: the server is checked against the digest, the host shows nothing. The flag is set when
/// the server turned out to be another one.
pub(crate) fn pinned(authority: Digest) -> Result<(Arc<ClientConfig>, Arc<Mutex<bool>>), IdentityError> {
    let provider = provider();
    let mismatch = Arc::new(Mutex::new(false));
    let verifier = PinnedAuthority::new(authority, Arc::clone(&provider), Arc::clone(&mismatch));
    let config =
        builder(provider)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok((finish(config), mismatch))
}

/// For every other connection: both sides show certificates.
pub(crate) fn mutual(identity: &Identity) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut roots = RootCertStore::empty();
    for anchor in &identity.trust_bundle {
        roots.add(anchor.clone()).map_err(|error| IdentityError::new(format!("a trust anchor: {error}")))?;
    }
    let key = PrivateKeyDer::try_from(identity.key.as_slice())
        .map_err(|_| IdentityError::new("its key is not PKCS#8"))?
        .clone_key();
    let config = builder(provider())?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], key)
        .map_err(|error| IdentityError::new(error.to_string()))?;
    Ok(finish(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::new(error.to_string()))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}
