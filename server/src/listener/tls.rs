//! TLS 1.3 by rustls on ring, passed explicitly: no process-wide default decides.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

use crate::pki::ServerCertificate;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses the set-up.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// rustls refuses the authority's certificate.
    #[error("cannot set up the verification of client certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// For agents: they may show a certificate of this authority. One of another authority, or one that has expired, fails
/// the handshake; without any, only enrolment answers.
pub fn agent_tls(
    authority: &CertificateDer<'static>,
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let (provider, builder) = builder()?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build()?;
    Ok(finish(builder.with_client_cert_verifier(verifier).with_cert_resolver(certificate)))
}

/// For operators, who show an API token with each call instead.
pub fn admin_tls(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    let (_, builder) = builder()?;
    Ok(finish(builder.with_no_client_auth().with_cert_resolver(certificate)))
}

fn builder() -> Result<(Arc<CryptoProvider>, ConfigBuilder<ServerConfig, WantsVerifier>), TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok((provider, builder))
}

fn finish(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: a resumed session would skip the verification of a certificate that has expired since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}
