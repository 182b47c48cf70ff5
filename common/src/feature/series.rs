//! Regularity: the latest contacts with one destination.

use crate::feature::limits::CONTACTS_MAX;

/// Fewer contacts say nothing about regularity.
const CONTACTS_MIN: u64 = 3;

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
        for number in self.count - self.len()..self.count {
            let contact = self.contacts[place(number)];
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
    fn only_the_latest_contacts_count() {
        let mut gaps = vec![1; 40];
        gaps.extend([700; CONTACTS_MAX - 1]);
        let series = series(&gaps);
        assert_eq!(series.len(), CONTACTS_MAX as u64);
        assert_eq!(series.regularity().interval, Some((700.0, 0.0)));
    }
}
