//! Which rows only evaluation sees.
//!
//! # Rule
//! A *group* is one attack or one piece of work; its time is that of its first row. Groups are never cut.
//!
//! 1. **By time.** Groups are put in order of time (then name), and a boundary between two of them sends the earlier ones
//!    to the training part and the later ones to the test part. Of the boundaries that leave at least
//!    [`TRAINING_ROWS_MIN`] training rows and [`TEST_ROWS_MIN`] test rows of each class, the one is taken whose test part
//!    is nearest to the wanted share, of rows and of malicious groups alike (the sum of both differences; the later
//!    boundary of equal ones).
//! 2. **By time within each class**, when no boundary does that: groups with and without malicious rows are divided
//!    apart, each by time at the wanted share.
//! 3. When that is impossible too, [`SplitError`] says what is missing.
//!
//! # Duplicates
//! A test row with exactly the values and the label of a training row is no test of anything: it is removed and counted.
//! A boundary whose test part would lose a class by that is passed over.

use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};

use picket_common::event::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataset::Rows;

/// Fewest training rows of each class.
pub const TRAINING_ROWS_MIN: usize = picket_learn::train::ROWS_PER_CLASS_MIN;
/// Fewest test rows of each class.
pub const TEST_ROWS_MIN: usize = 1;
/// Boundaries, from the best on, whose duplicates are looked at before the second rule is tried.
const BOUNDARIES_TRIED_MAX: usize = 64;

/// How rows were divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// One boundary in time.
    Time,
    /// A boundary in time for groups with malicious rows and one for those without.
    TimePerClass,
}

/// A division of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Rows to learn from.
    pub train: Vec<usize>,
    /// Rows to evaluate on.
    pub test: Vec<usize>,
    /// How they were divided.
    pub rule: SplitRule,
    /// The first row of the test part's earliest group.
    pub boundary: Timestamp,
    /// Rows removed from the test part because the training part has them too.
    pub duplicates_removed: usize,
    /// Rows of the test part whose values a training row has with the other label: labels contradict each other, or the
    /// features cannot tell. They stay.
    pub contradictions: usize,
}

/// Why rows cannot be divided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Nothing to divide.
    #[error("no labelled event is of this subject")]
    NoRows,
    /// A class is not there, or not often enough.
    #[error("{found} {class} rows, at least {needed} are needed: label more events")]
    TooFewRows {
        /// `benign` or `malicious`.
        class: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A class has only one group, which cannot be on both sides.
    #[error(
        "the {class} rows are {found} group(s), at least 2 are needed, one to learn from and one to evaluate on: label \
         another attack or piece of work under another group name"
    )]
    TooFewGroups {
        /// `benign` or `malicious`.
        class: &'static str,
        /// How many groups there are.
        found: usize,
    },
    /// Groups are too unequal, or one side has nothing new.
    #[error(
        "no division gives both sides rows of both classes without repeating rows of the training part in the test \
         part: label more, or more different, events"
    )]
    NoDivision,
}

/// Rows of one group.
#[derive(Debug)]
struct Group<'a> {
    start: Timestamp,
    name: &'a str,
    rows: Vec<usize>,
    malicious_rows: usize,
}

impl Group<'_> {
    fn is_malicious(&self) -> bool {
        self.malicious_rows > 0
    }
}

/// Divides rows, about `test_fraction` of them into the test part.
///
/// # Errors
/// [`SplitError`] when no division keeps the rules.
pub fn split(rows: &Rows, test_fraction: f64) -> Result<Split, SplitError> {
    if rows.is_empty() {
        return Err(SplitError::NoRows);
    }
    let groups = groups_by_time(rows);
    check_possible(rows, &groups)?;
    let by_time = boundaries(&groups, test_fraction)
        .into_iter()
        .take(BOUNDARIES_TRIED_MAX)
        .find_map(|boundary| divide(rows, &groups, SplitRule::Time, |index| index >= boundary));
    by_time.or_else(|| divide_each_class(rows, &groups, test_fraction)).ok_or(SplitError::NoDivision)
}

fn groups_by_time(rows: &Rows) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (row, info) in rows.info.iter().enumerate() {
        let group = groups.entry(&info.group).or_insert_with(|| Group {
            start: info.time,
            name: &info.group,
            rows: Vec::new(),
            malicious_rows: 0,
        });
        group.start = group.start.min(info.time);
        group.rows.push(row);
        group.malicious_rows += usize::from(info.malicious);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|a, b| (a.start, a.name).cmp(&(b.start, b.name)));
    groups
}

/// What no division can change.
fn check_possible(rows: &Rows, groups: &[Group<'_>]) -> Result<(), SplitError> {
    let needed = TRAINING_ROWS_MIN + TEST_ROWS_MIN;
    for (class, malicious) in [("malicious", true), ("benign", false)] {
        let found = rows.info.iter().filter(|info| info.malicious == malicious).count();
        if found < needed {
            return Err(SplitError::TooFewRows { class, found, needed });
        }
        let of_class = |group: &&Group<'_>| {
            if malicious { group.is_malicious() } else { group.rows.len() > group.malicious_rows }
        };
        let found = groups.iter().filter(of_class).count();
        if found < 2 {
            return Err(SplitError::TooFewGroups { class, found });
        }
    }
    Ok(())
}

/// Places between groups that leave enough rows of each class on both sides, the best first.
fn boundaries(groups: &[Group<'_>], test_fraction: f64) -> Vec<usize> {
    let all_rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let all_malicious_rows: usize = groups.iter().map(|group| group.malicious_rows).sum();
    let all_attacks = groups.iter().filter(|group| group.is_malicious()).count();
    let (mut rows, mut malicious_rows, mut attacks) = (0, 0, 0);
    let mut candidates = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        // The boundary before this group: what was counted so far is the training part.
        let enough = |training: usize, all: usize| training >= TRAINING_ROWS_MIN && all - training >= TEST_ROWS_MIN;
        if enough(malicious_rows, all_malicious_rows) && enough(rows - malicious_rows, all_rows - all_malicious_rows) {
            let share = |training: usize, all: usize| 1.0 - training as f64 / all.max(1) as f64;
            let distance =
                (share(rows, all_rows) - test_fraction).abs() + (share(attacks, all_attacks) - test_fraction).abs();
            candidates.push((distance, index));
        }
        rows += group.rows.len();
        malicious_rows += group.malicious_rows;
        attacks += usize::from(group.is_malicious());
    }
    candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    candidates.into_iter().map(|(_, index)| index).collect()
}

/// The second rule: the last groups of each kind, at least one and not all.
fn divide_each_class(rows: &Rows, groups: &[Group<'_>], test_fraction: f64) -> Option<Split> {
    let count = |malicious| groups.iter().filter(|group| group.is_malicious() == malicious).count();
    let train_groups = |malicious| {
        let groups = count(malicious);
        let test = (groups as f64 * test_fraction).round() as usize;
        groups - test.clamp(1, groups.saturating_sub(1).max(1)).min(groups)
    };
    let kept = [train_groups(false), train_groups(true)];
    let mut seen = [0, 0];
    let in_test: Vec<bool> = groups
        .iter()
        .map(|group| {
            let kind = usize::from(group.is_malicious());
            seen[kind] += 1;
            seen[kind] > kept[kind]
        })
        .collect();
    divide(rows, groups, SplitRule::TimePerClass, |index| in_test[index])
}

/// Carries a division out, if both sides keep enough rows of both classes when duplicates are gone.
fn divide(rows: &Rows, groups: &[Group<'_>], rule: SplitRule, in_test: impl Fn(usize) -> bool) -> Option<Split> {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let mut boundary = None;
    for (index, group) in groups.iter().enumerate() {
        if in_test(index) {
            boundary.get_or_insert(group.start);
            test.extend(&group.rows);
        } else {
            train.extend(&group.rows);
        }
    }
    train.sort_unstable();
    test.sort_unstable();

    let learned: HashSet<Vector<'_>> = train.iter().map(|row| Vector::of(rows, *row)).collect();
    let before = test.len();
    test.retain(|row| !learned.contains(&Vector::of(rows, *row)));
    let contradictions = test.iter().filter(|row| learned.contains(&Vector::of(rows, **row).contradiction())).count();

    let enough = |part: &[usize], needed| {
        [true, false]
            .iter()
            .all(|class| part.iter().filter(|row| rows.info[**row].malicious == *class).take(needed).count() == needed)
    };
    if !enough(&train, TRAINING_ROWS_MIN) || !enough(&test, TEST_ROWS_MIN) {
        return None;
    }
    let duplicates_removed = before - test.len();
    Some(Split { train, test, rule, boundary: boundary?, duplicates_removed, contradictions })
}

/// A row's values and label, compared bit for bit.
#[derive(Clone, Copy)]
struct Vector<'a> {
    values: &'a [f32],
    malicious: bool,
}

impl<'a> Vector<'a> {
    fn of(rows: &'a Rows, row: usize) -> Self {
        Self { values: rows.values(row), malicious: rows.info[row].malicious }
    }

    fn contradiction(self) -> Self {
        Self { malicious: !self.malicious, ..self }
    }
}

impl PartialEq for Vector<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.malicious == other.malicious
            && self.values.len() == other.values.len()
            && self.values.iter().zip(other.values).all(|(left, right)| left.to_bits() == right.to_bits())
    }
}

impl Eq for Vector<'_> {}

impl Hash for Vector<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.malicious.hash(state);
        for value in self.values {
            value.to_bits().hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_common::id::{Epoch, EventId, EventKey, HostId, Sequence};

    use super::*;
    use crate::dataset::RowInfo;

    /// Rows given as (time, group, malicious, value).
    fn rows(given: &[(i64, &str, bool, f32)]) -> Rows {
        let mut rows = Rows::new(1);
        for (place, (time, group, malicious, value)) in given.iter().enumerate() {
            let key = EventKey { epoch: Epoch(1), sequence: Sequence(place as u64) };
            let info = RowInfo {
                event: EventId { host: HostId::from_random([1; 16]), key },
                time: Timestamp(*time),
                malicious: *malicious,
                technique: String::new(),
                group: (*group).to_owned(),
            };
            rows.push(info, &[*value]);
        }
        rows
    }

    /// `groups` groups of `size` rows, every third one malicious, each overlapping the next in time.
    fn overlapping(groups: i64, size: i64) -> Rows {
        let names: Vec<String> = (0..groups).map(|group| format!("g{group}")).collect();
        let mut given = Vec::new();
        for group in 0..groups {
            for row in 0..size {
                let value = (group * size + row) as f32;
                given.push((group * 10 + row * 4, names[group as usize].as_str(), group % 3 == 0, value));
            }
        }
        given.sort_by_key(|row| row.0);
        rows(&given)
    }

    #[test]
    fn later_groups_are_the_test_part_and_none_is_cut() {
        let rows = overlapping(30, 5);
        let split = split(&rows, 0.3).unwrap();
        assert_eq!(split.rule, SplitRule::Time);
        assert_eq!((split.train.len(), split.test.len()), (105, 45));
        let groups =
            |part: &[usize]| -> HashSet<String> { part.iter().map(|row| rows.info[*row].group.clone()).collect() };
        assert!(groups(&split.train).is_disjoint(&groups(&split.test)));
        assert_eq!(split.boundary, Timestamp(210));
        assert_eq!(groups(&split.test).len(), 9);
        assert_eq!(split, super::split(&rows, 0.3).unwrap());
    }

    #[test]
    fn attacks_at_the_end_only_are_divided_apart() {
        let mut given: Vec<(i64, String, bool, f32)> =
            (0..40).map(|row| (row, format!("work-{}", row / 4), false, row as f32)).collect();
        given.extend((0..20).map(|row| (1000 + row, format!("attack-{}", row / 5), true, 500.0 + row as f32)));
        let borrowed: Vec<_> = given.iter().map(|row| (row.0, row.1.as_str(), row.2, row.3)).collect();
        let split = split(&rows(&borrowed), 0.3).unwrap();
        // No boundary in time has benign rows after it and malicious ones before it.
        assert_eq!(split.rule, SplitRule::TimePerClass);
        let malicious = |part: &[usize]| part.iter().filter(|row| given[**row].2).count();
        assert_eq!((malicious(&split.train), malicious(&split.test)), (15, 5));
        assert_eq!((split.train.len(), split.test.len()), (15 + 28, 5 + 12));
    }

    #[test]
    fn duplicates_leave_the_test_part_and_contradictions_are_counted() {
        let mut given: Vec<(i64, String, bool, f32)> =
            (0..60).map(|row| (row, format!("g{}", row / 3), row / 3 % 2 == 0, row as f32)).collect();
        given[59].3 = 0.0; // Label and value of the very first row, but benign: a contradiction.
        given[54].3 = 1.0; // Malicious like row 1: a duplicate.
        let borrowed: Vec<_> = given.iter().map(|row| (row.0, row.1.as_str(), row.2, row.3)).collect();
        let split = split(&rows(&borrowed), 0.3).unwrap();
        assert_eq!((split.duplicates_removed, split.contradictions), (1, 1));
        assert!(!split.test.contains(&54) && split.test.contains(&59));
    }

    #[test]
    fn what_cannot_be_divided_says_why() {
        assert_eq!(split(&Rows::new(1), 0.3), Err(SplitError::NoRows));
        let benign: Vec<_> = (0..20).map(|row| (row, "work", false, row as f32)).collect();
        assert_eq!(split(&rows(&benign), 0.3), Err(SplitError::TooFewRows { class: "malicious", found: 0, needed: 5 }));
        let mut one_attack = benign.clone();
        one_attack.extend((20..30).map(|row| (row, "attack", true, row as f32)));
        assert_eq!(split(&rows(&one_attack), 0.3), Err(SplitError::TooFewGroups { class: "malicious", found: 1 }));
        // Every test row would repeat a training row.
        let same: Vec<_> =
            (0..40).map(|row| (row, ["a", "b", "c", "d"][row as usize / 10], row / 10 % 2 == 0, 1.0)).collect();
        assert_eq!(split(&rows(&same), 0.3), Err(SplitError::NoDivision));
    }

    #[test]
    fn a_large_attack_does_not_move_the_boundary_past_the_others() {
        // Ten attacks of which the first has nearly all rows: by rows alone, the boundary would leave no attack to test.
        let mut given: Vec<(i64, String, bool, f32)> = Vec::new();
        for attack in 0..10 {
            let size = if attack == 0 { 900 } else { 5 };
            given.extend(
                (0..size)
                    .map(|row| (attack * 1000 + row, format!("attack-{attack}"), true, (attack * 1000 + row) as f32)),
            );
            given.extend((0..5).map(|row| {
                (attack * 1000 + 950 + row, format!("work-{attack}"), false, -((attack * 10 + row) as f32))
            }));
        }
        let borrowed: Vec<_> = given.iter().map(|row| (row.0, row.1.as_str(), row.2, row.3)).collect();
        let rows = rows(&borrowed);
        let split = split(&rows, 0.3).unwrap();
        let attacks: HashSet<_> = split.test.iter().filter(|row| given[**row].2).map(|row| &given[*row].1).collect();
        assert!((2..=4).contains(&attacks.len()), "{attacks:?}");
    }
}
