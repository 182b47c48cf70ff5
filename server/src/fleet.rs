//! Agents: who is welcome, what they reported, what they should be.
//!
//! One identity is one agent: who shows that it is two is put in quarantine (`clone`). It is then refused like a
//! revoked host, both of it, so that nothing of the one is taken for the other's; what it collects waits in its buffers.
//! What was delivered before stays, under the epoch of the agent that saw it. An operator ends it: by releasing the host when only one agent
//! is left, or by revoking it and enrolling the machines again, each with an identity of its own.
//!
//! What agents report stays in memory and reaches the metastore in batches (at most every
//! [`REPORTS_KEPT_PERIOD`] and when the server stops): a crash costs seconds of "last seen", nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::id::HostId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::UnixSeconds;
use crate::fleet::clone::{Arrival, Lives};
pub use crate::fleet::clone::{Life, STALE_EARLIER_EPOCH, STALE_SAME_EPOCH, STALE_WINDOW};
pub use crate::fleet::desired::{DesiredModel, DesiredState, ModelSource, ModelSourceError};
pub use crate::fleet::report::{ActiveModel, AgentStatus, EpochAccount, HostInventory, SensorStatus};
pub use crate::fleet::rotation::{AuthorityView, RetireError};
use crate::listener::HostConnections;
use crate::metastore::{Admission, HostRecord, HostReport, HostStore as _, Metastore, MetastoreError};
use crate::pki::{Authorities, Pair, PeerIdentity};
use crate::rate::TokenBucket;

mod clone;
mod desired;
mod report;
mod rotation;
#[cfg(test)]
mod tests;

/// How often reports are written to the metastore.
pub const REPORTS_KEPT_PERIOD: Duration = Duration::from_secs(5);
/// Reports a second one agent may send for long, and at once.
const REPORTS_PER_SECOND: u64 = 1;
const REPORTS_BURST: u64 = 10;
/// Most epochs of one report.
pub const EPOCHS_REPORTED_MAX: usize = 64;
/// Most epochs of one host whose accounts are kept; the oldest are forgotten.
pub const ACCOUNTS_KEPT_MAX: usize = 1024;

/// The agents.
#[derive(Debug)]
pub struct Fleet {
    metastore: Metastore,
    connections: Arc<HostConnections>,
    authorities: Arc<Authorities>,
    desired: watch::Receiver<DesiredState>,
    agents: Mutex<HashMap<HostId, Agent>>,
    /// Kept as long as the server runs: a few bytes for each host that ever checked in.
    lives: Mutex<HashMap<HostId, Lives>>,
}

/// What is known of an agent that is connected, or whose last report is not written yet.
#[derive(Debug, Default)]
struct Agent {
    /// The check-in that counts.
    live: Option<Live>,
    last_seen: Option<UnixSeconds>,
    inventory: Option<HostInventory>,
    status: Option<AgentStatus>,
    /// The accounts that are in the metastore as they are here.
    saved_accounts: BTreeMap<u64, EpochAccount>,
    /// Something above is not in the metastore yet.
    unsaved: bool,
}

/// A check-in stream.
#[derive(Debug)]
struct Live {
    number: u64,
    /// Closes its connection.
    cut: CancellationToken,
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
    /// Two agents used the host's identity.
    #[error(
        "this host is in quarantine, because two agents use its identity (a copied state folder, or a machine set back \
         to a snapshot): stop the one that is too much and have the host released, or enrol each machine again with \
         `picket-agent enroll --force`"
    )]
    Quarantined,
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

/// Why a check-in ends.
#[derive(Debug, thiserror::Error)]
pub enum CheckInError {
    /// The host's other check-in stream is still open.
    #[error("this host has a check-in stream already")]
    SecondStream,
    /// It reports too often.
    #[error("more than {REPORTS_PER_SECOND} report a second")]
    Rate,
    /// An agent of the host that started later has been seen.
    #[error("an agent with this host's identity that started later is or was connected: only one may use it")]
    Stale,
    /// Two agents use the host's identity.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
}

impl Fleet {
    /// Over this metastore. `desired` is what every agent should be, now and later; `authorities` whom it should trust; `connections` those of the
    /// listener that agents use.
    pub fn new(
        metastore: Metastore,
        connections: Arc<HostConnections>,
        desired: watch::Receiver<DesiredState>,
        authorities: Arc<Authorities>,
    ) -> Self {
        Self { metastore, connections, authorities, desired, agents: Mutex::default(), lives: Mutex::default() }
    }

    /// The host behind a certificate, if it is still welcome. Asked with every call.
    pub async fn admit(&self, peer: Option<&PeerIdentity>) -> Result<HostId, AdmissionError> {
        let peer = peer.ok_or(AdmissionError::Anonymous)?;
        match self.metastore.admit(peer.host, &peer.serial, UnixSeconds::now()).await? {
            Admission::Admitted => Ok(peer.host),
            Admission::Unknown => Err(AdmissionError::Unknown),
            Admission::Superseded => Err(AdmissionError::Superseded),
            Admission::Revoked => Err(AdmissionError::Revoked),
            Admission::Quarantined => Err(AdmissionError::Quarantined),
        }
    }

    /// Refuses the host from now on and cuts its connections. Returns since when it is revoked; none when there is no
    /// such host.
    pub async fn revoke(&self, host: HostId) -> Result<Option<UnixSeconds>, MetastoreError> {
        let revoked = self.metastore.revoke_host(host, UnixSeconds::now()).await?;
        self.connections.cut(host);
        Ok(revoked)
    }

    /// Puts the host in quarantine and cuts its connections.
    async fn quarantine(&self, host: HostId, epoch: u64, latest: u64) -> Result<(), MetastoreError> {
        let reason = format!(
            "the agent that started at {epoch} came back {STALE_EARLIER_EPOCH} times or more after the one that started at \
             {latest} (nanoseconds since 1970)"
        );
        tracing::error!(%host, epoch, latest, "two agents use one identity: the host is in quarantine");
        self.metastore.quarantine_host(host, UnixSeconds::now(), &reason).await?;
        self.connections.cut(host);
        Ok(())
    }

    /// Ends the host's quarantine. `Some(false)`: it was in none; none when there is no such host.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn release(&self, host: HostId) -> Result<Option<bool>, MetastoreError> {
        let released = self.metastore.release_host(host).await?;
        // Whichever agent is left goes on.
        self.lives.lock().remove(&host);
        Ok(released)
    }

    /// Opens a check-in of the host, on the connection that `cut` closes. If the host has one already, the first report
    /// decides which of them counts.
    pub fn check_in(self: &Arc<Self>, host: HostId, cut: CancellationToken) -> CheckIn {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let mut agents = self.agents.lock();
        let agent = agents.entry(host).or_default();
        if agent.live.is_none() {
            agent.live = Some(Live { number, cut: cut.clone() });
        }
        let rate = TokenBucket::new(REPORTS_PER_SECOND, REPORTS_BURST, Instant::now());
        CheckIn { fleet: Arc::clone(self), host, number, cut, introduced: false, rate }
    }

    /// How many agents are checked in.
    pub fn connected(&self) -> usize {
        self.agents.lock().values().filter(|agent| agent.live.is_some()).count()
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
            HostView { record, connected: agent.live.is_some() }
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
                let agent = agents.entry(report.host).or_default();
                agent.unsaved = true;
                for account in &report.accounts {
                    agent.saved_accounts.remove(&account.epoch);
                }
            }
        }
        agents.retain(|_, agent| agent.live.is_some() || agent.unsaved);
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
                let accounts = agent.unsaved_accounts();
                Some(HostReport {
                    host: *host,
                    last_seen: agent.last_seen?,
                    inventory: agent.inventory.clone(),
                    status: agent.status.clone(),
                    accounts,
                })
            })
            .collect()
    }
}

impl Agent {
    /// The accounts that have changed since they were written.
    fn unsaved_accounts(&mut self) -> Vec<EpochAccount> {
        let reported = self.status.iter().flat_map(|status| &status.epochs);
        let changed: Vec<EpochAccount> =
            reported.filter(|account| self.saved_accounts.get(&account.epoch) != Some(*account)).cloned().collect();
        self.saved_accounts.extend(changed.iter().map(|account| (account.epoch, account.clone())));
        while self.saved_accounts.len() > EPOCHS_REPORTED_MAX {
            self.saved_accounts.pop_first();
        }
        changed
    }
}

/// An open check-in of one agent. The agent counts as connected until this is dropped.
#[derive(Debug)]
pub struct CheckIn {
    fleet: Arc<Fleet>,
    host: HostId,
    number: u64,
    cut: CancellationToken,
    /// Whether the agent has said which life it is in.
    introduced: bool,
    rate: TokenBucket,
}

impl CheckIn {
    /// Takes a report. `connection` is the agent's number of its connection, 0 when it does not say.
    pub async fn report(
        &mut self,
        status: Option<AgentStatus>,
        inventory: Option<HostInventory>,
        connection: u64,
        now: UnixSeconds,
    ) -> Result<(), CheckInError> {
        if !self.rate.try_take(1, Instant::now()) {
            return Err(CheckInError::Rate);
        }
        if !self.introduced {
            self.introduce(status.as_ref().map(|status| Life { epoch: status.epoch, connection })).await?;
        }
        let mut agents = self.fleet.agents.lock();
        let agent = agents.entry(self.host).or_default();
        agent.last_seen = Some(now);
        agent.status = status.or_else(|| agent.status.take());
        agent.inventory = inventory.or_else(|| agent.inventory.take());
        agent.unsaved = true;
        Ok(())
    }

    /// Decides whether this stream counts: the latest life's does.
    async fn introduce(&mut self, life: Option<Life>) -> Result<(), CheckInError> {
        if let Some(life) = life {
            let arrival = self.fleet.lives.lock().entry(self.host).or_default().arrive(life, Instant::now());
            match arrival {
                Arrival::Later => self.introduced = true,
                Arrival::Stale => return Err(CheckInError::Stale),
                Arrival::Clone { epoch, latest } => {
                    self.fleet.quarantine(self.host, epoch, latest).await?;
                    return Err(AdmissionError::Quarantined.into());
                }
            }
        }
        let mut agents = self.fleet.agents.lock();
        let live = &mut agents.entry(self.host).or_default().live;
        match live {
            Some(live) if live.number == self.number => {}
            // Without a word of whose life it is, the first one counts.
            Some(_) if !self.introduced => return Err(CheckInError::SecondStream),
            _ => {
                let mine = Live { number: self.number, cut: self.cut.clone() };
                // The agent has lost that connection, or has been started anew; the server did not know yet.
                if let Some(before) = live.replace(mine) {
                    before.cut.cancel();
                }
            }
        }
        Ok(())
    }

    /// Whom this agent should trust, now and whenever it changes.
    pub fn authorities(&self) -> watch::Receiver<Pair> {
        self.fleet.authorities.subscribe()
    }

    /// What this agent should be, now and whenever it changes.
    pub fn desired(&self) -> watch::Receiver<DesiredState> {
        self.fleet.desired.clone()
    }
}

impl Drop for CheckIn {
    fn drop(&mut self) {
        if let Some(agent) = self.fleet.agents.lock().get_mut(&self.host) {
            agent.live.take_if(|live| live.number == self.number);
        }
    }
}
