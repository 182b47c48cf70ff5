//! One training: folds, tuning, threshold, final fit.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::{Algorithm, Model, ModelDraft, ModelMetadata};
use serde::Serialize;

use crate::train::calibration::CalibrationMethod;
use crate::train::fold::{Folding, Folds};
use crate::train::threshold::{self, Confidence, ThresholdChoice};
use crate::train::{
    Control, FittedModel, Observer, TrainError, Trainer, TrainingSet, ValidParams, parallel, trainer, witness,
};

/// Folds for validation, where the training part allows: a model of nine tenths of a small set is much like that of all,
/// so that its scores say where the threshold belongs.
const FOLDS_MAX: usize = 10;
/// Folds for a training part on which [`FOLDS_MAX`] would take too long.
const FOLDS_OF_LARGE_SETS: usize = 3;
/// Elementary steps ([`Trainer::cost`]) that validation may take in all; some fifteen seconds on two processors. What a
/// training set gets is decided by its size and never by a clock, so that it is the same everywhere.
const VALIDATION_COST_MAX: u64 = 12_000_000_000;
/// How many times the rows are dealt into folds to choose the threshold of a model that is used.
pub const FOLDINGS: usize = 3;
/// Elementary steps that all foldings after the first may take; some ten seconds on two processors. Where they would take
/// more there are so many rows that one folding does.
const FOLDINGS_COST_MAX: u64 = 32_000_000_000;
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
    /// How the rows were divided: `k-fold` or `rolling-origin`.
    pub method: &'static str,
    /// Number of folds.
    pub folds: usize,
    /// Training rows that no model scored: in time, the earliest ones. Threshold, calibration and the scores of candidates
    /// rest on the others.
    pub rows_without_score: usize,
    /// How many times the rows were dealt into folds: the threshold is the one in the middle of so many.
    pub foldings: usize,
    /// Whether no attack or piece of work was in two folds. If not, the figures here are too good.
    pub grouped: bool,
    /// Every candidate that was tried, with its tuning score ([`threshold::tuning_score`]) on out-of-fold scores in
    /// which an attack counts once, with the highest of its rows: it is found when one of them is alerted.
    pub candidates: Vec<Candidate>,
}

/// A set of parameters that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// What was tried.
    pub recipe: Recipe,
    /// How it did; absent without labels, which it takes to tell.
    pub score: Option<f64>,
}

/// How a model is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// The algorithm's parameters.
    pub params: ValidParams,
    /// Learn from those rows of each attack that show it, not from all.
    pub witnesses: bool,
}

/// What is asked of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The same rows, algorithm and seed give the same model.
    pub seed: u64,
    /// Share of benign rows that may be alerted: what the threshold is chosen by.
    pub false_positive_budget: f64,
    /// How surely that is to be kept on new rows; on average without it.
    pub confidence: Option<Confidence>,
    /// How many times the rows are dealt into folds to choose the threshold, as the size of the training part allows:
    /// [`FOLDINGS`] for a model that is used, 1 for one that is only evaluated.
    pub foldings: usize,
    /// How scores become probabilities.
    pub calibration: CalibrationMethod,
}

/// What a training gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The model, ready to be signed.
    pub draft: ModelDraft,
    /// How it was fitted.
    pub recipe: Recipe,
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
    options: Options,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Trained, TrainError> {
    let run = Run { trainer: trainer(algorithm), set, options, context, control };
    let mut candidates = run.trainer.candidates(set.feature_count());
    let plan = run.plan(&mut candidates);
    let folds = Folds::of(set, plan.folds_max, options.seed)?;
    let plain: Vec<Recipe> = candidates.into_iter().map(|params| Recipe { params, witnesses: false }).collect();
    let mut tried = run.validate(&plain, &folds)?;
    let mut chosen = tried.best();
    if folds.grouped && plan.witnesses {
        let recipe = Recipe { witnesses: true, ..tried.recipes[chosen] };
        tried.extend(run.validate(&[recipe], &folds)?);
        let witnessed = tried.recipes.len() - 1;
        // That attacks are labelled as a whole is known beforehand; only a clear difference speaks against it.
        if !tried.clearly_better(chosen, witnessed) {
            chosen = witnessed;
        }
    }
    run.finish(&tried, chosen, &folds, &plan)
}

/// As [`train`], with a recipe that is known to be good: only the threshold is chosen anew.
///
/// # Errors
/// As [`train`].
pub fn train_with(
    recipe: Recipe,
    set: &TrainingSet,
    options: Options,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Trained, TrainError> {
    let run = Run { trainer: trainer(recipe.params.get().algorithm()), set, options, context, control };
    let plan = run.plan(&mut vec![recipe.params]);
    let folds = Folds::of(set, plan.folds_max, options.seed)?;
    let tried = run.validate(&[recipe], &folds)?;
    run.finish(&tried, 0, &folds, &plan)
}

/// Recipes and how they did.
struct Tried {
    recipes: Vec<Recipe>,
    /// For each recipe the (score, label) of every row that is scored.
    out_of_fold: Vec<Vec<(f64, bool)>>,
    tuning_scores: Vec<f64>,
    /// How many attacks the scores rest on.
    attacks: usize,
}

impl Tried {
    fn extend(&mut self, other: Self) {
        self.recipes.extend(other.recipes);
        self.out_of_fold.extend(other.out_of_fold);
        self.tuning_scores.extend(other.tuning_scores);
    }

    /// The default, unless another is clearly better: then the best.
    fn best(&self) -> usize {
        let score = |index: &usize| self.tuning_scores[*index];
        let best = (0..self.recipes.len()).rev().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(0);
        if self.clearly_better(best, 0) { best } else { 0 }
    }

    /// Whether recipe `a` scores better than `b` by more than one standard error, that of a share among so many
    /// attacks: on a few dozen of them the highest of some scores is mostly chance, and whoever follows it pays on the
    /// next day (the rule of one standard error: Breiman et al., Classification and Regression Trees, 1984, 3.4.3).
    fn clearly_better(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.tuning_scores[a], self.tuning_scores[b]);
        let middle = (0.5 * (a + b)).clamp(0.0, 1.0);
        let standard_error = (middle * (1.0 - middle) / self.attacks.max(1) as f64).sqrt();
        a - b > standard_error
    }
}

/// Benign rows as they are, and each attack with the highest score of its rows: (score, malicious, kin). `rows` are those
/// of `scored`.
pub(crate) fn attacks_once(set: &TrainingSet, scored: &[usize], rows: &[(f64, bool)]) -> Vec<(f64, bool, u32)> {
    let mut attacks: BTreeMap<u32, (f64, u32)> = BTreeMap::new();
    let mut once = Vec::new();
    for ((score, malicious), row) in rows.iter().zip(scored) {
        let kin = set.kin()[*row];
        if *malicious {
            let attack = attacks.entry(set.groups()[*row]).or_insert((*score, kin));
            attack.0 = attack.0.max(*score);
        } else {
            once.push((*score, false, kin));
        }
    }
    once.extend(attacks.into_values().map(|(score, kin)| (score, true, kin)));
    once
}

/// What the size of a training part allows.
struct Plan {
    folds_max: usize,
    /// Whether to see if witnesses help.
    witnesses: bool,
    /// How many times the rows are dealt into folds to choose the threshold.
    foldings: usize,
}

/// The (score, label) of every row that `folds` score ([`Folds::scored`]), by a model of the recipe that did not see its fold.
pub(crate) fn fold_scores(
    set: &TrainingSet,
    recipe: &Recipe,
    folds: &Folds,
    options: Options,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Vec<(f64, bool)>, TrainError> {
    let quiet = Control { threads: control.threads, observer: &Quiet(control.observer) };
    let run = Run { trainer: trainer(recipe.params.get().algorithm()), set, options, context, control: &quiet };
    let mut scores = run.out_of_fold_scores(std::slice::from_ref(recipe), folds)?;
    Ok(scores.pop().unwrap_or_default())
}

/// The model of each fold, which learned from rows that `folds` say ([`Folds::split`]).
pub(crate) fn fold_models(
    set: &TrainingSet,
    recipe: &Recipe,
    folds: &Folds,
    options: Options,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Vec<Model>, TrainError> {
    let run = Run { trainer: trainer(recipe.params.get().algorithm()), set, options, context, control };
    parallel::try_map(folds.count, control.threads, |fold| {
        control.check()?;
        let fitted = run.fit(&set.subset(&folds.split(fold).1), recipe, &control.single_threaded())?;
        run.scorer(fitted)
    })
}

/// Hears when to stop, and tells nothing: the search tells how far it is.
struct Quiet<'a>(&'a dyn Observer);

impl Observer for Quiet<'_> {
    fn progress(&self, _stage: &str, _done: u64, _total: u64) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// What every step of a training needs.
#[derive(Clone, Copy)]
struct Run<'a> {
    trainer: &'static dyn Trainer,
    set: &'a TrainingSet,
    options: Options,
    context: &'a DraftContext,
    control: &'a Control<'a>,
}

impl Run<'_> {
    /// Cuts the candidates to what the size of the training part allows; the default candidate stays.
    fn plan(&self, candidates: &mut Vec<ValidParams>) -> Plan {
        let cost = |params: &ValidParams, fits: usize| self.trainer.cost(self.set, params).saturating_mul(fits as u64);
        let mut left = VALIDATION_COST_MAX;
        let of_witnesses = FOLDS_MAX * (1 + witness::WITNESS_FOLDS);
        let cost_of_witnesses = candidates.first().map_or(0, |params| cost(params, of_witnesses));
        let learns_from_attacks = self.trainer.algorithm().is_supervised();
        let witnesses = learns_from_attacks && witness::may_be_chosen(self.set) && cost_of_witnesses <= left;
        if witnesses {
            left -= cost_of_witnesses;
        }
        let mut kept = 0;
        for params in candidates.iter() {
            let cost = cost(params, FOLDS_MAX);
            if cost > left {
                break;
            }
            left -= cost;
            kept += 1;
        }
        candidates.truncate(kept.max(1));
        let once_more = if witnesses { of_witnesses } else { FOLDS_MAX };
        let further = self.options.foldings.saturating_sub(1);
        let cost_of_foldings = candidates.first().map_or(0, |params| cost(params, once_more * further));
        Plan {
            folds_max: if kept == 0 { FOLDS_OF_LARGE_SETS } else { FOLDS_MAX },
            witnesses,
            // Blocks of time are the same whatever the seed.
            foldings: match self.set.folding() {
                Folding::KFold { .. } if kept > 0 && cost_of_foldings <= FOLDINGS_COST_MAX => 1 + further,
                _ => 1,
            },
        }
    }

    fn validate(&self, recipes: &[Recipe], folds: &Folds) -> Result<Tried, TrainError> {
        let Self { set, options, .. } = self;
        let (out_of_fold, scored) = (self.out_of_fold_scores(recipes, folds)?, folds.scored());
        let tuning_score = |rows: &Vec<(f64, bool)>| {
            let once: Vec<(f64, bool)> =
                attacks_once(set, &scored, rows).into_iter().map(|(score, malicious, _)| (score, malicious)).collect();
            threshold::tuning_score(&once, options.false_positive_budget)
        };
        let tuning_scores = out_of_fold.iter().map(tuning_score).collect();
        let attacks = scored.iter().filter(|row| set.malicious()[**row]);
        let attacks = attacks.map(|row| set.groups()[*row]).collect::<BTreeSet<u32>>().len();
        Ok(Tried { recipes: recipes.to_vec(), out_of_fold, tuning_scores, attacks })
    }

    fn finish(&self, tried: &Tried, chosen: usize, folds: &Folds, plan: &Plan) -> Result<Trained, TrainError> {
        let Self { set, context, control, .. } = self;
        let algorithm = self.trainer.algorithm();
        let (recipe, rows) = (tried.recipes[chosen], &tried.out_of_fold[chosen]);
        let mut threshold = self.threshold(recipe, (rows, folds), plan)?;
        // Nothing tells the share of malicious rows where there are no labels.
        let calibration = if set.is_labelled() { self.options.calibration.learn(rows) } else { None };
        if let Some(calibration) = &calibration {
            // Chosen on the model's own scores: the map is monotone, so that the same rows are alerted.
            threshold.threshold = calibration.apply(threshold.threshold);
        }
        control.observer.progress(&format!("{algorithm}: fit"), 0, 1);
        let fitted = self.fit(set, &recipe, control)?;
        control.observer.progress(&format!("{algorithm}: fit"), 1, 1);
        let self_test = self_test_rows(set, &folds.scored(), rows);
        let candidates = tried.recipes.iter().zip(&tried.tuning_scores);
        Ok(Trained {
            draft: ModelDraft {
                calibration,
                ..draft(fitted, algorithm, set.feature_count(), threshold.threshold, self_test, context)
            },
            recipe,
            validation: Validation {
                method: set.folding().name(),
                folds: folds.count,
                rows_without_score: set.len() - rows.len(),
                foldings: plan.foldings,
                grouped: folds.grouped,
                candidates: candidates
                    .map(|(recipe, score)| Candidate { recipe: *recipe, score: set.is_labelled().then_some(*score) })
                    .collect(),
            },
            threshold,
        })
    }

    /// The threshold in the middle of those of several foldings. That of one rests on the few benign rows that score
    /// highest, and which those are depends on who shared a fold with whom.
    fn threshold(
        &self,
        recipe: Recipe,
        (rows, folds): (&[(f64, bool)], &Folds),
        plan: &Plan,
    ) -> Result<ThresholdChoice, TrainError> {
        let Options { false_positive_budget, confidence, .. } = self.options;
        let choose = |rows: &[(f64, bool)], folds: &Folds| {
            let kin: Vec<u32> = folds.scored().into_iter().map(|row| self.set.kin()[row]).collect();
            if self.set.is_labelled() {
                return threshold::choose(rows, &kin, false_positive_budget, confidence);
            }
            let scores: Vec<f64> = rows.iter().map(|row| row.0).collect();
            threshold::choose_share(&scores, &kin, false_positive_budget, confidence)
        };
        let mut choices = vec![choose(rows, folds)];
        for folding in 1..plan.foldings {
            let seed = self.options.seed.wrapping_add(folding as u64);
            let folds = Folds::of(self.set, plan.folds_max, seed)?;
            let again = Self { options: Options { seed, ..self.options }, ..*self };
            let rows = again.out_of_fold_scores(&[recipe], &folds)?;
            choices.extend(rows.iter().map(|rows| choose(rows, &folds)));
        }
        choices.sort_by(|a, b| a.threshold.total_cmp(&b.threshold));
        Ok(choices[choices.len() / 2])
    }

    /// For each recipe, the (score, label) of every row that `folds` score, by a model that did not see its fold.
    fn out_of_fold_scores(&self, recipes: &[Recipe], folds: &Folds) -> Result<Vec<Vec<(f64, bool)>>, TrainError> {
        let Self { set, control, .. } = self;
        let stage = format!("{}: validation", self.trainer.algorithm());
        let jobs = recipes.len() * folds.count;
        let done = std::sync::atomic::AtomicU64::new(0);
        control.observer.progress(&stage, 0, jobs as u64);
        let scored = parallel::try_map(jobs, control.threads, |job| {
            control.check()?;
            let (held_out, kept) = folds.split(job % folds.count);
            let recipe = &recipes[job / folds.count];
            let fitted = self.fit(&set.subset(&kept), recipe, &control.single_threaded())?;
            let model = self.scorer(fitted)?;
            let scores: Vec<(usize, f64)> = held_out.iter().map(|row| (*row, model.score(set.row(*row)))).collect();
            let done = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            control.observer.progress(&stage, done, jobs as u64);
            Ok::<_, TrainError>(scores)
        })?;
        Ok(scored
            .chunks(folds.count)
            .map(|folds| {
                let mut rows: Vec<(usize, f64)> = folds.iter().flatten().copied().collect();
                rows.sort_unstable_by_key(|(row, _)| *row);
                rows.into_iter().map(|(row, score)| (score, set.malicious()[row])).collect()
            })
            .collect())
    }

    /// Fits the recipe to `set`, which is all rows or a part of them.
    fn fit(&self, set: &TrainingSet, recipe: &Recipe, control: &Control<'_>) -> Result<FittedModel, TrainError> {
        let (params, seed) = (&recipe.params, self.options.seed);
        if !recipe.witnesses {
            return self.trainer.fit(set, params, seed, control);
        }
        let folds = Folds::assign(set, witness::WITNESS_FOLDS, seed);
        if !folds.grouped {
            // Rows of the same attack would be judges of each other.
            return self.trainer.fit(set, params, seed, control);
        }
        let mut scores = vec![0.0; set.len()];
        for fold in 0..folds.count {
            let (held_out, kept) = folds.split(fold);
            let fitted = self.trainer.fit(&set.subset(&kept), params, seed, control)?;
            let model = self.scorer(fitted)?;
            for row in held_out {
                scores[row] = model.score(set.row(row));
            }
        }
        self.trainer.fit(&set.subset(&witness::choose(set, &scores)), params, seed, control)
    }

    /// Folds are scored by the very code that agents score with.
    fn scorer(&self, fitted: FittedModel) -> Result<Model, TrainError> {
        /// Models of folds never leave this process: their signature means nothing.
        const NO_SECRET: [u8; 32] = [0; 32];
        let feature_count = self.set.feature_count();
        let self_test = vec![vec![MISSING; feature_count]];
        let draft = draft(fitted, self.trainer.algorithm(), feature_count, 0.5, self_test, self.context);
        Ok(Model::parse(&draft.encode(&SigningKey::from_bytes(&NO_SECRET))?)?)
    }
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
        calibration: None,
        self_test,
    }
}

/// Rows spread evenly over the range of scores, and one with everything missing.
fn self_test_rows(set: &TrainingSet, scored: &[usize], scores: &[(f64, bool)]) -> Vec<Vec<f32>> {
    let mut order: Vec<usize> = (0..scored.len()).collect();
    order.sort_by(|a, b| scores[*a].0.total_cmp(&scores[*b].0));
    let picked = SELF_TEST_TRAINING_ROWS.min(order.len());
    let last = order.len().saturating_sub(1);
    let mut rows: Vec<Vec<f32>> = (0..picked)
        .map(|index| set.row(scored[order[index * last / picked.saturating_sub(1).max(1)]]).to_vec())
        .collect();
    rows.push(vec![MISSING; set.feature_count()]);
    rows
}
