//! Batches, from events to frames and back.

use picket_common::batch::{BatchBuilder, decode, peek_header};
use picket_common::event::Event;
use picket_common::id::BatchSequence;
use proptest::prelude::*;

use crate::support::contiguous_events;

fn frame(builder: &mut BatchBuilder, events: &[Event]) -> Vec<u8> {
    for event in events {
        builder.push(event).unwrap();
    }
    builder.finish(events[0].key.epoch, BatchSequence(3)).unwrap()
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
}
