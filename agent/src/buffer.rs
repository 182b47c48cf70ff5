//! The buffer on disk: what the agent has accepted and the server has not acknowledged.
//!
//! It knows only bytes. A *record* is an opaque payload with a [`Priority`], the number of items it stands for and a
//! small opaque tag that comes back with it. Records get growing numbers and are leased in that order, but those appended since the
//! last rollback have half of each lease while older ones wait (see [`lane`]). Beside them
//! lie small *metadata* values, written in the same atomic step as an append or a removal.
//!
//! Invariants
//! * A record is leased only after it is durable ([`Buffer::append`] flushes before it returns).
//! * Only [`Buffer::commit`] (acknowledged), eviction (the byte ceiling) and an unreadable record remove anything.
//! * A record that was leased once may be at the server already: it is never evicted, even after a restart
//!   (the numbers ever leased are in the file `sent`). So no item is both delivered and counted as evicted.
//! * The byte ceiling holds at all times. Eviction takes the lowest priority first and the oldest of it first, and
//!   never a higher priority than the one of the record that needs the room.
//! * Nothing here grows with the number of records: totals are kept by addition and stored with each change.
//! * A damaged store is set aside as `<folder>.damaged-<n>` (at most [`SET_ASIDE_MAX`] are kept) and a fresh one is
//!   started; the caller is told and does the counting.
//!
//! Layout of the folder: `sled/` or `redb/`, as configured ([`StoreKind`]; keys `m…` metadata, `r<priority><number><chunk>`
//! records in chunks of at most [`record::CHUNK_BYTES_MAX`], since larger values stay in sled's memory), `sent`, `reserve`, and
//! while opening `opening`. What the other store holds is taken over when the kind is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::buffer::error::BufferError;
pub use crate::buffer::folder::{Damage, SET_ASIDE_MAX};
use crate::buffer::lane::{Lane, Lanes};
pub use crate::buffer::metadata::{METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use crate::buffer::record::{Header, RecordKey};
pub use crate::buffer::record::{PAYLOAD_BYTES_MAX, Priority, RecordNumber, TAG_BYTES_MAX};
use crate::buffer::reserve::Reserve;
use crate::buffer::sent::SentMarks;
use crate::buffer::store::{Changes, Store};
pub use crate::buffer::store::{KeyValue, StoreKind};
use crate::buffer::totals::Totals;
pub use crate::buffer::types::{BufferConfig, BufferStats, Lease, LeasedRecord, MetadataWrite, NewRecord, RecordInfo};

mod error;
mod folder;
mod lane;
mod metadata;
mod record;
mod reserve;
mod sent;
mod store;
#[cfg(test)]
mod tests;
mod totals;
mod types;

/// An empty store smaller than this is not worth being made anew.
const RECLAIM_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// See the module documentation.
pub struct Buffer {
    config: BufferConfig,
    folder: PathBuf,
    store: Store,
    sent: SentMarks,
    reserve: Reserve,
    totals: Totals,
    /// Handed out since the last rollback: at most the caller's window.
    leased: BTreeMap<RecordNumber, RecordKey>,
    /// Where the next lease starts to look.
    lanes: Lanes,
}

impl Buffer {
    /// Opens the buffer in `folder` and makes it when there is none.
    ///
    /// A store that cannot be read any more is set aside and a fresh one started; the second value then says so.
    ///
    /// # Errors
    /// [`BufferError::Io`] when the folder cannot be used (rights, disk full); the store is not touched then.
    pub fn open(folder: &Path, config: BufferConfig) -> Result<(Self, Option<Damage>), BufferError> {
        let (store, damage) = folder::open_or_set_aside(folder, config.store)?;
        Ok((Self::with_store(folder, config, store)?, damage))
    }

    fn with_store(folder: &Path, config: BufferConfig, store: Store) -> Result<Self, BufferError> {
        let sent = SentMarks::open(&folder.join("sent"))?;
        let reserve = Reserve::open(&folder.join("reserve"));
        let mut totals = Totals::load(&store)?;
        // After damage the store can be older than the mark; numbers are never used twice.
        totals.next = totals.next.max(sent.last().next());
        let leased = BTreeMap::new();
        let lanes = Lanes::split_at(totals.next, true);
        let mut buffer = Self { config, folder: folder.to_owned(), store, sent, reserve, totals, leased, lanes };
        buffer.forget_missing()?;
        buffer.rollback();
        Ok(buffer)
    }

    /// Closes the store and opens it again, after an error. All leases end.
    ///
    /// # Errors
    /// As [`Buffer::open`]; the buffer is then closed, every call answers [`BufferError::Closed`], and this may be
    /// tried again.
    pub fn reopen(&mut self) -> Result<Option<Damage>, BufferError> {
        self.store.close();
        let (buffer, damage) = Self::open(&self.folder, self.config)?;
        *self = buffer;
        Ok(damage)
    }

    /// Closes the store, as after an error.
    #[cfg(test)]
    pub(crate) fn close(&mut self) {
        self.store.close();
    }

    /// Sets the store aside whatever its state and starts a fresh one.
    ///
    /// # Errors
    /// [`BufferError::Io`] when the folder cannot be renamed or the fresh store not be made.
    pub fn set_aside(&mut self, detail: &str) -> Result<Damage, BufferError> {
        self.store.close();
        let damage = folder::set_aside(&self.folder, detail)?;
        let (buffer, _) = Self::open(&self.folder, self.config)?;
        *self = buffer;
        Ok(damage)
    }

    /// Appends a record durably, after making room for it, and writes the metadata that `metadata` returns for the
    /// records that had to go: all in one step that a crash leaves done or not done.
    ///
    /// # Errors
    /// [`BufferError::Full`] when no room can be made, [`BufferError::TooLarge`], [`BufferError::NoSpace`] when the
    /// disk is full; nothing has changed then. After
    /// [`BufferError::Io`] and [`BufferError::Damaged`] the step may have been done or not: call
    /// [`Buffer::reopen`] and look at the metadata.
    pub fn append(
        &mut self,
        record: NewRecord<'_>,
        metadata: impl FnOnce(&[RecordInfo]) -> Vec<MetadataWrite>,
    ) -> Result<RecordNumber, BufferError> {
        self.reserve.hold().map_err(|source| BufferError::NoSpace { path: self.folder.clone(), source })?;
        let number = self.totals.next;
        let key = RecordKey { priority: record.priority, number };
        let chunks = record::encode(&record)?;
        let needed = record::stored_bytes(&chunks);
        let evicted = match self.plan_eviction(needed, record.priority) {
            Err(BufferError::Full { .. }) => {
                self.forget_missing()?;
                self.plan_eviction(needed, record.priority)?
            }
            planned => planned?,
        };

        let mut changes = Changes::default();
        let mut totals = self.totals;
        for victim in &evicted {
            for chunk in &victim.chunk_keys {
                changes.remove(&chunk[..]);
            }
            totals.subtract(victim.info.priority, victim.info.items, victim.bytes);
        }
        for (index, chunk) in chunks.into_iter().enumerate() {
            changes.insert(&key.chunk(index)[..], chunk);
        }
        totals.add(record.priority, record.items, needed);
        totals.next = number.next();
        let infos: Vec<RecordInfo> = evicted.into_iter().map(|victim| victim.info).collect();
        metadata::put_all(&mut changes, &metadata(&infos))?;
        totals.put(&mut changes);
        self.write_durably(changes)?;
        self.totals = totals;
        Ok(number)
    }

    /// Hands out the next records: at most `records_max`, and no further one once `bytes_max` payload bytes are reached.
    /// Up to half of them were appended since the last rollback, while there are older ones.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn lease(&mut self, records_max: usize, bytes_max: usize) -> Result<Lease, BufferError> {
        let mut lease = Lease::default();
        if let Some(mut new) = self.lanes.new {
            let share = self.lanes.share_of_new(records_max);
            self.take(&mut new, &mut lease, share, bytes_max / 2)?;
            self.lanes.new = Some(new);
        }
        let is_end = loop {
            let mut old = self.lanes.old;
            let is_end = self.take(&mut old, &mut lease, records_max, bytes_max)?;
            self.lanes.old = old;
            if !is_end || !self.lanes.join() {
                break is_end;
            }
        };
        if is_end && lease.records.is_empty() && self.leased.is_empty() {
            self.forget_missing()?;
            if self.totals.records() > 0 {
                // Everything before the cursor was committed: what is still there cannot be removed.
                let detail = format!("{} of its records can neither be read nor removed", self.totals.records());
                return Err(BufferError::Damaged { detail });
            }
        }
        Ok(lease)
    }

    /// Leases records of one lane until there are `records_max` or `bytes_max` payload bytes in all. `true`: there is no
    /// further one.
    fn take(
        &mut self,
        lane: &mut Lane,
        lease: &mut Lease,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<bool, BufferError> {
        let mut bytes: usize = lease.records.iter().map(|record| record.payload.len()).sum();
        let mut last = None;
        let mut is_end = false;
        while lease.records.len() < records_max && bytes < bytes_max {
            let Some(key) = self.next_key(lane.cursor)?.filter(|key| lane.holds(key.number)) else {
                is_end = true;
                break;
            };
            let stored = self.read(key)?;
            match stored.decode(key) {
                Some(record) => {
                    bytes += record.payload.len();
                    last = Some(key.number);
                    self.leased.insert(key.number, key);
                    lease.records.push(record);
                }
                None => {
                    self.remove(key, &stored, &[])?;
                    lease.unreadable += 1;
                }
            }
            lane.cursor = key.number.next();
        }
        if let Some(last) = last {
            self.sent.cover(lane.first, last)?;
        }
        Ok(is_end)
    }

    /// Removes a leased record and writes `metadata` in the same step. Not flushed: after a crash the record may be
    /// there again, together with the metadata of before.
    ///
    /// # Errors
    /// [`BufferError::NotLeased`]; [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn commit(&mut self, number: RecordNumber, metadata: &[MetadataWrite]) -> Result<(), BufferError> {
        let key = *self.leased.get(&number).ok_or(BufferError::NotLeased { number })?;
        let stored = self.read(key)?;
        self.remove(key, &stored, metadata)?;
        self.leased.remove(&number);
        Ok(())
    }

    /// Ends all leases: the records will be handed out again, oldest first, and what is appended from now on is new.
    pub fn rollback(&mut self) {
        self.leased.clear();
        self.lanes = Lanes::split_at(self.totals.next, self.totals.records() == 0);
    }

    /// Reads a metadata value.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn metadata(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
        metadata::get(&self.store, key)
    }

    /// Reads all metadata whose key starts with `prefix`, in order of their keys.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn metadata_with_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BufferError> {
        metadata::with_prefix(&self.store, prefix)
    }

    /// Writes metadata durably.
    ///
    /// # Errors
    /// [`BufferError::TooLarge`]; [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn write_metadata(&mut self, metadata: &[MetadataWrite]) -> Result<(), BufferError> {
        let mut changes = Changes::default();
        metadata::put_all(&mut changes, metadata)?;
        self.write_durably(changes)
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn flush(&mut self) -> Result<(), BufferError> {
        let result = self.store.flush();
        self.release_when_full(result)
    }

    /// Gives the disk space of an empty buffer back: its log shrinks late and not to the bottom. Does nothing while
    /// there are records, or when it is not worth it.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`]; nothing is lost.
    pub fn reclaim(&mut self) -> Result<(), BufferError> {
        if self.totals.records() > 0 || self.store.disk_bytes() < RECLAIM_BYTES_MIN {
            return Ok(());
        }
        let before = self.store.disk_bytes();
        let metadata = metadata::as_stored(&self.store)?;
        folder::replace_store(&self.folder, self.config.store, &mut self.store, metadata)?;
        tracing::debug!(before, after = self.store.disk_bytes(), "an empty buffer gave its disk space back");
        Ok(())
    }

    /// What lies in the buffer.
    pub fn stats(&self) -> BufferStats {
        BufferStats {
            records: self.totals.records(),
            bytes: self.totals.bytes(),
            items: self.totals.items(),
            leased: self.leased.len() as u64,
            disk_bytes: self.store.disk_bytes(),
        }
    }

    /// The oldest record, leased or not.
    ///
    /// # Errors
    /// [`BufferError::Io`], [`BufferError::Damaged`], [`BufferError::Closed`].
    pub fn oldest(&self) -> Result<Option<RecordInfo>, BufferError> {
        let Some(key) = self.next_key(RecordNumber::FIRST)? else { return Ok(None) };
        Ok(self.store.get(&key.chunk(0))?.and_then(|first| Header::decode(&first)).map(|header| header.info(key)))
    }

    /// Chooses what must go so that `needed` more bytes fit.
    fn plan_eviction(&self, needed: u64, priority: Priority) -> Result<Vec<Victim>, BufferError> {
        let mut victims = Vec::new();
        let ceiling = self.config.bytes_max;
        let mut excess = (self.totals.bytes() + needed).saturating_sub(ceiling);
        for class in Priority::ALL.into_iter().take_while(|class| *class <= priority) {
            let mut from = self.sent.next_unsent(RecordNumber::FIRST);
            while excess > 0 && self.totals.records_of(class) > 0 {
                let Some(key) = self.store.first_record(class, from)? else { break };
                from = self.sent.next_unsent(key.number);
                if from != key.number {
                    continue;
                }
                let stored = self.read(key)?;
                let bytes = stored.bytes();
                excess = excess.saturating_sub(bytes);
                victims.push(Victim { info: stored.info(key), bytes, chunk_keys: stored.chunk_keys() });
                from = key.number.next();
            }
        }
        if excess > 0 { Err(BufferError::Full { needed, ceiling }) } else { Ok(victims) }
    }

    /// Totals can claim more than there is after a damage that the store did not notice: corrects what is plainly
    /// wrong, a priority without any record left.
    fn forget_missing(&mut self) -> Result<(), BufferError> {
        for class in Priority::ALL {
            if self.totals.records_of(class) > 0 && self.store.first_record(class, RecordNumber::FIRST)?.is_none() {
                self.totals.clear(class);
            }
        }
        Ok(())
    }

    /// The record with the lowest number from `from` on, whatever its priority.
    fn next_key(&self, from: RecordNumber) -> Result<Option<RecordKey>, BufferError> {
        let mut lowest: Option<RecordKey> = None;
        for class in Priority::ALL {
            if self.totals.records_of(class) == 0 {
                continue;
            }
            if let Some(key) = self.store.first_record(class, from)?
                && lowest.is_none_or(|best| key.number < best.number)
            {
                lowest = Some(key);
            }
        }
        Ok(lowest)
    }

    fn read(&self, key: RecordKey) -> Result<record::Stored, BufferError> {
        Ok(record::Stored::new(self.store.scan(&key.prefix())?))
    }

    fn remove(
        &mut self,
        key: RecordKey,
        stored: &record::Stored,
        metadata: &[MetadataWrite],
    ) -> Result<(), BufferError> {
        let mut changes = Changes::default();
        for chunk in stored.chunk_keys() {
            changes.remove(&chunk[..]);
        }
        let mut totals = self.totals;
        totals.subtract(key.priority, stored.info(key).items, stored.bytes());
        metadata::put_all(&mut changes, metadata)?;
        totals.put(&mut changes);
        self.write(changes)?;
        self.totals = totals;
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), BufferError> {
        let result = self.store.apply(changes);
        self.release_when_full(result)
    }

    fn write_durably(&mut self, changes: Changes) -> Result<(), BufferError> {
        let result = self.store.apply_durably(changes);
        self.release_when_full(result)
    }

    /// When there is no space left, the reserve makes room for opening the store again and for removing records.
    fn release_when_full(&mut self, result: Result<(), BufferError>) -> Result<(), BufferError> {
        if let Err(BufferError::Io { source, .. }) = &result
            && source.kind() == std::io::ErrorKind::StorageFull
        {
            self.reserve.release();
        }
        result
    }
}

/// A record that makes room.
struct Victim {
    info: RecordInfo,
    bytes: u64,
    chunk_keys: Vec<Vec<u8>>,
}
