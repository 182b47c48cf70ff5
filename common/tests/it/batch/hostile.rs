//! Frames as damage or an enemy makes them: refused with the right kind of error, never a panic.

use picket_common::batch::limits::{BATCH_COMPRESSED_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX, BATCH_EVENTS_MAX};
use picket_common::batch::{BatchBuilder, BatchError, BatchErrorKind, decode, peek_header};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{HEADER_BYTES, columns, frame, loss};
use crate::support::{contiguous_events, golden_events};

mod columns;

const GOLDEN_EVENTS: &str = include_str!("../../golden/batch_v1.jsonl");
const GOLDEN_FRAME: &[u8] = include_bytes!("../../golden/batch_v1.bin");
const GOLDEN_FRAME_V2: &[u8] = include_bytes!("../../golden/batch_v2.bin");

/// Where fields are in the header.
mod at {
    pub(super) const CHECKSUM: usize = 4;
    pub(super) const VERSION: usize = 8;
    pub(super) const CODEC: usize = 9;
    pub(super) const RESERVED: usize = 10;
    pub(super) const COMPRESSED_BYTES: usize = 12;
    pub(super) const DECOMPRESSED_BYTES: usize = 16;
    pub(super) const EVENT_COUNT: usize = 20;
    pub(super) const FIRST_EVENT_SEQUENCE: usize = 40;
}

/// Makes the checksum right again.
fn reseal(frame: &mut [u8]) {
    let checksum = crc32c::crc32c(&frame[at::VERSION..]);
    frame[at::CHECKSUM..at::VERSION].copy_from_slice(&checksum.to_le_bytes());
}

/// A frame with a header that is right in everything, around this payload.
fn forge_compressed(payload: &[u8], decompressed_bytes: usize, event_count: usize) -> Vec<u8> {
    let mut frame = GOLDEN_FRAME[..HEADER_BYTES].to_vec();
    frame.extend_from_slice(payload);
    for (at, value) in [
        (at::COMPRESSED_BYTES, payload.len()),
        (at::DECOMPRESSED_BYTES, decompressed_bytes),
        (at::EVENT_COUNT, event_count),
    ] {
        frame[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    }
    reseal(&mut frame);
    frame
}

fn forge(columns: &[u8], event_count: usize) -> Vec<u8> {
    forge_compressed(&zstd::bulk::compress(columns, 1).unwrap(), columns.len(), event_count)
}

fn forge_version(version: u8, columns: &[u8], event_count: usize) -> Vec<u8> {
    let mut frame = forge(columns, event_count);
    frame[at::VERSION] = version;
    reseal(&mut frame);
    frame
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut field);
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

fn refused(frame: &[u8]) -> (BatchErrorKind, String) {
    let error = decode(frame).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut frame = frame(&mut BatchBuilder::new(), &golden_events(GOLDEN_EVENTS)[..4]);
    for bit in 0..frame.len() * 8 {
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(peek_header(&frame).is_err(), "bit {bit}");
        assert!(decode(&frame).is_err(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    decode(&frame).unwrap();
}

#[test]
fn every_other_length_is_refused() {
    for length in 0..GOLDEN_FRAME.len() {
        assert!(decode(&GOLDEN_FRAME[..length]).is_err(), "cut to {length}");
        // An enemy makes the checksum right.
        let mut cut = GOLDEN_FRAME[..length].to_vec();
        if length >= at::VERSION {
            reseal(&mut cut);
        }
        assert!(decode(&cut).is_err(), "cut to {length}, resealed");
    }
    let mut longer = GOLDEN_FRAME.to_vec();
    longer.push(0);
    assert_eq!(refused(&longer).0, BatchErrorKind::Checksum);
    reseal(&mut longer);
    assert_eq!(refused(&longer).1, "batch header is malformed: its compressed length is not that of the payload");
}

#[test]
fn headers_are_checked() {
    let edited = |at: usize, bytes: &[u8]| {
        let mut frame = GOLDEN_FRAME.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        reseal(&mut frame);
        let error = peek_header(&frame).unwrap_err();
        assert_eq!(decode(&frame).unwrap_err(), error);
        error
    };
    assert_eq!(edited(0, b"PKTC"), BatchError::NotABatch);
    assert_eq!(edited(at::VERSION, &[3]), BatchError::UnsupportedVersion { version: 3, supported: 2 });
    assert_eq!(edited(at::VERSION, &[3]).kind(), BatchErrorKind::UnsupportedVersion);
    assert_eq!(edited(at::VERSION, &[0]).kind(), BatchErrorKind::UnsupportedVersion);
    assert_eq!(edited(at::CODEC, &[2]), BatchError::UnsupportedCodec { codec: 2, supported: 1 });
    assert_eq!(edited(at::CODEC, &[2]).kind(), BatchErrorKind::UnsupportedVersion);
    assert_eq!(edited(at::RESERVED + 1, &[1]), BatchError::Header("its reserved bytes are not zero"));
    assert_eq!(edited(at::EVENT_COUNT, &[0; 4]), BatchError::Header("it has no events"));
    assert_eq!(edited(at::FIRST_EVENT_SEQUENCE, &[255; 8]), BatchError::Header("its event numbers overflow"));
    for at in [at::DECOMPRESSED_BYTES, at::EVENT_COUNT] {
        assert_eq!(edited(at, &[255; 4]).kind(), BatchErrorKind::TooLarge);
    }
    let events = BATCH_EVENTS_MAX as u64;
    assert_eq!(
        edited(at::EVENT_COUNT, &4097_u32.to_le_bytes()),
        BatchError::TooLarge { what: "events", value: events + 1, limit: events }
    );
    assert_eq!(refused(b"PKTB").1, "batch of 4 bytes is shorter than a header of 48 bytes");
}

#[test]
fn oversized_frames_are_refused_before_they_are_read() {
    let mut frame = GOLDEN_FRAME[..HEADER_BYTES].to_vec();
    frame.resize(HEADER_BYTES + BATCH_COMPRESSED_BYTES_MAX + 1, 0);
    assert_eq!(
        refused(&frame),
        (BatchErrorKind::TooLarge, "batch has 262145 compressed bytes, the limit is 262144".into())
    );
}

#[test]
fn zstd_bombs_do_not_go_off() {
    let limit = BATCH_DECOMPRESSED_BYTES_MAX;
    let bomb = zstd::bulk::compress(&vec![0; 8 * limit], 1).unwrap();
    assert!(bomb.len() < BATCH_COMPRESSED_BYTES_MAX);
    let kinds = [8 * limit, limit, 1000].map(|claimed| refused(&forge_compressed(&bomb, claimed, 1)).0);
    assert_eq!(kinds, [BatchErrorKind::TooLarge, BatchErrorKind::TooLarge, BatchErrorKind::Malformed]);

    let small_bomb = zstd::bulk::compress(&vec![0; limit], 1).unwrap();
    let (kind, text) = refused(&forge_compressed(&small_bomb, limit, 1));
    assert_eq!(kind, BatchErrorKind::TooLarge);
    assert!(text.contains("decompressed bytes for each compressed one"), "{text}");
}

#[test]
fn payloads_that_are_not_zstd_or_not_as_long_as_said_are_refused() {
    let payload = &GOLDEN_FRAME[HEADER_BYTES..];
    let decompressed_bytes = peek_header(GOLDEN_FRAME).unwrap().decompressed_bytes as usize;
    for (payload, decompressed_bytes) in
        [(payload, decompressed_bytes + 1), (payload, decompressed_bytes - 1), (payload, 0), (b"rubbish", 7), (b"", 0)]
    {
        let (kind, text) = refused(&forge_compressed(payload, decompressed_bytes, 25));
        assert_eq!(kind, BatchErrorKind::Malformed, "{text}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), with_magic in any::<bool>()) {
        let mut frame = bytes;
        if with_magic && frame.len() >= HEADER_BYTES {
            frame[..4].copy_from_slice(b"PKTB");
            reseal(&mut frame);
        }
        prop_assert!(decode(&frame).is_err());
    }

    #[test]
    fn random_columns_never_panic(columns in vec(any::<u8>(), 0..300), count in 1..200_usize) {
        prop_assert!(decode(&forge(&columns, count)).is_err());
    }

    /// Well-formed messages of small random values reach deeper than random bytes.
    #[test]
    fn random_fields_never_panic(fields in vec(vec(0..4_u8, 0..40), 60), count in 1..8_usize) {
        let columns: Vec<u8> = (1..).zip(&fields).flat_map(|(number, bytes)| field(number, bytes)).collect();
        if let Ok((_, events)) = decode(&forge(&columns, count)) {
            prop_assert_eq!(events.len(), count);
        }
    }

    /// What is accepted in spite of changed bytes is a batch: its events are within the limits and can be sent on.
    #[test]
    fn changed_columns_never_panic(
        events in contiguous_events(1..20),
        edits in vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..6),
    ) {
        let mut columns = columns(&frame(&mut BatchBuilder::new(), &events));
        for (index, edit, byte) in edits {
            let at = index.index(columns.len());
            match edit {
                0 => columns[at] = byte,
                1 => columns[at] = columns[at].wrapping_add(byte % 3).wrapping_sub(1),
                2 => columns.insert(at, byte),
                _ => drop(columns.remove(at)),
            }
            if columns.is_empty() {
                columns.push(byte);
            }
        }
        if let Ok((_, changed)) = decode(&forge(&columns, events.len())) {
            let again = frame(&mut BatchBuilder::new(), &changed);
            prop_assert_eq!(decode(&again).unwrap().1, changed);
        }
    }

    #[test]
    fn changed_payloads_never_panic(at in HEADER_BYTES..GOLDEN_FRAME.len(), bit in 0..8_u32) {
        let mut frame = GOLDEN_FRAME.to_vec();
        frame[at] ^= 1 << bit;
        reseal(&mut frame);
        if let Ok((header, events)) = decode(&frame) {
            prop_assert_eq!(events.len(), header.event_count as usize);
        }
    }
}

#[test]
fn damage_is_told_from_malice() {
    let mut frame = frame(&mut BatchBuilder::new(), &[loss(0)]);
    frame[HEADER_BYTES + 3] ^= 1;
    let error = decode(&frame).unwrap_err();
    assert_eq!(error.kind(), BatchErrorKind::Checksum);
    assert!(error.to_string().starts_with("batch is damaged: its CRC32C is "), "{error}");
}
