//! The accounts once more, outside the buffer: what is left to count with when the buffer's store is damaged, and
//! what `picket-agent status` reads while no agent runs.
//!
//! A file of slots of [`SLOT_BYTES`], one per epoch: the account (see [`EpochAccount`]) and its CRC32C. A slot is
//! rewritten after each change of its account in the buffer, by one write inside one page.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use picket_common::id::Epoch;

use crate::pipeline::account::{ACCOUNT_BYTES, EpochAccount};
use crate::pipeline::accounts::{Accounts, EPOCHS_MAX};

const SLOT_BYTES: usize = 2048;
const _: () = assert!(ACCOUNT_BYTES + 4 <= SLOT_BYTES);

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct History {
    file: File,
    slots: BTreeMap<Epoch, u64>,
    write_failures: u64,
}

impl History {
    /// Reads the accounts a file holds; none when there is no file.
    pub(crate) fn read(path: &Path) -> io::Result<Accounts> {
        Ok(Accounts::from_stored(read_slots(path)?.iter().map(|(_, bytes)| bytes.as_slice())))
    }

    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let slots = read_slots(path)?
            .iter()
            .filter_map(|(slot, bytes)| EpochAccount::decode(bytes).map(|account| (account.epoch, *slot)))
            .collect();
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Self { file, slots, write_failures: 0 })
    }

    /// Frees the slot of an epoch.
    pub(crate) fn forget(&mut self, epoch: Epoch) {
        if let Some(slot) = self.slots.remove(&epoch) {
            self.write_at(slot, &[0; SLOT_BYTES]);
        }
    }

    /// Writes one account.
    pub(crate) fn write(&mut self, account: &EpochAccount) {
        let slot = match self.slots.get(&account.epoch) {
            Some(slot) => *slot,
            None => {
                let taken: Vec<u64> = self.slots.values().copied().collect();
                let Some(free) = (0..EPOCHS_MAX as u64).find(|slot| !taken.contains(slot)) else { return };
                self.slots.insert(account.epoch, free);
                free
            }
        };
        let mut bytes = account.encode();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(SLOT_BYTES, 0);
        self.write_at(slot, &bytes);
    }

    /// Makes all of it durable.
    pub(crate) fn sync(&mut self) {
        if self.file.sync_data().is_err() {
            self.write_failures += 1;
        }
    }

    /// How often the disk refused; the accounts in the buffer are not affected.
    pub(crate) fn write_failures(&self) -> u64 {
        self.write_failures
    }

    fn write_at(&mut self, slot: u64, bytes: &[u8]) {
        if self.file.write_all_at(bytes, slot * SLOT_BYTES as u64).is_err() {
            self.write_failures += 1;
        }
    }
}

/// The slots whose checksum holds.
fn read_slots(path: &Path) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let readable = |slot: &[u8]| {
        let (account, crc) = slot.get(..ACCOUNT_BYTES + 4)?.split_at(ACCOUNT_BYTES);
        (crc32c::crc32c(account).to_le_bytes() == crc).then(|| account.to_vec())
    };
    Ok((0..).zip(bytes.chunks(SLOT_BYTES)).filter_map(|(slot, bytes)| Some((slot, readable(bytes)?))).collect())
}
