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
use crate::pki::{Authorities, CertificateAuthority, PkiError};

/// How often the wall clock is compared with the certificate's end. Not one long sleep: a suspended machine's timers
/// stand still while its certificate ages.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// The certificate in force, and how to make the next one.
pub struct ServerCertificate {
    authorities: Arc<Authorities>,
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
        authorities: Arc<Authorities>,
        names: Vec<String>,
        life: Duration,
        now: UnixSeconds,
    ) -> Result<Self, PkiError> {
        let current = issue(&authorities.pair().current, &names, life, now)?;
        Ok(Self { authorities, names, life, current: RwLock::new(current) })
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
        self.renew(now)?;
        Ok(true)
    }

    /// Issues the next one, of the authority in force.
    pub fn renew(&self, now: UnixSeconds) -> Result<(), PkiError> {
        let next = issue(&self.authorities.pair().current, &self.names, self.life, now)?;
        *self.current.write() = next;
        Ok(())
    }

    /// Renews it in time until stopped.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CHECK_PERIOD);
        let mut authorities = self.authorities.subscribe();
        let mut shown = self.authorities.pair().current.digest();
        loop {
            let next = async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    // Fails only when there is no authority any more, nor a server.
                    changed = authorities.changed() => if changed.is_err() { std::future::pending().await },
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
            let now = UnixSeconds::now();
            let in_force = self.authorities.pair().current.digest();
            let renewed = if in_force == shown { self.renew_if_due(now) } else { self.renew(now).map(|()| true) };
            shown = in_force;
            match renewed {
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
