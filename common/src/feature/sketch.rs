//! How often something was seen before, in bounded memory.

use crate::feature::text::mix;

const ROWS: usize = 4;
const COLUMNS: usize = 1 << 14;
/// After so many notes all counters are halved, so that the sketch neither fills up nor remembers for ever.
const NOTES_BEFORE_DECAY: u32 = 1 << 18;

/// A count-min sketch with conservative update: the answer is never too low, and rarely too high.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    counters: Box<[u16]>,
    notes: u32,
}

impl Sketch {
    /// Memory it points to.
    pub(super) const HEAP_BYTES: usize = ROWS * COLUMNS * size_of::<u16>();

    pub(super) fn new() -> Self {
        Self { counters: vec![0; ROWS * COLUMNS].into(), notes: 0 }
    }

    /// Notes `thing` and says how often it was noted before.
    pub(super) fn note(&mut self, thing: u64) -> u64 {
        let mut places = [0; ROWS];
        for (row, place) in places.iter_mut().enumerate() {
            *place = row * COLUMNS + mix(thing ^ row as u64) as usize % COLUMNS;
        }
        let before = places.iter().map(|place| self.counters[*place]).min().unwrap_or(0);
        for place in places {
            self.counters[place] = self.counters[place].max(before.saturating_add(1));
        }
        self.notes += 1;
        if self.notes >= NOTES_BEFORE_DECAY {
            self.notes = 0;
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
        }
        u64::from(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_says_less_and_rarely_more() {
        let mut sketch = Sketch::new();
        let mut wrong = 0;
        for round in 0..5 {
            for thing in 0..4000 {
                let before = sketch.note(thing);
                assert!(before >= round);
                wrong += u64::from(before > round);
            }
        }
        assert!(wrong < 20, "{wrong} of 20000");
    }

    #[test]
    fn it_forgets_slowly() {
        let mut sketch = Sketch::new();
        for _ in 0..1000 {
            sketch.note(7);
        }
        for other in 0..u64::from(NOTES_BEFORE_DECAY) {
            sketch.note(1000 + other % 100);
        }
        let now = sketch.note(7);
        assert!((500..=510).contains(&now), "{now}");
    }
}
