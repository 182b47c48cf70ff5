//! Whole hosts: what is evaluated on is from hosts that were not learned from.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::frame::{Table, Words};
use crate::table::split::{SplitError, by_lot as deal};

/// For each row the number of what must not be parted: its host, together with all hosts that share a group with it. A row
/// without a host goes with its group, of which `groups` has the number (without a group column, with its near-duplicates).
///
/// # Errors
/// [`SplitError::NoHosts`], [`SplitError::TooFewHosts`].
pub(super) fn units(table: &Table, groups: &[u32]) -> Result<Vec<u32>, SplitError> {
    let hosts = table.host.as_ref().ok_or(SplitError::NoHosts)?;
    let host_count = hosts.words.len();
    let group_count = groups.iter().max().map_or(0, |most| *most as usize + 1);
    let mut unions = Unions((0..host_count + group_count).collect());
    let is_named = |row: usize| table.group.as_ref().is_some_and(|group| group.codes[row] != Words::NONE);
    let node = |row: usize| match hosts.codes[row] {
        Words::NONE => host_count + groups[row] as usize,
        host => host as usize,
    };
    for (row, group) in groups.iter().enumerate().filter(|(row, _)| is_named(*row)) {
        unions.join(node(row), host_count + *group as usize);
    }
    let numbers: Vec<usize> = (0..table.rows).map(|row| unions.find(node(row))).collect();
    let of_hosts = numbers.iter().zip(&hosts.codes).filter(|(_, host)| **host != Words::NONE);
    let found: BTreeSet<usize> = of_hosts.map(|(number, _)| *number).collect();
    if found.len() < 2 {
        return Err(SplitError::TooFewHosts { found: found.len() });
    }
    Ok(numbers.into_iter().map(|number| u32::try_from(number).unwrap_or(u32::MAX)).collect())
}

/// Deals hosts by lot, those with malicious rows apart from the others. Hosts are few and unequal: where none fits into the
/// test part's share, the smallest of its kind goes there.
pub(super) fn by_lot(malicious: &[bool], units: &[u32], test_fraction: f64, seed: u64) -> Vec<bool> {
    let mut in_test = deal(malicious, Some(units), true, test_fraction, seed);
    let mut rows: BTreeMap<u32, (bool, usize)> = BTreeMap::new();
    for (unit, label) in units.iter().zip(malicious) {
        let of_unit = rows.entry(*unit).or_default();
        of_unit.0 |= label;
        of_unit.1 += 1;
    }
    let has_test = |class: bool, in_test: &[bool]| {
        in_test.iter().zip(units).any(|(test, unit)| *test && rows.get(unit).is_some_and(|of_unit| of_unit.0 == class))
    };
    for class in [true, false] {
        let of_class = || rows.iter().filter(|(_, (malicious, _))| *malicious == class);
        if of_class().count() >= 2 && !has_test(class, &in_test) {
            let smallest = of_class().min_by_key(|(_, (_, rows))| *rows).map(|(unit, _)| *unit);
            in_test
                .iter_mut()
                .zip(units)
                .filter(|(_, unit)| Some(**unit) == smallest)
                .for_each(|(test, _)| *test = true);
        }
    }
    in_test
}

/// Sets that are joined (Tarjan 1975, with path halving).
struct Unions(Vec<usize>);

impl Unions {
    fn find(&mut self, mut node: usize) -> usize {
        while self.0[node] != node {
            self.0[node] = self.0[self.0[node]];
            node = self.0[node];
        }
        node
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // The lower number stays: the same whatever the order.
        self.0[a.max(b)] = a.min(b);
    }
}
