//! Events to rows and back.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};
use picket_common::event::{Event, EventClass, Timestamp};
use picket_common::id::HostId;
use proptest::prelude::*;

use super::events::any_event;
use crate::lake::read::RowReader;
use crate::lake::rows::{EVENT_DAYS_AFTER_MAX, EVENT_DAYS_BEFORE_MAX, RowBuilder, event_day};
use crate::lake::schema::{columns, schema};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_event_comes_back_as_it_was(events in prop::collection::vec(any_event(), 1..40), host in any::<[u8; 16]>()) {
        let host = HostId::from_bytes(host);
        let received = Timestamp(1_700_000_000_000_000_000);
        let mut by_class: BTreeMap<EventClass, Vec<Event>> = BTreeMap::new();
        for event in events {
            by_class.entry(event.body.class()).or_default().push(event);
        }
        for (class, events) in by_class {
            let mut builder = RowBuilder::new(class);
            for event in &events {
                builder.push(&host.to_string(), received, event);
            }
            let batch = builder.finish().unwrap();
            let reader = RowReader::new(class, &batch).unwrap();
            prop_assert_eq!(reader.len(), events.len());
            for (index, event) in events.iter().enumerate() {
                prop_assert_eq!(&reader.event(index).unwrap(), &(host, event.clone()));
            }
            let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>();
            let days = batch.column_by_name("event_day").unwrap().as_primitive::<Date32Type>();
            for (index, event) in events.iter().enumerate() {
                prop_assert_eq!(times.value(index), event.time.0.div_euclid(1000));
                prop_assert_eq!(days.value(index), event_day(event.time, received));
            }
        }
    }
}

#[test]
fn the_partition_stays_near_the_day_of_reception() {
    const DAY: i64 = 86_400_000_000_000;
    let received = Timestamp(20_000 * DAY + 5);
    for (time, day) in [
        (20_000 * DAY, 20_000),
        (20_000 * DAY - 1, 19_999),
        (20_001 * DAY, 20_001),
        (20_002 * DAY, 20_000 + EVENT_DAYS_AFTER_MAX),
        (0, 20_000 - EVENT_DAYS_BEFORE_MAX),
        (i64::MIN, 20_000 - EVENT_DAYS_BEFORE_MAX),
        (i64::MAX, 20_000 + EVENT_DAYS_AFTER_MAX),
    ] {
        assert_eq!(i64::from(event_day(Timestamp(time), received)), day, "{time}");
    }
}

#[test]
fn columns_have_friendly_unique_names_and_comments() {
    for class in EventClass::ALL {
        let names: Vec<&str> = columns(class).map(|column| column.name).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| other == &name).count(), 1, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        }
        assert_eq!(names[..2], ["event_day", "host_id"]);
        assert!(columns(class).all(|column| !column.comment.is_empty()));
        assert!(schema(class).fields().iter().all(|field| field.metadata().contains_key("comment")));
    }
    let names: Vec<&str> = columns(EventClass::NetworkActivity).map(|column| column.name).collect();
    for name in ["pid", "executable", "remote_address", "remote_port", "bytes_sent", "duration_ns"] {
        assert!(names.contains(&name), "{name}");
    }
}

/// A row whose cells were of the wrong kind would be NULL where it must not.
#[test]
fn no_column_is_always_null() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut builders: BTreeMap<EventClass, RowBuilder> = BTreeMap::new();
    for _ in 0..600 {
        let event = any_event().new_tree(&mut runner).unwrap().current();
        let class = event.body.class();
        let builder = builders.entry(class).or_insert_with(|| RowBuilder::new(class));
        builder.push("h", Timestamp(0), &event);
    }
    for (class, mut builder) in builders {
        let batch = builder.finish().unwrap();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            assert!(array.null_count() < array.len(), "{} {}", class.name(), field.name());
            assert!(*field.data_type() != DataType::Null);
        }
    }
}
