//! Tests of the log as a whole, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use picket_common::batch::BatchBuilder;
use picket_common::event::{Event, EventBody, LossReason, LossStage, Origin, SensorLoss, Timestamp};
use picket_common::id::{EventKey, Sequence};
use tempfile::TempDir;

use super::*;

fn host(number: u8) -> HostId {
    HostId::from_bytes([number; 16])
}

/// A batch of one event.
fn record(host_number: u8, epoch: u64, batch: u64) -> WalRecord {
    let event = Event {
        key: EventKey { epoch: Epoch(epoch), sequence: Sequence(batch) },
        time: Timestamp(1_700_000_000_000_000_000),
        origin: Origin::Agent,
        body: EventBody::SensorLoss(SensorLoss {
            stage: LossStage::Sensor,
            reason: LossReason::QueueFull,
            count: batch,
            epoch: Epoch(epoch),
        }),
    };
    let mut builder = BatchBuilder::new();
    builder.push(&event).unwrap();
    let frame = builder.finish(Epoch(epoch), BatchSequence(batch)).unwrap();
    WalRecord { host: host(host_number), frame: frame.into() }
}

fn open(folder: &Path) -> Wal {
    Wal::open(folder, WalConfig::default()).unwrap()
}

/// A log whose segments hold a few records each.
fn open_small(folder: &Path) -> Wal {
    Wal::open(folder, WalConfig { segment_bytes: 1000 }).unwrap()
}

async fn store(wal: &Wal, batches: std::ops::Range<u64>) {
    for batch in batches {
        assert!(matches!(wal.append(record(1, 1, batch)).await, Ok(Appended::Stored(_))));
    }
}

/// Positions and frames of everything in the log.
fn contents(wal: &Wal) -> BTreeMap<u64, Bytes> {
    let mut cursor = wal.start();
    let mut all = BTreeMap::new();
    loop {
        let (records, after) = wal.read(cursor, 300).unwrap();
        if records.is_empty() {
            return all;
        }
        for record in records {
            assert!(record.position >= cursor.position());
            assert_eq!(all.insert(record.position.0, record.frame), None);
        }
        cursor = after;
    }
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn records_come_back_after_reopening_as_they_were() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..20).await;
    let before = contents(&wal);
    assert_eq!(before.keys().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(before[&7], record(1, 1, 7).frame);
    assert!(wal.counters().segments > 2);
    drop(wal);

    let wal = open_small(folder.path());
    assert_eq!(contents(&wal), before);
    assert_eq!(wal.open_report().records, 20);
    assert_eq!((wal.open_report().torn_bytes, wal.open_report().damaged_bytes), (0, 0));
    assert_eq!(wal.append(record(1, 1, 20)).await.unwrap(), Appended::Stored(WalPosition(20)));
    assert_eq!(contents(&wal).len(), 21);
}

#[tokio::test]
async fn a_batch_sent_again_is_stored_once() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    store(&wal, 0..3).await;
    assert_eq!(wal.append(record(1, 1, 1)).await.unwrap(), Appended::Duplicate);
    // The same numbers of another host or epoch are other batches.
    assert!(matches!(wal.append(record(2, 1, 1)).await.unwrap(), Appended::Stored(_)));
    assert!(matches!(wal.append(record(1, 2, 1)).await.unwrap(), Appended::Stored(_)));
    drop(wal);
    let wal = open(folder.path());
    assert_eq!(wal.append(record(1, 1, 2)).await.unwrap(), Appended::Duplicate);
    assert!(wal.contains(host(1), Epoch(1), BatchSequence(2)));
    assert!(!wal.contains(host(1), Epoch(1), BatchSequence(3)));
    assert_eq!(contents(&wal).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_from_many_tasks_at_once_is_stored_once() {
    let folder = TempDir::new().unwrap();
    let wal = Arc::new(open(folder.path()));
    let tasks: Vec<_> = (0..64u64)
        .map(|n| {
            let wal = wal.clone();
            tokio::spawn(async move { wal.append(record(1, 1, n % 8)).await.unwrap() })
        })
        .collect();
    let mut stored = 0;
    for task in tasks {
        stored += usize::from(matches!(task.await.unwrap(), Appended::Stored(_)));
    }
    assert_eq!(stored, 8);
    assert_eq!(contents(&wal).len(), 8);
    assert_eq!(wal.counters().duplicates, 56);
}

#[tokio::test]
async fn deduplication_survives_deleted_segments() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..30).await;
    let many = segments(folder.path()).len();
    wal.release(WalPosition(25)).unwrap();
    assert!(segments(folder.path()).len() < many);
    let kept = contents(&wal);
    assert!(kept.keys().next().unwrap() <= &25, "nothing from 25 on may be deleted");
    assert!(kept.contains_key(&29));
    wal.release(wal.end().position).unwrap();
    assert_eq!(segments(folder.path()).len(), 1, "the last one stays");
    drop(wal);

    let wal = open_small(folder.path());
    assert_eq!(wal.end().position, WalPosition(30));
    for batch in 0..30 {
        assert_eq!(wal.append(record(1, 1, batch)).await.unwrap(), Appended::Duplicate, "batch {batch}");
    }
    assert_eq!(wal.append(record(1, 1, 30)).await.unwrap(), Appended::Stored(WalPosition(30)));
}

/// kill -9 leaves what was written so far: any prefix of the last write.
#[tokio::test]
async fn a_torn_tail_is_cut_at_every_length() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    store(&wal, 0..4).await;
    drop(wal);
    let segment = segments(folder.path()).remove(0);
    let bytes = fs::read(&segment).unwrap();
    let one = (bytes.len() - segment::SEGMENT_HEADER_BYTES) / 4;
    for length in (0..bytes.len()).step_by(3) {
        let crashed = copy(folder.path());
        let path = crashed.path().join(segment.file_name().unwrap());
        fs::write(&path, &bytes[..length]).unwrap();
        let wal = open(crashed.path());
        let whole = length.saturating_sub(segment::SEGMENT_HEADER_BYTES) / one;
        assert_eq!(contents(&wal).len(), whole, "length {length}");
        let torn = length.saturating_sub(segment::SEGMENT_HEADER_BYTES + whole * one) as u64;
        assert_eq!(wal.open_report().torn_bytes, torn, "length {length}");
        assert_eq!(wal.open_report().damaged_bytes, 0, "length {length}");
        // What was torn was never acknowledged, so it comes again.
        for batch in 0..5 {
            wal.append(record(1, 1, batch)).await.unwrap();
        }
        assert_eq!(contents(&wal).len(), 5, "length {length}");
        drop(wal);
        let wal = open(crashed.path());
        assert_eq!((contents(&wal).len(), wal.open_report().torn_bytes), (5, 0), "length {length}");
    }
}

#[tokio::test]
async fn damage_costs_the_records_it_hits_and_is_counted_each_time() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..12).await;
    let before = contents(&wal);
    drop(wal);
    let segment = segments(folder.path()).remove(1);
    let pristine = fs::read(&segment).unwrap();
    for at in (0..pristine.len()).step_by(5) {
        let mut bytes = pristine.clone();
        bytes[at] ^= 0x40;
        fs::write(&segment, &bytes).unwrap();
        for _ in 0..2 {
            let wal = open_small(folder.path());
            let report = wal.open_report().clone();
            let after = contents(&wal);
            let in_header = at < segment::SEGMENT_HEADER_BYTES;
            // Four bytes at the header's end mean nothing.
            let harmless = (52..56).contains(&at);
            let lost = u64::from(!in_header);
            assert_eq!(report.missing_records, lost, "byte {at}");
            assert_eq!(after.len() as u64, 12 - lost, "byte {at}");
            assert_eq!(report.damaged_bytes > 0, !harmless, "byte {at}");
            assert_eq!(report.damage.len(), usize::from(!harmless), "byte {at}");
            assert!(after.iter().all(|(position, frame)| before[position] == *frame), "byte {at}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_counted() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..12).await;
    let all = contents(&wal).len();
    drop(wal);
    fs::remove_file(segments(folder.path()).remove(1)).unwrap();
    let wal = open_small(folder.path());
    let left = contents(&wal).len();
    assert!(left < all);
    assert_eq!(wal.open_report().missing_records, (all - left) as u64);
}

#[tokio::test]
async fn a_full_disk_refuses_and_then_goes_on() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..5).await;
    let before = contents(&wal);
    for bytes in [0, 1, 67, 68, 100] {
        wal.shared.folder.faults.disk_is_full(Some(bytes));
        // Into this segment, and where the next segment cannot be created.
        for batch in 5..12 {
            let error = wal.append(record(1, 1, batch)).await.unwrap_err();
            assert!(matches!(error, WalError::DiskFull { .. }) && error.is_retryable(), "{error}");
            assert!(!wal.contains(host(1), Epoch(1), BatchSequence(batch)));
        }
        assert_eq!(contents(&wal), before);
        // A crash now finds no trace of the refused records.
        let crashed = copy(folder.path());
        let reopened = open_small(crashed.path());
        assert_eq!(contents(&reopened), before);
        assert_eq!(reopened.open_report().torn_bytes, 0);
    }
    wal.shared.folder.faults.disk_is_full(None);
    store(&wal, 5..12).await;
    assert_eq!(contents(&wal).keys().copied().collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_sync_closes_the_log() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    store(&wal, 0..3).await;
    wal.shared.folder.faults.syncs_fail();
    for batch in 3..6 {
        let error = wal.append(record(1, 1, batch)).await.unwrap_err();
        assert!(matches!(error, WalError::Poisoned { .. }) && error.is_retryable(), "{error}");
    }
    assert!(wal.counters().poisoned);
    assert_eq!(wal.append(record(1, 1, 1)).await.unwrap(), Appended::Duplicate, "what is durable stays so");
    assert_eq!(contents(&wal).len(), 3);
    drop(wal);
    let wal = open(folder.path());
    assert_eq!(contents(&wal).len(), 3);
    store(&wal, 3..6).await;
}

#[tokio::test]
async fn positions_are_skipped_for_a_lake_that_knows_more() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    store(&wal, 0..3).await;
    wal.skip_to(WalPosition(100)).await.unwrap();
    wal.skip_to(WalPosition(50)).await.unwrap();
    assert_eq!(wal.append(record(1, 1, 3)).await.unwrap(), Appended::Stored(WalPosition(100)));
    let before = contents(&wal);
    assert_eq!(before.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 100]);
    drop(wal);
    let wal = open(folder.path());
    assert_eq!(contents(&wal), before);
    assert_eq!(wal.open_report().missing_records, 0);
}

#[tokio::test]
async fn what_is_no_batch_is_refused() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    let frame = Bytes::from_static(b"GET / HTTP/1.1");
    let error = wal.append(WalRecord { host: host(1), frame }).await.unwrap_err();
    assert!(matches!(error, WalError::Frame(_)) && !error.is_retryable(), "{error}");
    let frame = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let error = wal.append(WalRecord { host: host(1), frame }).await.unwrap_err();
    assert!(matches!(error, WalError::TooLarge { .. }) && !error.is_retryable(), "{error}");
    assert_eq!(wal.end(), LogEnd::default());
}

#[tokio::test]
async fn folders_are_not_shared_or_mixed() {
    let folder = TempDir::new().unwrap();
    let wal = open(folder.path());
    store(&wal, 0..1).await;
    assert!(matches!(Wal::open(folder.path(), WalConfig::default()), Err(WalError::Locked { .. })));
    drop(wal);

    let other = TempDir::new().unwrap();
    let wal = open_small(other.path());
    store(&wal, 0..30).await;
    drop(wal);
    let foreign = segments(other.path()).remove(1);
    fs::copy(&foreign, folder.path().join(foreign.file_name().unwrap())).unwrap();
    assert!(matches!(Wal::open(folder.path(), WalConfig::default()), Err(WalError::ForeignSegment { .. })));
}

#[tokio::test]
async fn a_damaged_list_of_batches_is_not_guessed() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..30).await;
    wal.release(WalPosition(30)).unwrap();
    drop(wal);
    let path = folder.path().join("dedupe.snapshot");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Wal::open(folder.path(), WalConfig::default()).unwrap_err();
    assert!(matches!(error, WalError::DedupeDamaged { .. }), "{error}");
}

/// The crash points of a release: before and after the snapshot, and between deletions.
#[tokio::test]
async fn a_crash_during_a_release_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let wal = open_small(folder.path());
    store(&wal, 0..30).await;
    let before = copy(folder.path());
    wal.release(WalPosition(30)).unwrap();
    let snapshot = folder.path().join("dedupe.snapshot");
    let old_segments = segments(before.path());
    for deleted in 0..old_segments.len() - 1 {
        let crashed = copy(before.path());
        fs::write(crashed.path().join("dedupe.snapshot.tmp"), b"half a snapsh").unwrap();
        fs::copy(&snapshot, crashed.path().join("dedupe.snapshot")).unwrap();
        for path in &old_segments[..deleted] {
            fs::remove_file(crashed.path().join(path.file_name().unwrap())).unwrap();
        }
        let wal = open_small(crashed.path());
        for batch in 0..30 {
            assert_eq!(wal.append(record(1, 1, batch)).await.unwrap(), Appended::Duplicate, "{deleted} {batch}");
        }
        assert_eq!(wal.end().position, WalPosition(30));
        assert_eq!(wal.open_report().missing_records, 0);
        assert!(!crashed.path().join("dedupe.snapshot.tmp").exists());
    }
}
