//! The key that signs certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use picket_common::id::{Digest, HostId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::metastore::CertificateRecord;
use crate::pki::{HostKey, PkiError, SERVER_NAME};
use crate::secret::{self, SecretError};

/// How long the authority's certificate is valid: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_653 * 86_400);
/// How far back the validity of a host's certificate begins, which servers check.
const SERVER_CLOCK_BEHIND_MAX: Duration = Duration::from_secs(3_600);
/// How far back the validity of what hosts check begins: the clock of one may be wrong by a day, and it delivers all the
/// same.
const HOST_CLOCK_BEHIND_MAX: Duration = Duration::from_secs(2 * 86_400);
/// Random bytes of a serial number.
const SERIAL_BYTES: usize = 16;

/// The certificate authority.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its name as it stands in what it issues, DER.
    subject: Vec<u8>,
    not_after: UnixSeconds,
    certificate: CertificateDer<'static>,
}

/// A certificate for a host.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// What to remember of it.
    pub record: CertificateRecord,
}

impl CertificateAuthority {
    /// Reads the authority below this state folder, or makes one when there has never been one.
    pub fn open(state: &Path, now: UnixSeconds) -> Result<Self, PkiError> {
        let private = state.join("pki").join("authority.pem");
        let public = state.join("ca.pem");
        if !private.exists() {
            if public.exists() {
                return Err(PkiError::Lost { missing: private, copy: public });
            }
            Self::create(&private, now)?;
        }
        Self::read(&private)
    }

    /// Reads one from its private file.
    pub(super) fn read(path: &Path) -> Result<Self, PkiError> {
        let damaged = |reason: &dyn ToString| PkiError::Damaged { path: path.to_owned(), reason: reason.to_string() };
        let pem = Zeroizing::new(secret::read_private(path)?);
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| damaged(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| damaged(&error))?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|error| damaged(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|error| damaged(&error))?;
        if parsed.public_key().subject_public_key.as_ref() != key.public_key_raw() {
            return Err(damaged(&"its certificate is not for its key"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| damaged(&error))?;
        let subject = parsed.subject().as_raw().to_vec();
        let not_after = UnixSeconds(parsed.validity().not_after.timestamp());
        Ok(Self { issuer, subject, not_after, certificate })
    }

    /// Its certificate: the trust anchor of agents, operators and the server itself.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its name as it stands in what it issues, DER.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// Its certificate for people's tools.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// What agents pin: SHA-256 of the certificate's DER.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// Issues a certificate that says "whoever holds this key is this host".
    pub fn issue_host(
        &self,
        host: HostId,
        key: &HostKey,
        now: UnixSeconds,
        life: Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let serial = serial()?;
        let mut parameters =
            parameters(&host.to_string(), &serial, now.before(SERVER_CLOCK_BEHIND_MAX), now.after(life))?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(key.public_key(), &self.issuer)?;
        let record = CertificateRecord { serial: serial.to_vec(), issued: now, not_after: now.after(life) };
        Ok(IssuedCertificate { der: certificate.der().clone(), record })
    }

    /// Issues a certificate for a listener, with a new key.
    pub(super) fn issue_server(
        &self,
        names: &[String],
        now: UnixSeconds,
        life: Duration,
    ) -> Result<Arc<CertifiedKey>, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = parameters(SERVER_NAME, &serial()?, now.before(HOST_CLOCK_BEHIND_MAX), now.after(life))?;
        let fixed = [SERVER_NAME, "localhost", "127.0.0.1", "::1"];
        for name in fixed.into_iter().chain(names.iter().map(String::as_str)) {
            // Both read an address as one; only pki-types refuses what is no name.
            let parsed = ServerName::try_from(name).ok().and_then(|_| CertificateParams::new([name.to_owned()]).ok());
            let parsed = parsed.ok_or_else(|| PkiError::ServerName { name: name.to_owned() })?;
            parameters.subject_alt_names.extend(parsed.subject_alt_names);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|reason| PkiError::Issue(reason.into()))?;
        let signer = any_supported_type(&private).map_err(|error| PkiError::Issue(error.to_string()))?;
        // Agents that pin the authority by its digest find it in the handshake.
        Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone(), self.certificate.clone()], signer)))
    }
}

impl CertificateAuthority {
    /// Makes one, in a private file.
    pub(super) fn create(path: &Path, now: UnixSeconds) -> Result<(), PkiError> {
        create(path, now)
    }
}

fn create(path: &Path, now: UnixSeconds) -> Result<(), PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let serial = serial()?;
    // Part of the serial in the name: authorities of different servers must not be taken for each other.
    let name = format!("Picket CA {}", data_encoding::HEXLOWER.encode(&serial[..4]));
    let mut parameters = parameters(&name, &serial, now.before(HOST_CLOCK_BEHIND_MAX), now.after(AUTHORITY_LIFE))?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|source| SecretError::Write { path: folder.to_owned(), source })?;
    let content = Zeroizing::new(format!("{}{}", pem("CERTIFICATE", certificate.der()), key.serialize_pem()));
    secret::write_private(path, content.as_bytes())?;
    tracing::info!(path = %path.display(), "made a certificate authority");
    Ok(())
}

fn parameters(
    common_name: &str,
    serial: &[u8; SERIAL_BYTES],
    not_before: UnixSeconds,
    not_after: UnixSeconds,
) -> Result<CertificateParams, PkiError> {
    let date = |seconds: UnixSeconds| {
        OffsetDateTime::from_unix_timestamp(seconds.0).map_err(|error| PkiError::Issue(error.to_string()))
    };
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.serial_number = Some(SerialNumber::from_slice(serial));
    parameters.not_before = date(not_before)?;
    parameters.not_after = date(not_after)?;
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// A random serial number without a leading zero byte or sign bit, so that its DER is these bytes.
fn serial() -> Result<[u8; SERIAL_BYTES], PkiError> {
    let mut serial = secret::random::<SERIAL_BYTES>()?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = data_encoding::BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for start in (0..text.len()).step_by(LINE) {
        pem.push_str(&text[start..text.len().min(start + LINE)]);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
