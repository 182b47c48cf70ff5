//! Batches, from events to frames and back.

use std::num::NonZeroU64;

use picket_common::batch::limits::{
    BATCH_COMPRESSED_BYTES_MAX, BATCH_ENCODED_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_STRING_MEMORY_BYTES_MAX,
};
use picket_common::batch::{BatchBuilder, EncodeError, decode, peek_header};
use picket_common::event::limits::{AGENT_TEXT_BYTES_MAX, SENSORS_MAX, STRING_BYTES_MAX};
use picket_common::event::{
    AgentStart, ByteString, Event, EventBody, FileId, Origin, ProcessId, ProcessStart, SensorLoss, SensorMode,
    StreamKind, Timestamp,
};
use picket_common::id::{BatchSequence, Epoch, EventKey, Sequence};
use picket_proto::v1::BatchColumns;
use proptest::prelude::*;
use prost::Message;

use crate::support::contiguous_events;

mod golden;
mod hostile;

/// Length of a frame's header.
const HEADER_BYTES: usize = 48;
const EPOCH: Epoch = Epoch(1_763_850_000_000_000_000);

fn frame(builder: &mut BatchBuilder, events: &[Event]) -> Vec<u8> {
    for event in events {
        builder.push(event).unwrap();
    }
    builder.finish(events[0].key.epoch, BatchSequence(3)).unwrap()
}

/// The columns of a frame, decompressed.
fn columns(frame: &[u8]) -> Vec<u8> {
    let decompressed_bytes = peek_header(frame).unwrap().decompressed_bytes as usize;
    zstd::bulk::decompress(&frame[HEADER_BYTES..], decompressed_bytes).unwrap()
}

proptest! {
    #[test]
    fn events_round_trip(first in contiguous_events(1..60), second in contiguous_events(1..60)) {
        // One builder for both: nothing of the first batch shows in the second.
        let mut builder = BatchBuilder::new();
        for events in [first, second] {
            let frame = frame(&mut builder, &events);
            prop_assert!(builder.is_empty());
            let (header, decoded) = decode(&frame).unwrap();
            prop_assert_eq!(&decoded, &events);
            prop_assert_eq!(peek_header(&frame), Ok(header));
            prop_assert_eq!(header.epoch, events[0].key.epoch);
            prop_assert_eq!(header.batch_sequence, BatchSequence(3));
            prop_assert_eq!(header.first_event_sequence, events[0].key.sequence);
            prop_assert_eq!(header.event_count as usize, events.len());
        }
    }

    /// The columns are the message of `batch.proto`, byte for byte: other readers need nothing but that file.
    #[test]
    fn columns_are_the_protobuf_message(events in contiguous_events(1..60)) {
        let columns = columns(&frame(&mut BatchBuilder::new(), &events));
        let message = BatchColumns::decode(columns.as_slice()).unwrap();
        prop_assert_eq!(message.event_kinds.len(), events.len());
        prop_assert_eq!(message.event_times.len(), events.len() + 1);
        prop_assert_eq!(message.encode_to_vec(), columns);
    }

    #[test]
    fn columns_never_exceed_the_estimate(events in contiguous_events(1..20)) {
        let mut builder = BatchBuilder::new();
        for event in &events {
            builder.push(event).unwrap();
        }
        let (len, estimated_bytes) = (builder.len(), builder.estimated_bytes());
        let header = peek_header(&builder.finish(events[0].key.epoch, BatchSequence(0)).unwrap()).unwrap();
        prop_assert_eq!(len, events.len());
        prop_assert!(header.decompressed_bytes as usize <= estimated_bytes);
    }
}

fn event(sequence: u64, body: EventBody) -> Event {
    Event {
        key: EventKey { epoch: EPOCH, sequence: Sequence(sequence) },
        time: Timestamp(1_763_850_001_000_000_000 + sequence.cast_signed()),
        origin: Origin::Agent,
        body,
    }
}

fn loss(sequence: u64) -> Event {
    let loss = SensorLoss {
        stage: picket_common::event::LossStage::Sensor,
        reason: picket_common::event::LossReason::QueueFull,
        count: sequence,
        epoch: EPOCH,
    };
    event(sequence, EventBody::SensorLoss(loss))
}

/// A process start with strings as the function gives them, by length.
fn start(sequence: u64, mut string: impl FnMut(usize) -> ByteString) -> Event {
    let start = ProcessStart {
        process: ProcessId { pid: u32::try_from(sequence).unwrap(), start_time: Timestamp(i64::MIN) },
        parent: Some(ProcessId { pid: u32::MAX, start_time: Timestamp(i64::MAX) }),
        executable: string(STRING_BYTES_MAX),
        arguments: (0..64).map(|_| string(128)).collect(),
        arguments_truncated: true,
        working_directory: string(STRING_BYTES_MAX),
        user_id: Some(u32::MAX),
        group_id: Some(u32::MAX),
        user_name: string(STRING_BYTES_MAX),
        session_id: Some(u32::MAX),
        has_terminal: Some(true),
        standard_streams: [StreamKind::Other; 3],
        ancestors: (0..8).map(|_| string(STRING_BYTES_MAX)).collect(),
        executable_deleted: Some(true),
        seeded: true,
        cgroup_id: Some(NonZeroU64::MAX),
        cgroup: string(STRING_BYTES_MAX),
        executable_file: Some(FileId { device: u64::MAX, inode: u64::MAX }),
        script: string(STRING_BYTES_MAX),
    };
    event(sequence, EventBody::ProcessStart(Box::new(start)))
}

/// Bytes that do not compress.
fn noise(state: &mut u64, bytes: usize) -> ByteString {
    let byte = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = std::iter::repeat_with(byte).take(bytes).collect();
    ByteString::from(noise.as_slice())
}

#[test]
fn the_largest_events_fit_even_if_they_do_not_compress() {
    let mut builder = BatchBuilder::new();
    let mut state = 1;
    let mut events = Vec::new();
    loop {
        let event = start(events.len() as u64, |bytes| noise(&mut state, bytes));
        match builder.push(&event) {
            Ok(()) => events.push(event),
            Err(EncodeError::Full { events: count, bytes }) => {
                assert_eq!((count, bytes), (events.len(), builder.estimated_bytes()));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(builder.estimated_bytes() > BATCH_ENCODED_BYTES_MAX * 3 / 4, "full with {}", builder.estimated_bytes());
    let frame = builder.finish(EPOCH, BatchSequence(0)).unwrap();
    assert!(frame.len() <= HEADER_BYTES + BATCH_COMPRESSED_BYTES_MAX);
    assert!(frame.len() > BATCH_ENCODED_BYTES_MAX * 3 / 4, "the noise was compressed to {}", frame.len());
    assert_eq!(decode(&frame).unwrap().1, events);
}

#[test]
fn the_largest_agent_start_fits() {
    let mut state = 1;
    let mut text = || noise(&mut state, AGENT_TEXT_BYTES_MAX);
    let mut start = AgentStart { agent_version: text(), boot_id: text(), sensors: Vec::new() };
    for _ in 0..SENSORS_MAX {
        start.sensors.push(SensorMode { name: text(), origin: Origin::Replay, reason: text() });
    }
    let events = [event(0, EventBody::AgentStart(Box::new(start)))];
    assert_eq!(decode(&frame(&mut BatchBuilder::new(), &events)).unwrap().1, events);
}

#[test]
fn strings_that_repeat_are_limited_by_the_memory_they_take_decoded() {
    let long = ByteString::truncated(&[b'a'; STRING_BYTES_MAX]);
    let mut builder = BatchBuilder::new();
    let mut events = Vec::new();
    loop {
        let event = start(events.len() as u64, |bytes| ByteString::truncated(&long.as_bytes()[..bytes]));
        if builder.push(&event).is_err() {
            break;
        }
        events.push(event);
    }
    let bytes_of_each = 13 * STRING_BYTES_MAX + 64 * 128 + 77 * size_of::<ByteString>();
    assert_eq!(events.len(), BATCH_STRING_MEMORY_BYTES_MAX / bytes_of_each);
    let frame = builder.finish(EPOCH, BatchSequence(0)).unwrap();
    assert!(frame.len() < 4096, "{}", frame.len());
    assert_eq!(decode(&frame).unwrap().1, events);
}

#[test]
fn a_batch_holds_as_many_events_as_the_limit_says() {
    let mut builder = BatchBuilder::new();
    let limit = BATCH_EVENTS_MAX as u64;
    for sequence in 0..limit {
        builder.push(&loss(sequence)).unwrap();
    }
    assert!(matches!(builder.push(&loss(limit)), Err(EncodeError::Full { events: BATCH_EVENTS_MAX, .. })));
    let frame = builder.finish(EPOCH, BatchSequence(0)).unwrap();
    assert_eq!(decode(&frame).unwrap().1.len(), BATCH_EVENTS_MAX);
    builder.push(&loss(limit)).unwrap();
    assert_eq!(builder.len(), 1);
}

#[test]
fn refused_events_leave_the_batch_as_it_was() {
    let mut builder = BatchBuilder::new();
    assert_eq!(builder.finish(EPOCH, BatchSequence(0)), Err(EncodeError::Empty));
    builder.push(&loss(5)).unwrap();

    let expected = EventKey { epoch: EPOCH, sequence: Sequence(6) };
    let mut foreign = loss(6);
    foreign.key.epoch = Epoch(1);
    for event in [loss(5), loss(7), foreign] {
        let found = event.key;
        assert_eq!(builder.push(&event), Err(EncodeError::NotContiguous { expected, found }));
    }
    let many = start(6, |_| ByteString::truncated(&[0; STRING_BYTES_MAX]));
    let error = builder.push(&many).unwrap_err();
    assert_eq!(error.to_string(), "event has 262144 bytes of arguments, the limit is 8192");
    assert_eq!(
        builder.finish(Epoch(1), BatchSequence(0)),
        Err(EncodeError::EpochMismatch { of_events: EPOCH.0, of_batch: 1 })
    );

    builder.push(&loss(6)).unwrap();
    let frame = builder.finish(EPOCH, BatchSequence(9)).unwrap();
    assert_eq!(decode(&frame).unwrap().1, [loss(5), loss(6)]);
}

#[test]
fn the_last_event_number_stays_free() {
    let mut builder = BatchBuilder::new();
    builder.push(&loss(u64::MAX - 1)).unwrap();
    assert!(matches!(builder.push(&loss(u64::MAX)), Err(EncodeError::NotContiguous { .. })));
    let frame = builder.finish(EPOCH, BatchSequence(u64::MAX)).unwrap();
    assert_eq!(decode(&frame).unwrap().1, [loss(u64::MAX - 1)]);
}

#[test]
fn the_same_events_make_the_same_bytes() {
    let events: Vec<Event> =
        (0..50).map(|sequence| start(sequence, |bytes| noise(&mut { sequence + 1 }, bytes % 100))).collect();
    let mut used = BatchBuilder::new();
    frame(&mut used, &[loss(1), loss(2)]);
    used.push(&loss(3)).unwrap();
    used.clear();
    assert_eq!(frame(&mut used, &events), frame(&mut BatchBuilder::new(), &events));
}
