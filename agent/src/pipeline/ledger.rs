//! The ledger: what the sensors have handed over, on disk before it can be lost.
//!
//! One file, one block of [`BLOCK_BYTES`]: the counters of the running epoch. Every accepted observation is counted
//! here by one write into the page cache *before* it enters the queue. A killed process therefore leaves exactly the
//! number of observations it had accepted; what of them is in no durable batch was lost, and the next epoch says so.
//! The write is a single copy inside one page and one sector: there is no half of it to be seen, and the CRC refuses
//! one that a broken disk makes up. It is not flushed to the disk for each event: after a power failure the ledger
//! may lag behind, and the durable accounts (see [`crate::pipeline::account`]) are then the lower bound.
//!
//! Layout, little-endian: magic `PKTL`, version u32, epoch u64, accepted u64, dropped u64, the loss table of what
//! sensors reported, CRC32C u32 of all before it; zeros to the end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use picket_common::event::{LossReason, LossStage};
use picket_common::id::Epoch;

use crate::pipeline::loss::{LOSS_TABLE_BYTES, LossTable};

const MAGIC: &[u8; 4] = b"PKTL";
const VERSION: u32 = 2;
const USED_BYTES: usize = 32 + LOSS_TABLE_BYTES + 4;
const BLOCK_BYTES: usize = 512;

/// What the sensors of one epoch have handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeCounters {
    /// The epoch.
    pub epoch: Epoch,
    /// Observations handed over, dropped ones included.
    pub accepted: u64,
    /// Of these, dropped at once because the queue was full.
    pub dropped: u64,
    /// What the sensors themselves reported as lost.
    pub reported: LossTable,
}

impl IntakeCounters {
    /// The counters of an epoch that begins.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, accepted: 0, dropped: 0, reported: LossTable::default() }
    }

    /// Every loss before the batches, by stage and reason.
    pub fn losses(&self) -> LossTable {
        let mut losses = self.reported;
        losses.add(LossStage::Pipeline, LossReason::QueueFull, self.dropped);
        losses
    }

    fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        for value in [self.epoch.0, self.accepted, self.dropped] {
            bytes.extend(value.to_le_bytes());
        }
        self.reported.encode(&mut bytes);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let mut block = [0; BLOCK_BYTES];
        block[..bytes.len()].copy_from_slice(&bytes);
        block
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let used = block.get(..USED_BYTES)?;
        let (body, crc) = used.split_at(USED_BYTES - 4);
        let word = |at: usize| body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        if &body[..4] != MAGIC || body[4..8] != VERSION.to_le_bytes() || crc32c::crc32c(body).to_le_bytes() != crc {
            return None;
        }
        Some(Self {
            epoch: Epoch(word(8)?),
            accepted: word(16)?,
            dropped: word(24)?,
            reported: LossTable::decode(body.get(32..)?.try_into().ok()?),
        })
    }
}

/// The file, open for the running epoch.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    counters: IntakeCounters,
    write_failures: u64,
}

impl Ledger {
    /// Reads the counters the last epoch left. `None` when there are none, or none that can be trusted.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn read(path: &Path) -> io::Result<Option<IntakeCounters>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(IntakeCounters::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins an epoch: from here on the file counts for it. The accounts of the epoch before must be durable by now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(path: &Path, epoch: Epoch) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let counters = IntakeCounters::new(epoch);
        file.write_all_at(&counters.encode(), 0)?;
        file.sync_all()?;
        Ok(Self { file, counters, write_failures: 0 })
    }

    /// Counts so many observations. Call it before one of them can be lost.
    pub fn accept(&mut self, count: u64) {
        self.counters.accepted += count;
        self.write();
    }

    /// Counts so many accepted observations that found the queue full.
    pub fn drop_accepted(&mut self, count: u64) {
        self.counters.dropped += count;
        self.write();
    }

    /// Counts what a sensor reports as lost.
    pub fn report(&mut self, stage: LossStage, reason: LossReason, count: u64) {
        self.counters.reported.add(stage, reason, count);
        self.write();
    }

    /// The counters now.
    pub fn counters(&self) -> &IntakeCounters {
        &self.counters
    }

    /// How often the disk refused to take the counters. They go on in memory; only a kill would find them stale.
    pub fn write_failures(&self) -> u64 {
        self.write_failures
    }

    fn write(&mut self) {
        if self.file.write_all_at(&self.counters.encode(), 0).is_err() {
            self.write_failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_on_disk_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        assert_eq!(Ledger::read(&path).unwrap(), None);
        let mut ledger = Ledger::begin(&path, Epoch(7)).unwrap();
        for _ in 0..5 {
            ledger.accept(1);
        }
        ledger.drop_accepted(1);
        ledger.report(LossStage::Sensor, LossReason::QueueFull, 3);
        let seen = Ledger::read(&path).unwrap().unwrap();
        assert_eq!(&seen, ledger.counters());
        assert_eq!((seen.epoch, seen.accepted, seen.dropped), (Epoch(7), 5, 1));
        assert_eq!(seen.losses().total(), 4);
        assert_eq!(ledger.write_failures(), 0);
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        Ledger::begin(&path, Epoch(7)).unwrap().accept(1);
        let good = std::fs::read(&path).unwrap();
        for at in 0..USED_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(IntakeCounters::decode(&bad), None, "byte {at}");
        }
        for length in 0..USED_BYTES {
            assert_eq!(IntakeCounters::decode(&good[..length]), None);
        }
    }
}
