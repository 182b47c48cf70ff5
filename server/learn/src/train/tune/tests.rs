use picket_common::event::Timestamp;
use picket_common::feature::Subject;
use picket_common::id::Digest;

use super::*;
use crate::train::{BoostingParams, CalibrationMethod, Observer, Params, Unobserved};

/// Malicious where one of two features is high and not both, which no weighted sum tells; `rows` of them, in pairs of
/// near-duplicates.
fn rows(rows: u32) -> TrainingSet {
    let mut random = SplitMix64::new(11);
    let (mut values, mut malicious) = (Vec::new(), Vec::new());
    let mut row = [0.0_f32; 6];
    for place in 0..rows {
        if place % 2 == 0 {
            row = std::array::from_fn(|_| random.unit() as f32);
        }
        values.extend_from_slice(&row);
        malicious.push(((row[0] > 0.6) != (row[1] > 0.6)) != (random.unit() < 0.02));
    }
    let set = TrainingSet::new(6, values, malicious, (0..rows).collect()).unwrap();
    set.with_kin((0..rows).map(|row| row / 2).collect()).unwrap()
}

fn context() -> DraftContext {
    DraftContext {
        subject: Subject::Connection,
        feature_spec_hash: Digest::of(b"spec"),
        dataset_digest: Digest::of(b"rows"),
        training_run: "test".to_owned(),
        created: Timestamp(0),
    }
}

fn small() -> Recipe {
    let params = BoostingParams { trees: 3, leaves_max: 2, early_stopping_rounds: 0, ..BoostingParams::default() };
    Recipe { params: ValidParams::new(Params::GradientBoosting(params)).unwrap(), witnesses: false }
}

fn found(set: &TrainingSet, work: u64, threads: usize, observer: &dyn Observer) -> Result<Found, TrainError> {
    let options = Options {
        seed: 5,
        false_positive_budget: 0.01,
        confidence: None,
        foldings: 1,
        calibration: CalibrationMethod::None,
    };
    let algorithms = [Algorithm::GradientBoosting, Algorithm::LogisticRegression];
    search(set, small(), &algorithms, work, options, &context(), &Control { threads, observer })
}

#[test]
fn the_same_work_finds_the_same_on_any_number_of_threads() {
    let set = rows(9_000);
    let one = found(&set, 400_000_000, 1, &Unobserved).unwrap();
    assert_eq!(one, found(&set, 400_000_000, 3, &Unobserved).unwrap());
    // Stumps cannot tell; the search finds what can.
    assert_ne!(one.recipe, small());
    assert_eq!(one.leaderboard[0].recipe, one.recipe);
    assert!(one.leaderboard.len() > 4, "{}", one.leaderboard.len());
    let usual = one.leaderboard.iter().find(|contestant| contestant.recipe == small()).unwrap();
    assert!(one.leaderboard[0].score.unwrap() > usual.score.unwrap() + 0.1);
    assert!(one.work_spent <= one.work);
    // A third of the rows at first, all of them at last.
    let rounds: Vec<(usize, bool)> = one.leaderboard.iter().map(|of| (of.round, of.rows == set.len())).collect();
    assert!(rounds.contains(&(1, false)) && rounds.iter().all(|(round, all)| (*round == 2) == *all), "{rounds:?}");
}

#[test]
fn without_work_the_usual_stays() {
    let found = found(&rows(600), 1, 2, &Unobserved).unwrap();
    assert_eq!((found.recipe, found.leaderboard.len()), (small(), 1));
}

#[test]
fn what_is_no_better_than_chance_does_not_win() {
    assert!(is_better(&[0.9, 0.92, 0.91], &[0.8, 0.81, 0.8]));
    assert!(!is_better(&[0.9, 0.7, 0.8], &[0.8, 0.8, 0.79]));
    assert!(!is_better(&[0.5, 0.5], &[0.5, 0.5]) && !is_better(&[], &[]));
}

#[test]
fn cancelling_ends_it() {
    struct Gone;
    impl Observer for Gone {
        fn progress(&self, _stage: &str, _done: u64, _total: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    assert!(matches!(found(&rows(600), 1 << 40, 2, &Gone), Err(TrainError::Cancelled)));
}

#[test]
fn what_is_drawn_is_valid() {
    let mut random = SplitMix64::new(1);
    for algorithm in SEARCHED {
        let drawn: Vec<_> = (0..200).filter_map(|_| draw::params(algorithm, 40, &mut random)).collect();
        assert!(drawn.len() > 190, "{algorithm}: {}", drawn.len());
    }
}
