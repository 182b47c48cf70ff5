//! Small files and long logs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_commits_stay_small_and_readable() {
    const COMMITS: u64 = 102;
    let state = State::new().await;
    let mut expected = Vec::new();
    for batch in 0..COMMITS {
        let event = events::plausible(1, batch * 20 + 2);
        let event = Event {
            key: picket_common::id::EventKey { sequence: picket_common::id::Sequence(batch), ..event.key },
            ..event
        };
        state.append(1, batch, std::slice::from_ref(&event)).await;
        expected.push((host(1), event));
        state.lake.commit().await.unwrap();
    }
    let table = EventClass::ProcessActivity;
    let files = async |state: &State| state.lake.inner.commit.lock().await.tables[&table].files();
    assert_eq!(files(&state).await, COMMITS as usize);
    let before = state.lake.table_versions();
    state.lake.maintain().await.unwrap();
    assert_eq!(files(&state).await, 1);
    assert!(state.lake.table_versions().0[&table] > before.0[&table]);
    assert_eq!(state.read(EventFilter::default()).await, expected);
    // What was pinned before can still be read.
    let pinned: Vec<_> = state.lake.read_events(&before, EventFilter::default()).try_collect().await.unwrap();
    assert_eq!(pinned, expected);
    // An open reads a checkpoint and few entries.
    let log = state.folder.path().join("lake/process_activity/_delta_log");
    let checkpoints = fs::read_dir(log)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("checkpoint.parquet"));
    assert!(checkpoints.count() >= 2);
    let state = state.reopen().await;
    state.lake.commit().await.unwrap();
    assert_eq!(state.read(EventFilter::default()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_is_left_alone_below_its_threshold() {
    let state = State::new().await;
    for batch in 0..3 {
        state.append(1, batch, &[events::plausible(1, batch * 20 + 2)]).await;
        state.lake.commit().await.unwrap();
    }
    let before = state.lake.table_versions();
    state.lake.maintain().await.unwrap();
    assert_eq!(state.lake.counters().files_compacted, 0);
    let rows = state.sql("SELECT sequence FROM process_activity ORDER BY sequence").await;
    assert_eq!(rows.len(), 3);
    assert!(state.lake.table_versions().0.keys().eq(before.0.keys()));
}
