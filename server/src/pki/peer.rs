//! What a verified client certificate says.

use picket_common::id::HostId;

/// The host behind a connection, as its certificate says. TLS has verified that this server's authority issued the
/// certificate and that the peer holds its key; whether the host is still welcome is asked with each call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The host.
    pub host: HostId,
    /// The certificate's serial number, big-endian.
    pub serial: Vec<u8>,
}

impl PeerIdentity {
    /// Reads a certificate that TLS has verified. `None` when it is not a host's.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return None };
        let host = name.as_str().ok()?.parse().ok()?;
        Some(Self { host, serial: certificate.raw_serial().to_vec() })
    }
}
