//! Features of arbitrary events.

use picket_common::event::{Event, EventBody};
use picket_common::feature::{ContextLimits, FeaturePipeline, FeatureSpec, MISSING, describe};
use proptest::prelude::*;

use crate::scenes;
use crate::support::contiguous_events;

/// All vectors as bits.
fn vectors(events: &[Event], limits: ContextLimits) -> Vec<Vec<u32>> {
    let mut pipeline = FeaturePipeline::new(limits);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    events.iter().filter_map(|event| pipeline.observe(event).map(|vector| bits(vector.values))).collect()
}

/// So little room that every table evicts all the time.
fn narrow() -> ContextLimits {
    ContextLimits {
        processes: 3,
        parents: 2,
        connection_owners: 2,
        connection_executables: 1,
        sessions: 1,
        destinations: 2,
        series: 2,
        repeats: 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the events: no panic, every value finite or the one missing, and a vector exactly for subjects.
    #[test]
    fn any_events_give_clean_vectors(events in contiguous_events(1..80)) {
        let mut pipeline = FeaturePipeline::new(narrow());
        for event in &events {
            let is_subject = match &event.body {
                EventBody::ProcessStart(start) => !start.seeded,
                EventBody::ConnectionClose(_) => true,
                _ => false,
            };
            let vector = pipeline.observe(event);
            prop_assert_eq!(vector.is_some(), is_subject);
            let Some(vector) = vector else { continue };
            prop_assert_eq!((vector.event, vector.time), (event.key, event.time));
            prop_assert_eq!(vector.values.len(), FeatureSpec::v1(vector.subject).features.len());
            for (feature, value) in vector.values.iter().enumerate() {
                prop_assert!(value.is_finite() || value.to_bits() == MISSING.to_bits(), "{}", feature);
                prop_assert!(value.to_bits() != (-0.0f32).to_bits(), "{}", feature);
                prop_assert!(!describe(vector.subject, feature, *value).is_empty());
            }
        }
    }

    #[test]
    fn the_same_events_give_the_same_bits(events in contiguous_events(1..60)) {
        for limits in [narrow(), ContextLimits::default()] {
            prop_assert_eq!(vectors(&events, limits), vectors(&events, limits));
        }
    }
}

#[test]
fn evictions_are_counted_and_with_room_there_are_none() {
    let evictions = |limits| {
        let mut pipeline = FeaturePipeline::new(limits);
        for event in &scenes::events() {
            pipeline.observe(event);
        }
        pipeline.evictions()
    };
    assert_eq!(evictions(ContextLimits::default()), 0);
    assert!(evictions(narrow()) > 50);
}

#[test]
fn a_clock_that_is_set_back_starts_the_windows_anew() {
    let events = scenes::events();
    let mut pipeline = FeaturePipeline::new(ContextLimits::default());
    for event in &events[..events.len() - 1] {
        pipeline.observe(event);
    }
    assert_eq!(pipeline.clock_resets(), 0);
    let vector = pipeline.observe(&events[events.len() - 1]).unwrap();
    let feature = FeatureSpec::v1(vector.subject).index_of("host_starts_10s").unwrap();
    assert_eq!(describe(vector.subject, feature, vector.values[feature]), "1 process starts on this host in 10 s");
    assert_eq!(pipeline.clock_resets(), 1);
}
