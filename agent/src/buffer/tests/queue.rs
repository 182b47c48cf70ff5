//! The buffer against a simple reference.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { priority: usize, items: u32, bytes: usize },
    Lease { records: usize },
    Commit { pick: usize },
    Rollback,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..4_usize, 0..50_u32, 0..9_000_usize)
            .prop_map(|(priority, items, bytes)| Step::Append { priority, items, bytes }),
        2 => (1..5_usize).prop_map(|records| Step::Lease { records }),
        3 => (0..8_usize).prop_map(|pick| Step::Commit { pick }),
        1 => Just(Step::Rollback),
        1 => Just(Step::Reopen),
    ]
}

/// What the buffer should be: a map, two lanes, marks, a ceiling.
#[derive(Default)]
struct Reference {
    records: BTreeMap<u64, (Priority, u32, Vec<u8>)>,
    sent: BTreeSet<u64>,
    leased: Vec<u64>,
    next: u64,
    old_cursor: u64,
    /// Where the new lane begins, and its cursor.
    new: Option<(u64, u64)>,
    is_turn_of_new: bool,
}

impl Reference {
    fn stored_bytes(items: u32, payload: &[u8]) -> u64 {
        let new = NewRecord { priority: Priority::Low, items, tag: b"tag", payload };
        record::stored_bytes(&record::encode(&new).unwrap())
    }

    fn bytes(&self) -> u64 {
        self.records.values().map(|(_, items, payload)| Self::stored_bytes(*items, payload)).sum()
    }

    /// The numbers that go, or `None` when there is no room to be made.
    fn evict(&self, needed: u64, priority: Priority, ceiling: u64) -> Option<Vec<u64>> {
        let mut candidates: Vec<(Priority, u64)> = self
            .records
            .iter()
            .filter(|(number, (class, ..))| !self.sent.contains(number) && *class <= priority)
            .map(|(number, (class, ..))| (*class, *number))
            .collect();
        candidates.sort();
        let mut excess = (self.bytes() + needed).saturating_sub(ceiling);
        let mut gone = Vec::new();
        for (_, number) in candidates {
            if excess == 0 {
                break;
            }
            let (_, items, payload) = &self.records[&number];
            excess = excess.saturating_sub(Self::stored_bytes(*items, payload));
            gone.push(number);
        }
        (excess == 0).then_some(gone)
    }

    fn rollback(&mut self) {
        self.leased.clear();
        self.old_cursor = 1;
        self.new = (!self.records.is_empty()).then_some((self.next, self.next));
        self.is_turn_of_new = true;
    }

    /// The numbers of the next lease of so many records.
    fn lease(&mut self, records: usize) -> Vec<u64> {
        let mut got = Vec::new();
        if let Some((first, cursor)) = self.new {
            let share = (records + usize::from(self.is_turn_of_new)) / 2;
            self.is_turn_of_new ^= records % 2 == 1;
            got.extend(self.records.range(cursor..).map(|(number, _)| *number).take(share));
            if let Some(last) = got.last().copied() {
                self.sent.extend(first..=last);
                self.new = Some((first, last + 1));
            }
        }
        while got.len() < records {
            let end = self.new.map_or(u64::MAX, |(first, _)| first);
            if let Some((number, _)) = self.records.range(self.old_cursor..end).next() {
                got.push(*number);
                self.old_cursor = number + 1;
                self.sent.extend(1..=*number);
            } else if let Some((_, cursor)) = self.new.take() {
                self.old_cursor = cursor;
            } else {
                break;
            }
        }
        self.leased.extend(&got);
        got
    }
}

pub(super) fn it_behaves_like_a_queue_with_a_ceiling(store: StoreKind) {
    let config = ProptestConfig { cases: 24, source_file: Some(file!()), ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| behaves_like_a_queue(store, steps)?);
}

fn behaves_like_a_queue(store: StoreKind, steps: Vec<Step>) -> Result<(), TestCaseError> {
    const CEILING: u64 = 30_000;
    let config = BufferConfig { bytes_max: CEILING, store };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("buffer");
    let mut buffer = open(&folder, config);
    let mut reference = Reference { next: 1, is_turn_of_new: true, old_cursor: 1, ..Reference::default() };
    for (index, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { priority, items, bytes } => {
                let priority = Priority::ALL[priority];
                let payload = vec![index as u8; bytes];
                let mut gone = Vec::new();
                let result = buffer.append(record(priority, items, &payload), |infos| {
                    gone.extend(infos.iter().map(|info| info.number.0));
                    vec![MetadataWrite { key: b"last".to_vec(), value: Some(vec![index as u8]) }]
                });
                let needed = Reference::stored_bytes(items, &payload);
                match reference.evict(needed, priority, CEILING) {
                    Some(expected) => {
                        prop_assert_eq!(result.unwrap().0, reference.next);
                        prop_assert_eq!(&gone, &expected);
                        reference.records.retain(|number, _| !expected.contains(number));
                        reference.records.insert(reference.next, (priority, items, payload));
                        reference.next += 1;
                        prop_assert_eq!(buffer.metadata(b"last").unwrap(), Some(vec![index as u8]));
                    }
                    None => prop_assert!(matches!(result, Err(BufferError::Full { .. })), "expected to be full"),
                }
            }
            Step::Lease { records } => {
                let got: Vec<(u64, Vec<u8>)> = buffer
                    .lease(records, usize::MAX)
                    .unwrap()
                    .records
                    .into_iter()
                    .map(|record| (record.info.number.0, record.payload))
                    .collect();
                let expected: Vec<(u64, Vec<u8>)> = reference
                    .lease(records)
                    .into_iter()
                    .map(|number| (number, reference.records[&number].2.clone()))
                    .collect();
                prop_assert_eq!(&got, &expected);
            }
            Step::Commit { pick } => {
                if let Some(number) = reference.leased.get(pick).copied()
                    && reference.records.remove(&number).is_some()
                {
                    buffer.commit(RecordNumber(number), &[]).unwrap();
                }
            }
            Step::Rollback => {
                buffer.rollback();
                reference.rollback();
            }
            Step::Reopen => {
                buffer.flush().unwrap();
                drop(buffer);
                buffer = open(&folder, config);
                reference.rollback();
            }
        }
        let stats = buffer.stats();
        prop_assert_eq!(stats.records, reference.records.len() as u64);
        prop_assert_eq!(stats.bytes, reference.bytes());
        prop_assert!(stats.bytes <= CEILING);
        prop_assert_eq!(stats.items, reference.records.values().map(|(_, items, _)| u64::from(*items)).sum::<u64>());
    }
    Ok(())
}
