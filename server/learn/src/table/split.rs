//! Which rows only evaluation sees.
//!
//! * **time**: the latest rows. Rows of one group, and of one moment, stay together; a row without a time is learned from.
//! * **host**: whole hosts, so that the test part is of hosts that were not learned from; hosts that a group spans stay
//!   together, a row without a host goes with its group.
//! * **group**: whole groups of each class: those of the group column, else rows of one template (near-duplicates).
//! * **stratified**: rows of each class by lot; **random**: rows by lot. Both are kind to a model: what is nearly the same
//!   is on both sides.
//! * **official**: the test part is a file of its own.
//!
//! An **embargo** leaves out training rows that are not earlier than the test part's first time by so much: what happens
//! shortly before is like what follows, and the labels of the last hours are not known when a model is made.
//!
//! Whatever the rule, a test row that equals a training row in all features and the label is removed and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_common::event::Timestamp;
use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;
use crate::table::frame::{Table, TableError};
use crate::table::key::Keys;
use crate::train::fold::is_before;
use crate::train::{ROWS_MIN, ROWS_PER_CLASS_MIN};

mod host;

/// By how much of its share a group may overfill the test part.
const OVERFILL: f64 = 0.2;

/// How rows are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// The latest rows are the test.
    Time,
    /// Whole hosts are.
    Host,
    /// Whole groups are.
    Group,
    /// Rows of each class by lot.
    Stratified,
    /// Rows by lot.
    Random,
    /// A file of its own.
    Official,
}

impl SplitRule {
    /// What fits a table best: time where there are times, else groups.
    pub fn of(table: &Table) -> Self {
        if table.group.is_none() && table.times().is_some() { Self::Time } else { Self::Group }
    }

    /// Its name in commands and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Host => "host",
            Self::Group => "group",
            Self::Stratified => "stratified",
            Self::Random => "random",
            Self::Official => "official",
        }
    }
}

/// A division of rows.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The table to learn from …
    pub train_table: &'a Table,
    /// … and its rows.
    pub train: Vec<usize>,
    /// The table to evaluate on …
    pub test_table: &'a Table,
    /// … and its rows.
    pub test: Vec<usize>,
    /// How they were divided.
    pub rule: SplitRule,
    /// What there is.
    pub counts: SplitCounts,
    /// For each training row the number of its group.
    pub(super) train_groups: Vec<u32>,
    /// For each training row what stays together in folds: its group; hosts where these are divided.
    pub(super) train_kin: Vec<u32>,
    /// For each test row the name of its group.
    pub(super) test_groups: Vec<String>,
    /// The newest time of the training part.
    pub(super) newest: Option<Timestamp>,
}

/// What a division gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitCounts {
    /// Rows to learn from.
    pub train_rows: usize,
    /// Malicious ones among them; absent without labels, as what follows from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_malicious: Option<usize>,
    /// Rows to evaluate on.
    pub test_rows: usize,
    /// Malicious ones among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_malicious: Option<usize>,
    /// Test rows that were removed because a training row equals them.
    pub duplicates_removed: usize,
    /// Training rows that equal another one.
    pub train_duplicates: usize,
    /// Training rows that equal one with the other label: labels contradict each other, or the columns cannot tell. They
    /// stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_contradictions: Option<usize>,
    /// Test rows that equal a training row with the other label. They stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_contradictions: Option<usize>,
    /// Training rows that were left out because they are too near before the test part, or later.
    pub embargoed: usize,
}

/// Why rows cannot be divided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// There is no label, or only one.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No times to divide by.
    #[error("no column holds times: give one the role \"time\", or divide by --split group")]
    NoTimes,
    /// No classes to divide by.
    #[error("the table has no label to stratify by: choose another --split")]
    NoClasses,
    /// No hosts to divide by.
    #[error("no column holds hosts: name it with --host, or give it the role \"host\" in the schema")]
    NoHosts,
    /// Too few hosts.
    #[error(
        "the rows are of {found} host(s) that can be parted, at least 2 are needed (hosts that a group spans count as \
         one): choose another --split"
    )]
    TooFewHosts {
        /// How many there are.
        found: usize,
    },
    /// An embargo where no moment divides the rows.
    #[error(
        "--embargo is a gap in time before the test part, but {rule} divides by something else: take --split time, or --test"
    )]
    EmbargoWithoutBoundary {
        /// The rule.
        rule: &'static str,
    },
    /// An embargo without times.
    #[error("--embargo is a gap in time, but no column holds times: name one with --time, or leave the embargo out")]
    EmbargoWithoutTimes,
    /// Rolling origin without times.
    #[error(
        "--validation rolling-origin goes by time, but no column holds times: name one with --time, or take k-fold"
    )]
    RollingWithoutTimes,
    /// A part lacks a class.
    #[error(
        "the {part} part has {found} {class} rows, at least {needed} are needed: {}",
        "choose another --split or --test-fraction, another seed or a shorter --embargo, or give more rows"
    )]
    TooFewRows {
        /// `training` or `test`.
        part: &'static str,
        /// `benign` or `malicious`; `unlabelled` without labels.
        class: &'static str,
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
}

/// How a table is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Division {
    /// The rule; a test table of its own is [`SplitRule::Official`] whatever it says.
    pub rule: SplitRule,
    /// Share of the rows that only evaluation sees.
    pub test_fraction: f64,
    /// Of what is drawn by lot.
    pub seed: u64,
    /// Training rows that are not earlier than the test part's first time by so much are left out.
    pub embargo: Duration,
}

/// Divides a table without an embargo; `official` is the test table of [`SplitRule::Official`].
///
/// # Errors
/// [`SplitError`].
pub fn split<'a>(
    table: &'a Table,
    official: Option<&'a Table>,
    rule: SplitRule,
    test_fraction: f64,
    seed: u64,
) -> Result<Parts<'a>, SplitError> {
    divide(table, official, &Division { rule, test_fraction, seed, embargo: Duration::ZERO })
}

/// Divides a table; `official` is the test table of [`SplitRule::Official`].
///
/// # Errors
/// [`SplitError`].
pub fn divide<'a>(table: &'a Table, official: Option<&'a Table>, division: &Division) -> Result<Parts<'a>, SplitError> {
    let malicious = table.labels()?;
    let test_malicious = official.map_or(Ok(malicious), Table::labels)?;
    let parts = divide_labelled((table, malicious), official.map(|table| (table, test_malicious)), division)?;
    check(&parts.counts, malicious)?;
    Ok(parts)
}

/// As [`divide`], for an algorithm that needs no labels: there may be none, or of one class.
///
/// # Errors
/// [`SplitError`], but none for a class that is not there.
pub fn divide_unsupervised<'a>(
    table: &'a Table,
    official: Option<&'a Table>,
    division: &Division,
) -> Result<Parts<'a>, SplitError> {
    if division.rule == SplitRule::Stratified && official.is_none() && table.malicious.is_none() {
        return Err(SplitError::NoClasses);
    }
    let [of_table, of_official] = [Some(table), official].map(|table| {
        table.map_or_else(Vec::new, |table| table.malicious.clone().unwrap_or_else(|| vec![false; table.rows]))
    });
    let test = official.map(|table| (table, of_official.as_slice()));
    let mut parts = divide_labelled((table, &of_table), test, division)?;
    let (train_rows, test_rows) = (parts.counts.train_rows, parts.counts.test_rows);
    let known = parts.counts.train_malicious.unwrap_or(0);
    let class = if table.malicious.is_some() { "benign" } else { "unlabelled" };
    for (part, class, found, needed) in
        [("training", class, train_rows - known, ROWS_MIN), ("test", "remaining", test_rows, 1)]
    {
        if found < needed {
            return Err(SplitError::TooFewRows { part, class, found, needed });
        }
    }
    let counts = &mut parts.counts;
    if table.malicious.is_none() {
        (counts.train_malicious, counts.train_contradictions) = (None, None);
    }
    if parts.test_table.malicious.is_none() {
        (counts.test_malicious, counts.test_contradictions) = (None, None);
    }
    Ok(parts)
}

/// Divides tables with the labels of their rows.
fn divide_labelled<'a>(
    (table, malicious): (&'a Table, &[bool]),
    official: Option<(&'a Table, &[bool])>,
    division: &Division,
) -> Result<Parts<'a>, SplitError> {
    let Division { test_fraction, seed, embargo, .. } = *division;
    let rule = if official.is_some() { SplitRule::Official } else { division.rule };
    let keys = Keys::of(table);
    let groups = Groups::of(table, &keys);
    let kin = if rule == SplitRule::Host { host::units(table, &groups.number)? } else { groups.number.clone() };
    let in_test = match rule {
        SplitRule::Official => vec![false; table.rows],
        SplitRule::Time => by_time(table, test_fraction)?,
        SplitRule::Host => host::by_lot(malicious, &kin, test_fraction, seed),
        SplitRule::Group => by_lot(malicious, Some(&kin), true, test_fraction, seed),
        SplitRule::Stratified => by_lot(malicious, None, true, test_fraction, seed),
        SplitRule::Random => by_lot(malicious, None, false, test_fraction, seed),
    };
    let (mut test, mut train): (Vec<usize>, Vec<usize>) = (0..table.rows).partition(|row| in_test[*row]);
    let test_table = official.map_or(table, |official| official.0);
    let (test_keys, test_malicious) = match official {
        Some((official, labels)) => {
            test = (0..official.rows).collect();
            (Keys::of(official), labels)
        }
        None => (keys.clone(), malicious),
    };
    let before = train.len();
    if !embargo.is_zero() {
        let first = first_time(rule, test_table, &test)?;
        let times = table.times().ok_or(SplitError::EmbargoWithoutTimes)?;
        train.retain(|row| times[*row].is_none_or(|time| is_before(time, first, embargo)));
    }
    let embargoed = before - train.len();
    let mut known: Vec<(u64, bool)> = train.iter().map(|row| (keys.exact[*row], malicious[*row])).collect();
    known.sort_unstable();
    let is_known = |row: &usize, label: bool| known.binary_search(&(test_keys.exact[*row], label)).is_ok();
    let before = test.len();
    test.retain(|row| !is_known(row, test_malicious[*row]));
    let positives = |rows: &[usize], labels: &[bool]| rows.iter().filter(|row| labels[**row]).count();
    let has_other = |(key, label): &(u64, bool)| known.binary_search(&(*key, !label)).is_ok();
    let counts = SplitCounts {
        train_rows: train.len(),
        train_malicious: Some(positives(&train, malicious)),
        test_rows: test.len(),
        test_malicious: Some(positives(&test, test_malicious)),
        duplicates_removed: before - test.len(),
        train_duplicates: known.windows(2).filter(|pair| pair[0] == pair[1]).count(),
        train_contradictions: Some(known.iter().filter(|entry| has_other(entry)).count()),
        test_contradictions: Some(test.iter().filter(|row| is_known(row, !test_malicious[**row])).count()),
        embargoed,
    };
    let test_groups = Groups::of(test_table, &test_keys);
    let host = |row: usize| match &test_table.host {
        Some(hosts) if rule == SplitRule::Host => hosts.get(row).map(str::to_owned),
        _ => None,
    };
    let name = |row: &usize| host(*row).unwrap_or_else(|| test_groups.name(test_table, *row));
    Ok(Parts {
        train_groups: train.iter().map(|row| groups.number[*row]).collect(),
        train_kin: train.iter().map(|row| kin[*row]).collect(),
        test_groups: test.iter().map(name).collect(),
        newest: table.times().and_then(|times| train.iter().filter_map(|row| times[*row]).max()),
        train_table: table,
        train,
        test_table,
        test,
        rule,
        counts,
    })
}

fn check(counts: &SplitCounts, malicious: &[bool]) -> Result<(), SplitError> {
    let rows = malicious.len();
    match malicious.iter().filter(|malicious| **malicious).count() {
        0 => return Err(TableError::OneClass { rows, class: "benign" }.into()),
        all if all == rows => return Err(TableError::OneClass { rows, class: "malicious" }.into()),
        _ => {}
    }
    for (part, rows, malicious, needed) in [
        ("training", counts.train_rows, counts.train_malicious, ROWS_PER_CLASS_MIN),
        ("test", counts.test_rows, counts.test_malicious, 1),
    ] {
        let malicious = malicious.unwrap_or(0);
        for (class, found) in [("malicious", malicious), ("benign", rows - malicious)] {
            if found < needed {
                return Err(SplitError::TooFewRows { part, class, found, needed });
            }
        }
    }
    Ok(())
}

/// For each row the name of its group: that of the group column, else its template.
pub fn row_groups(table: &Table) -> Vec<String> {
    let groups = Groups::of(table, &Keys::of(table));
    (0..table.rows).map(|row| groups.name(table, row)).collect()
}

/// What belongs together.
struct Groups {
    /// For each row the number of its group.
    number: Vec<u32>,
    template: Vec<u64>,
}

impl Groups {
    /// The groups of the group column, else the rows of one template. A row whose group is missing is one of its own kind.
    fn of(table: &Table, keys: &Keys) -> Self {
        let mut numbers: BTreeMap<(u32, u64), u32> = BTreeMap::new();
        let number = (0..table.rows).map(|row| {
            let key = match table.group.as_ref().map(|group| group.codes[row]) {
                Some(code) if code != super::Words::NONE => (code, 0),
                _ => (super::Words::NONE, keys.template[row]),
            };
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(key).or_insert(next)
        });
        Self { number: number.collect(), template: keys.template.clone() }
    }

    fn name(&self, table: &Table, row: usize) -> String {
        let named = table.group.as_ref().and_then(|group| group.get(row));
        named.map_or_else(|| format!("{:016x}", self.template[row]), str::to_owned)
    }
}

/// The first time of a test part that has its place in time.
fn first_time(rule: SplitRule, table: &Table, test: &[usize]) -> Result<Timestamp, SplitError> {
    if !matches!(rule, SplitRule::Time | SplitRule::Official) {
        return Err(SplitError::EmbargoWithoutBoundary { rule: rule.name() });
    }
    let times = table.times().ok_or(SplitError::EmbargoWithoutTimes)?;
    test.iter().filter_map(|row| times[*row]).min().ok_or(SplitError::EmbargoWithoutTimes)
}

fn by_time(table: &Table, test_fraction: f64) -> Result<Vec<bool>, SplitError> {
    let times = table.times().ok_or(SplitError::NoTimes)?;
    // A group's time is that of its first row.
    let mut first_of_group: BTreeMap<u32, Timestamp> = BTreeMap::new();
    let group_of =
        |row: usize| table.group.as_ref().map(|group| group.codes[row]).filter(|code| *code != super::Words::NONE);
    for (row, time) in times.iter().enumerate() {
        if let (Some(group), Some(time)) = (group_of(row), time) {
            let first = first_of_group.entry(group).or_insert(*time);
            *first = (*first).min(*time);
        }
    }
    let time_of = |row: usize| group_of(row).and_then(|group| first_of_group.get(&group).copied()).or(times[row]);
    let mut known: Vec<Timestamp> = (0..table.rows).filter_map(time_of).collect();
    known.sort_unstable();
    if known.is_empty() {
        return Err(SplitError::NoTimes);
    }
    let place = ((1.0 - test_fraction) * known.len() as f64) as usize;
    let boundary = known[place.min(known.len() - 1)];
    Ok((0..table.rows).map(|row| time_of(row).is_some_and(|time| time >= boundary)).collect())
}

/// Deals units (groups, or rows) to the test part until it has its share of the rows, of each class where `stratified`.
fn by_lot(malicious: &[bool], groups: Option<&[u32]>, stratified: bool, test_fraction: f64, seed: u64) -> Vec<bool> {
    let mut units: BTreeMap<u32, (bool, Vec<usize>)> = BTreeMap::new();
    for (row, label) in malicious.iter().enumerate() {
        let unit = groups.map_or_else(|| u32::try_from(row).unwrap_or(u32::MAX), |groups| groups[row]);
        let unit = units.entry(unit).or_default();
        unit.0 |= label;
        unit.1.push(row);
    }
    let mut random = SplitMix64::new(seed);
    let mut in_test = vec![false; malicious.len()];
    let (of_malicious, of_benign): (Vec<_>, Vec<_>) =
        units.into_values().partition(|(malicious, _)| stratified && *malicious);
    for mut units in [of_malicious, of_benign] {
        let rows: usize = units.iter().map(|(_, rows)| rows.len()).sum();
        let wanted = test_fraction * rows as f64;
        random.shuffle(&mut units);
        let mut taken = 0;
        for (_, rows) in units {
            let after = (taken + rows.len()) as f64;
            if (taken as f64) < wanted && after <= wanted * (1.0 + OVERFILL) + 1.0 {
                taken += rows.len();
                rows.into_iter().for_each(|row| in_test[row] = true);
            }
        }
    }
    in_test
}
