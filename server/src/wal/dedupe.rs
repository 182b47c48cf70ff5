//! Which batches are stored: the memory of deduplication, and its snapshot on disk.
//!
//! Agents deliver nearly in order, so a host's stored batches are a handful of ranges. A host that delivers with many
//! holes costs at most [`RANGES_PER_HOST_MAX`] ranges: beyond that its oldest range is forgotten and its *floor*
//! rises above it. Of a batch below the floor nobody can say any more whether it is stored, and it is refused.
//!
//! The snapshot file (little-endian):
//! ```text
//! magic "PKTDUP\0\1" | log id 16 | next position u64 | hosts u32
//! host 16 | floor epoch u64 | floor batch u64 | ranges u32      for each host
//!   epoch u64 | first batch u64 | last batch u64                  for each of its ranges
//! CRC32C of everything before it u32
//! ```
//! It is replaced as a whole (temporary file, fsync, rename, fsync of the folder) *before* segments are deleted, and
//! lists at least the batches of every segment deleted so far. At open, the remaining segments add theirs.

use std::collections::{BTreeMap, HashMap};

use picket_common::id::{BatchSequence, Epoch, HostId};

use super::{LogId, StoredBatches, WalPosition};

/// Most ranges remembered of one host.
pub const RANGES_PER_HOST_MAX: usize = 4096;

const MAGIC: [u8; 8] = *b"PKTDUP\x00\x01";
const HOST_BYTES: usize = 36;
const RANGE_BYTES: usize = 24;

/// What is known of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is not stored.
    Never,
    /// It is stored.
    Stored,
    /// It lies below the floor.
    Unknown,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DedupeIndex {
    hosts: HashMap<HostId, HostBatches>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct HostBatches {
    /// Below this (epoch, batch) nothing is known.
    floor: (u64, u64),
    /// (epoch, first batch) → last batch, inclusive. Ranges neither touch nor overlap.
    ranges: BTreeMap<(u64, u64), u64>,
}

impl DedupeIndex {
    pub(super) fn lookup(&self, host: HostId, epoch: Epoch, batch: BatchSequence) -> Seen {
        let Some(batches) = self.hosts.get(&host) else { return Seen::Never };
        let key = (epoch.0, batch.0);
        match batches.ranges.range(..=key).next_back() {
            Some((&(range_epoch, _), &last)) if range_epoch == epoch.0 && batch.0 <= last => Seen::Stored,
            _ if key < batches.floor => Seen::Unknown,
            _ => Seen::Never,
        }
    }

    pub(super) fn insert(&mut self, host: HostId, epoch: Epoch, batch: BatchSequence) {
        if self.lookup(host, epoch, batch) == Seen::Never {
            self.hosts.entry(host).or_default().insert(epoch.0, batch.0);
        }
    }

    pub(super) fn stored(&self, host: HostId) -> StoredBatches {
        let Some(batches) = self.hosts.get(&host) else { return StoredBatches::default() };
        let ranges = batches.ranges.iter().map(|((epoch, first), last)| (*epoch, *first, *last)).collect();
        StoredBatches { floor: batches.floor, ranges }
    }

    pub(super) fn encode(&self, log_id: &LogId, next: WalPosition) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(log_id);
        bytes.extend_from_slice(&next.0.to_le_bytes());
        bytes.extend_from_slice(&(self.hosts.len() as u32).to_le_bytes());
        for (host, batches) in &self.hosts {
            bytes.extend_from_slice(host.as_bytes());
            bytes.extend_from_slice(&batches.floor.0.to_le_bytes());
            bytes.extend_from_slice(&batches.floor.1.to_le_bytes());
            bytes.extend_from_slice(&(batches.ranges.len() as u32).to_le_bytes());
            for (&(epoch, first), &last) in &batches.ranges {
                for number in [epoch, first, last] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote, or says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, LogId, WalPosition), &'static str> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or("it is cut")?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err("its checksum does not match");
        }
        let mut reader = Reader(body);
        if reader.take::<8>()? != MAGIC {
            return Err("it is of an unknown version");
        }
        let log_id = reader.take()?;
        let next = WalPosition(reader.u64()?);
        let count = reader.count(HOST_BYTES)?;
        let mut hosts = HashMap::with_capacity(count);
        for _ in 0..count {
            let host = HostId::from_bytes(reader.take()?);
            let floor = (reader.u64()?, reader.u64()?);
            let mut ranges = BTreeMap::new();
            for _ in 0..reader.count(RANGE_BYTES)? {
                ranges.insert((reader.u64()?, reader.u64()?), reader.u64()?);
            }
            hosts.insert(host, HostBatches { floor, ranges });
        }
        Ok((Self { hosts }, log_id, next))
    }
}

impl HostBatches {
    /// Adds a batch that is in no range.
    fn insert(&mut self, epoch: u64, batch: u64) {
        let mut first = batch;
        let mut last = batch;
        if let Some((&(range_epoch, range_first), &range_last)) = self.ranges.range(..(epoch, batch)).next_back()
            && range_epoch == epoch
            && range_last.checked_add(1) == Some(batch)
        {
            first = range_first;
        }
        if let Some(after) = batch.checked_add(1)
            && let Some(range_last) = self.ranges.remove(&(epoch, after))
        {
            last = range_last;
        }
        self.ranges.insert((epoch, first), last);
        while self.ranges.len() > RANGES_PER_HOST_MAX
            && let Some(((epoch, _), last)) = self.ranges.pop_first()
        {
            self.floor = last.checked_add(1).map_or((epoch.saturating_add(1), 0), |above| (epoch, above));
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it is cut")?;
        self.0 = tail;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// A count of things of at least `bytes_each`: never more than what is left can hold.
    fn count(&mut self, bytes_each: usize) -> Result<usize, &'static str> {
        let count = u32::from_le_bytes(self.take()?) as usize;
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.0.len()) {
            Err("it is cut")
        } else {
            Ok(count)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn host() -> HostId {
        HostId::from_bytes([3; 16])
    }

    #[test]
    fn delivery_in_order_costs_one_range() {
        let mut index = DedupeIndex::default();
        for batch in 0..10_000 {
            index.insert(host(), Epoch(7), BatchSequence(batch));
        }
        assert_eq!(index.hosts[&host()].ranges.len(), 1);
        assert_eq!(index.lookup(host(), Epoch(7), BatchSequence(9_999)), Seen::Stored);
        assert_eq!(index.lookup(host(), Epoch(7), BatchSequence(10_000)), Seen::Never);
        assert_eq!(index.lookup(host(), Epoch(8), BatchSequence(5)), Seen::Never);
    }

    #[test]
    fn a_host_with_holes_is_bounded_and_the_oldest_becomes_unknown() {
        let mut index = DedupeIndex::default();
        for n in 0..(RANGES_PER_HOST_MAX as u64 + 10) {
            index.insert(host(), Epoch(n / 100), BatchSequence(n % 100 * 2));
        }
        assert_eq!(index.hosts[&host()].ranges.len(), RANGES_PER_HOST_MAX);
        assert_eq!(index.lookup(host(), Epoch(0), BatchSequence(18)), Seen::Unknown);
        assert_eq!(index.lookup(host(), Epoch(0), BatchSequence(19)), Seen::Never);
        assert_eq!(index.lookup(host(), Epoch(0), BatchSequence(20)), Seen::Stored);
    }

    #[test]
    fn the_last_numbers_there_are_do_no_harm() {
        let mut index = DedupeIndex::default();
        index.insert(host(), Epoch(u64::MAX), BatchSequence(u64::MAX));
        index.insert(host(), Epoch(u64::MAX), BatchSequence(u64::MAX - 1));
        assert_eq!(index.lookup(host(), Epoch(u64::MAX), BatchSequence(u64::MAX)), Seen::Stored);
        assert_eq!(index.hosts[&host()].ranges.len(), 1);
    }

    #[test]
    fn a_damaged_snapshot_is_refused() {
        let mut index = DedupeIndex::default();
        index.insert(host(), Epoch(1), BatchSequence(1));
        index.insert(host(), Epoch(2), BatchSequence(1));
        let bytes = index.encode(&[1; 16], WalPosition(9));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(DedupeIndex::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(DedupeIndex::decode(&bytes[..length]).is_err(), "length {length}");
        }
        // A sound checksum over counts that promise more than there is.
        let mut body = bytes[..bytes.len() - 4].to_vec();
        body[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        let checksum = crc32c::crc32c(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(DedupeIndex::decode(&body), Err("it is cut"));
    }

    proptest! {
        #[test]
        fn it_answers_as_a_plain_set_does(batches in prop::collection::vec((0u8..3, 0u64..3, 0u64..40), 0..200)) {
            let mut index = DedupeIndex::default();
            let mut set = BTreeSet::new();
            for (host, epoch, batch) in batches {
                index.insert(HostId::from_bytes([host; 16]), Epoch(epoch), BatchSequence(batch));
                set.insert((host, epoch, batch));
            }
            let (index, log_id, next) = DedupeIndex::decode(&index.encode(&[4; 16], WalPosition(17))).unwrap();
            prop_assert_eq!((log_id, next), ([4; 16], WalPosition(17)));
            for number in 0..3 {
                for epoch in 0..3 {
                    for batch in 0..41 {
                        let seen = index.lookup(HostId::from_bytes([number; 16]), Epoch(epoch), BatchSequence(batch));
                        prop_assert_eq!(seen == Seen::Stored, set.contains(&(number, epoch, batch)));
                    }
                }
            }
        }
    }
}
