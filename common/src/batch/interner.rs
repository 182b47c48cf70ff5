//! Finds entries of a table by hash, without owning them.

/// Probes before giving up. Whoever chooses strings so that they collide makes batches larger, not slower.
const PROBES_MAX: usize = 16;
const SLOTS_MIN: usize = 256;

/// A hash index over a table that the caller keeps: it maps a hash to the entry's number.
///
/// Not every entry is found again: after [`PROBES_MAX`] collisions an entry is left out of the index, and an equal
/// one becomes a second entry of the table.
#[derive(Debug)]
pub(super) struct Interner {
    /// Entry number + 1, or 0. Always a power of two, at most half full.
    slots: Vec<u32>,
    hashes: Vec<u64>,
}

/// An entry of a table, and whether it has just been added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interned {
    pub(super) id: u32,
    pub(super) is_new: bool,
}

impl Interner {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; SLOTS_MIN], hashes: Vec::new() }
    }

    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        self.hashes.clear();
    }

    /// The entry with this hash for which `equals` holds, or a new one, which the caller appends to its table.
    pub(super) fn intern(&mut self, hash: u64, equals: impl Fn(usize) -> bool) -> Interned {
        let mut free = None;
        for slot in self.probe(hash) {
            match self.slots[slot] {
                0 => {
                    free = Some(slot);
                    break;
                }
                entry => {
                    let id = entry - 1;
                    if self.hashes[id as usize] == hash && equals(id as usize) {
                        return Interned { id, is_new: false };
                    }
                }
            }
        }
        self.hashes.push(hash);
        let entry = u32::try_from(self.hashes.len()).unwrap_or(u32::MAX);
        if let Some(slot) = free {
            self.slots[slot] = entry;
        }
        if self.hashes.len() * 2 > self.slots.len() {
            self.grow();
        }
        Interned { id: entry - 1, is_new: true }
    }

    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let first = (hash >> 32) as usize;
        (0..PROBES_MAX).map(move |step| (first + step) & mask)
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(slots, 0);
        for (id, &hash) in (1_u32..).zip(&self.hashes) {
            let free = self.probe(hash).find(|&slot| self.slots[slot] == 0);
            if let Some(slot) = free {
                self.slots[slot] = id;
            }
        }
    }
}

/// Hashes words, one after the other: deterministic, fast, not secret.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hash(u64);

impl Hash {
    // 2^64 divided by the golden ratio, made odd.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
        let mut hash = Self::default().word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            hash = hash.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash.word(u64::from_le_bytes(last)).finish()
    }

    pub(super) fn word(self, word: u64) -> Self {
        Self((self.0.rotate_left(23) ^ word).wrapping_mul(Self::MULTIPLIER))
    }

    pub(super) fn finish(self) -> u64 {
        (self.0 ^ (self.0 >> 29)).wrapping_mul(Self::MULTIPLIER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_share_a_number_across_growth() {
        let mut interner = Interner::new();
        let mut table: Vec<u64> = Vec::new();
        for round in 0..2 {
            for value in 0..5000_u64 {
                let interned = interner.intern(Hash::default().word(value).finish(), |id| table[id] == value);
                assert_eq!(interned.is_new, round == 0, "{value}");
                if interned.is_new {
                    table.push(value);
                }
                assert_eq!(table[interned.id as usize], value);
            }
        }
        assert_eq!(table.len(), 5000);
        interner.clear();
        assert_eq!(interner.intern(0, |_| true), Interned { id: 0, is_new: true });
    }

    #[test]
    fn collisions_cost_entries_not_time() {
        let mut interner = Interner::new();
        let mut table: Vec<u32> = Vec::new();
        for value in 0..1000 {
            let interned = interner.intern(7, |id| table[id] == value);
            assert!(interned.is_new);
            table.push(value);
        }
        assert!(!interner.intern(7, |id| table[id] == 3).is_new);
        assert!(interner.intern(7, |id| table[id] == 900).is_new, "left out of the index after {PROBES_MAX} probes");
    }
}
