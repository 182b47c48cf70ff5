//! Small files and long logs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_commits_stay_small_and_readable() {
    const COMMITS: u64 = 102;
    let state = State::new().await;
    let log = state.folder.path().join("lake/process_activity/_delta_log");
    let mut expected = Vec::new();
    for batch in 0..COMMITS {
        let event = events::plausible(1, batch * 20 + 2);
        let event = Event {
            key: picket_common::id::EventKey { sequence: picket_common::id::Sequence(batch), ..event.key },
            ..event
        };
        state.append(1, batch, std::slice::from_ref(&event)).await;
        expected.push((host(1), event));
        if batch == COMMITS - 5 {
            make_old(&log);
        }
        state.lake.commit().await.unwrap();
    }
    assert!(!log.join("00000000000000000001.json").exists(), "old entries before a checkpoint are removed");
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
    let checkpoints = fs::read_dir(log)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("checkpoint.parquet"));
    assert!(checkpoints.count() >= 2);
    let state = state.reopen().await;
    state.lake.commit().await.unwrap();
    assert_eq!(state.read(EventFilter::default()).await, expected);
}

/// Two days pass for these files.
fn make_old(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let file = OpenOptions::new().write(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 86_400)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_version_needs_are_deleted() {
    let state = State::new().await;
    let event = events::plausible(1, 2);
    state.append(1, 0, std::slice::from_ref(&event)).await;
    state.lake.commit().await.unwrap();
    let day = state.folder.path().join("lake/process_activity/event_day=2026-11-22");
    // What a crash between writing a file and committing it leaves.
    fs::write(day.join("part-00000-orphan.zstd.parquet"), b"").unwrap();
    make_old(&day);
    state.lake.maintain().await.unwrap();
    assert_eq!(state.lake.counters().files_deleted, 1);
    assert_eq!(fs::read_dir(&day).unwrap().count(), 1);
    assert_eq!(state.read(EventFilter::default()).await, [(host(1), event)]);
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
