use picket_common::event::Timestamp;
use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_common::model::Algorithm;

use super::*;
use crate::random::SplitMix64;
use crate::train::{BoostingParams, CalibrationMethod, Observer, Params, Unobserved, ValidParams};

const NAMES: [&str; 8] = ["first", "second", "copy", "noise", "constant", "rare", "more noise", "pair"];

/// Malicious where two numbers are high together. Columns: both, a copy of the first, noise, a constant, what is nearly
/// constant, more noise, and a column of two features that says nothing.
fn rows(rows: u32) -> (TrainingSet, Vec<String>, Vec<usize>) {
    let mut random = SplitMix64::new(17);
    let (mut values, mut malicious) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let mut unit = || random.unit() as f32;
        let [first, second, noise, more, pair, other] = std::array::from_fn(|_| unit());
        let rare = if row % 1500 == 7 { 1.0 } else { 0.0 };
        values.extend([first, second, 2.0 * first + 1.0, noise, 3.0, rare, more, pair, other]);
        malicious.push((first + second > 1.4) != (unit() < 0.01));
    }
    let set = TrainingSet::new(9, values, malicious, (0..rows).collect()).unwrap();
    let set = set.with_kin((0..rows).map(|row| row / 2).collect()).unwrap();
    (set, NAMES.map(str::to_owned).to_vec(), vec![0, 1, 2, 3, 4, 5, 6, 7, 7])
}

fn options() -> Options {
    Options {
        seed: 5,
        false_positive_budget: 0.01,
        confidence: None,
        foldings: 1,
        calibration: CalibrationMethod::None,
    }
}

fn recipe() -> Recipe {
    let params = BoostingParams { trees: 20, leaves_max: 8, early_stopping_rounds: 0, ..BoostingParams::default() };
    Recipe { params: ValidParams::new(Params::GradientBoosting(params)).unwrap(), witnesses: false }
}

fn selected(
    method: Method,
    columns_max: Option<usize>,
    control: &Control<'_>,
) -> Result<Option<Selection>, TrainError> {
    let (set, names, of_feature) = rows(3000);
    let columns = Columns { set: &set, names: &names, of_feature: &of_feature };
    let context = DraftContext {
        subject: Subject::Connection,
        feature_spec_hash: Digest::of(b"spec"),
        dataset_digest: Digest::of(b"rows"),
        training_run: "test".to_owned(),
        created: Timestamp(0),
    };
    select(&columns, Wanted { method, columns_max }, (&recipe(), options()), &context, control)
}

fn found(method: Method, columns_max: Option<usize>) -> Selection {
    selected(method, columns_max, &Control::unobserved()).unwrap().unwrap()
}

fn dropped(selection: &Selection) -> Vec<&str> {
    selection.dropped.iter().map(|dropped| dropped.column.as_str()).collect()
}

#[test]
fn none_keeps_all_and_says_nothing() {
    assert_eq!(selected(Method::None, None, &Control::unobserved()).unwrap(), None);
}

#[test]
fn variance_drops_what_is_nearly_constant() {
    let selection = found(Method::Variance, None);
    assert_eq!(dropped(&selection), ["constant", "rare"]);
    assert_eq!(selection.dropped[0].measure, 1.0);
    // Both sets were tried: all columns, and what is left of them.
    let columns: Vec<_> = selection.steps.iter().map(|step| (step.columns, step.features, step.chosen)).collect();
    assert_eq!(columns, [(8, 9, false), (6, 7, true)]);
    assert_eq!(found(Method::Variance, Some(3)).kept.len(), 3);
}

#[test]
fn mutual_information_drops_noise_and_keeps_copies() {
    let selection = found(Method::MutualInformation, None);
    assert_eq!(selection.kept[..3], ["first", "second", "copy"]);
    // Two odd rows that happen to be malicious may pass.
    assert!(
        dropped(&selection)
            .iter()
            .filter(|name| **name != "rare")
            .eq(["noise", "constant", "more noise", "pair"].iter())
    );
    assert!(selection.dropped.iter().all(|dropped| dropped.measure < 0.01), "{selection:?}");
}

#[test]
fn mrmr_takes_no_copies() {
    let two = found(Method::Mrmr, Some(2));
    assert!(two.kept.contains(&"second".to_owned()), "{two:?}");
    assert!(two.kept != ["first", "copy"] && two.kept.len() == 2, "{two:?}");
}

#[test]
fn permutation_measures_what_fold_models_need() {
    let selection = found(Method::Permutation, None);
    assert!(selection.kept.contains(&"second".to_owned()), "{selection:?}");
    // A constant cannot matter.
    let constant = selection.dropped.iter().find(|dropped| dropped.column == "constant").unwrap();
    assert_eq!(constant.measure, 0.0);
}

#[test]
fn elimination_and_auto_find_what_is_needed_and_tell_the_price() {
    for method in [Method::Elimination, Method::Auto] {
        let selection = found(method, None);
        // Two columns are all there is to know: one of the twins and the other number.
        assert!(selection.kept.len() <= 3 && selection.kept.contains(&"second".to_owned()), "{selection:?}");
        assert!(!dropped(&selection).contains(&"second") && dropped(&selection).contains(&"noise"));
        let steps = &selection.steps;
        assert_eq!((steps[0].columns, steps[steps.len() - 1].columns), (8, 1));
        assert!(steps.windows(2).all(|pair| pair[0].columns > pair[1].columns && pair[0].fit_work > pair[1].fit_work));
        let (before, after) = selection.before_and_after().unwrap();
        assert!(
            before.standard_error > 0.0 && after.score >= before.score - 3.0 * before.standard_error,
            "{selection:?}"
        );
        // One column is not enough, and is seen not to be.
        assert!(steps[steps.len() - 1].score < before.score - 0.2, "{selection:?}");
        let names: usize = steps.iter().map(|step| step.dropped.len()).sum();
        assert_eq!(names, 7);
        assert_eq!(selection.kept.len() + selection.dropped.len(), 8);
        assert!(selection.work > before.fit_work);
    }
    assert_eq!(found(Method::Elimination, Some(1)).kept.len(), 1);
    assert_eq!(found(Method::Auto, Some(1)).kept.len(), 1);
}

#[test]
fn the_same_is_selected_on_any_number_of_threads() {
    for method in [Method::Auto, Method::Elimination] {
        let on = |threads| selected(method, None, &Control { threads, observer: &Unobserved }).unwrap();
        assert_eq!(on(1), on(3), "{}", method.name());
    }
}

#[test]
fn a_selection_can_be_cancelled() {
    struct Gone;
    impl Observer for Gone {
        fn progress(&self, _stage: &str, _done: u64, _total: u64) {}

        fn cancelled(&self) -> bool {
            true
        }
    }
    for method in Method::ALL.into_iter().filter(|method| *method != Method::None) {
        let outcome = selected(method, None, &Control { threads: 2, observer: &Gone });
        assert!(matches!(outcome, Err(TrainError::Cancelled)), "{}", method.name());
    }
}

#[test]
fn the_smallest_set_within_one_standard_error_is_taken() {
    let step = |columns: usize, score: f64| Step {
        columns,
        features: columns,
        score,
        standard_error: 0.02,
        fit_work: 1,
        dropped: Vec::new(),
        chosen: false,
    };
    let steps = || vec![step(40, 0.95), step(20, 0.96), step(10, 0.945), step(5, 0.939), step(1, 0.5)];
    let chosen = |columns_max| {
        let mut steps = steps();
        let place = smallest_as_good(&mut steps, columns_max);
        assert!(steps[place].chosen);
        steps[place].columns
    };
    assert_eq!((chosen(None), chosen(Some(30)), chosen(Some(7))), (10, 10, 5));
    // One that is as good but less sure is passed over.
    let mut unsure = steps();
    unsure[2].standard_error = 0.04;
    assert_eq!(smallest_as_good(&mut unsure, None), 1);
    // None is so small: the smallest.
    assert_eq!(chosen(Some(0)), 1);
    assert_eq!(sizes(41), [41, 37, 29, 23, 18, 14, 11, 9, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(sizes(1), [1]);
}

#[test]
fn names_are_read_back() {
    for method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
    }
    assert!("best".parse::<Method>().is_err());
}

#[test]
fn a_part_of_many_rows_keeps_kin_together() {
    let (set, ..) = rows(12_000);
    let params = BoostingParams { trees: 900, leaves_max: 512, ..BoostingParams::default() };
    let costly = Recipe { params: ValidParams::new(Params::GradientBoosting(params)).unwrap(), witnesses: false };
    assert_eq!(part(&set, &recipe(), 1).len(), 12_000);
    let part = part(&set, &costly, 1);
    assert!((3000..9000).contains(&part.len()), "{}", part.len());
    assert!(part.kin().chunks(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(costly.params.get().algorithm(), Algorithm::GradientBoosting);
}
