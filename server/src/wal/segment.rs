//! The bytes of a segment: its header, its records, and finding records again after damage.

use std::ops::Range;

use picket_common::id::{BatchSequence, Epoch, HostId};

use super::{FRAME_BYTES_MAX, LogId};

const SEGMENT_MAGIC: [u8; 8] = *b"PKTWAL\x00\x01";
const RECORD_MAGIC: [u8; 4] = *b"PKWR";

/// Size of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 56;
/// Size of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 68;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) log_id: LogId,
    pub(super) first_position: u64,
    /// Where the segment before this one ended when this one was begun. Less than `first_position` after positions
    /// were skipped.
    pub(super) previous_end: u64,
    pub(super) created_unix_ns: i64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..24].copy_from_slice(&self.log_id);
        bytes[24..32].copy_from_slice(&self.first_position.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created_unix_ns.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..48]);
        bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are cut or damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let intact =
            bytes[..8] == SEGMENT_MAGIC && crc32c::crc32c(&bytes[..48]) == u32::from_le_bytes(array(bytes, 48));
        intact.then(|| Self {
            log_id: array(bytes, 8),
            first_position: u64::from_le_bytes(array(bytes, 24)),
            previous_end: u64::from_le_bytes(array(bytes, 32)),
            created_unix_ns: i64::from_le_bytes(array(bytes, 40)),
        })
    }
}

/// What stands before each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) position: u64,
    pub(super) received_unix_ns: i64,
    pub(super) host: HostId,
    pub(super) epoch: Epoch,
    pub(super) batch_sequence: BatchSequence,
    pub(super) event_count: u32,
    pub(super) frame_length: u32,
    pub(super) frame_checksum: u32,
}

impl RecordHeader {
    pub(super) fn encode(&self, log_id: &LogId) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.received_unix_ns.to_le_bytes());
        bytes[24..40].copy_from_slice(self.host.as_bytes());
        bytes[40..48].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.batch_sequence.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.event_count.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.frame_length.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.frame_checksum.to_le_bytes());
        let checksum = header_checksum(log_id, &bytes);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], log_id: &LogId) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if bytes[..4] != RECORD_MAGIC || header_checksum(log_id, bytes) != u32::from_le_bytes(array(bytes, 4)) {
            return None;
        }
        Some(Self {
            position: u64::from_le_bytes(array(bytes, 8)),
            received_unix_ns: i64::from_le_bytes(array(bytes, 16)),
            host: HostId::from_bytes(array(bytes, 24)),
            epoch: Epoch(u64::from_le_bytes(array(bytes, 40))),
            batch_sequence: BatchSequence(u64::from_le_bytes(array(bytes, 48))),
            event_count: u32::from_le_bytes(array(bytes, 56)),
            frame_length: u32::from_le_bytes(array(bytes, 60)),
            frame_checksum: u32::from_le_bytes(array(bytes, 64)),
        })
    }
}

/// The log's random id goes into every record's checksum: a frame whose bytes imitate a record (an agent chooses
/// them) is not mistaken for one when records are searched for after damage.
fn header_checksum(log_id: &LogId, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(log_id), &header[8..RECORD_HEADER_BYTES])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// What a stretch of a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A record whose two checksums hold.
    Record {
        header: RecordHeader,
        /// Where its frame lies in the bytes given.
        frame: Range<usize>,
    },
    /// Bytes that are no record, up to the next one or to the end.
    Damage { bytes: Range<usize> },
}

/// Reads the records in `bytes`, which start where a record does. `expected` is the position of the first.
///
/// Never fails and never stops early: damage is stepped over to the next intact record, whose position says how many
/// were lost.
pub(super) fn scan(bytes: &[u8], log_id: &LogId, mut expected: u64) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((start, header, frame)) = next_record(bytes, at, log_id, expected) else {
            items.push(Item::Damage { bytes: at..bytes.len() });
            break;
        };
        if start > at {
            items.push(Item::Damage { bytes: at..start });
        }
        at = frame.end;
        expected = header.position.saturating_add(1);
        items.push(Item::Record { header, frame });
    }
    items
}

fn next_record(
    bytes: &[u8],
    from: usize,
    log_id: &LogId,
    expected: u64,
) -> Option<(usize, RecordHeader, Range<usize>)> {
    let mut at = from;
    loop {
        if let Some((header, frame)) = record_at(bytes, at, log_id)
            && is_plausible(header.position, expected, at - from)
        {
            return Some((at, header, frame));
        }
        at = at + 1 + bytes.get(at + 1..)?.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC)?;
    }
}

/// Positions only grow, and not by more records than fit into what was stepped over.
fn is_plausible(position: u64, expected: u64, stepped_over: usize) -> bool {
    let fits = (stepped_over / RECORD_HEADER_BYTES) as u64;
    position >= expected && position - expected <= fits
}

fn record_at(bytes: &[u8], at: usize, log_id: &LogId) -> Option<(RecordHeader, Range<usize>)> {
    let header = RecordHeader::decode(bytes.get(at..)?, log_id)?;
    let length = usize::try_from(header.frame_length).ok().filter(|length| *length <= FRAME_BYTES_MAX)?;
    let start = at + RECORD_HEADER_BYTES;
    let frame = bytes.get(start..start.checked_add(length)?)?;
    (crc32c::crc32c(frame) == header.frame_checksum).then_some((header, start..start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = [7; 16];

    fn record(position: u64, frame: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            position,
            received_unix_ns: 5,
            host: HostId::from_bytes([1; 16]),
            epoch: Epoch(2),
            batch_sequence: BatchSequence(position),
            event_count: 3,
            frame_length: frame.len() as u32,
            frame_checksum: crc32c::crc32c(frame),
        };
        [&header.encode(&LOG)[..], frame].concat()
    }

    fn positions(items: &[Item]) -> Vec<u64> {
        items
            .iter()
            .filter_map(|item| match item {
                Item::Record { header, .. } => Some(header.position),
                Item::Damage { .. } => None,
            })
            .collect()
    }

    #[test]
    fn any_flipped_bit_costs_one_record_and_is_seen() {
        let frames: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 20]).collect();
        let bytes: Vec<u8> = (10..).zip(&frames).flat_map(|(n, frame)| record(n, frame)).collect();
        assert_eq!(positions(&scan(&bytes, &LOG, 10)), [10, 11, 12]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let items = scan(&flipped, &LOG, 10);
            let hit = 10 + (bit / 8 / record(10, &frames[0]).len()) as u64;
            let rest: Vec<u64> = (10..13).filter(|n| *n != hit).collect();
            assert_eq!(positions(&items), rest, "bit {bit}");
            assert!(items.iter().any(|item| matches!(item, Item::Damage { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_at_any_byte_keeps_the_records_before_it() {
        let one = record(0, &[9; 33]);
        let bytes = [one.clone(), record(1, &[8; 33]), record(2, &[7; 33])].concat();
        for length in 0..bytes.len() {
            let kept = length / one.len();
            assert_eq!(positions(&scan(&bytes[..length], &LOG, 0)).len(), kept, "length {length}");
        }
    }

    #[test]
    fn a_frame_that_imitates_a_record_is_not_taken_for_one() {
        // Made with another log's id, as an agent that does not know ours would have to.
        let fake = SegmentHeader { log_id: [0; 16], first_position: 0, previous_end: 0, created_unix_ns: 0 };
        let header = RecordHeader {
            position: 1,
            received_unix_ns: 0,
            host: HostId::from_bytes([9; 16]),
            epoch: Epoch(1),
            batch_sequence: BatchSequence(1),
            event_count: 1,
            frame_length: 0,
            frame_checksum: crc32c::crc32c(b""),
        };
        let mut bytes = record(0, &header.encode(&fake.log_id));
        bytes[0] ^= 1; // the real record is damaged, so its frame is searched
        assert_eq!(positions(&scan(&bytes, &LOG, 0)), [] as [u64; 0]);
        // An old record of this very log inside a frame is refused by its position.
        let mut bytes = record(5, &record(3, b"x"));
        bytes[0] ^= 1;
        assert_eq!(positions(&scan(&bytes, &LOG, 5)), [] as [u64; 0]);
    }

    #[test]
    fn segment_headers_round_trip_and_show_damage() {
        let header = SegmentHeader { log_id: LOG, first_position: 99, previous_end: 98, created_unix_ns: -1 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for byte in 0..52 {
            let mut damaged = bytes;
            damaged[byte] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&damaged), None, "byte {byte}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..55]), None);
    }
}
