//! The spool: buffer and accounts as one, so that an event and its place in the accounts change in one step.
//!
//! Every change is drafted, written into the buffer together with the records it is about, and counts only then; the
//! history file follows. After any error of the store it is opened again and the accounts are read back from it: what
//! it holds is what happened. When the store is damaged, or has lost something it had promised to keep, it is set
//! aside and everything that waited in it is booked as lost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::event::{LossReason, LossStage, SensorLoss};
use picket_common::id::Epoch;
use tokio::sync::Notify;

use crate::buffer::{
    Buffer, BufferConfig, BufferError, BufferStats, Damage, LeasedRecord, NewRecord, Priority, RecordNumber,
};
use crate::error_text;
use crate::pipeline::account::EpochAccount;
use crate::pipeline::accounts::{self, Accounts, Draft};
use crate::pipeline::history::History;
use crate::pipeline::ledger::{IntakeCounters, Ledger};
use crate::pipeline::tag::{BatchTag, LOSSES_PER_BATCH_MAX};

/// Pause between two attempts to open a store that failed.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);

/// Where the parts of a spool lie.
#[derive(Clone, Debug)]
pub struct SpoolPaths {
    /// Folder of the buffer.
    pub buffer: PathBuf,
    /// See [`crate::pipeline::ledger`].
    pub ledger: PathBuf,
    /// See [`crate::pipeline::history`].
    pub history: PathBuf,
}

impl SpoolPaths {
    /// The usual places in a state folder.
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self {
            buffer: state_dir.join("buffer"),
            ledger: state_dir.join("ledger"),
            history: state_dir.join("ledger.history"),
        }
    }
}

/// Why a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The buffer.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// Ledger or history.
    #[error("cannot use {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A finished batch on its way into the buffer.
#[derive(Clone, Debug)]
pub(crate) struct PreparedBatch {
    pub(crate) frame: Vec<u8>,
    pub(crate) priority: Priority,
    pub(crate) event_count: u32,
    pub(crate) tag: BatchTag,
    /// Which batch of its epoch this is, from 0.
    pub(crate) sequence: u64,
}

/// Batches for the server.
#[derive(Debug, Default)]
pub struct SpoolLease {
    /// In order.
    pub batches: Vec<LeasedBatch>,
}

/// One batch for the server.
#[derive(Debug)]
pub struct LeasedBatch {
    /// Names it until it is settled.
    pub number: RecordNumber,
    /// The frame.
    pub frame: Vec<u8>,
    tag: Vec<u8>,
    generation: u64,
}

/// What the server said to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It has it.
    Delivered,
    /// It will never take it.
    Rejected,
}

/// A leased batch without its frame: what is kept until the server has answered.
#[derive(Clone, Debug)]
pub struct PendingBatch {
    number: RecordNumber,
    tag: Vec<u8>,
    generation: u64,
}

impl LeasedBatch {
    /// Parts the frame from what is needed to settle it.
    pub fn into_parts(self) -> (PendingBatch, Vec<u8>) {
        (PendingBatch { number: self.number, tag: self.tag, generation: self.generation }, self.frame)
    }
}

/// What the spool says of itself.
#[derive(Clone, Debug, Default)]
pub struct SpoolStatus {
    /// The buffer's totals.
    pub buffer: BufferStats,
    /// The buffer's ceiling.
    pub buffer_bytes_max: u64,
    /// When the oldest batch that waits was closed, nanoseconds since 1970.
    pub oldest_unix_ns: Option<u64>,
    /// All accounts, oldest first.
    pub accounts: Vec<EpochAccount>,
    /// Stores set aside since the start.
    pub stores_set_aside: u64,
    /// Records found unreadable since the start.
    pub records_unreadable: u64,
    /// The last error of the buffer, with how often one occurred.
    pub last_error: Option<String>,
    /// Errors of the buffer since the start.
    pub errors: u64,
    /// Failed writes of the history file.
    pub history_write_failures: u64,
}

/// See the module documentation. All methods may block on the disk.
pub struct Spool {
    inner: Mutex<Inner>,
    config: BufferConfig,
    appended: Notify,
}

struct Inner {
    buffer: Buffer,
    accounts: Accounts,
    history: History,
    epoch: Epoch,
    /// Losses of this epoch's batches that could not be written down yet.
    unbooked: Unbooked,
    /// A batch of which it is not known whether it was stored.
    doubt: Option<Doubt>,
    last_reopen: Option<Instant>,
    /// Counts openings: leases of an earlier one are void.
    generation: u64,
    stores_set_aside: u64,
    records_unreadable: u64,
    last_error: Option<String>,
    errors: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unbooked {
    write_failed: u64,
    buffer_full: u64,
    over_limit: u64,
}

/// The store failed while it took a batch. Should the batch turn out to be there once the store is open again, then
/// `booked` is in the accounts already, or must not get there.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    sequence: u64,
    booked: Unbooked,
}

/// A spool that begins an epoch.
pub struct OpenedSpool {
    /// The spool.
    pub spool: Spool,
    /// Its ledger.
    pub ledger: Ledger,
    /// The new epoch: later than every one before.
    pub epoch: Epoch,
    /// A store that had to be set aside.
    pub damage: Option<Damage>,
}

impl Spool {
    /// Opens the spool, books what the last life lost, and begins an epoch not earlier than `now_unix_ns`.
    ///
    /// # Errors
    /// When buffer, ledger or history cannot be read or written; nothing is lost then.
    pub fn open(paths: &SpoolPaths, config: BufferConfig, now_unix_ns: u64) -> Result<OpenedSpool, SpoolError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::File { path, source }
        };
        let (mut buffer, mut damage) = Buffer::open(&paths.buffer, config)?;
        let intake = Ledger::read(&paths.ledger).map_err(file(&paths.ledger))?;
        let mirror = History::read(&paths.history).map_err(file(&paths.history))?;
        let mut stored = load(&buffer)?;
        if damage.is_none() && mirror.is_ahead_of(&stored) {
            damage = Some(buffer.set_aside("it lost batches it had stored durably")?);
            stored = Accounts::default();
        }
        let mut accounts = Accounts::settle(&stored, &mirror, intake.as_ref());
        let last_intake = intake.map(|intake| intake.epoch);
        let (epoch, forgotten) = accounts.begin(Epoch(now_unix_ns), last_intake);

        // Order: what the history alone holds would count as lost by the store, so it forgets first. Then the store,
        // then the ledger: killed in between, the next start finds an account of the ledger's epoch that is closed.
        let mut history = History::open(&paths.history).map_err(file(&paths.history))?;
        forgotten.iter().for_each(|epoch| history.forget(*epoch));
        let writes: Vec<_> =
            accounts.iter().map(accounts::write).chain(forgotten.iter().copied().map(accounts::forget)).collect();
        buffer.write_metadata(&writes)?;
        accounts.iter().for_each(|account| history.write(account));
        history.sync();
        let ledger = Ledger::begin(&paths.ledger, epoch).map_err(file(&paths.ledger))?;

        let inner = Inner {
            buffer,
            accounts,
            history,
            epoch,
            unbooked: Unbooked::default(),
            doubt: None,
            last_reopen: None,
            generation: 0,
            stores_set_aside: u64::from(damage.is_some()),
            records_unreadable: 0,
            last_error: None,
            errors: 0,
        };
        let spool = Self { inner: Mutex::new(inner), config, appended: Notify::new() };
        Ok(OpenedSpool { spool, ledger, epoch, damage })
    }

    /// Waits until something was appended since the last call.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The losses that the next batch shall announce.
    pub(crate) fn pending_losses(&self, intake: &IntakeCounters) -> Vec<SensorLoss> {
        let inner = self.inner.lock();
        let mut draft = inner.accounts.draft();
        inner.update(&mut draft, intake);
        draft.pending(LOSSES_PER_BATCH_MAX)
    }

    /// Stores a batch durably, together with the accounts.
    ///
    /// A batch for which no room can be made is booked as lost and is no error.
    ///
    /// # Errors
    /// The batch is not stored; it can be offered again.
    pub(crate) fn append(&self, batch: &PreparedBatch, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut inner = self.inner.lock();
        let result = match inner.append(batch, intake) {
            Err(error) if error.needs_reopen() => {
                inner.note(&error);
                inner.recover(&error)?;
                if inner.has_stored(batch) { Ok(()) } else { inner.append(batch, intake) }
            }
            result => result,
        };
        match result {
            Err(BufferError::Full { .. }) => inner.unbooked.buffer_full += u64::from(batch.tag.sensor_events),
            Err(error) => {
                inner.note(&error);
                return Err(error);
            }
            Ok(()) => {}
        }
        drop(inner);
        self.appended.notify_one();
        Ok(())
    }

    /// Gives a batch up that could not be stored.
    pub(crate) fn give_up(&self, batch: &PreparedBatch) {
        let mut inner = self.inner.lock();
        inner.unbooked.write_failed += u64::from(batch.tag.sensor_events);
        if let Some(doubt) = inner.doubt.as_mut().filter(|doubt| doubt.sequence == batch.sequence) {
            doubt.booked.write_failed += u64::from(batch.tag.sensor_events);
        }
    }

    /// Counts an observation that no batch may hold.
    pub(crate) fn over_limit(&self) {
        self.inner.lock().unbooked.over_limit += 1;
    }

    /// Hands out the next batches, at most `batches_max`, and no further one once `bytes_max` is reached.
    ///
    /// # Errors
    /// The buffer's.
    pub fn lease(&self, batches_max: usize, bytes_max: usize) -> Result<SpoolLease, BufferError> {
        let mut inner = self.inner.lock();
        let lease = inner.with_recovery(|inner| {
            let lease = inner.buffer.lease(batches_max, bytes_max)?;
            inner.records_unreadable += lease.unreadable;
            if inner.buffer.stats().records == 0 {
                inner.reconcile_empty()?;
                inner.buffer.reclaim()?;
            }
            Ok(lease)
        })?;
        let generation = inner.generation;
        let leased = |record: LeasedRecord| LeasedBatch {
            number: record.info.number,
            frame: record.payload,
            tag: record.info.tag,
            generation,
        };
        Ok(SpoolLease { batches: lease.records.into_iter().map(leased).collect() })
    }

    /// Removes batches the server has answered.
    ///
    /// # Errors
    /// The buffer's; what is not removed will be delivered again.
    pub fn settle(&self, answers: &[(PendingBatch, Settlement)]) -> Result<(), BufferError> {
        let mut inner = self.inner.lock();
        for (batch, settlement) in answers {
            inner.with_recovery(|inner| inner.settle(batch, *settlement))?;
        }
        Ok(())
    }

    /// Ends all leases.
    pub fn rollback(&self) {
        self.inner.lock().buffer.rollback();
    }

    /// Makes everything durable: the last thing before the agent ends.
    ///
    /// # Errors
    /// The buffer's.
    pub fn flush(&self, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut inner = self.inner.lock();
        inner.write_account(intake)?;
        inner.buffer.flush()?;
        inner.history.sync();
        Ok(())
    }

    /// Closes the store, as after an error.
    #[cfg(test)]
    pub(crate) fn fail_for_test(&self) {
        self.inner.lock().buffer.close();
    }

    /// What the spool says of itself.
    pub fn status(&self, intake: &IntakeCounters) -> SpoolStatus {
        let inner = self.inner.lock();
        let mut draft = inner.accounts.draft();
        inner.update(&mut draft, intake);
        let touched = draft.into_changes();
        let accounts = inner.accounts.iter().map(|account| *touched.get(&account.epoch).unwrap_or(account)).collect();
        let oldest = inner.buffer.oldest().ok().flatten();
        SpoolStatus {
            buffer: inner.buffer.stats(),
            buffer_bytes_max: self.config.bytes_max,
            oldest_unix_ns: oldest.and_then(|info| BatchTag::decode(&info.tag)).map(|tag| tag.closed_unix_ns),
            accounts,
            stores_set_aside: inner.stores_set_aside,
            records_unreadable: inner.records_unreadable,
            last_error: inner.last_error.clone(),
            errors: inner.errors,
            history_write_failures: inner.history.write_failures(),
        }
    }
}

impl Inner {
    /// Brings a draft up to date with what is counted outside the accounts.
    fn update(&self, draft: &mut Draft<'_>, intake: &IntakeCounters) {
        draft.take_intake(intake);
        draft.refuse(self.epoch, LossReason::WriteFailed, self.unbooked.write_failed);
        draft.refuse(self.epoch, LossReason::BufferFull, self.unbooked.buffer_full);
        draft.reject_over_limit(self.epoch, self.unbooked.over_limit);
    }

    fn append(&mut self, batch: &PreparedBatch, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        self.update(&mut draft, intake);
        draft.store(&batch.tag, batch.sequence);
        let tag = batch.tag.encode();
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

    fn has_stored(&self, batch: &PreparedBatch) -> bool {
        self.accounts.get(self.epoch).is_some_and(|account| account.batches > batch.sequence)
    }

    fn settle(&mut self, batch: &PendingBatch, settlement: Settlement) -> Result<(), BufferError> {
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

    fn write_account(&mut self, intake: &IntakeCounters) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        self.update(&mut draft, intake);
        self.buffer.write_metadata(&draft.writes())?;
        let changes = draft.into_changes();
        self.unbooked = Unbooked::default();
        self.commit(changes);
        Ok(())
    }

    /// The buffer is empty: whatever the accounts say to wait in it was lost there.
    fn reconcile_empty(&mut self) -> Result<(), BufferError> {
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
    fn commit(&mut self, changes: std::collections::BTreeMap<Epoch, EpochAccount>) {
        for account in changes.values() {
            self.history.write(account);
        }
        self.accounts.apply(changes);
    }

    fn note(&mut self, error: &BufferError) {
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
    fn with_recovery<T>(
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
    fn recover(&mut self, cause: &BufferError) -> Result<(), BufferError> {
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
    fn resolve_doubt(&mut self) {
        let batches = self.accounts.get(self.epoch).map_or(0, |account| account.batches);
        if let Some(doubt) = self.doubt.take().filter(|doubt| batches > doubt.sequence) {
            self.unbooked.write_failed -= doubt.booked.write_failed.min(self.unbooked.write_failed);
            self.unbooked.buffer_full -= doubt.booked.buffer_full.min(self.unbooked.buffer_full);
            self.unbooked.over_limit -= doubt.booked.over_limit.min(self.unbooked.over_limit);
        }
    }

    /// A fresh store: everything that waited in the old one is lost.
    fn restart_accounts(&mut self) -> Result<(), BufferError> {
        let mut draft = self.accounts.draft();
        draft.lose_buffer();
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

fn load(buffer: &Buffer) -> Result<Accounts, BufferError> {
    let stored = buffer.metadata_with_prefix(accounts::KEY_PREFIX)?;
    Ok(Accounts::from_stored(stored.iter().map(|(_, value)| value.as_slice())))
}
