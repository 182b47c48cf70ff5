//! The hash chains of hosts: whether anything between two batches was removed or changed.
//!
//! An agent sends with each batch its place in the chain (`picket_common::chain`), and with each group of batches a signed
//! statement: how far each epoch's chain goes, which batches the agent itself gave up, and which is the oldest that still
//! waits. From these, and from the batches that are durable, follows for each epoch
//!
//! * **missing**: below the oldest that waits, not stored, not declared lost. Somebody took it out of the buffer, or
//!   the disk destroyed it without the agent knowing.
//! * **altered**: its link does not continue the batch before it.
//! * **begins anew**: the epoch does not continue the end of the epoch before it.
//!
//! Which batches are stored is known exactly, from the write-ahead log. Links and statements reach the metastore every
//! [`SAVED_PERIOD`] and when the server stops; after a crash the batches of these seconds are stored, and not verified.
//! Nothing here ever refuses a batch.
//!
//! Batches that were written before the host was enrolled (the machine was another host then) are not judged: the first
//! statement of a host says where it begins.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use picket_common::chain::{ChainHead, ChainPlace, LostSpan};
use picket_common::id::{Epoch, HostId};
use tokio_util::sync::CancellationToken;

pub use self::epoch::{ALTERED_MAX, EpochChain, RUNS_MAX};
pub use self::report::{EpochReport, Missing};
use crate::clock::UnixSeconds;
use crate::metastore::{ChainStore as _, Metastore, MetastoreError};
use crate::wal::Wal;

mod epoch;
mod report;
#[cfg(test)]
mod tests;

/// How often what was learned is written to the metastore.
pub const SAVED_PERIOD: Duration = Duration::from_secs(5);
/// Epochs kept of one host; the oldest are forgotten.
pub const EPOCHS_MAX: usize = 256;

/// The chains of all hosts.
#[derive(Debug)]
pub struct Chains {
    metastore: Metastore,
    wal: Arc<Wal>,
    hosts: Mutex<HashMap<HostId, HostChain>>,
    statements_refused: AtomicU64,
}

/// What is known of a host that delivers, or of which something is not saved.
#[derive(Debug, Default)]
struct HostChain {
    epochs: BTreeMap<u64, EpochChain>,
    unsaved: BTreeSet<u64>,
    streams: usize,
}

/// What an agent states of its chain, its signature checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The end of each epoch's chain.
    pub heads: Vec<StatedEpoch>,
    /// Epoch and sequence number of the oldest batch that waits on the host, or of the next one to be written.
    pub oldest: (u64, u64),
}

/// The end of an epoch's chain, as stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedEpoch {
    /// Which epoch, how many batches, and the last one's link.
    pub head: ChainHead,
    /// The epoch before; 0: none is known.
    pub previous_epoch: u64,
    /// Batches that were given up.
    pub lost: Vec<LostSpan>,
}

impl Chains {
    /// Over this metastore, of the batches in this log.
    pub fn new(metastore: Metastore, wal: Arc<Wal>) -> Self {
        Self { metastore, wal, hosts: Mutex::default(), statements_refused: AtomicU64::new(0) }
    }

    /// Begins to follow a host's chain.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn follow(self: &Arc<Self>, host: HostId) -> Result<ChainFollower, MetastoreError> {
        let is_known = self.hosts.lock().contains_key(&host);
        let kept = if is_known { Vec::new() } else { self.metastore.chains(host).await? };
        let mut hosts = self.hosts.lock();
        let known = hosts
            .entry(host)
            .or_insert_with(|| HostChain { epochs: kept.into_iter().collect(), ..HostChain::default() });
        known.streams += 1;
        Ok(ChainFollower { chains: Arc::clone(self), host })
    }

    /// What is known of one host's epochs, oldest first.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn report(&self, host: HostId) -> Result<Vec<EpochReport>, MetastoreError> {
        let mut epochs: BTreeMap<u64, EpochChain> = self.metastore.chains(host).await?.into_iter().collect();
        if let Some(known) = self.hosts.lock().get(&host) {
            epochs.extend(known.epochs.iter().map(|(epoch, chain)| (*epoch, chain.clone())));
        }
        let stored = self.wal.stored_batches(host);
        let of_epoch = |epoch: u64| -> Vec<(u64, u64)> {
            stored.ranges.iter().filter(|(other, ..)| *other == epoch).map(|(_, first, last)| (*first, *last)).collect()
        };
        let reports = epochs.iter().map(|(epoch, chain)| {
            let floor = match stored.floor {
                (floor_epoch, _) if floor_epoch > *epoch => u64::MAX,
                (floor_epoch, batch) if floor_epoch == *epoch => batch,
                _ => 0,
            };
            let before = chain.head.as_ref().and_then(|head| epochs.get(&head.previous_epoch));
            let is_first = epochs.range(..epoch).next().is_none();
            report::report(*epoch, chain, &of_epoch(*epoch), floor, before, is_first)
        });
        Ok(reports.collect())
    }

    /// Statements that were passed over since the start.
    pub fn statements_refused(&self) -> u64 {
        self.statements_refused.load(Ordering::Relaxed)
    }

    /// Writes what was learned since the last time.
    ///
    /// # Errors
    /// The metastore's; it is written the next time.
    pub async fn save(&self) -> Result<(), MetastoreError> {
        let mut unsaved = Vec::new();
        for (host, known) in self.hosts.lock().iter_mut() {
            let epochs = std::mem::take(&mut known.unsaved);
            unsaved
                .extend(epochs.into_iter().filter_map(|epoch| Some((*host, epoch, known.epochs.get(&epoch)?.clone()))));
        }
        let outcome = if unsaved.is_empty() { Ok(()) } else { self.metastore.save_chains(&unsaved, EPOCHS_MAX).await };
        let mut hosts = self.hosts.lock();
        if outcome.is_err() {
            for (host, epoch, _) in &unsaved {
                if let Some(known) = hosts.get_mut(host) {
                    known.unsaved.insert(*epoch);
                }
            }
        }
        hosts.retain(|_, known| known.streams > 0 || !known.unsaved.is_empty());
        outcome
    }

    /// Saves now and then, and once more when stopped.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SAVED_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopped = stop.run_until_cancelled(ticks.tick()).await.is_none();
            if let Err(error) = self.save().await {
                tracing::error!(%error, "could not write what is known of the chains of hosts");
            }
            if stopped {
                return;
            }
        }
    }

    fn change(&self, host: HostId, change: impl FnOnce(&mut HostChain)) {
        let mut hosts = self.hosts.lock();
        let known = hosts.entry(host).or_default();
        change(known);
        while known.epochs.len() > EPOCHS_MAX {
            if let Some((epoch, _)) = known.epochs.pop_first() {
                known.unsaved.remove(&epoch);
            }
        }
    }
}

/// Follows the chain of a host while it delivers.
#[derive(Debug)]
pub struct ChainFollower {
    chains: Arc<Chains>,
    host: HostId,
}

impl ChainFollower {
    /// Takes a batch that is durable.
    pub fn stored(&self, epoch: Epoch, place: &ChainPlace, frame: &[u8]) {
        self.chains.change(self.host, |known| {
            known.epochs.entry(epoch.0).or_default().insert(epoch, place, frame);
            known.unsaved.insert(epoch.0);
        });
    }

    /// Takes the agent's word.
    pub fn stated(&self, statement: &Statement, now: UnixSeconds) {
        self.chains.change(self.host, |known| known.state(statement, now));
    }

    /// Counts a word of the agent that cannot be believed.
    pub fn refused(&self, reason: &dyn std::error::Error) {
        self.chains.statements_refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(host = %self.host, %reason, "a statement on a host's chain was passed over");
    }
}

impl Drop for ChainFollower {
    fn drop(&mut self) {
        if let Some(known) = self.chains.hosts.lock().get_mut(&self.host) {
            known.streams = known.streams.saturating_sub(1);
        }
    }
}

impl HostChain {
    fn state(&mut self, statement: &Statement, now: UnixSeconds) {
        let (oldest_epoch, oldest_sequence) = statement.oldest;
        let is_first = self.epochs.values().all(|chain| chain.stated_unix_s == 0);
        for stated in &statement.heads {
            let Epoch(epoch) = stated.head.epoch;
            self.epochs.entry(epoch).or_default().state(stated.into(), now.0);
            self.unsaved.insert(epoch);
        }
        for (epoch, chain) in self.epochs.range_mut(..=oldest_epoch) {
            let batches = chain.head.as_ref().map_or(0, |head| head.batches);
            let settled = if *epoch == oldest_epoch { oldest_sequence.min(batches) } else { batches };
            if settled > chain.settled {
                chain.settled = settled;
                self.unsaved.insert(*epoch);
            }
            if is_first {
                chain.from = chain.settled;
            }
        }
    }
}
