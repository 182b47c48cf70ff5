//! The accounts of all epochs this state folder remembers, and changes to them that are written before they count.

use std::collections::BTreeMap;

use picket_common::chain::{ChainPlace, LostSpan};
use picket_common::event::{LossReason, LossStage, SensorLoss};
use picket_common::id::Epoch;

use crate::buffer::MetadataWrite;
use crate::pipeline::account::EpochAccount;
use crate::pipeline::ledger::IntakeCounters;
use crate::pipeline::tag::BatchTag;

/// Most epochs that are remembered; settled ones are forgotten first.
pub(crate) const EPOCHS_MAX: usize = 256;
/// Metadata keys in the buffer: this and the epoch, big-endian.
pub(crate) const KEY_PREFIX: &[u8] = b"epoch";

/// All accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    epochs: BTreeMap<Epoch, EpochAccount>,
}

/// Accounts as they will be once a write has succeeded.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    base: &'a Accounts,
    touched: BTreeMap<Epoch, EpochAccount>,
}

impl Accounts {
    /// From what was stored; values that cannot be read are passed over.
    pub(crate) fn from_stored<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let epochs = values.filter_map(EpochAccount::decode).map(|account| (account.epoch, account)).collect();
        Self { epochs }
    }

    /// One account.
    pub fn get(&self, epoch: Epoch) -> Option<&EpochAccount> {
        self.epochs.get(&epoch)
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &EpochAccount> {
        self.epochs.values()
    }

    pub(crate) fn draft(&self) -> Draft<'_> {
        Draft { base: self, touched: BTreeMap::new() }
    }

    /// Makes a draft's changes count; call it once they are written.
    pub(crate) fn apply(&mut self, changes: BTreeMap<Epoch, EpochAccount>) {
        self.epochs.extend(changes);
    }

    /// Whether `stored` lacks something that these accounts, written after it, already had durably: the store lost
    /// what it had promised to keep.
    pub(crate) fn is_ahead_of(&self, stored: &Self) -> bool {
        self.iter().any(|account| account.batches > stored.get(account.epoch).map_or(0, |stored| stored.batches))
    }

    /// Works out what the last life left behind: `stored` lies in the buffer (and counts), `mirror` beside it,
    /// `intake` in the ledger.
    pub(crate) fn settle(stored: &Self, mirror: &Self, intake: Option<&IntakeCounters>) -> Self {
        let mut settled = stored.clone();
        for account in mirror.iter() {
            let known = settled.epochs.entry(account.epoch).or_insert_with(|| {
                let mut lost = *account;
                lost.lose_store();
                lost
            });
            known.accepted = known.accepted.max(account.accepted);
            known.sensor_lost = known.sensor_lost.max(account.sensor_lost);
        }
        if let Some(intake) = intake {
            let account = settled.epochs.entry(intake.epoch).or_insert_with(|| EpochAccount::new(intake.epoch));
            account.take_intake(intake.accepted, &intake.losses(), intake.reported.total());
        }
        settled.epochs.values_mut().for_each(EpochAccount::close);
        settled
    }

    /// Begins an epoch that is later than every one before and not earlier than `now`; gives back the epochs that
    /// had to be forgotten for it.
    pub(crate) fn begin(&mut self, now: Epoch, last: Option<Epoch>) -> (Epoch, Vec<Epoch>) {
        let latest = self.epochs.last_key_value().map(|(epoch, _)| *epoch).max(last);
        let epoch = latest.map_or(now, |latest| now.max(Epoch(latest.0.saturating_add(1))));
        let previous = self.epochs.last_key_value().map(|(_, account)| account.chain_head());
        let mut forgotten = Vec::new();
        while self.epochs.len() >= EPOCHS_MAX {
            let settled = self.iter().find(|account| account.is_settled()).map(|account| account.epoch);
            let Some(victim) = settled.or_else(|| self.fold_oldest()) else { break };
            self.epochs.remove(&victim);
            forgotten.push(victim);
        }
        self.epochs.insert(epoch, EpochAccount::after(epoch, previous.as_ref()));
        (epoch, forgotten)
    }

    /// Nothing is settled: the oldest account's numbers go on in the next one, so that no loss is forgotten.
    fn fold_oldest(&mut self) -> Option<Epoch> {
        let mut accounts = self.epochs.values_mut();
        let (oldest, next) = (accounts.next()?, accounts.next()?);
        next.accepted += oldest.accepted;
        next.sensor_lost += oldest.sensor_lost;
        next.framed += oldest.framed;
        next.delivered += oldest.delivered;
        next.booked.add_all(&oldest.booked);
        next.pending.add_all(&oldest.pending);
        next.announced.add_all(&oldest.announced);
        Some(oldest.epoch)
    }
}

impl Draft<'_> {
    fn account(&mut self, epoch: Epoch) -> &mut EpochAccount {
        let base = self.base;
        // A forgotten epoch's numbers went on in the oldest one that is remembered.
        let epoch = base.epochs.range(epoch..).next().map_or(epoch, |(epoch, _)| *epoch);
        self.touched
            .entry(epoch)
            .or_insert_with(|| base.get(epoch).copied().unwrap_or_else(|| EpochAccount::new(epoch)))
    }

    /// Takes over the intake's counters.
    pub(crate) fn take_intake(&mut self, intake: &IntakeCounters) {
        let losses = intake.losses();
        self.account(intake.epoch).take_intake(intake.accepted, &losses, intake.reported.total());
    }

    /// The losses to announce next, oldest epoch first.
    pub(crate) fn pending(&self, limit: usize) -> Vec<SensorLoss> {
        let accounts = self.base.iter().map(|account| self.touched.get(&account.epoch).unwrap_or(account));
        let losses = accounts.flat_map(|account| {
            let epoch = account.epoch;
            account.pending.entries().map(move |(stage, reason, count)| SensorLoss { stage, reason, count, epoch })
        });
        losses.take(limit).collect()
    }

    /// Adds a batch to its epoch's chain.
    pub(crate) fn extend_chain(&mut self, epoch: Epoch, sequence: u64, frame: &[u8]) -> ChainPlace {
        self.account(epoch).extend_chain(sequence, frame)
    }

    /// A batch becomes durable: its events are framed, its announcements no longer pending.
    pub(crate) fn store(&mut self, tag: &BatchTag) {
        self.account(tag.epoch).framed += u64::from(tag.sensor_events);
        for loss in &tag.losses {
            let pending = &mut self.account(loss.epoch).pending;
            let mut announced = crate::pipeline::loss::LossTable::default();
            announced.add(loss.stage, loss.reason, loss.count);
            *pending = pending.minus(&announced);
        }
    }

    /// A batch was made but never became durable.
    pub(crate) fn refuse(&mut self, epoch: Epoch, reason: LossReason, sensor_events: u64) {
        let account = self.account(epoch);
        account.framed += sensor_events;
        account.book(LossStage::Buffer, reason, sensor_events);
    }

    /// Accepted observations that go into no batch: none may hold them, or the budget does not permit it.
    pub(crate) fn drop_before_batch(&mut self, epoch: Epoch, reason: LossReason, count: u64) {
        self.account(epoch).book(LossStage::Pipeline, reason, count);
    }

    /// A durable batch is gone, and the server does not have it: its events are lost, its announcements must be
    /// made again.
    pub(crate) fn lose(&mut self, tag: &BatchTag, stage: LossStage, reason: LossReason) {
        let account = self.account(tag.epoch);
        account.book(stage, reason, u64::from(tag.sensor_events));
        // The chain of a forgotten epoch is forgotten, too.
        if account.epoch == tag.epoch {
            account.batches_lost.add(LostSpan::one(tag.chain.sequence.0));
        }
        for loss in &tag.losses {
            self.account(loss.epoch).pending.add(loss.stage, loss.reason, loss.count);
        }
    }

    /// The server has a batch.
    pub(crate) fn deliver(&mut self, tag: &BatchTag) {
        let account = self.account(tag.epoch);
        account.delivered += u64::from(tag.sensor_events);
        account.batches_delivered += u64::from(account.epoch == tag.epoch);
        for loss in &tag.losses {
            self.account(loss.epoch).announced.add(loss.stage, loss.reason, loss.count);
        }
    }

    /// The store is gone, and every batch in it.
    pub(crate) fn lose_store(&mut self) {
        let epochs: Vec<Epoch> = self.base.epochs.keys().copied().collect();
        for epoch in epochs {
            self.account(epoch).lose_store();
        }
    }

    /// The buffer is empty: whatever is still said to wait in it has been lost there unnoticed. The events are booked;
    /// the batches are not declared lost: it is for the server to see that they are missing.
    pub(crate) fn reconcile_empty(&mut self) {
        let waiting = |account: &&EpochAccount| {
            account.waiting() > 0 || account.booked.minus(&account.announced) != account.pending
        };
        let epochs: Vec<Epoch> = self.base.iter().filter(waiting).map(|account| account.epoch).collect();
        for epoch in epochs {
            self.account(epoch).lose_buffer();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// The changes as metadata of the buffer.
    pub(crate) fn writes(&self) -> Vec<MetadataWrite> {
        self.touched.values().map(write).collect()
    }

    pub(crate) fn into_changes(self) -> BTreeMap<Epoch, EpochAccount> {
        self.touched
    }
}

/// An account as metadata of the buffer.
pub(crate) fn write(account: &EpochAccount) -> MetadataWrite {
    MetadataWrite { key: key(account.epoch), value: Some(account.encode()) }
}

/// Removes an account from the buffer's metadata.
pub(crate) fn forget(epoch: Epoch) -> MetadataWrite {
    MetadataWrite { key: key(epoch), value: None }
}

fn key(epoch: Epoch) -> Vec<u8> {
    [KEY_PREFIX, &epoch.0.to_be_bytes()].concat()
}
