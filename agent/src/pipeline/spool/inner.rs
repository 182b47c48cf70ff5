//! What the spool's lock protects: drafting, writing, and finding out what happened after an error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use picket_common::event::{LossReason, LossStage};
use picket_common::id::Epoch;

use crate::buffer::{Buffer, BufferError, NewRecord};
use crate::error_text;
use crate::pipeline::account::EpochAccount;
use crate::pipeline::accounts::{self, Accounts, Draft};
use crate::pipeline::history::History;
use crate::pipeline::ledger::IntakeCounters;
use crate::pipeline::spool::{PendingBatch, PreparedBatch, Settlement};
use crate::pipeline::tag::BatchTag;

/// Pause between two attempts to open a store that failed.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);

/// See the module documentation.
pub(super) struct Inner {
    pub(super) buffer: Buffer,
    pub(super) accounts: Accounts,
    pub(super) history: History,
    pub(super) epoch: Epoch,
    /// Losses of this epoch's batches that could not be written down yet.
    pub(super) unbooked: Unbooked,
    /// A batch of which it is not known whether it was stored.
    pub(super) doubt: Option<Doubt>,
    pub(super) last_reopen: Option<Instant>,
    /// Counts openings: leases of an earlier one are void.
    pub(super) generation: u64,
    pub(super) stores_set_aside: u64,
    pub(super) records_unreadable: u64,
    pub(super) last_error: Option<String>,
    pub(super) errors: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unbooked {
    pub(super) write_failed: u64,
    pub(super) buffer_full: u64,
    pub(super) over_limit: u64,
    pub(super) left_out: u64,
}

/// The store failed while it took a batch. Should the batch turn out to be there once the store is open again, then
/// `booked` is in the accounts already, or must not get there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) sequence: u64,
    pub(super) booked: Unbooked,
}

impl Inner {
    /// Brings a draft up to date with what is counted outside the accounts.
    pub(super) fn update(&self, draft: &mut Draft<'_>, intake: &IntakeCounters) {
        draft.take_intake(intake);
        draft.refuse(self.epoch, LossReason::WriteFailed, self.unbooked.write_failed);
        draft.refuse(self.epoch, LossReason::BufferFull, self.unbooked.buffer_full);
        draft.drop_before_batch(self.epoch, LossReason::Rejected, self.unbooked.over_limit);
        draft.drop_before_batch(self.epoch, LossReason::Degraded, self.unbooked.left_out);
    }

    pub(super) fn append(&mut self, batch: &PreparedBatch, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        self.update(&mut draft, intake);
        let mut tag = batch.tag.clone();
        tag.chain = draft.extend_chain(tag.epoch, batch.sequence, &batch.frame);
        draft.store(&tag);
        let tag = tag.encode();
        let record = NewRecord { priority: batch.priority, items: batch.event_count, tag: &tag, payload: &batch.frame };
        let result = self.buffer.append(record, |evicted| {
            for tag in evicted.iter().filter_map(|info| BatchTag::decode(&info.tag)) {
                draft.lose(&tag, LossStage::Buffer, LossReason::BufferFull);
            }
            draft.writes()
        });
        if let Err(error) = result {
            if matches!(error, BufferError::Io { .. } | BufferError::Damaged { .. }) {
                self.doubt = Some(Doubt { sequence: batch.sequence, booked: self.unbooked });
            }
            return Err(error);
        }
        let changes = draft.into_changes();
        self.unbooked = Unbooked::default();
        self.commit(changes);
        Ok(())
    }

    pub(super) fn has_stored(&self, batch: &PreparedBatch) -> bool {
        self.accounts.get(self.epoch).is_some_and(|account| account.batches > batch.sequence)
    }

    pub(super) fn settle(&mut self, batch: &PendingBatch, settlement: Settlement) -> Result<(), BufferError> {
        if batch.generation != self.generation {
            // The store was opened anew, its leases are void: what is still there will be delivered again.
            return Ok(());
        }
        let mut draft = self.accounts.draft();
        // A tag that cannot be read is found when the buffer is empty.
        if let Some(tag) = BatchTag::decode(&batch.tag) {
            match settlement {
                Settlement::Delivered => draft.deliver(&tag),
                Settlement::Rejected => draft.lose(&tag, LossStage::Server, LossReason::Rejected),
            }
        }
        match self.buffer.commit(batch.number, &draft.writes()) {
            // Rolled back meanwhile: it comes again, and so does its answer.
            Err(BufferError::NotLeased { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let changes = draft.into_changes();
                self.commit(changes);
                Ok(())
            }
        }
    }

    pub(super) fn write_account(&mut self, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        self.update(&mut draft, intake);
        self.buffer.write_metadata(&draft.writes())?;
        let changes = draft.into_changes();
        self.unbooked = Unbooked::default();
        self.commit(changes);
        Ok(())
    }

    /// The buffer is empty: whatever the accounts say to wait in it was lost there.
    pub(super) fn reconcile_empty(&mut self) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        draft.reconcile_empty();
        if draft.is_empty() {
            return Ok(());
        }
        self.buffer.write_metadata(&draft.writes())?;
        let changes = draft.into_changes();
        self.commit(changes);
        Ok(())
    }

    /// What was written counts now.
    pub(super) fn commit(&mut self, changes: BTreeMap<Epoch, EpochAccount>) {
        for account in changes.values() {
            self.history.write(account);
        }
        self.accounts.apply(changes);
    }

    pub(super) fn note(&mut self, error: &BufferError) {
        if matches!(error, BufferError::Closed) {
            // It is closed because of an error that was noted.
            return;
        }
        self.errors += 1;
        let text = error_text::chain(error);
        if self.last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "the buffer has a problem");
        }
        self.last_error = Some(text);
    }

    /// Runs `operation`; after an error of the store opens it again and runs it once more.
    pub(super) fn with_recovery<T>(
        &mut self,
        mut operation: impl FnMut(&mut Self) -> Result<T, BufferError>,
    ) -> Result<T, BufferError> {
        match operation(self) {
            Err(error) if error.needs_reopen() => {
                self.note(&error);
                self.recover(&error)?;
                operation(self)
            }
            result => result,
        }
    }

    /// Opens the store again and reads the accounts back from it.
    pub(super) fn recover(&mut self, cause: &BufferError) -> Result<(), BufferError> {
        if self.last_reopen.is_some_and(|last| last.elapsed() < REOPEN_INTERVAL) {
            return Err(BufferError::Closed);
        }
        self.last_reopen = Some(Instant::now());
        self.generation += 1;
        let mut damage = self.buffer.reopen().inspect_err(|error| self.last_error = Some(error_text::chain(error)))?;
        if damage.is_none() {
            let stored = load(&self.buffer)?;
            if matches!(cause, BufferError::Damaged { .. }) || self.accounts.is_ahead_of(&stored) {
                damage = Some(self.buffer.set_aside(&error_text::chain(cause))?);
            } else {
                self.accounts = stored;
                self.resolve_doubt();
            }
        }
        self.doubt = None;
        if let Some(damage) = damage {
            self.stores_set_aside += 1;
            tracing::error!(path = %damage.set_aside.display(), detail = damage.detail, "a damaged buffer was set aside");
            self.restart_accounts()?;
        }
        Ok(())
    }

    /// Takes back what was to be booked when the batch in doubt is there after all.
    pub(super) fn resolve_doubt(&mut self) {
        let batches = self.accounts.get(self.epoch).map_or(0, |account| account.batches);
        if let Some(doubt) = self.doubt.take().filter(|doubt| batches > doubt.sequence) {
            self.unbooked.write_failed -= doubt.booked.write_failed.min(self.unbooked.write_failed);
            self.unbooked.buffer_full -= doubt.booked.buffer_full.min(self.unbooked.buffer_full);
            self.unbooked.over_limit -= doubt.booked.over_limit.min(self.unbooked.over_limit);
            self.unbooked.left_out -= doubt.booked.left_out.min(self.unbooked.left_out);
        }
    }

    /// A fresh store: everything that waited in the old one is lost.
    pub(super) fn restart_accounts(&mut self) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        draft.lose_store();
        let changes = draft.into_changes();
        let mut accounts = self.accounts.clone();
        accounts.apply(changes);
        let writes: Vec<_> = accounts.iter().map(accounts::write).collect();
        self.buffer.write_metadata(&writes)?;
        accounts.iter().for_each(|account| self.history.write(account));
        self.accounts = accounts;
        Ok(())
    }
}

pub(super) fn load(buffer: &Buffer) -> Result<Accounts, BufferError> {
    let stored = buffer.metadata_with_prefix(accounts::KEY_PREFIX)?;
    Ok(Accounts::from_stored(stored.iter().map(|(_, value)| value.as_slice())))
}
