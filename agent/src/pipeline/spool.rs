//! The spool: buffer and accounts as one, so that an event and its place in the accounts change in one step.
//!
//! Every change is drafted, written into the buffer together with the records it is about, and counts only then; the
//! history file follows. After any error of the store it is opened again and the accounts are read back from it: what
//! it holds is what happened. When the store is damaged, or has lost something it had promised to keep, it is set
//! aside and everything that waited in it is booked as lost.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use picket_common::chain::{ChainPlace, HEADS_MAX};
use picket_common::event::SensorLoss;
use picket_common::id::{BatchSequence, Epoch};
use tokio::sync::Notify;

use crate::buffer::{Buffer, BufferConfig, BufferError, BufferStats, Damage, LeasedRecord, Priority, RecordNumber};
use crate::pipeline::account::EpochAccount;
use crate::pipeline::accounts::{self, Accounts};
use crate::pipeline::history::History;
use crate::pipeline::ledger::{IntakeCounters, Ledger};
use crate::pipeline::spool::inner::{Inner, Unbooked};
use crate::pipeline::tag::{BatchTag, LOSSES_PER_BATCH_MAX};

mod inner;

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
    /// Where it stands in its epoch's chain; unknown when its tag cannot be read.
    pub chain: Option<ChainPlace>,
    tag: Vec<u8>,
    generation: u64,
}

/// What there is to say of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSummary {
    /// The running epoch, the one before, and those with batches that wait, oldest first; at most [`HEADS_MAX`].
    pub accounts: Vec<EpochAccount>,
    /// The oldest batch in the buffer, or the next one to be written.
    pub oldest: (Epoch, BatchSequence),
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
        let mut stored = inner::load(&buffer)?;
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

    /// Counts observations that the budget did not permit to be stored.
    pub(crate) fn left_out(&self, count: u64) {
        self.inner.lock().unbooked.left_out += count;
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
            chain: BatchTag::decode(&record.info.tag).map(|tag| tag.chain),
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

    /// What there is to say of the chain now.
    ///
    /// # Errors
    /// The buffer's.
    pub fn chain(&self) -> Result<ChainSummary, BufferError> {
        let inner = self.inner.lock();
        let next = inner.accounts.get(inner.epoch).map_or(0, |account| account.batches);
        let oldest = match inner.buffer.oldest()? {
            None => (inner.epoch, BatchSequence(next)),
            // One that cannot be read says nothing of those before it.
            Some(info) => {
                BatchTag::decode(&info.tag).map_or((Epoch(0), BatchSequence(0)), |tag| (tag.epoch, tag.chain.sequence))
            }
        };
        let latest = inner.accounts.iter().rev().take(2).map(|account| account.epoch).last();
        let is_open = |account: &&EpochAccount| Some(account.epoch) >= latest || account.batches_waiting() > 0;
        let open: Vec<EpochAccount> = inner.accounts.iter().filter(is_open).copied().collect();
        // The oldest are delivered first; the two latest are always told.
        let surplus = open.len().saturating_sub(HEADS_MAX);
        let kept = open.len() - surplus;
        let (old, new) = open.split_at(kept.saturating_sub(2).min(open.len()));
        let accounts = old.iter().chain(new.get(surplus..).unwrap_or_default()).copied().collect();
        Ok(ChainSummary { accounts, oldest })
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

    /// Events of the running epoch that were accepted and are neither in a durable batch nor counted as lost.
    pub(crate) fn in_flight(&self, intake: &IntakeCounters) -> u64 {
        let inner = self.inner.lock();
        let mut draft = inner.accounts.draft();
        inner.update(&mut draft, intake);
        draft.into_changes().get(&inner.epoch).map_or(0, EpochAccount::in_flight)
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
