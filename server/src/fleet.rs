//! Agents: who is welcome, what they reported, what they should be.
//!
//! What agents report stays in memory and reaches the metastore in batches (at most every
//! [`REPORTS_KEPT_PERIOD`] and when the server stops): a crash costs seconds of "last seen", nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::id::HostId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixSeconds;
pub use crate::fleet::desired::{DesiredModel, DesiredState, ModelSource, ModelSourceError};
pub use crate::fleet::report::{ActiveModel, AgentStatus, HostInventory, SensorStatus};
use crate::listener::HostConnections;
use crate::metastore::{Admission, HostRecord, HostReport, HostStore as _, Metastore, MetastoreError};
use crate::pki::PeerIdentity;
use crate::rate::TokenBucket;

mod desired;
mod report;
#[cfg(test)]
mod tests;

/// How often reports are written to the metastore.
pub const REPORTS_KEPT_PERIOD: Duration = Duration::from_secs(5);
/// Reports a second one agent may send for long, and at once.
const REPORTS_PER_SECOND: u64 = 1;
const REPORTS_BURST: u64 = 10;

/// The agents.
#[derive(Debug)]
pub struct Fleet {
    metastore: Metastore,
    connections: Arc<HostConnections>,
    desired: watch::Receiver<DesiredState>,
    agents: Mutex<HashMap<HostId, Agent>>,
}

/// What is known of an agent that is connected, or whose last report is not written yet.
#[derive(Debug, Default)]
struct Agent {
    connected: bool,
    last_seen: Option<UnixSeconds>,
    inventory: Option<HostInventory>,
    status: Option<AgentStatus>,
    /// Something above is not in the metastore yet.
    unsaved: bool,
}

/// A host with what is known of it now.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// As it is kept, with what was reported since.
    pub record: HostRecord,
    /// Whether its check-in stream is open.
    pub connected: bool,
}

/// Why a host is refused.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// No certificate was shown.
    #[error("this needs the client certificate of an enrolled host")]
    Anonymous,
    /// The certificate is not on record.
    #[error("this certificate is not on the server's record: enrol again")]
    Unknown,
    /// The host has begun to use a later certificate.
    #[error("this certificate was replaced by a later one of the same host")]
    Superseded,
    /// The host was revoked.
    #[error("this host was revoked")]
    Revoked,
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

/// Why a check-in ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckInError {
    /// The host's other check-in stream is still open.
    #[error("this host has a check-in stream already")]
    SecondStream,
    /// It reports too often.
    #[error("more than {REPORTS_PER_SECOND} report a second")]
    Rate,
}

impl Fleet {
    /// Over this metastore. `desired` is what every agent should be, now and later; `connections` those of the
    /// listener that agents use.
    pub fn new(
        metastore: Metastore,
        connections: Arc<HostConnections>,
        desired: watch::Receiver<DesiredState>,
    ) -> Self {
        Self { metastore, connections, desired, agents: Mutex::default() }
    }

    /// The host behind a certificate, if it is still welcome. Asked with every call.
    pub async fn admit(&self, peer: Option<&PeerIdentity>) -> Result<HostId, AdmissionError> {
        let peer = peer.ok_or(AdmissionError::Anonymous)?;
        match self.metastore.admit(peer.host, &peer.serial, UnixSeconds::now()).await? {
            Admission::Admitted => Ok(peer.host),
            Admission::Unknown => Err(AdmissionError::Unknown),
            Admission::Superseded => Err(AdmissionError::Superseded),
            Admission::Revoked => Err(AdmissionError::Revoked),
        }
    }

    /// Refuses the host from now on and cuts its connections. Returns since when it is revoked; none when there is no
    /// such host.
    pub async fn revoke(&self, host: HostId) -> Result<Option<UnixSeconds>, MetastoreError> {
        let revoked = self.metastore.revoke_host(host, UnixSeconds::now()).await?;
        self.connections.cut(host);
        Ok(revoked)
    }

    /// Opens the host's one check-in.
    pub fn check_in(self: &Arc<Self>, host: HostId) -> Result<CheckIn, CheckInError> {
        let mut agents = self.agents.lock();
        let agent = agents.entry(host).or_default();
        if agent.connected {
            return Err(CheckInError::SecondStream);
        }
        agent.connected = true;
        let rate = TokenBucket::new(REPORTS_PER_SECOND, REPORTS_BURST, Instant::now());
        Ok(CheckIn { fleet: Arc::clone(self), host, rate })
    }

    /// How many agents are checked in.
    pub fn connected(&self) -> usize {
        self.agents.lock().values().filter(|agent| agent.connected).count()
    }

    /// Every host, in order of enrolment.
    pub async fn hosts(&self) -> Result<Vec<HostView>, MetastoreError> {
        let records = self.metastore.hosts().await?;
        let agents = self.agents.lock();
        let view = |mut record: HostRecord| {
            let Some(agent) = agents.get(&record.host) else { return HostView { record, connected: false } };
            record.last_seen = agent.last_seen.or(record.last_seen);
            record.inventory = agent.inventory.clone().unwrap_or(record.inventory);
            record.status = agent.status.clone().or(record.status);
            HostView { record, connected: agent.connected }
        };
        Ok(records.into_iter().map(view).collect())
    }

    /// Writes what was reported since the last time.
    pub async fn save_reports(&self) -> Result<(), MetastoreError> {
        let reports = self.take_unsaved();
        if reports.is_empty() {
            return Ok(());
        }
        let outcome = self.metastore.record_reports(&reports).await;
        let mut agents = self.agents.lock();
        if outcome.is_err() {
            for report in &reports {
                agents.entry(report.host).or_default().unsaved = true;
            }
        }
        agents.retain(|_, agent| agent.connected || agent.unsaved);
        outcome
    }

    /// Writes reports now and then, and once more when stopped.
    pub async fn keep_reports(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REPORTS_KEPT_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopped = stop.run_until_cancelled(ticks.tick()).await.is_none();
            if let Err(error) = self.save_reports().await {
                tracing::error!(%error, "could not write what agents reported");
            }
            if stopped {
                return;
            }
        }
    }

    fn take_unsaved(&self) -> Vec<HostReport> {
        let mut agents = self.agents.lock();
        let unsaved = agents.iter_mut().filter(|(_, agent)| agent.unsaved);
        unsaved
            .filter_map(|(host, agent)| {
                agent.unsaved = false;
                Some(HostReport {
                    host: *host,
                    last_seen: agent.last_seen?,
                    inventory: agent.inventory.clone(),
                    status: agent.status.clone(),
                })
            })
            .collect()
    }
}

/// An open check-in of one agent. The agent counts as connected until this is dropped.
#[derive(Debug)]
pub struct CheckIn {
    fleet: Arc<Fleet>,
    host: HostId,
    rate: TokenBucket,
}

impl CheckIn {
    /// Takes a report.
    pub fn report(
        &mut self,
        status: Option<AgentStatus>,
        inventory: Option<HostInventory>,
        now: UnixSeconds,
    ) -> Result<(), CheckInError> {
        if !self.rate.try_take(1, Instant::now()) {
            return Err(CheckInError::Rate);
        }
        let mut agents = self.fleet.agents.lock();
        let agent = agents.entry(self.host).or_default();
        agent.last_seen = Some(now);
        agent.status = status.or_else(|| agent.status.take());
        agent.inventory = inventory.or_else(|| agent.inventory.take());
        agent.unsaved = true;
        Ok(())
    }

    /// What this agent should be, now and whenever it changes.
    pub fn desired(&self) -> watch::Receiver<DesiredState> {
        self.fleet.desired.clone()
    }
}

impl Drop for CheckIn {
    fn drop(&mut self) {
        if let Some(agent) = self.fleet.agents.lock().get_mut(&self.host) {
            agent.connected = false;
        }
    }
}
