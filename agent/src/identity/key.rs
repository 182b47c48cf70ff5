//! The host's key: made here, never sent.

use picket_common::id::HostId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls::pki_types::PrivateKeyDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::identity::{IdentityError, Validity};

/// A new key and the request for a certificate on it.
pub(crate) struct NewKey {
    /// PKCS#8.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// PKCS#10, DER. Its subject is empty: the server decides who this is.
    pub(crate) request: Vec<u8>,
}

/// Makes a P-256 key.
pub(crate) fn generate() -> Result<NewKey, IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::new(format!("a key could not be made: {error}"));
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&pair).map_err(failed)?;
    Ok(NewKey { key: Zeroizing::new(pair.serialize_der()), request: request.der().to_vec() })
}

/// Signs with a host's key (PKCS#8): ECDSA P-256 with SHA-256, ASN.1 DER.
pub(super) fn sign(key: &[u8], message: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let private = PrivateKeyDer::try_from(key).map_err(|_| IdentityError::new("its key is not PKCS#8"))?;
    let pair = KeyPair::from_der_and_sign_algo(&private, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| IdentityError::new("its key is not a P-256 key"))?;
    pair.sign(message).map_err(|error| IdentityError::new(format!("it cannot sign: {error}")))
}

/// Checks that a certificate is for this key and this host.
pub(super) fn check_certificate(certificate: &[u8], key: &[u8], host: HostId) -> Result<Validity, IdentityError> {
    let (rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| IdentityError::new("its certificate is not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(IdentityError::new("something follows its certificate"));
    }
    let private = PrivateKeyDer::try_from(key).map_err(|_| IdentityError::new("its key is not PKCS#8"))?;
    let pair = KeyPair::from_der_and_sign_algo(&private, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| IdentityError::new("its key is not a P-256 key"))?;
    if parsed.public_key().subject_public_key.as_ref() != pair.public_key_raw() {
        return Err(IdentityError::new("its certificate is not for its key"));
    }
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if name != Some(host.to_string().as_str()) {
        return Err(IdentityError::new("its certificate is not for this host id"));
    }
    let validity = parsed.validity();
    Ok(Validity { not_before_s: validity.not_before.timestamp(), not_after_s: validity.not_after.timestamp() })
}
