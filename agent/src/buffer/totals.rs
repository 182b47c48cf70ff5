//! What lies in the buffer, by priority, kept by addition and stored with each change.

use crate::buffer::metadata;
use crate::buffer::store::{Changes, Store};
use crate::buffer::{BufferError, Priority, RecordNumber};

/// Under this metadata key; callers' keys are longer and start otherwise.
const KEY: &[u8] = b"\0";
const CLASSES: usize = Priority::ALL.len();
const BYTES: usize = 8 + CLASSES * 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// The number of the next record.
    pub(crate) next: RecordNumber,
    classes: [ClassTotals; CLASSES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ClassTotals {
    records: u64,
    items: u64,
    bytes: u64,
}

impl Totals {
    pub(crate) fn load(store: &Store) -> Result<Self, BufferError> {
        let Some(bytes) = metadata::get(store, KEY)? else {
            return Ok(Self { next: RecordNumber::FIRST, classes: Default::default() });
        };
        decode(&bytes).ok_or_else(|| BufferError::Damaged { detail: "its totals cannot be read".to_owned() })
    }

    pub(crate) fn put(&self, changes: &mut Changes) {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(self.next.0.to_le_bytes());
        for class in &self.classes {
            for value in [class.records, class.items, class.bytes] {
                bytes.extend(value.to_le_bytes());
            }
        }
        metadata::put(changes, KEY, &bytes);
    }

    pub(crate) fn add(&mut self, priority: Priority, items: u32, bytes: u64) {
        let class = &mut self.classes[priority.index()];
        class.records += 1;
        class.items += u64::from(items);
        class.bytes += bytes;
    }

    pub(crate) fn subtract(&mut self, priority: Priority, items: u32, bytes: u64) {
        let class = &mut self.classes[priority.index()];
        class.records = class.records.saturating_sub(1);
        class.items = class.items.saturating_sub(u64::from(items));
        class.bytes = class.bytes.saturating_sub(bytes);
    }

    pub(crate) fn clear(&mut self, priority: Priority) {
        self.classes[priority.index()] = ClassTotals::default();
    }

    pub(crate) fn records_of(&self, priority: Priority) -> u64 {
        self.classes[priority.index()].records
    }

    pub(crate) fn records(&self) -> u64 {
        self.classes.iter().map(|class| class.records).sum()
    }

    pub(crate) fn items(&self) -> u64 {
        self.classes.iter().map(|class| class.items).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.bytes).sum()
    }
}

fn decode(bytes: &[u8]) -> Option<Totals> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let mut values = bytes.chunks_exact(8).filter_map(|value| value.try_into().ok()).map(u64::from_le_bytes);
    let next = RecordNumber(values.next()?);
    let mut classes = [ClassTotals::default(); CLASSES];
    for class in &mut classes {
        *class = ClassTotals { records: values.next()?, items: values.next()?, bytes: values.next()? };
    }
    Some(Totals { next, classes })
}
