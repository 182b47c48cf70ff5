//! A search over algorithms and parameters with a budget.
//!
//! Candidates are the usual parameters of each algorithm, then ones that are drawn. They are tried by **successive
//! halving** (Jamieson, Talwalkar, Non-stochastic best arm identification, 2016): all on a small part of the rows, the
//! better ones on a larger part, the best on all; each time on folds that keep kin together. The usual parameters of the
//! first algorithm come along to the end, and stay unless another set is better on the same folds by more than chance
//! gives (one standard error of the differences between paired folds).
//!
//! * **Only the training part is seen**, as everywhere in training.
//! * **The budget is work, not time**: elementary steps ([`Trainer::cost`](crate::train::Trainer::cost)). Whoever asks in
//!   minutes ([`SearchBudget`]) measures once how many steps this machine takes in one, and records the steps: with these the
//!   same candidates are tried and the same one is chosen on any machine, however fast, with any number of threads.
//! * What cannot be fitted (a forest larger than a model may be) is left behind with its reason.

use picket_common::model::Algorithm;
use serde::Serialize;

use crate::random::SplitMix64;
use crate::train::fold::Folds;
use crate::train::run::{DraftContext, Options, Recipe, fold_scores};
use crate::train::{Control, TrainError, TrainingSet, ValidParams, threshold, trainer};

mod draw;
#[cfg(test)]
mod tests;

/// Most candidates of a search.
const CANDIDATES_MAX: usize = 243;
/// Of so many candidates one comes to the next round.
const ONE_OF: usize = 3;
/// Each round sees so many times the rows of the one before.
const GROWTH: usize = 3;
/// Rounds, where there are rows enough.
const ROUNDS_MAX: usize = 3;
/// Fewest rows of a part, and of a class in it.
const PART_ROWS_MIN: usize = 3_000;
const PART_CLASS_ROWS_MIN: usize = 60;
/// Folds of the last round, and of those before.
const FOLDS_LAST: usize = 5;
const FOLDS_BEFORE: usize = 3;
/// Least work of a search: what the usual parameters take in the last round is spent in any case.
pub const WORK_MIN: u64 = 1_000_000;
/// Most work of a search.
pub const WORK_MAX: u64 = 1_000_000_000_000_000;
/// Rows that the yardstick is fitted to.
const YARDSTICK_ROWS: usize = 4_000;

/// Algorithms that are searched where none is named.
pub const SEARCHED: [Algorithm; 4] =
    [Algorithm::GradientBoosting, Algorithm::RandomForest, Algorithm::ExtraTrees, Algorithm::LogisticRegression];

/// How much a search may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchBudget {
    /// So many elementary steps.
    Work(u64),
    /// As many steps as this machine takes in about so many seconds: the speed is measured once, the steps are recorded.
    Seconds(u64),
}

impl SearchBudget {
    /// The budget in elementary steps, [`WORK_MIN`] to [`WORK_MAX`]. `clock` tells the seconds since some moment; only a
    /// budget in seconds asks it.
    ///
    /// # Errors
    /// As [`yardstick`].
    pub fn work(self, set: &TrainingSet, clock: &dyn Fn() -> f64, control: &Control<'_>) -> Result<u64, TrainError> {
        let work = match self {
            Self::Work(work) => work,
            Self::Seconds(seconds) => {
                let begin = clock();
                let steps = yardstick(set, control)? as f64;
                (steps / (clock() - begin).max(1e-3) * seconds as f64) as u64
            }
        };
        Ok(work.clamp(WORK_MIN, WORK_MAX))
    }
}

/// A candidate and how far it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contestant {
    /// What was tried.
    pub recipe: Recipe,
    /// Rows of the largest part that it was tried on.
    pub rows: usize,
    /// The round of it, from 1.
    pub round: usize,
    /// Its tuning score there; absent where it could not be fitted.
    pub score: Option<f64>,
    /// Why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Its tuning score on each fold of that round.
    of_folds: Vec<f64>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The best: how to fit.
    pub recipe: Recipe,
    /// Work it was given, in elementary steps.
    pub work: u64,
    /// Work that was planned for what was tried.
    pub work_spent: u64,
    /// Everything that was tried: the best first, then by how far it came and how it did there.
    pub leaderboard: Vec<Contestant>,
}

/// Searches the usual and drawn parameters of `algorithms` (each at most once) with so much `work`. `usual` is the
/// recipe that stays where nothing is clearly better.
///
/// # Errors
/// [`TrainError::Engine`] when not even the usual recipe can be fitted, [`TrainError::Cancelled`].
pub fn search(
    set: &TrainingSet,
    usual: Recipe,
    algorithms: &[Algorithm],
    work: u64,
    options: Options,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Found, TrainError> {
    let search = Search { set, options, context, control };
    let mut field = search.candidates(usual, algorithms);
    let divisors = search.divisors();
    let mut spent = 0;
    for (round, divisor) in divisors.iter().enumerate() {
        let is_last = round + 1 == divisors.len();
        let part = search.part(*divisor);
        let folds = Folds::of(&part, if is_last { FOLDS_LAST } else { FOLDS_BEFORE }, options.seed)?;
        let round_of = Round { part: &part, folds: &folds, number: round + 1 };
        // What is left is divided evenly among the rounds that are left.
        let allowance = work.saturating_sub(spent) / (divisors.len() - round) as u64;
        let before = spent;
        let chosen = search.affordable(&field, &round_of, allowance, &mut spent);
        search.play(&mut field, &chosen, &round_of, (before, spent, work))?;
    }
    field.retain(|contestant| contestant.round > 0);
    let best = Search::winner(&field, divisors.len());
    let recipe = field[best].recipe;
    let is_best = |contestant: &Contestant| contestant.recipe == recipe;
    let score = |contestant: &Contestant| contestant.score.unwrap_or(-1.0);
    field.sort_by(|a, b| (is_best(b), b.round).cmp(&(is_best(a), a.round)).then_with(|| score(b).total_cmp(&score(a))));
    Ok(Found { recipe, work, work_spent: spent, leaderboard: field })
}

impl Contestant {
    fn new(recipe: Recipe) -> Self {
        Self { recipe, rows: 0, round: 0, score: None, failure: None, of_folds: Vec::new() }
    }
}

struct Search<'a> {
    set: &'a TrainingSet,
    options: Options,
    context: &'a DraftContext,
    control: &'a Control<'a>,
}

/// A part of the rows, dealt into folds.
struct Round<'a> {
    part: &'a TrainingSet,
    folds: &'a Folds,
    number: usize,
}

impl Search<'_> {
    /// The usual recipe, those of each algorithm, then drawn ones, the algorithms in turn.
    fn candidates(&self, usual: Recipe, algorithms: &[Algorithm]) -> Vec<Contestant> {
        let features = self.set.feature_count();
        let mut recipes = vec![usual];
        let mut add = |params: ValidParams| {
            let recipe = Recipe { params, witnesses: false };
            if recipes.len() < CANDIDATES_MAX && !recipes.contains(&recipe) {
                recipes.push(recipe);
            }
        };
        let of_algorithms: Vec<Vec<ValidParams>> =
            algorithms.iter().map(|algorithm| trainer(*algorithm).candidates(features)).collect();
        for place in 0..of_algorithms.iter().map(Vec::len).max().unwrap_or(0) {
            of_algorithms.iter().filter_map(|candidates| candidates.get(place)).for_each(|params| add(*params));
        }
        let mut random = SplitMix64::new(self.options.seed);
        for _ in 0..CANDIDATES_MAX {
            for algorithm in algorithms {
                draw::params(*algorithm, features, &mut random).into_iter().for_each(&mut add);
            }
        }
        recipes.into_iter().map(Contestant::new).collect()
    }

    /// By what the rows are divided in each round.
    fn divisors(&self) -> Vec<usize> {
        let positives = self.set.positives();
        let class_rows = positives.min(self.set.len() - positives);
        let fits =
            |divisor: usize| self.set.len() / divisor >= PART_ROWS_MIN && class_rows / divisor >= PART_CLASS_ROWS_MIN;
        let divisors = (0..ROUNDS_MAX).map(|round| GROWTH.pow(u32::try_from(round).unwrap_or(0)));
        let mut divisors: Vec<usize> = divisors.filter(|divisor| *divisor == 1 || fits(*divisor)).collect();
        divisors.reverse();
        divisors
    }

    /// One part in so many of the rows, kin together.
    fn part(&self, divisor: usize) -> TrainingSet {
        if divisor == 1 {
            return self.set.clone();
        }
        let (rows, _) = Folds::assign(self.set, divisor, self.options.seed).split(0);
        self.set.subset(&rows)
    }

    /// The candidates of a round: the best so far, one in three, as many as the allowance pays for. The usual recipe is
    /// always among them.
    fn affordable(&self, field: &[Contestant], round: &Round<'_>, allowance: u64, spent: &mut u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..field.len()).filter(|place| field[*place].round + 1 == round.number).collect();
        // Before the first round all are equal, and come in the order in which they were thought of.
        order.sort_by(|a, b| field[*b].score.unwrap_or(-1.0).total_cmp(&field[*a].score.unwrap_or(-1.0)));
        if round.number > 1 {
            order.truncate(order.len().div_ceil(ONE_OF));
        }
        order.retain(|place| *place != 0 && (round.number == 1 || field[*place].score.is_some()));
        let cost = |place: usize| {
            let params = &field[place].recipe.params;
            trainer(params.get().algorithm()).cost(round.part, params).saturating_mul(round.folds.count as u64)
        };
        let mut left = allowance.saturating_sub(cost(0));
        *spent = spent.saturating_add(cost(0));
        let mut chosen = vec![0];
        for place in order {
            // One that costs too much is passed over: the next may be cheaper.
            if let Some(rest) = left.checked_sub(cost(place)) {
                left = rest;
                *spent = spent.saturating_add(cost(place));
                chosen.push(place);
            }
        }
        chosen
    }

    /// Scores the chosen on the round's folds.
    fn play(
        &self,
        field: &mut [Contestant],
        chosen: &[usize],
        round: &Round<'_>,
        (before, spent, work): (u64, u64, u64),
    ) -> Result<(), TrainError> {
        let share = |done: usize| before + (spent - before) / chosen.len().max(1) as u64 * done as u64;
        for (done, place) in chosen.iter().enumerate() {
            self.control.observer.progress("search", share(done).min(work), work);
            let contestant = &mut field[*place];
            let scored =
                fold_scores(round.part, &contestant.recipe, round.folds, self.options, self.context, self.control);
            (contestant.round, contestant.rows) = (round.number, round.part.len());
            match scored {
                Ok(rows) => self.record(contestant, &rows, round),
                Err(TrainError::Cancelled) => return Err(TrainError::Cancelled),
                Err(error) if *place == 0 => return Err(error),
                Err(error) => (contestant.score, contestant.failure) = (None, Some(error.to_string())),
            }
        }
        self.control.observer.progress("search", spent.min(work), work);
        Ok(())
    }

    fn record(&self, contestant: &mut Contestant, rows: &[(f64, bool)], round: &Round<'_>) {
        let budget = self.options.false_positive_budget;
        let score = |rows: &[(f64, bool)]| threshold::tuning_score(rows, budget);
        let of_fold = |fold: usize| {
            let folds = round.folds.fold_of_row.iter().flatten();
            let of_fold = rows.iter().zip(folds).filter(|(_, of_row)| **of_row == fold);
            score(&of_fold.map(|(row, _)| *row).collect::<Vec<_>>())
        };
        contestant.score = Some(score(rows));
        contestant.of_folds = (0..round.folds.count).map(of_fold).collect();
    }

    /// The best of the last round, unless the usual recipe may as well be: then that.
    fn winner(field: &[Contestant], rounds: usize) -> usize {
        let finalists = (0..field.len()).filter(|place| field[*place].round == rounds && field[*place].score.is_some());
        let score = |place: &usize| field[*place].score.unwrap_or(-1.0);
        // Of equals the first: it is cheaper, or usual.
        let best = finalists.rev().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(0);
        if is_better(&field[best].of_folds, &field[0].of_folds) { best } else { 0 }
    }
}

/// Whether the mean of the differences is above their standard error.
fn is_better(scores: &[f64], than: &[f64]) -> bool {
    let differences: Vec<f64> = scores.iter().zip(than).map(|(score, other)| score - other).collect();
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = differences.iter().map(|difference| (difference - mean) * (difference - mean)).sum();
    let standard_error = (squares / (count * (count - 1.0)).max(1.0)).sqrt();
    mean > standard_error
}

/// Fits the usual boosted trees to some thousand rows; how many elementary steps that is. Whoever knows how long it took
/// knows how many steps this machine takes in a second.
///
/// # Errors
/// As a [`Trainer`](crate::train::Trainer)'s fit.
fn yardstick(set: &TrainingSet, control: &Control<'_>) -> Result<u64, TrainError> {
    let divisor = (set.len() / YARDSTICK_ROWS).max(1);
    let part = if divisor > 1 { set.subset(&Folds::assign(set, divisor, 0).split(0).0) } else { set.clone() };
    let boosting = trainer(Algorithm::GradientBoosting);
    let mut steps = 0_u64;
    // Threads take whole fits, as in a search.
    for params in boosting.candidates(part.feature_count()).iter().take(1) {
        let fits = control.threads;
        crate::train::parallel::try_map(fits, control.threads, |fit| {
            boosting.fit(&part, params, fit as u64, &control.single_threaded()).map(drop)
        })?;
        steps = steps.saturating_add(boosting.cost(&part, params).saturating_mul(fits as u64));
    }
    Ok(steps)
}
