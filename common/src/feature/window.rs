//! Sliding windows over event time.

/// Parts of a window.
const PARTS: usize = 10;
const NANOSECONDS_PER_MILLISECOND: i64 = 1_000_000;

/// A cell of a window: wide enough for what it adds up, no wider.
pub(super) trait Cell: Copy + Default {
    fn plus(self, amount: u64) -> Self;
    fn get(self) -> u64;
}

impl Cell for u32 {
    fn plus(self, amount: u64) -> Self {
        self.saturating_add(u32::try_from(amount).unwrap_or(u32::MAX))
    }

    fn get(self) -> u64 {
        u64::from(self)
    }
}

impl Cell for u64 {
    fn plus(self, amount: u64) -> Self {
        self.saturating_add(amount)
    }

    fn get(self) -> u64 {
        self
    }
}

/// A sum over the last `MILLISECONDS`: the running tenth and the nine before it. Times must not decrease.
#[derive(Clone, Debug)]
pub(super) struct Sliding<T, const MILLISECONDS: i64> {
    parts: [T; PARTS],
    /// Number of the running tenth, counted from 1970.
    running: i64,
}

/// Counts.
pub(super) type Count<const MILLISECONDS: i64> = Sliding<u32, MILLISECONDS>;
/// Amounts.
pub(super) type Amount<const MILLISECONDS: i64> = Sliding<u64, MILLISECONDS>;

impl<T: Cell, const MILLISECONDS: i64> Default for Sliding<T, MILLISECONDS> {
    fn default() -> Self {
        Self { parts: [T::default(); PARTS], running: i64::MIN }
    }
}

impl<T: Cell, const MILLISECONDS: i64> Sliding<T, MILLISECONDS> {
    /// Adds at time `now` (nanoseconds).
    pub(super) fn add(&mut self, now: i64, amount: u64) {
        self.advance(now);
        let part = &mut self.parts[slot(self.running)];
        *part = part.plus(amount);
    }

    /// The sum at time `now` (nanoseconds).
    pub(super) fn sum(&mut self, now: i64) -> u64 {
        self.advance(now);
        self.parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.get()))
    }

    fn advance(&mut self, now: i64) {
        let running = now.div_euclid(MILLISECONDS * NANOSECONDS_PER_MILLISECOND / PARTS as i64);
        if running <= self.running {
            return;
        }
        if running.saturating_sub(self.running) >= PARTS as i64 {
            self.parts = [T::default(); PARTS];
        } else {
            for passed in self.running + 1..=running {
                self.parts[slot(passed)] = T::default();
            }
        }
        self.running = running;
    }
}

/// Below [`PARTS`] by construction.
fn slot(number: i64) -> usize {
    number.rem_euclid(PARTS as i64) as usize
}

/// Distinct things seen lately, at most `MAX` of them: the least recently seen one makes room.
#[derive(Clone, Debug)]
pub(super) struct Distinct<const MAX: usize> {
    /// Thing and when it was last seen, in no order that matters.
    entries: Vec<(u64, i64)>,
}

impl<const MAX: usize> Default for Distinct<MAX> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<const MAX: usize> Distinct<MAX> {
    /// Most memory it points to.
    pub(super) const HEAP_BYTES_MAX: usize = MAX.next_power_of_two() * size_of::<(u64, i64)>();

    /// Notes that `thing` was seen.
    pub(super) fn add(&mut self, now: i64, thing: u64) {
        let mut oldest = 0;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.0 == thing {
                entry.1 = now;
                return;
            }
            if index == 0 || entry.1 < oldest {
                oldest = entry.1;
            }
        }
        if self.entries.len() < MAX {
            self.entries.push((thing, now));
        } else if let Some(entry) = self.entries.iter_mut().find(|entry| entry.1 == oldest) {
            *entry = (thing, now);
        }
    }

    /// How many things were seen within the last `milliseconds`; [`MAX`](Self) means that many or more.
    pub(super) fn count(&self, now: i64, milliseconds: i64) -> u64 {
        self.count_if(now, milliseconds, |_| true)
    }

    /// How many things that satisfy the condition were seen within the last `milliseconds`.
    pub(super) fn count_if(&self, now: i64, milliseconds: i64, condition: impl Fn(u64) -> bool) -> u64 {
        let since = now.saturating_sub(milliseconds * NANOSECONDS_PER_MILLISECOND);
        self.entries.iter().filter(|entry| entry.1 > since && condition(entry.0)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_sum_forgets_what_is_older_than_the_window() {
        let mut count = Count::<10_000>::default();
        count.add(0, 1);
        count.add(5 * SECOND, 2);
        assert_eq!(count.sum(9 * SECOND), 3);
        assert_eq!(count.sum(10 * SECOND), 2, "the first tenth has left");
        assert_eq!(count.sum(15 * SECOND), 0);
        count.add(1_000_000 * SECOND, 7);
        assert_eq!(count.sum(1_000_000 * SECOND), 7, "long after everything");
    }

    #[test]
    fn times_before_1970_and_at_the_ends_of_the_range_are_times() {
        let mut amount = Amount::<60_000>::default();
        for time in [i64::MIN, -SECOND, 0, i64::MAX] {
            amount.add(time, 1);
        }
        assert_eq!(amount.sum(i64::MAX), 1);
        amount.add(i64::MAX, u64::MAX);
        assert_eq!(amount.sum(i64::MAX), u64::MAX, "saturates");
        let mut count = Count::<1_000>::default();
        count.add(0, u64::MAX);
        count.add(0, 1);
        assert_eq!(count.sum(0), u64::from(u32::MAX));
    }

    #[test]
    fn distinct_things_are_counted_once_and_the_longest_unseen_makes_room() {
        let mut distinct = Distinct::<3>::default();
        for (second, thing) in [(0, 1), (1, 2), (2, 1), (3, 3), (4, 4)] {
            distinct.add(second * SECOND, thing);
        }
        assert_eq!(distinct.count_if(4 * SECOND, 100_000, |thing| thing == 2), 0, "2 was seen longest ago");
        assert_eq!(distinct.count(4 * SECOND, 100_000), 3);
        assert_eq!(distinct.count(4 * SECOND, 2_000), 2, "a window does not reach its own length back");
    }

    proptest! {
        /// Between what fell within nine tenths of the window and what fell within all of it.
        #[test]
        fn a_sum_is_right_to_a_tenth_of_the_window(steps in prop::collection::vec((0i64..3_000, 0u64..5), 1..200)) {
            let mut count = Count::<10_000>::default();
            let mut now = 0;
            let mut all = Vec::new();
            for (step, amount) in steps {
                now += step * 1_000_000;
                count.add(now, amount);
                all.push((now, amount));
                let since = |seconds: i64| -> u64 {
                    all.iter().filter(|(time, _)| now - time < seconds * SECOND).map(|(_, amount)| amount).sum()
                };
                let sum = count.sum(now);
                prop_assert!((since(9)..=since(10)).contains(&sum), "{} of {}..={}", sum, since(9), since(10));
            }
        }
    }
}
