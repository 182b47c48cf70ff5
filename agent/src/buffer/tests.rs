use std::fs;

use super::*;
use crate::buffer::tests::queue::it_behaves_like_a_queue_with_a_ceiling;

mod queue;

/// A buffer with more room than a test needs.
fn roomy(store: StoreKind) -> BufferConfig {
    BufferConfig { bytes_max: 64 * 1024 * 1024, store }
}

fn open(folder: &Path, config: BufferConfig) -> Buffer {
    let (buffer, damage) = Buffer::open(folder, config).unwrap();
    assert_eq!(damage, None);
    buffer
}

fn record<'a>(priority: Priority, items: u32, payload: &'a [u8]) -> NewRecord<'a> {
    NewRecord { priority, items, tag: b"tag", payload }
}

fn append(buffer: &mut Buffer, priority: Priority, payload: &[u8]) -> RecordNumber {
    buffer.append(record(priority, 1, payload), |_| Vec::new()).unwrap()
}

fn lease_all(buffer: &mut Buffer) -> Vec<LeasedRecord> {
    buffer.lease(usize::MAX, usize::MAX).unwrap().records
}

fn payloads(buffer: &mut Buffer) -> Vec<Vec<u8>> {
    lease_all(buffer).into_iter().map(|record| record.payload).collect()
}

fn records_come_back_in_order_whatever_their_priority_and_size(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let sizes = [0, 1, record::CHUNK_BYTES_MAX - 22, record::CHUNK_BYTES_MAX, 10_000, PAYLOAD_BYTES_MAX];
    let wanted: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|i| (i % 251) as u8).collect()).collect();
    {
        let mut buffer = open(&folder, roomy(store));
        for (payload, priority) in wanted.iter().zip(Priority::ALL.iter().cycle()) {
            append(&mut buffer, *priority, payload);
        }
    }
    let mut buffer = open(&folder, roomy(store));
    assert_eq!(payloads(&mut buffer), wanted);
    assert_eq!(lease_all(&mut buffer), Vec::new(), "leased records are not handed out twice");
    buffer.rollback();
    assert_eq!(payloads(&mut buffer), wanted);
}

fn metadata_is_written_with_the_append_and_with_the_commit(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let write = |value: &[u8]| vec![MetadataWrite { key: b"count".to_vec(), value: Some(value.to_vec()) }];
    {
        let mut buffer = open(&folder, roomy(store));
        buffer.append(record(Priority::Low, 3, b"x"), |_| write(b"3")).unwrap();
        assert_eq!(buffer.metadata(b"count").unwrap().as_deref(), Some(&b"3"[..]));
        let leased = lease_all(&mut buffer);
        buffer.commit(leased[0].info.number, &write(b"0")).unwrap();
        assert!(matches!(buffer.commit(leased[0].info.number, &[]), Err(BufferError::NotLeased { .. })));
    }
    let buffer = open(&folder, roomy(store));
    assert_eq!(buffer.metadata_with_prefix(b"co").unwrap(), vec![(b"count".to_vec(), b"0".to_vec())]);
    assert_eq!(buffer.stats(), BufferStats { disk_bytes: buffer.stats().disk_bytes, ..BufferStats::default() });
}

fn a_full_buffer_drops_the_oldest_of_the_lowest_priority_and_reports_it(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), BufferConfig { bytes_max: 5_500, store });
    let kilobyte = [7; 1_000];
    for priority in [Priority::Normal, Priority::Low, Priority::Low, Priority::High, Priority::Normal] {
        append(&mut buffer, priority, &kilobyte);
    }
    let mut evicted = Vec::new();
    let mut push = |buffer: &mut Buffer, priority| {
        buffer.append(record(priority, 9, &kilobyte), |gone| {
            evicted.extend(gone.iter().map(|info| (info.number.0, info.tag.clone())));
            Vec::new()
        })
    };
    for _ in 0..3 {
        push(&mut buffer, Priority::Normal).unwrap();
    }
    assert!(matches!(push(&mut buffer, Priority::Low), Err(BufferError::Full { .. })), "nothing lower is left");
    for _ in 0..5 {
        push(&mut buffer, Priority::Highest).unwrap();
    }
    let numbers: Vec<u64> = evicted.iter().map(|(number, _)| *number).collect();
    // Both low ones, the normal ones by age, at last the high one.
    assert_eq!(numbers, [2, 3, 1, 5, 6, 7, 8, 4]);
    assert!(evicted.iter().all(|(_, tag)| tag == b"tag"));
    let stats = buffer.stats();
    assert!(stats.bytes <= 5_500, "{stats:?}");
    assert_eq!((stats.records, stats.items), (5, 45));
}

fn what_was_sent_is_never_evicted_even_after_a_restart(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let config = BufferConfig { bytes_max: 3_300, store };
    let kilobyte = [7; 1_000];
    {
        let mut buffer = open(&folder, config);
        for _ in 0..3 {
            append(&mut buffer, Priority::Low, &kilobyte);
        }
        assert_eq!(buffer.lease(2, usize::MAX).unwrap().records.len(), 2);
        buffer.rollback();
    }
    let mut buffer = open(&folder, config);
    let mut gone = Vec::new();
    for _ in 0..2 {
        buffer
            .append(record(Priority::High, 1, &kilobyte), |infos| {
                gone.extend(infos.iter().map(|info| info.number.0));
                Vec::new()
            })
            .unwrap_or(RecordNumber(0));
    }
    assert_eq!(gone, [3, 4], "never 1 and 2, although they are the oldest");
    let left: Vec<u64> = lease_all(&mut buffer).iter().map(|record| record.info.number.0).collect();
    assert_eq!(left, [5, 1, 2], "what is new first");
}

fn a_record_that_does_not_fit_changes_nothing(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), BufferConfig { bytes_max: 2_000, store });
    append(&mut buffer, Priority::Low, b"small");
    let before = buffer.stats();
    let full = buffer.append(record(Priority::Highest, 1, &[0; 3_000]), |_| panic!("no eviction was decided"));
    assert!(matches!(full, Err(BufferError::Full { ceiling: 2_000, .. })));
    let large = buffer.append(record(Priority::Highest, 1, &vec![0; PAYLOAD_BYTES_MAX + 1]), |_| Vec::new());
    assert!(matches!(large, Err(BufferError::TooLarge { what: "record", .. })));
    assert_eq!(buffer.stats(), before);
}

fn an_unreadable_record_is_removed_and_counted(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), roomy(store));
    append(&mut buffer, Priority::Low, b"first");
    append(&mut buffer, Priority::Low, &[1; 9_000]);
    append(&mut buffer, Priority::Low, b"third");
    let second = RecordKey { priority: Priority::Low, number: RecordNumber(2) };
    let mut changes = Changes::default();
    changes.remove(&second.chunk(1)[..]);
    buffer.store.apply(changes).unwrap();

    let lease = buffer.lease(10, usize::MAX).unwrap();
    assert_eq!(lease.unreadable, 1);
    let payloads: Vec<&[u8]> = lease.records.iter().map(|record| &record.payload[..]).collect();
    assert_eq!(payloads, [&b"first"[..], &b"third"[..]]);
    for record in &lease.records {
        buffer.commit(record.info.number, &[]).unwrap();
    }
    assert_eq!(buffer.stats().records, 0);
}

fn a_lease_is_bounded_by_count_and_bytes(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), roomy(store));
    for _ in 0..10 {
        append(&mut buffer, Priority::Normal, &[1; 1_000]);
    }
    assert_eq!(buffer.lease(3, usize::MAX).unwrap().records.len(), 3);
    assert_eq!(buffer.lease(usize::MAX, 2_000).unwrap().records.len(), 2);
    assert_eq!(buffer.stats().leased, 5);
}

fn what_is_new_has_half_of_each_lease_while_old_records_wait(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let numbers = |lease: &Lease| lease.records.iter().map(|record| record.info.number.0).collect::<Vec<_>>();
    {
        let mut buffer = open(&folder, roomy(store));
        for _ in 0..10 {
            append(&mut buffer, Priority::Low, b"old");
        }
        assert_eq!(numbers(&buffer.lease(3, usize::MAX).unwrap()), [1, 2, 3], "all of it is equally new");
    }
    let mut buffer = open(&folder, roomy(store));
    for _ in 0..4 {
        append(&mut buffer, Priority::Low, b"new");
    }
    assert_eq!(numbers(&buffer.lease(4, usize::MAX).unwrap()), [11, 12, 1, 2]);
    // One at a time they take turns.
    let single: Vec<u64> = (0..4).flat_map(|_| numbers(&buffer.lease(1, usize::MAX).unwrap())).collect();
    assert_eq!(single, [13, 3, 14, 4]);
    // A connection that ends begins anew with what it has not settled; where there is nothing new, all is old.
    for number in [1, 12] {
        buffer.commit(RecordNumber(number), &[]).unwrap();
    }
    buffer.rollback();
    append(&mut buffer, Priority::Low, b"newer");
    assert_eq!(numbers(&buffer.lease(20, usize::MAX).unwrap()), [15, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]);
    append(&mut buffer, Priority::Low, b"newest");
    assert_eq!(numbers(&buffer.lease(20, usize::MAX).unwrap()), [16]);
}

fn what_no_connection_has_sent_is_evicted_and_nothing_else(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let config = BufferConfig { bytes_max: 6_500, store };
    let kilobyte = [7; 1_000];
    let mut buffer = open(&folder, config);
    for _ in 0..4 {
        append(&mut buffer, Priority::Low, &kilobyte);
    }
    buffer.rollback();
    append(&mut buffer, Priority::Low, &kilobyte);
    // The new one and the oldest have been sent, what lies between them has not.
    assert_eq!(buffer.lease(2, usize::MAX).unwrap().records.len(), 2);
    drop(buffer);
    let mut buffer = open(&folder, config);
    let mut gone = Vec::new();
    for _ in 0..4 {
        let noted = |infos: &[RecordInfo]| {
            gone.extend(infos.iter().map(|info| info.number.0));
            Vec::new()
        };
        buffer.append(record(Priority::High, 1, &kilobyte), noted).unwrap();
    }
    assert_eq!(gone, [2, 3, 4]);
}

fn set_aside_starts_afresh_and_keeps_two(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let mut buffer = open(&folder, roomy(store));
    for round in 0..4 {
        append(&mut buffer, Priority::Normal, b"x");
        let damage = buffer.set_aside("for the test").unwrap();
        assert_eq!(damage.set_aside, dir.path().join(format!("buffer.damaged-{round}")));
        assert_eq!(buffer.stats().records, 0);
    }
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["buffer", "buffer.damaged-2", "buffer.damaged-3"]);
}

fn a_store_that_ends_the_process_while_it_is_opened_is_set_aside_after_a_few_attempts(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    drop(open(&folder, roomy(store)));
    // What processes that died inside the store's recovery leave behind.
    fs::write(folder.join("opening"), b"....").unwrap();
    drop(open(&folder, roomy(store)));
    assert!(!folder.join("opening").exists(), "an opening that came back is forgotten");
    fs::write(folder.join("opening"), b".....").unwrap();
    let (_, damage) = Buffer::open(&folder, roomy(store)).unwrap();
    assert!(damage.unwrap().detail.contains("5 times"));
}

fn records_that_come_back_after_they_were_removed_are_damage(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), roomy(store));
    append(&mut buffer, Priority::Normal, b"first");
    // Who asks for nothing learns nothing.
    assert_eq!(buffer.lease(0, usize::MAX).unwrap(), Lease::default());
    buffer.lanes.old.cursor = RecordNumber(7);
    let error = buffer.lease(8, usize::MAX).unwrap_err();
    assert!(error.needs_reopen() && error.to_string().contains("neither be read nor removed"), "{error}");
}

/// Damages each file of the store in many ways: the buffer must open (afresh if need be), never panic, and work.
fn damaged_files_never_stop_the_buffer(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let pristine = dir.path().join("pristine");
    {
        let mut buffer = open(&pristine, roomy(store));
        for index in 0..200_u32 {
            let payload: Vec<u8> = (0..2_000).map(|i| (i * index % 253) as u8).collect();
            append(&mut buffer, Priority::Normal, &payload);
        }
        for record in buffer.lease(20, usize::MAX).unwrap().records {
            buffer.commit(record.info.number, &[]).unwrap();
        }
        buffer.flush().unwrap();
    }
    let mut set_aside = 0;
    let mut case = 0;
    for file in files_under(&pristine) {
        let relative = file.strip_prefix(&pristine).unwrap();
        let whole = fs::read(&file).unwrap();
        let mut variants: Vec<Vec<u8>> = [0, 1, 7, whole.len() / 3, whole.len() / 2, whole.len().saturating_sub(1)]
            .map(|n| whole[..n.min(whole.len())].to_vec())
            .into();
        let mut state = 0x9e37_79b9_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize
        };
        variants.push((0..whole.len()).map(|_| random() as u8).collect());
        for flips in [1, 16, 400] {
            let mut damaged = whole.clone();
            for _ in 0..flips.min(damaged.len()) {
                let at = random() % damaged.len();
                damaged[at] ^= 1 << (random() % 8);
            }
            variants.push(damaged);
        }
        for damaged in variants {
            case += 1;
            let folder = dir.path().join(format!("case-{case}")).join("buffer");
            copy_tree(&pristine, &folder);
            fs::write(folder.join(relative), &damaged).unwrap();
            set_aside += usize::from(still_works(&folder, store));
            fs::remove_dir_all(folder.parent().unwrap()).unwrap();
        }
    }
    assert!(set_aside > 5, "only {set_aside} of {case} were noticed");
}

/// Opens, uses and empties the buffer as the agent would. Returns whether a store was set aside.
fn still_works(folder: &Path, store: StoreKind) -> bool {
    let (mut buffer, damage) = Buffer::open(folder, roomy(store)).unwrap();
    let mut noticed = damage.is_some();
    for _ in 0..3 {
        let used = buffer.append(record(Priority::High, 1, b"after the damage"), |_| Vec::new()).and_then(|_| {
            loop {
                let lease = buffer.lease(8, usize::MAX)?;
                if lease.records.is_empty() {
                    return Ok(());
                }
                for record in lease.records {
                    buffer.commit(record.info.number, &[])?;
                }
            }
        });
        match used {
            Ok(()) => {
                assert_eq!(buffer.stats().records, 0);
                return noticed;
            }
            Err(error) => {
                assert!(error.needs_reopen(), "{error}");
                buffer.set_aside(&error.to_string()).unwrap();
                noticed = true;
            }
        }
    }
    panic!("a fresh store fails too");
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), &target).map(drop).unwrap()
        }
    }
}

fn an_emptied_buffer_gives_its_disk_space_back(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let mut buffer = open(&folder, roomy(store));
    buffer.write_metadata(&[MetadataWrite { key: b"kept".to_vec(), value: Some(b"1".to_vec()) }]).unwrap();
    for index in 0..16_u8 {
        append(&mut buffer, Priority::Normal, &vec![index; PAYLOAD_BYTES_MAX]);
    }
    let next = buffer.totals.next;
    buffer.reclaim().unwrap();
    assert!(buffer.stats().disk_bytes > RECLAIM_BYTES_MIN, "not while there are records");
    for record in lease_all(&mut buffer) {
        buffer.commit(record.info.number, &[]).unwrap();
    }
    // A file that is still large, whatever the store gave back by itself.
    if buffer.stats().disk_bytes >= RECLAIM_BYTES_MIN {
        buffer.reclaim().unwrap();
    }
    assert!(buffer.stats().disk_bytes < RECLAIM_BYTES_MIN);
    assert_eq!(buffer.metadata(b"kept").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(append(&mut buffer, Priority::Normal, b"x"), next, "numbers go on");
    drop(buffer);
    assert_eq!(payloads(&mut open(&folder, roomy(store))), [b"x"]);
    assert_eq!(folders_under(&folder), [store.folder()]);
}

/// The stores, and what is on its way in or out.
fn folders_under(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn a_replacement_that_was_cut_short_is_finished(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    append(&mut open(&folder, roomy(store)), Priority::Normal, b"x");
    let [current, old, new] = ["", ".old", ".new"].map(|end| folder.join(format!("{}{end}", store.folder())));
    // Killed between the two renames.
    copy_tree(&current, &new);
    fs::rename(&current, &old).unwrap();
    assert_eq!(payloads(&mut open(&folder, roomy(store))), [b"x"]);
    // Killed before the first, and after the second.
    copy_tree(&current, &new);
    copy_tree(&current, &old);
    assert_eq!(payloads(&mut open(&folder, roomy(store))), [b"x"]);
    assert_eq!(folders_under(&folder), [store.folder()]);
}

/// What waits, accounts included, moves to the other kind of store, wherever that is cut short.
fn another_kind_takes_over_what_waits(store: StoreKind) {
    let other = if store == StoreKind::Sled { StoreKind::Redb } else { StoreKind::Sled };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let records: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; 400 * usize::from(number)]).collect();
    let stats = {
        let mut buffer = open(&folder, roomy(other));
        buffer.write_metadata(&[MetadataWrite { key: b"kept".to_vec(), value: Some(b"1".to_vec()) }]).unwrap();
        for record in &records {
            append(&mut buffer, Priority::Normal, record);
        }
        buffer.stats()
    };
    let before = dir.path().join("before");
    copy_tree(&folder, &before);
    let check = |folder: &Path| {
        let mut buffer = open(folder, roomy(store));
        let now = buffer.stats();
        assert_eq!((now.records, now.bytes, now.items), (stats.records, stats.bytes, stats.items));
        assert_eq!(payloads(&mut buffer), records);
        assert_eq!(buffer.metadata(b"kept").unwrap().as_deref(), Some(&b"1"[..]));
        drop(buffer);
        assert_eq!(folders_under(folder), [store.folder()]);
    };
    check(&folder);
    // Killed while it copied, and before the old one was removed.
    let half = before.join(format!("{}.new", store.folder()));
    drop(Store::open(store, &half).unwrap());
    copy_tree(&before, &dir.path().join("copying"));
    check(&dir.path().join("copying"));
    copy_tree(&before.join(other.folder()), &folder.join(other.folder()));
    check(&folder);
}

/// Metadata says what was lost: what was altered must not be taken for it.
fn altered_metadata_is_damage(store: StoreKind) {
    let dir = tempfile::tempdir().unwrap();
    let mut buffer = open(&dir.path().join("buffer"), roomy(store));
    buffer.write_metadata(&[MetadataWrite { key: b"kept".to_vec(), value: Some(b"1".to_vec()) }]).unwrap();
    let stored = buffer.store.get(b"mkept").unwrap().unwrap();
    for bit in 0..stored.len() * 8 {
        let mut altered = stored.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let mut changes = Changes::default();
        changes.insert(&b"mkept"[..], altered);
        buffer.store.apply(changes).unwrap();
        assert!(matches!(buffer.metadata(b"kept"), Err(BufferError::Damaged { .. })), "bit {bit}");
        assert!(matches!(buffer.metadata_with_prefix(b"k"), Err(BufferError::Damaged { .. })), "bit {bit}");
    }
}

/// Each of them with each kind of store.
macro_rules! in_each_store {
    ($($name:ident),* $(,)?) => {
        mod in_sled {
            $(#[test] fn $name() { super::$name(super::StoreKind::Sled) })*
        }
        mod in_redb {
            $(#[test] fn $name() { super::$name(super::StoreKind::Redb) })*
        }
    };
}

in_each_store!(
    records_come_back_in_order_whatever_their_priority_and_size,
    metadata_is_written_with_the_append_and_with_the_commit,
    a_full_buffer_drops_the_oldest_of_the_lowest_priority_and_reports_it,
    what_was_sent_is_never_evicted_even_after_a_restart,
    a_record_that_does_not_fit_changes_nothing,
    an_unreadable_record_is_removed_and_counted,
    a_lease_is_bounded_by_count_and_bytes,
    what_is_new_has_half_of_each_lease_while_old_records_wait,
    what_no_connection_has_sent_is_evicted_and_nothing_else,
    set_aside_starts_afresh_and_keeps_two,
    a_store_that_ends_the_process_while_it_is_opened_is_set_aside_after_a_few_attempts,
    records_that_come_back_after_they_were_removed_are_damage,
    damaged_files_never_stop_the_buffer,
    an_emptied_buffer_gives_its_disk_space_back,
    a_replacement_that_was_cut_short_is_finished,
    another_kind_takes_over_what_waits,
    altered_metadata_is_damage,
    it_behaves_like_a_queue_with_a_ceiling,
);
