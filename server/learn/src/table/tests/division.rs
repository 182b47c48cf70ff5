//! Hosts, embargo, validation in time, and columns that are dropped.

use std::time::Duration;

use picket_common::table::ColumnKind;

use super::*;
use crate::select::{Method, Wanted};
use crate::train::TrainError;

const HOUR: u64 = 3600;

/// A row a minute from twelve hosts, of which every third has attacks; groups span pairs of hosts where `paired`.
fn fleet(paired: bool) -> Table {
    let mut random = SplitMix64::new(23);
    let mut text = "time,host,piece,bytes,noise,label\n".to_owned();
    for row in 0..1200 {
        let host = random.below(12);
        let bytes = random.below(if host.is_multiple_of(3) { 1000 } else { 600 });
        let attack = bytes > 600;
        text.push_str(&format!(
            "{},h{host},p{},{bytes},{},{}\n",
            1_600_000_000 + 60 * row,
            host / 2,
            random.below(1_000_000),
            u8::from(attack)
        ));
    }
    let (_, table) = read(&text, |schema| {
        schema.assign("host", Role::Host).unwrap();
        schema.assign("piece", if paired { Role::Group } else { Role::Ignore }).unwrap();
        schema.assign("time", Role::Feature(ColumnKind::Time)).unwrap();
    })
    .unwrap();
    table
}

fn division(rule: SplitRule, embargo: u64) -> Division {
    Division { rule, test_fraction: 0.3, seed: 1, embargo: Duration::from_secs(embargo) }
}

fn fit(parts: &Parts<'_>, change: impl FnOnce(&mut TableOptions)) -> Result<TrainedTable, TableTrainError> {
    let mut options = options(Algorithm::GradientBoosting, parts.train.len());
    change(&mut options);
    train(parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &Control::unobserved())
}

#[test]
fn hosts_are_on_one_side_and_those_of_a_group_together() {
    for paired in [false, true] {
        let table = fleet(paired);
        let parts = divide(&table, None, &division(SplitRule::Host, 0)).unwrap();
        let hosts = table.host.clone().unwrap();
        let of = |rows: &[usize], words: &Words| rows.iter().map(|row| words.codes[*row]).collect::<BTreeSet<u32>>();
        assert!(of(&parts.train, &hosts).is_disjoint(&of(&parts.test, &hosts)));
        assert_eq!(of(&parts.train, &hosts).len() + of(&parts.test, &hosts).len(), 12);
        if let Some(groups) = &table.group {
            assert!(of(&parts.train, groups).is_disjoint(&of(&parts.test, groups)));
        }
        assert_eq!(parts.rule, SplitRule::Host);
        assert!((200..500).contains(&parts.test.len()), "{}", parts.test.len());
        // Folds keep hosts together, and intervals are over hosts.
        for (place, row) in parts.train.iter().enumerate() {
            let same_host = parts.train.iter().position(|other| hosts.codes[*other] == hosts.codes[*row]).unwrap();
            assert_eq!(parts.train_kin[place], parts.train_kin[same_host]);
        }
        assert!(parts.test_groups.iter().all(|name| name.starts_with('h')));
    }
}

#[test]
fn a_table_without_hosts_or_with_one_cannot_be_divided_by_them() {
    let flows = table(&flows(200));
    assert_eq!(divide(&flows, None, &division(SplitRule::Host, 0)).unwrap_err(), SplitError::NoHosts);
    let mut one = fleet(false);
    one.host = one.host.map(|hosts| Words { codes: vec![0; one.rows], ..hosts });
    let error = divide(&one, None, &division(SplitRule::Host, 0)).unwrap_err();
    assert_eq!(error, SplitError::TooFewHosts { found: 1 });
    assert!(error.to_string().contains("1 host(s)"), "{error}");
}

#[test]
fn an_embargo_leaves_out_and_counts_what_is_just_before_the_test() {
    let table = fleet(false);
    let without = divide(&table, None, &division(SplitRule::Time, 0)).unwrap();
    let parts = divide(&table, None, &division(SplitRule::Time, HOUR)).unwrap();
    assert_eq!((without.counts.embargoed, parts.counts.embargoed), (0, 59));
    // The row an hour before the first of the test stays.
    assert_eq!((without.train.len(), parts.train.last()), (840, Some(&780)));
    assert_eq!(parts.test, without.test);
    assert!(parts.newest < without.newest);
    // A test table of its own has its own beginning.
    let parts = divide(&table, Some(&table), &division(SplitRule::Official, HOUR));
    assert!(matches!(parts, Err(SplitError::TooFewRows { part: "training", .. })), "{parts:?}");
}

#[test]
fn an_embargo_without_a_moment_is_refused() {
    let table = fleet(false);
    for rule in [SplitRule::Host, SplitRule::Group, SplitRule::Stratified, SplitRule::Random] {
        let error = divide(&table, None, &division(rule, 1)).unwrap_err();
        assert_eq!(error, SplitError::EmbargoWithoutBoundary { rule: rule.name() });
    }
    let mut timeless = table.clone();
    timeless.columns.retain(|column| column.kind != ColumnKind::Time);
    let error = divide(&table, Some(&timeless), &division(SplitRule::Official, 1)).unwrap_err();
    assert_eq!(error, SplitError::EmbargoWithoutTimes);
    let parts = divide(&timeless, None, &division(SplitRule::Random, 0)).unwrap();
    let rolling = ValidationRule::RollingOrigin { folds: 4, embargo: Duration::ZERO };
    let error = fit(&parts, |options| options.validation = rolling).unwrap_err();
    assert!(matches!(error, TableTrainError::Split(SplitError::RollingWithoutTimes)), "{error}");
}

#[test]
fn rolling_origin_gives_threshold_and_scores_and_says_what_had_none() {
    let table = fleet(false);
    let parts = divide(&table, None, &division(SplitRule::Time, HOUR)).unwrap();
    let usual = fit(&parts, |_| {}).unwrap().trained.validation;
    assert_eq!((usual.method, usual.folds, usual.rows_without_score), ("k-fold", 10, 0));
    let four = fit(&parts, |options| options.validation = ValidationRule::KFold { folds: Some(4) }).unwrap();
    assert_eq!(four.trained.validation.folds, 4);
    let rolling = |folds, seconds| {
        let embargo = Duration::from_secs(seconds);
        fit(&parts, |options| options.validation = ValidationRule::RollingOrigin { folds, embargo })
    };
    let trained = rolling(4, HOUR).unwrap();
    let validation = &trained.trained.validation;
    assert_eq!((validation.method, validation.folds), ("rolling-origin", 4));
    assert!((150..180).contains(&validation.rows_without_score), "{validation:?}");
    assert!(report(&trained).recall.unwrap() > 0.5, "{:?}", report(&trained).recall);
    assert_eq!(trained.file, rolling(4, HOUR).unwrap().file);
    let error = rolling(4, 1000 * HOUR).unwrap_err();
    assert!(matches!(error, TableTrainError::Train(TrainError::NoRollingOrigin { .. })), "{error}");
}

#[test]
fn dropped_columns_are_not_in_the_model_any_more() {
    let table = fleet(false);
    let parts = divide(&table, None, &division(SplitRule::Time, 0)).unwrap();
    let all = fit(&parts, |_| {}).unwrap();
    let select = |threads| {
        let mut options = options(Algorithm::GradientBoosting, parts.train.len());
        options.selection = Wanted { method: Method::Auto, columns_max: Some(1) };
        let control = Control { threads, observer: &Unobserved };
        train(&parts, &options, &SigningKey::from_bytes(&[1; 32]), &|| 0.0, &control).unwrap()
    };
    let trained = select(1);
    let names: Vec<&str> = trained.model.preparation().columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["bytes"]);
    assert!(trained.file.len() < all.file.len());
    assert_eq!(trained.left_out.get("noise"), Some(&"validation is as good without it"));
    assert!(report(&trained).notes.iter().any(|note| note.starts_with("1 of 3 columns were kept (auto)")));
    let selection = trained.selection.as_ref().unwrap();
    assert_eq!((selection.kept.as_slice(), selection.dropped.len()), (&["bytes".to_owned()][..], 2));
    // The scores need no other column.
    let mut less = table.clone();
    less.columns.retain(|column| column.name == "bytes");
    assert_eq!(scores(&trained.model, &less, &parts.test), scores(&trained.model, &table, &parts.test));
    assert_eq!(trained.file, select(3).file);
}
