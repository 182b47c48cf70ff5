//! TLS 1.3 by rustls on ring, passed explicitly: no process-wide default decides.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    ConfigBuilder, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    WantsVerifier,
};

use crate::pki::{Authorities, ServerCertificate};

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

/// For agents: they may show a certificate of these authorities. One of another authority, or one that has expired, fails
/// the handshake; without any, only enrolment answers.
pub fn agent_tls(
    authorities: Arc<Authorities>,
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (provider, builder) = builder()?;
    let verifier = Arc::new(AuthoritiesVerifier { authorities, provider });
    // Says now what would otherwise fail each handshake.
    verifier.verifier()?;
    Ok(finish(builder.with_client_cert_verifier(verifier).with_cert_resolver(certificate)))
}

/// Accepts certificates of the authorities that are in force at the moment of the handshake.
#[derive(Debug)]
struct AuthoritiesVerifier {
    authorities: Arc<Authorities>,
    provider: Arc<CryptoProvider>,
}

impl AuthoritiesVerifier {
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for anchor in self.authorities.pair().trust_bundle() {
            roots.add(anchor)?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        Ok(builder.allow_unauthenticated().build()?)
    }
}

impl ClientCertVerifier for AuthoritiesVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: an agent has one certificate and shows it.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = self.verifier().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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
