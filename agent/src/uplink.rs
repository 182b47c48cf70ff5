//! The way to the server: one connection (TCP, TLS 1.3 with both certificates, HTTP/2), and over it
//!
//! * [`delivery`]: batches out of the spool, in a window of at most [`delivery::WINDOW_BATCHES`]; an acknowledged one
//!   is removed, an unacknowledged one comes again; with each group goes a signed word on the hash chain,
//! * [`check_in`]: the agent's status, and the state the server wants it in,
//! * [`models`]: fetching what that state names,
//! * renewing the certificate at 2/3 of its life.
//!
//! When one of them fails, all end, what was in flight is leased again later, and after a pause (exponential with full
//! jitter) the next connection is made.
//!
//! What is seen while a connection stands does not wait behind a long backlog: the two share the window, half each, so that
//! batches reach the server in two runs, which meet when the backlog is done. The server takes them in any order: it knows
//! batches by host, epoch and sequence, as ranges, and the chain's links by sequence, as runs that join; a batch is missing
//! only if it is below the oldest one that waits. Nothing here holds more than the window in memory, however large the backlog.
//! The server can name models to fetch, and nothing else.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use picket_common::id::HostId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::identity::{self, Identity, IdentityStore};
use crate::model_store::{DesiredState, ModelStore};
use crate::pipeline::spool::Spool;
use crate::status::Snapshot;
use crate::uplink::backoff::Backoff;
use crate::uplink::channel::pace::Pace;
pub use crate::uplink::error::UplinkError;
pub use crate::uplink::state::{UplinkCounters, UplinkPhase, UplinkState, UplinkStatus};
use crate::uplink::trust::TrustKeeper;

pub(crate) mod backoff;
pub(crate) mod channel;
pub(crate) mod check_in;
pub(crate) mod delivery;
mod error;
pub(crate) mod inventory;
pub(crate) mod models;
pub(crate) mod probe;
mod state;
mod statement;
#[cfg(test)]
pub(crate) mod tests;
mod trust;

/// How often a host that is not enrolled looks whether it is now.
const ENROLMENT_POLL: Duration = Duration::from_secs(2);
/// A connection that lasted this long was a good one: the next pause starts small again.
const GOOD_SESSION: Duration = Duration::from_secs(60);
/// How often the clock is asked whether the certificate is to be renewed.
const RENEWAL_CHECK: Duration = Duration::from_secs(5);
/// Pause after a certificate could not be renewed; grows to [`RENEWAL_PAUSE_MAX`].
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Section `[uplink]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// The server's address, `host:port`; empty: the one given at enrolment.
    pub server: String,
    /// Longest pause between two attempts to connect, milliseconds.
    pub backoff_max_ms: u64,
    /// How often the agent reports its status to the server, milliseconds.
    pub check_in_interval_ms: u64,
    /// How long a batch may wait for its acknowledgement before the connection is given up, milliseconds.
    pub acknowledgement_timeout_ms: u64,
    /// How long a connection may be silent before it is given up, milliseconds. After two thirds of it the server is
    /// asked for a sign of life.
    pub silence_max_ms: u64,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            server: String::new(),
            backoff_max_ms: 30_000,
            check_in_interval_ms: 30_000,
            acknowledgement_timeout_ms: 30_000,
            silence_max_ms: 30_000,
        }
    }
}

/// What the uplink works with.
pub(crate) struct Uplink {
    pub(crate) config: UplinkConfig,
    pub(crate) identities: IdentityStore,
    pub(crate) spool: Arc<Spool>,
    /// `None` when the models' folder cannot be used.
    pub(crate) models: Option<Arc<Mutex<ModelStore>>>,
    pub(crate) status: watch::Receiver<Arc<Snapshot>>,
    pub(crate) state: Arc<UplinkState>,
    /// How fast it may send.
    pub(crate) pace: Pace,
    /// Set as soon as the host has an identity.
    pub(crate) host: Arc<OnceLock<HostId>>,
    /// Deliver what there is, then end.
    pub(crate) finish: CancellationToken,
    /// End now.
    pub(crate) stop: CancellationToken,
}

/// How a session ended well.
enum SessionEnd {
    /// Everything is delivered, and that was all to do.
    Drained,
    /// There is a new certificate.
    Renewed(Box<Identity>),
}

impl Uplink {
    /// Connects, delivers, connects again, until it is stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.run_sessions()).await;
    }

    async fn run_sessions(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(self.config.backoff_max_ms));
        let mut fetches = models::Fetches::default();
        loop {
            let begun = Instant::now();
            let acknowledged = self.state.counters().batches_acknowledged();
            let result = match self.identity() {
                Ok(Some(identity)) => self.session(&identity, &mut fetches).await,
                Ok(None) => {
                    self.state.not_enrolled();
                    if self.pause(ENROLMENT_POLL).await { continue } else { return }
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(SessionEnd::Drained) => return,
                Ok(SessionEnd::Renewed(identity)) => {
                    tracing::info!(expires_unix_s = identity.expires_unix_s(), "the certificate was renewed");
                    backoff.reset();
                }
                Err(error) => {
                    if self.state.counters().batches_acknowledged() > acknowledged || begun.elapsed() > GOOD_SESSION {
                        backoff.reset();
                    }
                    let pause = backoff.next_pause(rand::random());
                    self.state.backing_off(&error, pause);
                    if !self.pause(pause).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits. `false`: there is no point in another attempt, the agent ends.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.finish.cancelled() => false,
        }
    }

    fn identity(&self) -> Result<Option<Identity>, UplinkError> {
        let Some(mut identity) = self.identities.load()? else { return Ok(None) };
        if !self.config.server.is_empty() {
            identity.server.clone_from(&self.config.server);
        }
        self.host.get_or_init(|| identity.host_id);
        if let Some(models) = &self.models {
            models.lock().set_trusted(identity.model_verifying_keys.clone());
        }
        Ok(Some(identity))
    }

    /// One connection, from the handshake to its end.
    async fn session(&self, identity: &Identity, fetches: &mut models::Fetches) -> Result<SessionEnd, UplinkError> {
        self.state.connecting(identity);
        if identity.is_expired(SystemTime::now()) {
            return Err(UplinkError::Expired);
        }
        let silence_max = Duration::from_millis(self.config.silence_max_ms);
        let terms = channel::Terms { pace: self.pace.clone(), silence_max };
        let channel::Connection { channel, witness } =
            channel::connect(&identity.server, identity::tls::mutual(identity)?, terms).await?;
        // What waited until now is the backlog, what comes from now on is new.
        let spool = Arc::clone(&self.spool);
        blocking(move || spool.rollback()).await?;
        let (desired_sender, desired) = watch::channel::<Option<DesiredState>>(None);
        let delivery = delivery::Delivery {
            spool: &self.spool,
            state: &self.state,
            identity,
            acknowledgement_timeout: Duration::from_millis(self.config.acknowledgement_timeout_ms),
            finish: &self.finish,
        };
        let trust = TrustKeeper::new(self.identities.clone(), identity.trust_bundle.clone());
        let check_in = check_in::CheckIn {
            connection: self.state.next_connection(),
            interval: Duration::from_millis(self.config.check_in_interval_ms),
            status: self.status.clone(),
            desired: desired_sender,
            trust: trust.clone(),
        };
        let result = tokio::select! {
            result = delivery.run(channel.clone()) => result.map(|()| SessionEnd::Drained),
            error = check_in.run(channel.clone()) => Err(error),
            error = models::keep_up(self.models.as_ref(), fetches, channel.clone(), desired) => Err(error),
            identity = self.renew_in_time(identity, &trust, channel) => Ok(SessionEnd::Renewed(Box::new(identity))),
        };
        let spool = Arc::clone(&self.spool);
        blocking(move || spool.rollback()).await?;
        result.map_err(|error| match (&error, witness.refusal()) {
            // What the calls say is only that there is no connection any more.
            (UplinkError::Status { .. } | UplinkError::Ended { .. }, Some(what)) => UplinkError::Handshake { what },
            _ => error,
        })
    }

    /// Renews the certificate when 2/3 of its life are over, or the server wants it.
    async fn renew_in_time(&self, identity: &Identity, trust: &TrustKeeper, channel: Channel) -> Identity {
        tokio::select! {
            () = renewal_due(identity) => {}
            () = trust.renewal_wanted() => {}
        }
        let mut backoff = Backoff::with_first(RENEWAL_PAUSE, RENEWAL_PAUSE_MAX);
        loop {
            let error = match identity::renew(identity, channel.clone()).await {
                Ok(renewed) => match self.identities.save(&renewed) {
                    Ok(()) => return renewed,
                    Err(error) => UplinkError::from(error),
                },
                Err(error) => UplinkError::from(error),
            };
            tracing::warn!(error = error.chain(), "the certificate could not be renewed");
            self.state.note_error(&error);
            tokio::time::sleep(backoff.next_pause(rand::random())).await;
        }
    }
}

/// Ends when 2/3 of the certificate's life are over, also when the clock was set or the machine slept meanwhile.
async fn renewal_due(identity: &Identity) {
    loop {
        let rest = identity.renewal_due_in(SystemTime::now());
        if rest.is_zero() {
            return;
        }
        tokio::time::sleep(rest.min(RENEWAL_CHECK)).await;
    }
}

/// Runs what blocks on the disk where that harms nobody.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, UplinkError> {
    tokio::task::spawn_blocking(run).await.map_err(|_| UplinkError::Internal("a blocking task failed"))
}

/// `run`, but not longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &'static str,
    run: impl Future<Output = T>,
) -> Result<T, UplinkError> {
    tokio::time::timeout(limit, run).await.map_err(|_| UplinkError::Timeout { what, seconds: limit.as_secs() })
}
