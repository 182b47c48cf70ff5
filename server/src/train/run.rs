//! One training: folds, tuning, threshold, final fit.

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::{Algorithm, Model, ModelDraft, ModelMetadata};
use serde::Serialize;

use crate::train::fold::Folds;
use crate::train::threshold::{self, FALSE_POSITIVE_BUDGET, ThresholdChoice};
use crate::train::{Control, FittedModel, Params, TrainError, Trainer, TrainingSet, ValidParams, parallel, trainer};

/// Folds for validation, where the training part allows.
const FOLDS_MAX: usize = 5;
/// Folds for a training part on which [`FOLDS_MAX`] would take too long.
const FOLDS_OF_LARGE_SETS: usize = 3;
/// Elementary steps ([`Trainer::cost`]) that validation may take in all; some ten seconds on two processors. What a
/// training set gets is decided by its size and never by a clock, so that it is the same everywhere.
const VALIDATION_COST_MAX: u64 = 4_000_000_000;
/// A candidate replaces an earlier one only if it scores better by this much; less is chance.
const TUNING_MARGIN: f64 = 0.005;
/// Training rows among the self-test rows; one row with everything missing is added.
const SELF_TEST_TRAINING_ROWS: usize = 7;

/// What the model says about itself besides what it learned.
#[derive(Clone, Debug)]
pub struct DraftContext {
    /// What it judges.
    pub subject: Subject,
    /// The features of its vectors.
    pub feature_spec_hash: Digest,
    /// The data set it learns from.
    pub dataset_digest: Digest,
    /// Name of this training.
    pub training_run: String,
    /// The time to stamp on it.
    pub created: Timestamp,
}

/// How the parameters and the threshold were found.
#[derive(Clone, Debug, Serialize)]
pub struct Validation {
    /// Number of folds.
    pub folds: usize,
    /// Whether no attack or piece of work was in two folds. If not, the figures here are too good.
    pub grouped: bool,
    /// Every candidate that was tried, with (average precision + recall at the budget) / 2 on out-of-fold scores.
    pub candidates: Vec<Candidate>,
}

/// A set of parameters that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The parameters.
    pub params: ValidParams,
    /// How they did.
    pub score: f64,
}

/// What a training gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The model, ready to be signed.
    pub draft: ModelDraft,
    /// The parameters it was fitted with.
    pub params: Params,
    /// How they were found.
    pub validation: Validation,
    /// Its threshold and how it did on out-of-fold scores.
    pub threshold: ThresholdChoice,
}

/// Trains a model of `algorithm` on the training part.
///
/// # Errors
/// [`TrainError::Engine`], [`TrainError::Model`], [`TrainError::Cancelled`].
pub fn train(
    set: &TrainingSet,
    algorithm: Algorithm,
    seed: u64,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Trained, TrainError> {
    let trainer = trainer(algorithm);
    let mut candidates = trainer.candidates(set.feature_count());
    let folds_max = plan(trainer, set, &mut candidates);
    let folds = Folds::assign(set, folds_max, seed);
    let tried = out_of_fold_scores(trainer, set, &candidates, &folds, seed, context, control)?;

    let mut best = 0;
    let mut scores = Vec::new();
    for (index, rows) in tried.iter().enumerate() {
        scores.push(threshold::tuning_score(rows, FALSE_POSITIVE_BUDGET));
        if scores[index] > scores[best] + TUNING_MARGIN {
            best = index;
        }
    }
    let chosen = candidates[best];
    let threshold = threshold::choose(&tried[best], FALSE_POSITIVE_BUDGET);

    control.observer.progress(&format!("{algorithm}: fit"), 0, 1);
    let fitted = trainer.fit(set, &chosen, seed, control)?;
    control.observer.progress(&format!("{algorithm}: fit"), 1, 1);
    let self_test = self_test_rows(set, &tried[best]);
    Ok(Trained {
        draft: draft(fitted, algorithm, set.feature_count(), threshold.threshold, self_test, context),
        params: *chosen.get(),
        validation: Validation {
            folds: folds.count,
            grouped: folds.grouped,
            candidates: candidates.into_iter().zip(scores).map(|(params, score)| Candidate { params, score }).collect(),
        },
        threshold,
    })
}

/// Cuts the candidates and the folds to what the size of the training part allows; the default candidate stays.
fn plan(trainer: &dyn Trainer, set: &TrainingSet, candidates: &mut Vec<ValidParams>) -> usize {
    let mut left = VALIDATION_COST_MAX;
    let mut kept = 0;
    for params in candidates.iter() {
        let cost = trainer.cost(set, params).saturating_mul(FOLDS_MAX as u64);
        if cost > left {
            break;
        }
        left -= cost;
        kept += 1;
    }
    candidates.truncate(kept.max(1));
    if kept == 0 { FOLDS_OF_LARGE_SETS } else { FOLDS_MAX }
}

/// For each candidate, the (score, label) of every row, scored by a model that did not see its fold.
fn out_of_fold_scores(
    trainer: &dyn Trainer,
    set: &TrainingSet,
    candidates: &[ValidParams],
    folds: &Folds,
    seed: u64,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Vec<Vec<(f64, bool)>>, TrainError> {
    let stage = format!("{}: validation", trainer.algorithm());
    let jobs = candidates.len() * folds.count;
    let done = std::sync::atomic::AtomicU64::new(0);
    control.observer.progress(&stage, 0, jobs as u64);
    let scored = parallel::try_map(jobs, control.threads, |job| {
        control.check()?;
        let (held_out, kept) = folds.split(job % folds.count);
        let params = &candidates[job / folds.count];
        let fitted = trainer.fit(&set.subset(&kept), params, seed, &control.single_threaded())?;
        let model = scorer(fitted, trainer.algorithm(), set.feature_count(), context)?;
        let scores: Vec<(usize, f64)> = held_out.iter().map(|row| (*row, model.score(set.row(*row)))).collect();
        let done = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        control.observer.progress(&stage, done, jobs as u64);
        Ok::<_, TrainError>(scores)
    })?;
    Ok(scored
        .chunks(folds.count)
        .map(|folds| {
            let mut rows: Vec<(f64, bool)> = set.malicious().iter().map(|malicious| (0.0, *malicious)).collect();
            for (row, score) in folds.iter().flatten() {
                rows[*row].0 = *score;
            }
            rows
        })
        .collect())
}

/// Folds are scored by the very code that agents score with.
fn scorer(
    fitted: FittedModel,
    algorithm: Algorithm,
    feature_count: usize,
    context: &DraftContext,
) -> Result<Model, TrainError> {
    /// Models of folds never leave this process: their signature means nothing.
    const NO_SECRET: [u8; 32] = [0; 32];
    let self_test = vec![vec![MISSING; feature_count]];
    let draft = draft(fitted, algorithm, feature_count, 0.5, self_test, context);
    Ok(Model::parse(&draft.encode(&SigningKey::from_bytes(&NO_SECRET))?)?)
}

fn draft(
    fitted: FittedModel,
    algorithm: Algorithm,
    feature_count: usize,
    threshold: f64,
    self_test: Vec<Vec<f32>>,
    context: &DraftContext,
) -> ModelDraft {
    ModelDraft {
        metadata: ModelMetadata {
            subject: context.subject,
            algorithm,
            feature_spec_hash: context.feature_spec_hash,
            feature_count,
            threshold,
            dataset_digest: context.dataset_digest,
            training_run: context.training_run.clone(),
            created: context.created,
        },
        imputation: Vec::new(),
        body: fitted.body,
        self_test,
    }
}

/// Rows spread evenly over the range of scores, and one with everything missing.
fn self_test_rows(set: &TrainingSet, scores: &[(f64, bool)]) -> Vec<Vec<f32>> {
    let mut order: Vec<usize> = (0..set.len()).collect();
    order.sort_by(|a, b| scores[*a].0.total_cmp(&scores[*b].0));
    let picked = SELF_TEST_TRAINING_ROWS.min(order.len());
    let last = order.len().saturating_sub(1);
    let mut rows: Vec<Vec<f32>> =
        (0..picked).map(|index| set.row(order[index * last / picked.saturating_sub(1).max(1)]).to_vec()).collect();
    rows.push(vec![MISSING; set.feature_count()]);
    rows
}
