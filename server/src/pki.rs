//! The server's certificate authority: who is which host.
//!
//! * [`CertificateAuthority`]: one ECDSA P-256 key, made at the first start, kept in `<state>/pki/authority.pem`
//!   (private). `<state>/ca.pem` is a public copy of its certificate for operators; agents pin the certificate by the
//!   SHA-256 of its DER, which is the last part of a join token.
//! * [`Authorities`]: the authority in force and, while one rotates, the one that takes its place.
//! * [`ServerCertificate`]: what both listeners present, with the authority's certificate behind it. Its key never
//!   touches the disk; it is made anew at each start and after 2/3 of its life.
//! * [`JoinToken`] → [`Enrollment`] → a host's certificate: subject CN = host id, client authentication only. Of the
//!   agent's request only the public key and the proof that it holds the private one are used.
//! * [`PeerIdentity`]: what a client certificate says once TLS has verified it.

use std::path::PathBuf;

pub use crate::pki::authorities::{Authorities, Pair, RotationError};
pub use crate::pki::authority::{CertificateAuthority, IssuedCertificate};
pub use crate::pki::enrollment::{
    ENROLMENTS_PER_SECOND, Enrollment, EnrollmentConfig, EnrollmentError, IssuedIdentity, IssuedJoinToken,
    JOIN_TOKEN_LIFE_DEFAULT, JOIN_TOKEN_LIFE_MAX, JOIN_TOKEN_USES_MAX,
};
pub use crate::pki::join_token::{JoinToken, JoinTokenError};
pub use crate::pki::peer::PeerIdentity;
pub use crate::pki::request::{HostKey, REQUEST_BYTES_MAX, RequestError};
pub use crate::pki::server_certificate::ServerCertificate;
use crate::secret::SecretError;

mod authorities;
mod authority;
mod enrollment;
mod join_token;
mod peer;
mod request;
mod server_certificate;
#[cfg(test)]
mod tests;

/// The name every server certificate carries, and the one agents ask for.
pub const SERVER_NAME: &str = "picket-server";

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The authority's files cannot be read or written.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The private file is gone, the public copy is there.
    #[error(
        "{missing} is missing but {copy} exists: restore it from a backup; or remove {copy} to begin with a new \
         authority, after which every host must enrol again"
    )]
    Lost {
        /// The authority's file.
        missing: PathBuf,
        /// The public copy.
        copy: PathBuf,
    },
    /// The private file is not what this server writes.
    #[error("{path} cannot be used: {reason}: restore it from a backup")]
    Damaged {
        /// The authority's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name for the server's certificate is neither a DNS name nor an IP address.
    #[error("pki.server_names: {name:?} is neither a DNS name nor an IP address")]
    ServerName {
        /// The name.
        name: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Issue(String),
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Issue(error.to_string())
    }
}
