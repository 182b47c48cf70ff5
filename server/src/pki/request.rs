//! A certificate signing request of a host, reduced to the one thing that is used of it.

use rcgen::{
    CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// Largest request, in bytes. One with a P-256 key and a short subject has about 250.
pub const REQUEST_BYTES_MAX: usize = 4_096;

/// The public key of a host that has proved to hold the private one.
#[derive(Clone, Debug)]
pub struct HostKey(SubjectPublicKeyInfo);

/// Why a request cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too large to be looked at.
    #[error("the certificate signing request has {0} bytes, more than {REQUEST_BYTES_MAX}")]
    TooLarge(usize),
    /// Not a PKCS#10 request.
    #[error("not a PKCS#10 certificate signing request in DER")]
    Malformed,
    /// Signed with a key other than the one in it, or not what was signed.
    #[error("the certificate signing request's signature does not verify")]
    Signature,
    /// Neither ECDSA P-256 nor Ed25519.
    #[error("the key is neither ECDSA P-256 nor Ed25519")]
    KeyType,
}

impl HostKey {
    /// The key of this request (PKCS#10, DER), whose signature proves possession.
    pub fn from_request(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge(der.len()));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        // The key's type from the key itself: what the signature's algorithm says of it need not be true.
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| RequestError::KeyType)?;
        let bytes = key.der_bytes();
        let supported = if key.algorithm() == &PKCS_ECDSA_P256_SHA256 {
            bytes.len() == 65 && bytes[0] == 4
        } else {
            key.algorithm() == &PKCS_ED25519 && bytes.len() == 32
        };
        if !supported {
            return Err(RequestError::KeyType);
        }
        CertificateSigningRequestParams::from_der(&der.into()).map_err(|error| match error {
            rcgen::Error::InvalidCertificationRequestSignature => RequestError::Signature,
            _ => RequestError::Malformed,
        })?;
        Ok(Self(key))
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}
