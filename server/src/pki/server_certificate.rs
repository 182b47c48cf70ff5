//! The certificate the listeners present.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixSeconds;
use crate::pki::{CertificateAuthority, PkiError};

/// How often the wall clock is compared with the certificate's end. Not one long sleep: a suspended machine's timers
/// stand still while its certificate ages.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// The certificate in force, and how to make the next one.
pub struct ServerCertificate {
    authority: Arc<CertificateAuthority>,
    names: Vec<String>,
    life: Duration,
    current: RwLock<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: UnixSeconds,
}

impl ServerCertificate {
    /// Issues the first one. `names` are DNS names and IP addresses besides the fixed ones.
    pub fn new(
        authority: Arc<CertificateAuthority>,
        names: Vec<String>,
        life: Duration,
        now: UnixSeconds,
    ) -> Result<Self, PkiError> {
        let current = issue(&authority, &names, life, now)?;
        Ok(Self { authority, names, life, current: RwLock::new(current) })
    }

    /// The certificate in force, then the authority's.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.read().key.cert.clone()
    }

    /// Issues the next one if two thirds of the present one's life are over. Returns whether it did.
    pub fn renew_if_due(&self, now: UnixSeconds) -> Result<bool, PkiError> {
        if now < self.current.read().renew_at {
            return Ok(false);
        }
        let next = issue(&self.authority, &self.names, self.life, now)?;
        *self.current.write() = next;
        Ok(true)
    }

    /// Renews it in time until stopped.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK_PERIOD);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.renew_if_due(UnixSeconds::now()) {
                Ok(true) => tracing::info!("renewed the server certificate"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "could not renew the server certificate"),
            }
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().key))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

fn issue(
    authority: &CertificateAuthority,
    names: &[String],
    life: Duration,
    now: UnixSeconds,
) -> Result<Current, PkiError> {
    Ok(Current { key: authority.issue_server(names, now, life)?, renew_at: now.after(life * 2 / 3) })
}
