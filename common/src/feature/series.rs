//! Regularity: the latest contacts with one destination.

use crate::feature::limits::CONTACTS_MAX;

/// Fewer contacts say nothing about regularity.
const CONTACTS_MIN: u64 = 3;
/// Contacts are alike whose payloads differ by at most this part of the larger one.
const ALIKE_WITHIN: f64 = 0.125;
/// Fewer intervals between contacts alike say nothing about their jitter.
const ALIKE_INTERVALS_MIN: usize = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    time: i64,
    /// Payload both ways; `None` when not known.
    bytes: Option<u64>,
}

/// When the latest contacts happened and how large they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    /// A ring.
    contacts: [Contact; CONTACTS_MAX],
    /// All contacts so far.
    count: u64,
}

/// What a series shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Regularity {
    /// Mean of the intervals in milliseconds and their coefficient of variation.
    pub(super) interval: Option<(f64, f64)>,
    /// Mean of the payload in bytes and its coefficient of variation.
    pub(super) size: Option<(f64, f64)>,
}

/// What the contacts that are like the latest one show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Alike {
    /// How many there are, the latest included.
    pub(super) contacts: u64,
    /// Median absolute deviation of the intervals, as a part of their median. A single late contact does not move it.
    pub(super) jitter: Option<f64>,
}

impl Series {
    /// Adds a contact at `now` (nanoseconds).
    pub(super) fn add(&mut self, now: i64, bytes: Option<u64>) {
        self.contacts[place(self.count)] = Contact { time: now, bytes };
        self.count = self.count.saturating_add(1);
    }

    /// Contacts so far, at most [`CONTACTS_MAX`].
    pub(super) fn len(&self) -> u64 {
        self.count.min(CONTACTS_MAX as u64)
    }

    /// Whether there are enough contacts to compare.
    pub(super) fn says_something(&self) -> bool {
        self.count >= CONTACTS_MIN
    }

    pub(super) fn regularity(&self) -> Regularity {
        if !self.says_something() {
            return Regularity::default();
        }
        let mut intervals = Spread::default();
        let mut sizes = Spread::default();
        let mut previous: Option<i64> = None;
        for contact in self.latest() {
            if let Some(previous) = previous.replace(contact.time) {
                intervals.add(contact.time.saturating_sub(previous) as f64 / 1e6);
            }
            if let Some(bytes) = contact.bytes {
                sizes.add(bytes as f64);
            }
        }
        Regularity {
            interval: Some((intervals.mean, intervals.variation())),
            size: (sizes.count >= CONTACTS_MIN).then(|| (sizes.mean, sizes.variation())),
        }
    }
}

/// How steady contacts are, by figures that a single odd one does not move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rhythm {
    /// Median of the intervals, milliseconds.
    pub(super) interval: f64,
    /// Median absolute deviation of the intervals, as a part of their median.
    pub(super) deviation: f64,
    /// Bowley's skewness of the intervals, -1 to 1 (Bowley, Elements of Statistics, 1920).
    pub(super) skew: f64,
}

impl Series {
    /// The contacts that are remembered, oldest first.
    fn latest(&self) -> impl Iterator<Item = Contact> + '_ {
        (self.count - self.len()..self.count).map(|number| self.contacts[place(number)])
    }

    /// Missing for fewer than 4 contacts.
    pub(super) fn rhythm(&self) -> Option<Rhythm> {
        let mut intervals = Sorted::default();
        let mut previous: Option<i64> = None;
        for contact in self.latest() {
            if let Some(previous) = previous.replace(contact.time) {
                intervals.insert(contact.time.saturating_sub(previous) as f64 / 1e6);
            }
        }
        (intervals.count >= ALIKE_INTERVALS_MIN).then(|| Rhythm {
            interval: intervals.median(),
            deviation: intervals.deviation(),
            skew: intervals.skew(),
        })
    }

    /// How many of the contacts that `whole` remembers are also this series'. All of this one's are among the other's.
    pub(super) fn part_of(&self, whole: &Series) -> u64 {
        let Some(oldest) = whole.latest().next() else { return 0 };
        self.latest().filter(|contact| contact.time >= oldest.time).count() as u64
    }

    /// ln of the latest contact's payload over the median of those before it, each plus one byte; missing unless that one
    /// and 3 before it are known.
    pub(super) fn size_over_median(&self) -> Option<f64> {
        let latest = self.count.checked_sub(1).and_then(|number| self.contacts[place(number)].bytes)?;
        let mut sizes = Sorted::default();
        for contact in self.latest().take(self.len().saturating_sub(1) as usize) {
            if let Some(bytes) = contact.bytes {
                sizes.insert(bytes as f64);
            }
        }
        let ratio = (latest as f64 + 1.0) / (sizes.median() + 1.0);
        (sizes.count as u64 >= CONTACTS_MIN).then(|| libm::log(ratio))
    }

    /// Looks at the contacts that are like the latest one, if that one's payload is known.
    pub(super) fn alike(&self) -> Option<Alike> {
        let latest = self.count.checked_sub(1).and_then(|number| self.contacts[place(number)].bytes)?;
        let mut intervals = Sorted::default();
        let mut alike = Alike::default();
        let mut previous: Option<i64> = None;
        for contact in self.latest() {
            if !contact.bytes.is_some_and(|bytes| are_alike(bytes, latest)) {
                continue;
            }
            alike.contacts += 1;
            if let Some(previous) = previous.replace(contact.time) {
                intervals.insert(contact.time.saturating_sub(previous) as f64 / 1e6);
            }
        }
        if intervals.count >= ALIKE_INTERVALS_MIN {
            alike.jitter = Some(intervals.deviation());
        }
        Some(alike)
    }
}

fn are_alike(a: u64, b: u64) -> bool {
    a.abs_diff(b) as f64 <= a.max(b) as f64 * ALIKE_WITHIN
}

/// A few numbers in order.
#[derive(Default)]
struct Sorted {
    values: [f64; CONTACTS_MAX],
    count: usize,
}

impl Sorted {
    /// Adds a number, unless there is no place for it.
    fn insert(&mut self, value: f64) {
        let Some(kept) = self.values.get_mut(..=self.count) else { return };
        kept[self.count] = value;
        let at = kept[..self.count].partition_point(|other| *other <= value);
        kept[at..].rotate_right(1);
        self.count += 1;
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().take(self.count).copied()
    }

    /// The lower of the two in the middle, if there are two: it is always one of the numbers.
    fn median(&self) -> f64 {
        self.values[self.count.saturating_sub(1) / 2]
    }

    /// Median absolute deviation, as a part of the median; 0 where that is.
    fn deviation(&self) -> f64 {
        let median = self.median();
        let mut deviations = Self::default();
        for value in self.values() {
            deviations.insert((value - median).abs());
        }
        if median > 0.0 { deviations.median() / median } else { 0.0 }
    }

    /// Bowley's skewness from the nearest ranks; 0 where the quartiles are one.
    fn skew(&self) -> f64 {
        let last = self.count.saturating_sub(1);
        let (low, high) = (self.values[last / 4], self.values[last - last / 4]);
        let range = high - low;
        if range > 0.0 { (high + low - 2.0 * self.median()) / range } else { 0.0 }
    }
}

/// Below [`CONTACTS_MAX`] by construction.
fn place(number: u64) -> usize {
    (number % CONTACTS_MAX as u64) as usize
}

/// Mean and deviation in one pass (Welford).
#[derive(Default)]
struct Spread {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
    }

    /// Standard deviation / mean; 0 where the mean is.
    fn variation(&self) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        // The square root is exactly rounded on every machine.
        (self.squares / self.count as f64).sqrt() / self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: i64 = 1_000_000;

    fn series(gaps_ms: &[i64]) -> Series {
        let mut series = Series::default();
        let mut time = 0;
        series.add(time, Some(10));
        for gap in gaps_ms {
            time += gap * MILLISECOND;
            series.add(time, None);
        }
        series
    }

    #[test]
    fn clockwork_does_not_vary_and_alternation_does() {
        assert_eq!(series(&[500; 5]).regularity().interval, Some((500.0, 0.0)));
        assert_eq!(series(&[100, 300]).regularity().interval, Some((200.0, 0.5)));
        assert_eq!(series(&[0, 0]).regularity().interval, Some((0.0, 0.0)));
    }

    #[test]
    fn two_contacts_and_unknown_sizes_say_nothing() {
        assert_eq!(series(&[500]).regularity(), Regularity::default());
        assert_eq!(series(&[500; 5]).regularity().size, None);
    }

    #[test]
    fn one_late_contact_is_no_jitter() {
        let mut series = Series::default();
        let mut time = 0;
        for gap in [0, 500, 501, 499, 3000, 500, 500] {
            time += gap * MILLISECOND;
            series.add(time, Some(200));
        }
        let alike = series.alike().unwrap();
        assert_eq!((alike.contacts, alike.jitter), (7, Some(0.0)));
        assert!(series.regularity().interval.unwrap().1 > 0.5);
    }

    #[test]
    fn jitter_is_measured_among_contacts_alike() {
        let mut series = Series::default();
        let mut time = 0;
        for (gap, bytes) in [(0, 200), (400, 210), (100, 9_000), (500, 190), (400, 200), (0, 90_000), (500, 205)] {
            time += gap * MILLISECOND;
            series.add(time, Some(bytes));
        }
        // 400, 600, 400, 500.
        let alike = series.alike().unwrap();
        assert_eq!((alike.contacts, alike.jitter), (5, Some(0.0)));
        series.add(time + 650 * MILLISECOND, Some(200));
        // 400, 400, 500, 600, 650: deviations 100, 100, 0, 100, 150.
        assert_eq!(series.alike().unwrap().jitter, Some(0.2));
        series.add(time + 700 * MILLISECOND, Some(90_000));
        assert_eq!(series.alike(), Some(Alike { contacts: 2, jitter: None }));
        series.add(time + 800 * MILLISECOND, None);
        assert_eq!(series.alike(), None);
        assert_eq!(Series::default().alike(), None);
    }

    #[test]
    fn only_the_latest_contacts_count() {
        let mut gaps = vec![1; 40];
        gaps.extend([700; CONTACTS_MAX - 1]);
        let series = series(&gaps);
        assert_eq!(series.len(), CONTACTS_MAX as u64);
        assert_eq!(series.regularity().interval, Some((700.0, 0.0)));
    }

    #[test]
    fn rhythm_is_steady_whatever_one_contact_does() {
        let steady = series(&[100, 100, 100, 100, 100, 9000]).rhythm().expect("six intervals");
        assert_eq!((steady.interval, steady.deviation, steady.skew), (100.0, 0.0, 0.0));
        let skewed = series(&[10, 10, 20, 400, 800]).rhythm().expect("five intervals");
        assert!(skewed.skew > 0.9, "{skewed:?}");
        assert_eq!(series(&[100, 100]).rhythm(), None);
    }

    #[test]
    fn a_part_is_counted_among_what_the_whole_remembers() {
        let whole = series(&[100; 40]);
        let mut part = Series::default();
        for second in 0..41 {
            if second % 4 == 0 {
                part.add(second * 100 * MILLISECOND, None);
            }
        }
        assert_eq!((whole.len(), part.part_of(&whole), whole.part_of(&whole)), (16, 4, 16));
    }
}
