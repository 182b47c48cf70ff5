//! Events back out.

use picket_common::event::Timestamp;
use picket_common::id::{EventId, EventKey, Sequence};

use super::*;

fn keys(events: &[(HostId, Event)]) -> Vec<(HostId, EventKey)> {
    events.iter().map(|(host, event)| (*host, event.key)).collect()
}

#[tokio::test]
async fn events_come_in_order_whatever_order_they_arrived_in() {
    let state = State::new().await;
    let mut expected = Vec::new();
    for (number, epoch) in [(2, 9), (1, 8), (2, 3), (1, 4)] {
        let events = state.fill(number, epoch, 50, 10).await;
        expected.extend(events.into_iter().map(|event| (host(number), event)));
        state.lake.commit().await.unwrap();
    }
    expected.sort_by_key(|(host, event)| (*host, event.key));
    assert_eq!(state.read(EventFilter::default()).await, expected);
}

#[tokio::test]
async fn filters_restrict() {
    let state = State::new().await;
    let mut all = Vec::new();
    for (number, epoch) in [(1, 1), (1, 2), (2, 1)] {
        let events = state.fill(number, epoch, 60, 20).await;
        all.extend(events.into_iter().map(|event| (host(number), event)));
    }
    state.lake.commit().await.unwrap();
    let check = async |filter: EventFilter, keep: &dyn Fn(&HostId, &Event) -> bool| {
        let expected: Vec<_> = all.iter().filter(|(host, event)| keep(host, event)).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(keys(&state.read(filter).await), keys(&expected));
    };
    check(EventFilter { hosts: vec![host(2), host(9)], ..EventFilter::default() }, &|id, _| *id == host(2)).await;
    check(EventFilter { epoch: Some(Epoch(2)), ..EventFilter::default() }, &|_, event| event.key.epoch == Epoch(2))
        .await;
    let classes = vec![EventClass::NetworkActivity, EventClass::AgentActivity];
    check(EventFilter { classes: classes.clone(), ..EventFilter::default() }, &|_, event| {
        classes.contains(&event.body.class())
    })
    .await;
    // To the nanosecond, on both ends.
    let time = events::plausible(1, 10).time..events::plausible(1, 20).time;
    check(EventFilter { time: Some(time.clone()), ..EventFilter::default() }, &|_, event| time.contains(&event.time))
        .await;
    let time = Timestamp(time.start.0 + 1)..Timestamp(time.end.0 + 1);
    check(EventFilter { time: Some(time.clone()), ..EventFilter::default() }, &|_, event| time.contains(&event.time))
        .await;
}

#[tokio::test]
async fn pinned_versions_do_not_see_what_came_later() {
    let state = State::new().await;
    let first = state.fill(1, 1, 40, 10).await;
    state.lake.commit().await.unwrap();
    let pinned = state.lake.table_versions();
    state.fill(1, 2, 40, 10).await;
    state.lake.commit().await.unwrap();
    assert_eq!(state.read(EventFilter::default()).await.len(), 80);
    let read: Vec<_> = state.lake.read_events(&pinned, EventFilter::default()).try_collect().await.unwrap();
    assert_eq!(read.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), first);

    let mut unknown = pinned.clone();
    unknown.0.insert(EventClass::ProcessActivity, 4711);
    let error = state.lake.read_events(&unknown, EventFilter::default()).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, LakeError::Version { version: 4711, .. }) && error.is_callers_fault(), "{error}");
}

/// The memory given holds a small part of the events: sorting goes over the disk.
#[tokio::test(flavor = "multi_thread")]
async fn sorting_more_than_fits_into_memory_works() {
    let config = LakeConfig { query_memory_bytes: 10 * 1024 * 1024, ..small_config() };
    let state = State::open_with(TempDir::new().unwrap(), config).await;
    for epoch in 0..6 {
        state.fill(1, 6 - epoch, 6000, 1000).await;
        state.lake.commit().await.unwrap();
    }
    let mut last = None;
    let mut count = 0;
    let mut stream = state.lake.read_events(&state.lake.table_versions(), EventFilter::default());
    while let Some((host, event)) = stream.try_next().await.unwrap() {
        if last.is_none() {
            let spilled = state.lake.inner.environment.spilling_progress();
            assert!(spilled.active_files_count > 0, "{spilled:?}");
        }
        let key = Some((host, event.key));
        assert!(last < key);
        last = key;
        count += 1;
    }
    assert_eq!(count, 36_000);
}

#[tokio::test]
async fn existence_is_told_for_each_id() {
    let state = State::new().await;
    state.fill(1, 1, 60, 20).await;
    state.lake.commit().await.unwrap();
    // Acknowledged, not committed: it counts.
    state.fill(2, 1, 5, 5).await;
    let id = |number, epoch, sequence| EventId {
        host: host(number),
        key: EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) },
    };
    let ids = [id(1, 1, 0), id(1, 1, 59), id(1, 1, 60), id(1, 2, 0), id(2, 1, 4), id(3, 1, 0), id(1, 1, 0)];
    assert_eq!(state.lake.exists(&ids).await.unwrap(), [true, true, false, false, true, false, true]);
    assert_eq!(state.lake.exists(&[]).await.unwrap(), [] as [bool; 0]);
}

#[tokio::test]
async fn a_dropped_stream_stops_reading() {
    let state = State::new().await;
    state.fill(1, 1, 3000, 1000).await;
    state.lake.commit().await.unwrap();
    let mut stream = state.lake.read_events(&state.lake.table_versions(), EventFilter::default());
    assert!(stream.try_next().await.unwrap().is_some());
    drop(stream);
    let State { lake, wal, folder: _folder } = state;
    close(lake, wal).await;
}
