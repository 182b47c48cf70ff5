//! A map that never grows beyond its capacity.
//!
//! Two queues in order of last use (segmented LRU): what was seen once is on *probation*, what proved useful is
//! *protected*, at most three quarters of the capacity. When the map is full, the least recently used entry on
//! probation goes. So a flood of things that are seen once (a port scan's destinations, short-lived processes) cannot
//! push out what the host does all day. Which entry goes depends on the order of calls alone.

use std::collections::BTreeMap;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Probation,
    Protected,
}

#[derive(Clone, Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    segment: Segment,
    /// Neighbour that was used before this one.
    older: u32,
    /// Neighbour that was used after this one.
    newer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Queue {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE, len: 0 };
}

#[derive(Clone, Debug)]
pub(super) struct BoundedMap<K, V> {
    index: BTreeMap<K, u32>,
    slots: Vec<Slot<K, V>>,
    probation: Queue,
    protected: Queue,
    capacity: usize,
    evictions: u64,
}

impl<K: Ord + Copy, V> BoundedMap<K, V> {
    /// At least one entry, at most `u32::MAX - 1`.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            index: BTreeMap::new(),
            slots: Vec::new(),
            probation: Queue::EMPTY,
            protected: Queue::EMPTY,
            capacity: capacity.clamp(1, NONE as usize - 1),
            evictions: 0,
        }
    }

    /// Memory of one entry, not counting what its value points to: its slot, and its share of the index, whose nodes
    /// are at least half full.
    pub(super) const fn entry_bytes() -> usize {
        size_of::<Slot<K, V>>() + 2 * (size_of::<K>() + size_of::<u32>() + size_of::<usize>())
    }

    /// Entries that had to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Forgets all entries, not the evictions.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.probation = Queue::EMPTY;
        self.protected = Queue::EMPTY;
    }

    /// The value of `key`, without counting as a use.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        let slot = *self.index.get(key)?;
        self.slots.get(slot as usize).map(|slot| &slot.value)
    }

    /// The value of `key`, for changing it without counting as a use.
    pub(super) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = *self.index.get(key)?;
        self.slots.get_mut(slot as usize).map(|slot| &mut slot.value)
    }

    /// The value of `key`, which becomes the most recently used; a new entry starts on probation, and the second use
    /// protects it.
    pub(super) fn touch(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let slot = match self.index.get(&key) {
            Some(slot) => {
                let slot = *slot;
                self.move_to(slot, Segment::Protected);
                slot
            }
            None => self.insert_new(key, new(), Segment::Probation),
        };
        &mut self.slots[slot as usize].value
    }

    /// Sets the value of `key` in the given segment, as its most recently used.
    pub(super) fn insert(&mut self, key: K, value: V, segment: Segment) {
        match self.index.get(&key) {
            Some(slot) => {
                let slot = *slot;
                self.slots[slot as usize].value = value;
                self.move_to(slot, segment);
            }
            None => {
                self.insert_new(key, value, segment);
            }
        }
    }

    /// Puts an entry on probation, as its most recently used: it will not be needed for long.
    pub(super) fn demote(&mut self, key: &K) {
        if let Some(slot) = self.index.get(key) {
            self.move_to(*slot, Segment::Probation);
        }
    }

    fn insert_new(&mut self, key: K, value: V, segment: Segment) -> u32 {
        let entry = Slot { key, value, segment, older: NONE, newer: NONE };
        let slot = if self.slots.len() < self.capacity {
            self.slots.push(entry);
            (self.slots.len() - 1) as u32
        } else {
            let victim = if self.probation.len > 0 { self.probation.oldest } else { self.protected.oldest };
            self.unlink(victim);
            self.index.remove(&self.slots[victim as usize].key);
            self.slots[victim as usize] = entry;
            self.evictions += 1;
            victim
        };
        self.index.insert(key, slot);
        self.link_newest(slot, segment);
        self.limit_protected();
        slot
    }

    fn move_to(&mut self, slot: u32, segment: Segment) {
        self.unlink(slot);
        self.link_newest(slot, segment);
        self.limit_protected();
    }

    fn limit_protected(&mut self) {
        if self.protected.len > self.capacity * 3 / 4 {
            let oldest = self.protected.oldest;
            self.unlink(oldest);
            self.link_newest(oldest, Segment::Probation);
        }
    }

    fn queue(&mut self, segment: Segment) -> &mut Queue {
        match segment {
            Segment::Probation => &mut self.probation,
            Segment::Protected => &mut self.protected,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { older, newer, segment, .. } = self.slots[slot as usize];
        if let Some(neighbour) = self.slots.get_mut(older as usize) {
            neighbour.newer = newer;
        }
        if let Some(neighbour) = self.slots.get_mut(newer as usize) {
            neighbour.older = older;
        }
        let queue = self.queue(segment);
        if queue.oldest == slot {
            queue.oldest = newer;
        }
        if queue.newest == slot {
            queue.newest = older;
        }
        queue.len -= 1;
    }

    fn link_newest(&mut self, slot: u32, segment: Segment) {
        let queue = self.queue(segment);
        let older = queue.newest;
        queue.newest = slot;
        if queue.oldest == NONE {
            queue.oldest = slot;
        }
        queue.len += 1;
        if let Some(neighbour) = self.slots.get_mut(older as usize) {
            neighbour.newer = slot;
        }
        let entry = &mut self.slots[slot as usize];
        entry.older = older;
        entry.newer = NONE;
        entry.segment = segment;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flood_of_strangers_does_not_push_out_what_is_used() {
        let mut map = BoundedMap::new(8);
        for _ in 0..2 {
            map.touch(1, || "kept");
        }
        for stranger in 100..1000 {
            map.touch(stranger, || "stranger");
        }
        assert_eq!(map.peek(&1), Some(&"kept"));
        assert_eq!(map.evictions(), 900 + 1 - 8);
    }

    #[test]
    fn the_least_recently_used_on_probation_goes_first() {
        let mut map = BoundedMap::new(3);
        for key in [1, 2, 3] {
            map.insert(key, (), Segment::Probation);
        }
        map.demote(&1);
        map.touch(4, || ());
        assert_eq!([1, 2, 3, 4].map(|key| map.peek(&key).is_some()), [true, false, true, true]);
    }

    #[test]
    fn a_capacity_of_zero_still_holds_one() {
        let mut map = BoundedMap::new(0);
        *map.touch('a', || 0) += 1;
        *map.touch('b', || 0) += 1;
        assert_eq!((map.peek(&'a'), map.peek(&'b'), map.evictions()), (None, Some(&1), 1));
    }

    proptest! {
        /// The links, lengths and the index stay consistent under any sequence of calls.
        #[test]
        fn stays_consistent(capacity in 1usize..12, calls in prop::collection::vec((0u8..4, 0u16..30), 0..400)) {
            let mut map = BoundedMap::new(capacity);
            for (call, key) in calls {
                match call {
                    0 => { map.touch(key, || key); }
                    1 => map.insert(key, key, Segment::Protected),
                    2 => map.insert(key, key, Segment::Probation),
                    _ => map.demote(&key),
                }
                prop_assert!(map.index.len() <= capacity);
                prop_assert_eq!(map.index.len(), map.probation.len + map.protected.len);
                prop_assert!(map.protected.len <= (capacity * 3 / 4));
                for (queue, segment) in [(map.probation, Segment::Probation), (map.protected, Segment::Protected)] {
                    let (mut walked, mut before, mut at) = (0, NONE, queue.oldest);
                    while at != NONE {
                        let slot = &map.slots[at as usize];
                        prop_assert_eq!((slot.segment, slot.older), (segment, before));
                        prop_assert_eq!(map.index.get(&slot.key), Some(&at));
                        (walked, before, at) = (walked + 1, at, slot.newer);
                    }
                    prop_assert_eq!((walked, before), (queue.len, queue.newest));
                }
            }
        }
    }
}
