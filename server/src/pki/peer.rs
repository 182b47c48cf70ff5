//! What a verified client certificate says.

use picket_common::id::HostId;
use rustls::SignatureScheme;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::SignatureVerificationAlgorithm;

/// The host behind a connection, as its certificate says. TLS has verified that this server's authority issued the
/// certificate and that the peer holds its key; whether the host is still welcome is asked with each call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The host.
    pub host: HostId,
    /// The certificate's serial number, big-endian.
    pub serial: Vec<u8>,
    /// The name of the authority that issued it, DER.
    pub issuer: Vec<u8>,
    /// Its public key: a point on P-256, uncompressed.
    pub public_key: Vec<u8>,
}

impl PeerIdentity {
    /// Reads a certificate that TLS has verified. `None` when it is not a host's.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return None };
        let host = name.as_str().ok()?.parse().ok()?;
        let public_key = certificate.public_key().subject_public_key.data.to_vec();
        let issuer = certificate.issuer().as_raw().to_vec();
        Some(Self { host, serial: certificate.raw_serial().to_vec(), issuer, public_key })
    }

    /// Whether `signature` (ECDSA P-256 with SHA-256, ASN.1 DER) is this host's over `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms = default_provider().signature_verification_algorithms;
        let mut mapping = algorithms.mapping.iter();
        let ecdsa = mapping.find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
        let verify = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            algorithm.verify_signature(&self.public_key, message, signature).is_ok()
        };
        ecdsa.is_some_and(|(_, algorithms)| algorithms.iter().any(verify))
    }
}
