//! Frames of every version are read for ever: they lie in buffers and write-ahead logs of other versions.

use picket_common::batch::{BatchBuilder, decode, peek_header};
use picket_common::event::json::to_json;
use picket_common::id::{BatchSequence, Epoch, Sequence};

use super::{columns, frame};
use crate::support::golden_events;

/// Events, and the frame they made.
const V1: (&str, &[u8]) = (include_str!("../../golden/batch_v1.jsonl"), include_bytes!("../../golden/batch_v1.bin"));
const V2: (&str, &[u8]) = (include_str!("../../golden/batch_v2.jsonl"), include_bytes!("../../golden/batch_v2.bin"));
/// Where the version is in a frame.
const VERSION_AT: usize = 8;

#[test]
fn the_golden_frames_are_read() {
    for (version, event_count, (lines, frame)) in [(1, 25, V1), (2, 40, V2)] {
        let (header, events) = decode(frame).unwrap();
        assert_eq!(frame[VERSION_AT], version);
        assert_eq!(header.epoch, Epoch(1_763_850_000_000_000_000));
        assert_eq!(header.batch_sequence, BatchSequence(3));
        assert_eq!(header.first_event_sequence, Sequence(41));
        assert_eq!(header.event_count, event_count);
        assert_eq!(peek_header(frame), Ok(header));
        assert_eq!(events, golden_events(lines));
    }
}

/// The columns, not the frame: a later zstd may compress otherwise. A better encoder may change the columns: then add
/// another golden frame, do not replace one.
#[test]
fn the_golden_columns_are_written() {
    let written = frame(&mut BatchBuilder::new(), &golden_events(V2.0));
    let (written, golden) = (columns(&written), columns(V2.1));
    assert!(written == golden, "columns differ: {written:02x?} from {golden:02x?}");
}

/// What the events of version 1 say is the same in both versions.
#[test]
fn events_of_version_1_are_written_in_version_2() {
    let events = golden_events(V1.0);
    let written = frame(&mut BatchBuilder::new(), &events);
    assert_eq!(written[VERSION_AT], 2);
    assert_eq!(decode(&written).unwrap().1, events);
}

#[test]
fn the_golden_lines_are_written() {
    for lines in [V1.0, V2.0] {
        for (line, event) in lines.lines().zip(golden_events(lines)) {
            assert_eq!(to_json(&event), serde_json::from_str::<serde_json::Value>(line).unwrap());
        }
    }
}
