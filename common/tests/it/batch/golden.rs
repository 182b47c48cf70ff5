//! Frames of version 1 are read for ever: they lie in buffers and write-ahead logs of other versions.

use picket_common::batch::{BatchBuilder, decode, peek_header};
use picket_common::event::json::to_json;
use picket_common::id::{BatchSequence, Epoch, Sequence};

use super::{columns, frame};
use crate::support::golden_events;

const EVENTS: &str = include_str!("../../golden/batch_v1.jsonl");
const FRAME: &[u8] = include_bytes!("../../golden/batch_v1.bin");

#[test]
fn the_golden_frame_is_read() {
    let (header, events) = decode(FRAME).unwrap();
    assert_eq!(header.epoch, Epoch(1_763_850_000_000_000_000));
    assert_eq!(header.batch_sequence, BatchSequence(3));
    assert_eq!(header.first_event_sequence, Sequence(41));
    assert_eq!(header.event_count, 25);
    assert_eq!(peek_header(FRAME), Ok(header));
    assert_eq!(events, golden_events(EVENTS));
}

/// The columns, not the frame: a later zstd may compress otherwise. A better encoder may change the columns: then add
/// a second golden frame, do not replace the first.
#[test]
fn the_golden_columns_are_written() {
    let written = frame(&mut BatchBuilder::new(), &golden_events(EVENTS));
    let (written, golden) = (columns(&written), columns(FRAME));
    assert!(written == golden, "columns differ: {written:02x?} from {golden:02x?}");
}

#[test]
fn the_golden_lines_are_written() {
    for (line, event) in EVENTS.lines().zip(golden_events(EVENTS)) {
        assert_eq!(to_json(&event), serde_json::from_str::<serde_json::Value>(line).unwrap());
    }
}
