//! Trainers against the library's own predictions, determinism, missing values, cancelling.

use std::sync::atomic::{AtomicBool, Ordering};

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::{Model, ModelBody, ModelDraft, ModelMetadata};
use smartcore::linalg::basic::matrix::DenseMatrix;

use super::smartcore_tree::TreeInput;
use super::*;
use crate::evaluate::curve::Curve;
use crate::random::SplitMix64;

const FEATURES: usize = 12;
/// Those that can tell that a value is missing.
const TREES: [Algorithm; 5] = [
    Algorithm::DecisionTree,
    Algorithm::RandomForest,
    Algorithm::ExtraTrees,
    Algorithm::VotingForest,
    Algorithm::GradientBoosting,
];

/// Rows in which a few features tell the classes apart, some values are missing and one attack is large.
pub(super) fn generated(rows: usize, features: usize, missing_share: f64, seed: u64) -> TrainingSet {
    let mut random = SplitMix64::new(seed);
    let mut values = Vec::with_capacity(rows * features);
    let (mut labels, mut groups) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let malicious = random.unit() < 0.2;
        let group = if malicious { random.below(12) } else { 100 + row / 7 };
        for feature in 0..features {
            let noise = (random.unit() + random.unit() + random.unit() - 1.5) as f32;
            let signal = match (malicious, feature) {
                (true, 0) => 0.8,
                (true, 1) => -0.6,
                (true, 2) if group % 2 == 0 => 1.0,
                _ => 0.0,
            };
            // Being missing is itself a sign, as it often is.
            let share = if feature == 3 && malicious { missing_share * 3.0 } else { missing_share };
            values.push(if random.unit() < share { MISSING } else { noise + signal });
        }
        labels.push(malicious);
        groups.push(group as u32);
    }
    TrainingSet::new(features, values, labels, groups).unwrap()
}

pub(super) fn context() -> DraftContext {
    DraftContext {
        subject: Subject::ProcessStart,
        feature_spec_hash: Digest::of(b"spec"),
        dataset_digest: Digest::of(b"dataset"),
        training_run: "test".to_owned(),
        created: Timestamp(1),
    }
}

fn options(seed: u64) -> Options {
    Options {
        seed,
        false_positive_budget: threshold::FALSE_POSITIVE_BUDGET,
        confidence: None,
        foldings: 1,
        calibration: CalibrationMethod::None,
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn compact(fitted: FittedModel, algorithm: Algorithm, features: usize) -> Model {
    let context = context();
    let draft = ModelDraft {
        metadata: ModelMetadata {
            subject: context.subject,
            algorithm,
            feature_spec_hash: context.feature_spec_hash,
            feature_count: features,
            threshold: 0.5,
            dataset_digest: context.dataset_digest,
            training_run: context.training_run,
            created: context.created,
        },
        imputation: Vec::new(),
        body: fitted.body,
        calibration: None,
        self_test: vec![vec![MISSING; features]],
    };
    Model::parse(&draft.encode(&key()).unwrap()).unwrap()
}

fn assert_parity(model: &Model, set: &TrainingSet, expected: &[f64]) {
    assert_eq!(expected.len(), set.len());
    for (row, expected) in set.rows().zip(expected) {
        let score = model.score(row);
        assert!((score - expected).abs() < 1e-6, "{score} is not {expected}");
    }
}

#[test]
fn tree_scores_as_smartcore_predicts() {
    for missing_share in [0.0, 0.1] {
        let set = generated(1500, FEATURES, missing_share, 3);
        let params = ValidParams::new(Params::DecisionTree { depth_max: 9, leaf_rows_min: 2 }).unwrap();
        let control = Control::unobserved();
        let fitted = trainer(Algorithm::DecisionTree).fit(&set, &params, 5, &control).unwrap();
        let model = compact(fitted, Algorithm::DecisionTree, FEATURES);

        let input = TreeInput::new(&set).unwrap();
        let engine = decision_tree::grow(&input, &weight::weights(&set), 9, 2, 5).unwrap();
        assert_parity(&model, &set, &engine.predict(&input.matrix).unwrap());
    }
}

#[test]
fn regression_decides_as_its_coefficients_say() {
    let set = generated(1500, FEATURES, 0.1, 6);
    let params = ValidParams::new(Params::LogisticRegression { ridge: 1.0 }).unwrap();
    let control = Control::unobserved();
    let fitted = trainer(Algorithm::LogisticRegression).fit(&set, &params, 0, &control).unwrap();
    let ModelBody::Linear { weights, bias, mean, inverse_scale } = fitted.body.clone() else { panic!("not linear") };
    let expected: Vec<f64> = set
        .rows()
        .map(|row| {
            let log_odds: f64 = row
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_nan())
                .map(|(index, value)| weights[index] * (f64::from(*value) - mean[index]) * inverse_scale[index])
                .sum();
            1.0 / (1.0 + (-(log_odds + bias)).exp())
        })
        .collect();
    let model = compact(fitted, Algorithm::LogisticRegression, FEATURES);
    assert_parity(&model, &set, &expected);
    // The bias is not penalised, so that it has converged where the weighted slopes cancel out.
    let weights = weight::weights(&set);
    let slope: f64 =
        (0..set.len()).map(|row| (f64::from(u8::from(set.malicious()[row])) - expected[row]) * weights[row]).sum();
    assert!(slope.abs() < 1e-3 * set.len() as f64, "{slope}");
}

/// Scoring a row with missing values is scoring the row with the stand-ins that the tree learned from.
#[test]
fn missing_values_go_the_way_of_their_stand_in() {
    let set = generated(400, FEATURES, 0.15, 8);
    let control = Control::unobserved();
    let trainer = trainer(Algorithm::DecisionTree);
    let fitted = trainer.fit(&set, &trainer.candidates(FEATURES)[0], 5, &control).unwrap();
    let model = compact(fitted, Algorithm::DecisionTree, FEATURES);
    let stand_ins = TreeInput::new(&set).unwrap().stand_ins;
    let mut random = SplitMix64::new(1);
    for row in set.rows() {
        // Also where the training part had a value.
        let holed: Vec<f32> = row.iter().map(|value| if random.unit() < 0.3 { MISSING } else { *value }).collect();
        let filled: Vec<f32> = holed
            .iter()
            .zip(&stand_ins)
            .map(|(value, stand_in)| if value.is_nan() { *stand_in } else { *value })
            .collect();
        assert_eq!(model.score(&holed).to_bits(), model.score(&filled).to_bits());
    }
}

#[test]
fn trees_learn_that_missing_is_a_sign() {
    let rows = 400;
    let values = (0..rows).map(|row| if row % 4 == 0 { MISSING } else { (row % 3) as f32 }).collect();
    let labels = (0..rows).map(|row| row % 4 == 0).collect();
    let set = TrainingSet::new(1, values, labels, (0..rows).collect()).unwrap();
    for algorithm in TREES {
        let trainer = trainer(algorithm);
        let fitted = trainer.fit(&set, &trainer.candidates(1)[0], 1, &Control::unobserved()).unwrap();
        let model = compact(fitted, algorithm, 1);
        let scores = [MISSING, 0.0, 2.0].map(|value| model.score(&[value]));
        assert!(scores[0] > 0.99 && scores[1] < 0.01 && scores[2] < 0.01, "{algorithm}: {scores:?}");
    }
}

#[test]
fn same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let set = generated(240, FEATURES, 0.1, 9);
    for algorithm in Algorithm::ALL {
        let bytes = |seed, threads| {
            let control = Control { threads, observer: &Unobserved };
            train(&set, algorithm, options(seed), &context(), &control).unwrap().draft.encode(&key()).unwrap()
        };
        assert_eq!(bytes(1, 1), bytes(1, 3), "{algorithm}");
        if matches!(algorithm, Algorithm::RandomForest | Algorithm::ExtraTrees | Algorithm::VotingForest) {
            assert_ne!(bytes(1, 2), bytes(2, 2), "the seed is not used");
        }
    }
}

#[test]
fn training_learns_and_keeps_its_budget_on_new_rows() {
    let set = generated(800, FEATURES, 0.05, 10);
    let fresh = generated(1500, FEATURES, 0.05, 11);
    for algorithm in Algorithm::supervised() {
        let trained = train(&set, algorithm, options(1), &context(), &Control::unobserved()).unwrap();
        assert!(trained.validation.grouped);
        let model = Model::parse(&trained.draft.encode(&key()).unwrap()).unwrap();
        let rows = || fresh.rows().map(|row| model.score(row)).zip(fresh.malicious().iter().copied());
        let auc = Curve::new(rows()).roc_auc().unwrap();
        // Parameters are chosen by attacks found and not by this figure: with these twelve attacks that costs the single
        // tree some of it (0.79; above 0.8 when rows were what counted).
        let auc_min = if algorithm == Algorithm::DecisionTree { 0.75 } else { 0.8 };
        assert!(auc > auc_min, "{algorithm}: {auc}");
        let negatives = rows().filter(|row| !row.1).count();
        let alerted = rows().filter(|row| !row.1 && row.0 >= model.metadata().threshold).count();
        assert!((alerted as f64) < 0.03 * negatives as f64, "{algorithm}: {alerted} of {negatives}");
    }
}

/// A ring around benign rows: no weighted sum tells it, nearness and layers do.
#[test]
fn what_a_line_cannot_tell_apart_is_learned() {
    let rows = |count: u32, seed: u64| {
        let mut random = SplitMix64::new(seed);
        let points: Vec<[f32; 2]> = (0..count).map(|_| [(); 2].map(|()| (4.0 * random.unit() - 2.0) as f32)).collect();
        let outside = points.iter().map(|[x, y]| x * x + y * y > 2.0).collect();
        TrainingSet::new(2, points.concat(), outside, (0..count).collect()).unwrap()
    };
    let (set, fresh) = (rows(1500, 1), rows(1500, 2));
    for (algorithm, auc_low, auc_high) in [
        (Algorithm::LinearSvm, 0.3, 0.7),
        (Algorithm::LogisticRegression, 0.3, 0.7),
        // Each feature tells a little by itself.
        (Algorithm::NaiveBayes, 0.9, 1.0),
        (Algorithm::RbfSvm, 0.99, 1.0),
        (Algorithm::NeuralNetwork, 0.99, 1.0),
    ] {
        let trainer = trainer(algorithm);
        let fitted = trainer.fit(&set, &trainer.candidates(2)[0], 1, &Control::unobserved()).unwrap();
        let model = compact(fitted, algorithm, 2);
        let scored = fresh.rows().map(|row| model.score(row)).zip(fresh.malicious().iter().copied());
        let auc = Curve::new(scored).roc_auc().unwrap();
        assert!((auc_low..=auc_high).contains(&auc), "{algorithm}: {auc}");
        if auc_low > 0.8 {
            assert!(model.score(&[0.0, 0.0]) < 0.1 && model.score(&[1.9, 1.9]) > 0.9, "{algorithm}");
        }
    }
}

/// More centres tell more, and what is learned in the space they span is what they score.
#[test]
fn centres_are_as_many_as_asked_for() {
    let set = generated(600, FEATURES, 0.1, 4);
    let algorithm = Algorithm::RbfSvm;
    for centres in [8, 200] {
        let params = ValidParams::new(Params::RbfSvm { cost: 10.0, gamma: 1.0, centres }).unwrap();
        let fitted = trainer(algorithm).fit(&set, &params, 3, &Control::unobserved()).unwrap();
        let ModelBody::Kernel { coefficients, .. } = &fitted.body else { panic!("no kernel") };
        assert_eq!(coefficients.len(), usize::from(centres));
        let model = compact(fitted, algorithm, FEATURES);
        let scored = set.rows().map(|row| model.score(row)).zip(set.malicious().iter().copied());
        let auc = Curve::new(scored).roc_auc().unwrap();
        assert!(auc > if centres == 8 { 0.75 } else { 0.95 }, "{centres} centres: {auc}");
    }
}

#[test]
fn calibrated_models_alert_the_same_rows_with_better_probabilities() {
    let set = generated(2000, FEATURES, 0.05, 10);
    let fresh = generated(4000, FEATURES, 0.05, 11);
    // Attacks are known: what is found out by leaving them out is not how new rows of theirs are scored.
    let rows: Vec<f32> = set.rows().flatten().copied().collect();
    let set = TrainingSet::new(FEATURES, rows, set.malicious().to_vec(), (0..2000).collect()).unwrap();
    for algorithm in [Algorithm::RandomForest, Algorithm::NaiveBayes] {
        let model = |calibration| {
            let options = Options { calibration, ..options(1) };
            let trained = train(&set, algorithm, options, &context(), &Control::unobserved()).unwrap();
            let model = Model::parse(&trained.draft.encode(&key()).unwrap()).unwrap();
            assert_eq!(model.metadata().threshold, trained.threshold.threshold);
            model
        };
        let squares = |model: &Model| -> f64 {
            let rows = fresh.rows().zip(fresh.malicious());
            rows.map(|(row, malicious)| (model.score(row) - f64::from(u8::from(*malicious))).powi(2)).sum()
        };
        let plain = model(CalibrationMethod::None);
        for method in [CalibrationMethod::Platt, CalibrationMethod::Isotonic] {
            let calibrated = model(method);
            for row in fresh.rows() {
                let [a, b] = [&plain, &calibrated].map(|model| model.is_alert(model.score(row)));
                assert_eq!(a, b, "{algorithm} {method:?}");
            }
            let [before, after] = [&plain, &calibrated].map(squares);
            assert!(after < 0.95 * before, "{algorithm} {method:?}: {before} {after}");
        }
    }
}

#[test]
fn too_little_is_refused_with_a_reason() {
    let error = TrainingSet::new(1, vec![0.0; 10], vec![false; 10], vec![0; 10]).unwrap_err();
    assert_eq!(error.to_string(), "the training part has 0 malicious rows, at least 4 are needed: label more events");
    let labels: Vec<bool> = (0..10).map(|row| row < 5).collect();
    let mut values = vec![0.0; 10];
    values[3] = f32::INFINITY;
    let error = TrainingSet::new(1, values, labels.clone(), vec![0; 10]).unwrap_err();
    assert!(matches!(error, TrainError::Infinite { row: 3, feature: 0 }));
    assert!(matches!(TrainingSet::new(2, vec![0.0; 10], labels, vec![0; 10]), Err(TrainError::Shape { .. })));
}

/// Gives up after the first report.
struct Impatient(AtomicBool);

impl Observer for Impatient {
    fn progress(&self, _stage: &str, _done: u64, _total: u64) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Without labels: the same bytes on any number of threads, a share of all rows is alerted, of new ones too.
#[test]
fn what_is_ordinary_is_learned_without_labels() {
    let unlabelled = |seed| {
        let set = generated(1500, FEATURES, 0.05, seed);
        TrainingSet::unlabelled(FEATURES, set.rows().flatten().copied().collect(), set.groups().to_vec()).unwrap()
    };
    let (set, fresh) = (unlabelled(10), unlabelled(11));
    let options = Options { false_positive_budget: 0.05, calibration: CalibrationMethod::Platt, ..options(1) };
    let trained = |threads| {
        let control = Control { threads, observer: &Unobserved };
        train(&set, Algorithm::IsolationForest, options, &context(), &control).unwrap()
    };
    let (one, three) = (trained(1), trained(3));
    let bytes = one.draft.encode(&key()).unwrap();
    assert_eq!(bytes, three.draft.encode(&key()).unwrap());
    assert!(one.validation.grouped && one.validation.candidates[0].score.is_none());
    assert_eq!((one.threshold.recall, one.threshold.share_alerted, one.draft.calibration), (None, Some(0.05), None));
    let model = Model::parse(&bytes).unwrap();
    let alerted = fresh.rows().filter(|row| model.is_alert(model.score(row))).count();
    assert!((30..150).contains(&alerted), "{alerted} of 1500");
}

#[test]
fn cancelling_ends_it() {
    let set = generated(300, FEATURES, 0.0, 12);
    let observer = Impatient(AtomicBool::new(false));
    for algorithm in Algorithm::ALL {
        let result = train(&set, algorithm, options(1), &context(), &Control::observed(&observer));
        assert!(matches!(result, Err(TrainError::Cancelled)), "{algorithm}");
    }
}

/// Constant features, all-missing features and one-valued classes do not upset anybody.
#[test]
fn odd_columns_are_harmless() {
    let rows = 60;
    let values = (0..rows).flat_map(|row| [5.0, MISSING, (row % 2) as f32, 1e30]).collect();
    let labels: Vec<bool> = (0..rows).map(|row| row % 2 == 0).collect();
    let set = TrainingSet::new(4, values, labels, (0..rows).collect()).unwrap();
    for algorithm in Algorithm::supervised() {
        let trained = train(&set, algorithm, options(1), &context(), &Control::unobserved()).unwrap();
        let model = Model::parse(&trained.draft.encode(&key()).unwrap()).unwrap();
        assert!(model.score(set.row(0)) > model.score(set.row(1)), "{algorithm}");
        assert!(model.score(&[f32::MAX, 1.0, 0.0, f32::MIN]).is_finite());
    }
}

#[test]
fn engine_matrix_is_by_column() {
    let set = generated(60, 3, 0.0, 2);
    let input = TreeInput::new(&set).unwrap();
    use smartcore::linalg::basic::arrays::Array;
    let matrix: &DenseMatrix<f32> = &input.matrix;
    assert_eq!(matrix.shape(), (60, 3));
    for row in 0..60 {
        for feature in 0..3 {
            assert_eq!(*matrix.get((row, feature)), set.row(row)[feature]);
        }
    }
}

#[test]
fn the_threshold_is_the_one_in_the_middle_of_several_foldings() {
    let set = generated(600, FEATURES, 0.1, 3);
    let with = |foldings: usize| {
        let options = Options { foldings, ..options(1) };
        train(&set, Algorithm::DecisionTree, options, &context(), &Control::unobserved()).expect("trained")
    };
    // A folding more is dealt with the next seed.
    let mut single: Vec<f64> = (1..=3)
        .map(|seed| {
            let recipe = with(1).recipe;
            let options = options(seed);
            let trained = train_with(recipe, &set, options, &context(), &Control::unobserved()).expect("trained");
            trained.threshold.threshold
        })
        .collect();
    single.sort_by(f64::total_cmp);
    let trained = with(3);
    assert_eq!((trained.validation.foldings, trained.threshold.threshold), (3, single[1]));
    assert_eq!(with(1).validation.foldings, 1);
}
