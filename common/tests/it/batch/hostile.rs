//! Frames as damage or an enemy makes them: refused with the right kind of error, never a panic.

use picket_common::batch::limits::{BATCH_COMPRESSED_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX, BATCH_EVENTS_MAX};
use picket_common::batch::{BatchBuilder, BatchError, BatchErrorKind, decode, peek_header};
use picket_proto::v1::BatchColumns;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::{HEADER_BYTES, columns, frame, loss};
use crate::support::{contiguous_events, golden_events};

const GOLDEN_EVENTS: &str = include_str!("../../golden/batch_v1.jsonl");
const GOLDEN_FRAME: &[u8] = include_bytes!("../../golden/batch_v1.bin");

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
    assert_eq!(edited(at::VERSION, &[2]), BatchError::UnsupportedVersion { version: 2, supported: 1 });
    assert_eq!(edited(at::VERSION, &[2]).kind(), BatchErrorKind::UnsupportedVersion);
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

#[test]
fn a_small_frame_cannot_ask_for_much_memory() {
    // Every event refers to the same eight ancestors of 4096 bytes: 4096 events would take 140 MB.
    let count = BATCH_EVENTS_MAX;
    let mut message = BatchColumns {
        string_bytes: vec![b'a'; 8 * 4096],
        string_lengths: vec![4096; 8],
        list_lengths: vec![8],
        list_strings: vec![1; 8],
        process_pids: vec![1],
        process_start_times: vec![1, 1],
        context_working_directories: vec![0],
        context_user_ids: vec![0],
        context_group_ids: vec![0],
        context_user_names: vec![0],
        context_session_ids: vec![0],
        context_terminals: vec![0],
        context_streams: vec![0],
        context_ancestors: vec![1],
        event_kinds: vec![0; count],
        event_origins: vec![0; count],
        event_times: vec![1; count + 1],
        start_processes: vec![2; count],
        start_parents: vec![0; count],
        start_executables: vec![0; count],
        start_arguments: vec![0; count],
        start_contexts: vec![2; count],
        start_flags: vec![0; count],
        ..BatchColumns::default()
    };
    (message.start_processes[0], message.start_contexts[0]) = (1, 1);
    let frame = forge(&message.encode_to_vec(), count);
    assert!(frame.len() < 1000, "{}", frame.len());
    let (kind, text) = refused(&frame);
    assert_eq!(kind, BatchErrorKind::TooLarge);
    assert!(text.contains("bytes of strings"), "{text}");

    // The same with as many events as are allowed is a batch.
    message.event_kinds.truncate(1);
    message.event_origins.truncate(1);
    message.event_times.truncate(2);
    for column in [
        &mut message.start_processes,
        &mut message.start_parents,
        &mut message.start_executables,
        &mut message.start_arguments,
        &mut message.start_contexts,
        &mut message.start_flags,
    ] {
        column.truncate(1);
    }
    assert_eq!(decode(&forge(&message.encode_to_vec(), 1)).unwrap().1.len(), 1);
}

/// The golden columns with one thing changed, and the error that makes.
#[test]
fn columns_are_checked() {
    type Edit = fn(&mut BatchColumns);
    let golden = BatchColumns::decode(columns(GOLDEN_FRAME).as_slice()).unwrap();
    let cases: [(Edit, &str); 44] = [
        (|m| m.string_bytes.truncate(9), "string_bytes ends early"),
        (|m| m.string_bytes.push(0), "string_bytes has more values than the events"),
        (|m| m.string_lengths[0] = 4097, "string_lengths has a string that is too long"),
        (|m| m.string_lengths.push(0), "string_lengths has more values than the events"),
        (|m| m.string_lengths.clear(), "string_lengths ends early or has a bad varint"),
        (|m| m.list_lengths[0] = 65, "list_lengths has a list that is too long"),
        (|m| m.list_strings[0] = 999, "list_strings refers beyond its table"),
        (|m| m.list_strings[0] = u32::MAX, "list_strings refers beyond its table"),
        (|m| m.process_pids[0] = -1, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_pids[0] = 1 << 32, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_pids[1] = i64::MAX, "process_pids has a pid that does not fit 32 bits"),
        (|m| m.process_start_times.truncate(1), "process_start_times ends early or has a bad varint"),
        (|m| m.context_working_directories[0] = 999, "context_working_directories refers beyond its table"),
        (|m| m.context_user_ids[0] = (1 << 32) + 1, "context_user_ids has a value that does not fit 32 bits"),
        (|m| m.context_group_ids[0] = u64::MAX, "context_group_ids has a value that does not fit 32 bits"),
        (|m| m.context_session_ids[0] = u64::MAX, "context_session_ids has a value that does not fit 32 bits"),
        (|m| m.context_terminals[0] = 3, "context_terminals has an unknown value"),
        (|m| m.context_streams[0] = 512, "context_streams has an unknown kind of stream"),
        (|m| m.context_ancestors[0] = 999, "context_ancestors refers beyond its table"),
        (|m| m.connection_kinds[0] = 2, "connection_kinds has an unknown protocol or direction"),
        (|m| m.connection_kinds[0] = 24, "connection_kinds has an unknown protocol or direction"),
        (|m| m.connection_local_addresses[0] = 0, "connection_local_addresses refers to an address that is too short"),
        (
            |m| m.connection_remote_addresses[0] = 3,
            "connection_remote_addresses refers to an address that is not 4, 16 or 24 bytes long",
        ),
        (|m| m.connection_local_ports[0] = 65536, "connection_local_ports has a value out of range"),
        (|m| m.connection_processes[0] = 999, "connection_processes refers beyond its table"),
        (|m| m.connection_executables[0] = 999, "connection_executables refers beyond its table"),
        (|m| m.connection_user_ids[0] = u64::MAX, "connection_user_ids has a value that does not fit 32 bits"),
        (|m| m.event_kinds[3] = 7, "event_kinds has an unknown event kind"),
        (|m| m.event_kinds.truncate(24), "event_kinds has fewer values than the header has events"),
        (|m| m.event_origins[3] = 4, "event_origins has an unknown origin"),
        (|m| m.event_times.truncate(25), "event_times ends early or has a bad varint"),
        (|m| m.event_times.push(0), "event_times has more values than the events"),
        (|m| m.start_processes[0] = 0, "start_processes has no process"),
        (|m| m.start_contexts[0] = 0, "start_contexts has no context"),
        (|m| m.start_contexts[0] = 2, "start_contexts refers beyond its table"),
        (|m| m.start_flags[0] = 12, "start_flags has unknown flags"),
        (|m| m.exit_flags[0] = 8, "exit_flags has unknown flags"),
        (|m| m.exit_processes[0] = 999, "exit_processes refers beyond its table"),
        (|m| m.open_connections[0] = 0, "open_connections has no connection"),
        (|m| m.close_flags[0] = 256, "close_flags has unknown flags"),
        (|m| m.close_flags[0] = 3, "close_flags has unknown flags"),
        (
            |m| m.authentication_sources[0] = 0,
            "authentication_sources refers to an address that is not 4 or 16 bytes long",
        ),
        (|m| m.loss_kinds[0] = 48, "loss_kinds has an unknown stage or reason"),
        (|m| m.agent_sensor_counts[0] = 33, "agent_sensor_counts has too many sensors"),
    ];
    for (edit, problem) in cases {
        let mut message = golden.clone();
        edit(&mut message);
        assert_ne!(message, golden);
        let expected = (BatchErrorKind::Malformed, format!("batch column {problem}"));
        assert_eq!(refused(&forge(&message.encode_to_vec(), 25)), expected);
    }
}

#[test]
fn every_value_of_every_column_is_needed() {
    let golden = columns(GOLDEN_FRAME);
    for (number, bytes) in fields(&golden) {
        let without: Vec<u8> = fields(&golden)
            .into_iter()
            .filter(|field| field.0 != number)
            .flat_map(|(number, bytes)| field(number, &bytes))
            .collect();
        assert_eq!(refused(&forge(&without, 25)).0, BatchErrorKind::Malformed, "without field {number}");
        let longer: Vec<u8> = fields(&golden)
            .into_iter()
            .flat_map(
                |(other, bytes)| {
                    if other == number { field(other, &[bytes, vec![0]].concat()) } else { field(other, &bytes) }
                },
            )
            .collect();
        assert_eq!(
            refused(&forge(&longer, 25)).0,
            BatchErrorKind::Malformed,
            "with more in field {number} than {bytes:?}"
        );
    }
}

/// The fields of a message: field number and content.
fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (number, _) = prost::encoding::decode_key(&mut message).unwrap();
        let length = prost::encoding::decode_varint(&mut message).unwrap();
        fields.push((number, message.split_off(..usize::try_from(length).unwrap()).unwrap().to_vec()));
    }
    fields
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut field);
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

#[test]
fn messages_that_no_encoder_writes_are_refused() {
    let golden = columns(GOLDEN_FRAME);
    let with = |extra: &[u8]| refused(&forge(&[&golden, extra].concat(), 25)).1;
    let unknown = "batch columns are malformed: a field is unknown or has a wrong type";
    let order = "batch columns are malformed: fields are repeated or not in ascending order";
    let length = "batch columns are malformed: a field is longer than the payload";
    assert_eq!(with(&field(61, b"later")), unknown);
    assert_eq!(with(&[2, 0]), unknown, "field number 0");
    assert_eq!(with(&field(536_870_911, b"")), unknown);
    assert_eq!(with(&[24 << 3, 1]), unknown, "a value that is not packed");
    assert_eq!(with(&field(24, &[0])), order);
    assert_eq!(with(&field(60, &[0])), order);
    assert_eq!(with(&[0x80]), "batch columns are malformed: a field's key is cut short");
    let cut = refused(&forge(&golden[..golden.len() - 1], 25)).1;
    assert_eq!(cut, length);
    // Field 60 with a length of 2^64 - 1.
    let huge = [0xe2, 0x03, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(refused(&forge(&huge, 1)).1, length);
    assert_eq!(refused(&forge(b"", 1)).0, BatchErrorKind::Malformed);
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
