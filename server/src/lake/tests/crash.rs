//! kill -9 at every step of a commit: what is on disk then is copied, opened as after a restart, and compared.

use parking_lot::Mutex;
use picket_common::event::EventBody;
use picket_common::id::{EventKey, Sequence};

use super::*;

/// Copies of the state folder, one for each step, with the step's name.
type Crashes = Arc<Mutex<Vec<(&'static str, TempDir)>>>;

fn record_crashes(state: &State) -> Crashes {
    let crashes = Crashes::default();
    let folder = state.folder.path().to_path_buf();
    let recorded = crashes.clone();
    state.lake.inner.probe.set(move |step| {
        let copy = TempDir::new().unwrap();
        copy_folder(&folder, copy.path());
        recorded.lock().push((step, copy));
    });
    crashes
}

/// Events of two classes, so that a commit has two tables to write.
fn two_classes(epoch: u64, count: u64) -> Vec<Event> {
    let events = (0..).map(|sequence| events::plausible(epoch, sequence)).filter(|event| {
        matches!(event.body, EventBody::ProcessStart(_) | EventBody::ProcessExit(_) | EventBody::ConnectionClose(_))
    });
    let renumber = |(sequence, event): (u64, Event)| Event {
        key: EventKey { epoch: Epoch(epoch), sequence: Sequence(sequence) },
        ..event
    };
    (0..).zip(events).map(renumber).take(count as usize).collect()
}

async fn store(state: &State, host_number: u8, events: &[Event], expected: &mut Vec<(HostId, Event)>) {
    for (batch, chunk) in (0..).zip(events.chunks(10)) {
        assert!(matches!(state.append(host_number, batch, chunk).await, Appended::Stored(_)));
    }
    expected.extend(events.iter().map(|event| (host(host_number), event.clone())));
}

/// Opens each copy. The agents send again what they were not told about, and one of them something new.
async fn check(crashes: Crashes, resent: &[Event], mut expected: Vec<(HostId, Event)>) {
    let new = events::plausible(9, 2);
    expected.push((host(3), new.clone()));
    let crashes = std::mem::take(&mut *crashes.lock());
    for (step, folder) in crashes {
        let crashed = State::open(folder).await;
        for (batch, chunk) in (0..).zip(resent.chunks(10)) {
            assert_eq!(crashed.append(1, batch, chunk).await, Appended::Duplicate, "{step}");
        }
        crashed.append(3, 0, std::slice::from_ref(&new)).await;
        crashed.lake.commit().await.unwrap();
        assert_eq!(crashed.read(EventFilter::default()).await, expected, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_commit_neither_loses_nor_doubles_events() {
    let state = State::new().await;
    let mut expected = Vec::new();
    let first = two_classes(1, 60);
    store(&state, 1, &first, &mut expected).await;
    state.lake.commit().await.unwrap();
    // The second commit meets tables that have something; its records share a segment with committed ones.
    store(&state, 2, &two_classes(5, 60), &mut expected).await;
    let crashes = record_crashes(&state);
    state.lake.commit().await.unwrap();
    let steps: Vec<&str> = crashes.lock().iter().map(|(step, _)| *step).collect();
    let file = ["before a file is written", "before a file gets its name", "after a file got its name"];
    let table = [&["before a table's commit"], &file[..], &file[..], &["after a table's commit"]].concat();
    let end = ["before the log is released", "after the log was released"];
    assert_eq!(steps, [&table[..], &table[..], &end[..]].concat());
    check(crashes, &first, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_during_compaction_changes_no_row() {
    let state = State::new().await;
    let mut expected = Vec::new();
    let events = two_classes(1, 160);
    store(&state, 1, &[], &mut expected).await;
    for (batch, chunk) in (0..).zip(events.chunks(10)) {
        state.append(1, batch, chunk).await;
        state.lake.commit().await.unwrap();
    }
    expected.extend(events.iter().map(|event| (host(1), event.clone())));
    let crashes = record_crashes(&state);
    state.lake.maintain().await.unwrap();
    assert!(state.lake.counters().files_compacted > 0);
    // Two tables, each a file and a log entry; the vacuum's entries after them change no row either.
    crashes.lock().truncate(12);
    check(crashes, &events, expected.clone()).await;
    assert_eq!(state.read(EventFilter::default()).await, expected);
}

/// What fails is tried again, by itself and with what came later, and a round is visible whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_between_tables_is_made_good_by_the_next_commit() {
    let state = State::new().await;
    let mut expected = Vec::new();
    store(&state, 1, &two_classes(1, 60), &mut expected).await;
    // A file stands where a table's folder of the day should be: its commit fails, the one before it succeeds.
    let day = state.folder.path().join("lake/network_activity/event_day=2026-11-22");
    fs::write(&day, b"").unwrap();
    for _ in 0..3 {
        let error = state.lake.commit().await.unwrap_err();
        assert!(matches!(error, LakeError::Table { class: EventClass::NetworkActivity, .. }), "{error}");
        assert_eq!(state.read(EventFilter::default()).await, []);
    }
    assert_eq!(state.lake.counters().commit_errors, 3);
    store(&state, 2, &two_classes(1, 20), &mut expected).await;
    fs::remove_file(&day).unwrap();
    state.lake.commit().await.unwrap();
    assert_eq!(state.read(EventFilter::default()).await, expected);
    let state = state.reopen().await;
    state.lake.commit().await.unwrap();
    assert_eq!(state.read(EventFilter::default()).await, expected);
}
