//! Which columns a model needs.
//!
//! A column may give many features (a text's n-grams, a time's cycles): columns are kept or dropped as a whole, because a
//! dropped one need not be gathered and encoded any more, while one n-gram less saves next to nothing.
//!
//! * **variance**: drops what is the same in nearly all rows.
//! * **mutual information**: drops what says no more about the label than chance would.
//! * **mRMR**: orders columns by what they say beside those before them.
//! * **permutation**: drops what models of folds do as well without.
//! * **elimination**: as that, a share of the columns at a time.
//! * **auto**: variance, then the order of mRMR.
//!
//! Orders become sets by validation: nested sets are fitted on folds that keep kin together, and the smallest is taken whose
//! tuning score is within one standard error of the best (Breiman, Friedman, Olshen, Stone, Classification and Regression
//! Trees, 1984, 3.4.3), and as sure: less its own standard error, its score is at most two standard errors of the best set's
//! below the best. Standard errors are those of scores over bootstrap samples of kin.
//!
//! Only the training part is looked at. The scores of the steps compare sets with each other; they are a little too good to
//! stand for new rows, because the same rows had a say in the order (Ambroise, McLachlan 2002): the test part says what a
//! selection costs. Deterministic: how many rows and folds a selection gets is decided by elementary steps, not by a clock.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::select::binned::Binned;
use crate::select::judge::Judge;
use crate::train::fold::Folds;
use crate::train::{Control, DraftContext, Options, Recipe, TrainError, TrainingSet, trainer};

mod binned;
mod elimination;
mod judge;
mod mrmr;
mod mutual_information;
mod permutation;
#[cfg(test)]
mod tests;
mod variance;

/// Folds that sets of columns are compared on.
const FOLDS: usize = 5;
/// Each set of a nested order has about so many times the columns of the next smaller one.
const GROWTH: f64 = 1.3;
/// Elementary steps ([`Trainer::cost`](crate::train::Trainer::cost)) that a selection may take, about: half a minute on two
/// processors. Where all rows would take more, a part of them is looked at, kin together.
const COST_MAX: u64 = 24_000_000_000;
/// Fewest rows of such a part.
const PART_ROWS_MIN: usize = 3_000;
/// How many fits of all columns the fits of the nested sets cost together, about.
const SETS_COST: u64 = 5;

/// How columns are selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// All stay.
    #[default]
    None,
    /// Those stay that vary.
    Variance,
    /// Those stay that say something about the label, each by itself.
    MutualInformation,
    /// The best of those that say the most beside each other.
    Mrmr,
    /// Those stay that models do worse without.
    Permutation,
    /// The least useful go, step by step.
    Elimination,
    /// Variance, then mRMR.
    Auto,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Variance,
        Self::MutualInformation,
        Self::Mrmr,
        Self::Permutation,
        Self::Elimination,
        Self::Auto,
    ];

    /// Its name in commands and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Variance => "variance",
            Self::MutualInformation => "mutual-information",
            Self::Mrmr => "mrmr",
            Self::Permutation => "permutation",
            Self::Elimination => "elimination",
            Self::Auto => "auto",
        }
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or(UnknownMethod)
    }
}

/// A name that is no [`Method`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown selection: expected none, variance, mutual-information, mrmr, permutation, elimination or auto")]
pub struct UnknownMethod;

/// What is asked of a selection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How.
    pub method: Method,
    /// Most columns that stay.
    pub columns_max: Option<usize>,
}

/// What is selected from.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The rows.
    pub set: &'a TrainingSet,
    /// Names of the columns.
    pub names: &'a [String],
    /// For each feature the place of its column; ascending.
    pub of_feature: &'a [usize],
}

impl Columns<'_> {
    /// The features of some columns (ascending), in order.
    pub fn features(&self, columns: &[usize]) -> Vec<usize> {
        let features = 0..self.of_feature.len();
        features.filter(|feature| columns.binary_search(&self.of_feature[*feature]).is_ok()).collect()
    }
}

/// A set of columns and what it gives and costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Columns kept.
    pub columns: usize,
    /// Features of a row to compute for them.
    pub features: usize,
    /// Tuning score on rows that the models of the folds had not seen.
    pub score: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Elementary steps of a fit to the whole training part.
    pub fit_work: u64,
    /// Columns that the step before had and this one has not, the least useful first.
    pub dropped: Vec<String>,
    /// Whether this set was chosen.
    pub chosen: bool,
}

/// A column that was dropped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dropped {
    /// Its name.
    pub column: String,
    /// Why.
    pub reason: &'static str,
    /// What the method measured: the share of rows with the most frequent value, bits of mutual information, or how much the
    /// tuning score falls without it.
    pub measure: f64,
}

/// What was selected, and what that cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selection {
    /// How.
    pub method: Method,
    /// The most columns that were to stay.
    pub columns_max: Option<usize>,
    /// Rows that the sets were compared on: all, or a part where all would take long.
    pub rows: usize,
    /// Folds that they were compared on.
    pub folds: usize,
    /// Elementary steps of all fits.
    pub work: u64,
    /// The sets that were compared, from all columns down.
    pub steps: Vec<Step>,
    /// Names of the columns that stay, in the table's order.
    pub kept: Vec<String>,
    /// The others, in the table's order.
    pub dropped: Vec<Dropped>,
    /// Places of those that stay, ascending.
    #[serde(skip)]
    pub places: Vec<usize>,
    /// The features of those.
    #[serde(skip)]
    pub features: Vec<usize>,
}

impl Selection {
    /// The step of all columns and the chosen one.
    pub fn before_and_after(&self) -> Option<(&Step, &Step)> {
        Some((self.steps.first()?, self.steps.iter().find(|step| step.chosen)?))
    }
}

/// An order of columns, the most useful first, with what put each there.
struct Ranking {
    /// Places of columns.
    order: Vec<usize>,
    /// By place.
    measures: Vec<f64>,
    reason: &'static str,
}

/// Selects columns for models of `recipe`; nothing when all shall stay.
///
/// # Errors
/// As a training.
pub fn select(
    columns: &Columns<'_>,
    wanted: Wanted,
    (recipe, options): (&Recipe, Options),
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Option<Selection>, TrainError> {
    if wanted.method == Method::None {
        return Ok(None);
    }
    let part = part(columns.set, recipe, options.seed);
    let folds = Folds::of(&part, FOLDS, options.seed)?;
    let seen = Columns { set: &part, ..*columns };
    let judge = Judge::new(seen, columns.set.len(), &folds, (recipe, options), context, control);
    control.observer.progress(judge::STAGE, 0, 1);
    let chosen = match wanted.method {
        Method::Variance => by_filter(
            &judge,
            judge.first()?,
            variance::ranking(columns),
            |_, measure| variance::varies(measure),
            wanted,
        )?,
        Method::MutualInformation => {
            let binned = judge.binned()?;
            let ranking = mutual_information::ranking(&binned, part.malicious());
            let tells = mutual_information::above_chance(&binned, part.malicious());
            by_filter(&judge, judge.first()?, ranking, |place, _| tells[place], wanted)?
        }
        Method::Permutation => {
            let (first, ranking, errors) = permutation::ranking(&judge)?;
            by_filter(&judge, first, ranking, |place, measure| measure > errors[place], wanted)?
        }
        Method::Mrmr => by_sets(&judge, mrmr_ranking(&judge, &all(columns))?, Vec::new(), wanted)?,
        Method::Elimination => elimination::eliminate(&judge, wanted)?,
        Method::None | Method::Auto => {
            let varying = variance::ranking(columns);
            let (kept, constant): (Vec<usize>, Vec<usize>) =
                all(columns).into_iter().partition(|place| variance::varies(varying.measures[*place]));
            let kept = if kept.is_empty() { varying.order[..1].to_vec() } else { kept };
            let constant = constant.into_iter().filter(|place| !kept.contains(place));
            let constant = constant.map(|place| (place, varying.reason, varying.measures[place])).collect();
            by_sets(&judge, mrmr_ranking(&judge, &kept)?, constant, wanted)?
        }
    };
    control.observer.progress(judge::STAGE, 1, 1);
    Ok(Some(judge.selection(wanted, chosen)))
}

/// What a method chose.
struct Chosen {
    /// Places of columns that stay, ascending.
    places: Vec<usize>,
    /// Places of the others, with reason and measure.
    dropped: Vec<(usize, &'static str, f64)>,
    /// The sets that were compared, from all columns down.
    steps: Vec<Step>,
}

fn all(columns: &Columns<'_>) -> Vec<usize> {
    (0..columns.names.len()).collect()
}

fn mrmr_ranking(judge: &Judge<'_>, among: &[usize]) -> Result<Ranking, TrainError> {
    let binned: Vec<Binned> = judge.binned()?;
    mrmr::ranking(&binned, judge.columns().set.malicious(), among, judge.control())
}

/// Columns that pass, at most so many; the first of the order where none does. `first` is the step of all columns.
fn by_filter(
    judge: &Judge<'_>,
    first: Step,
    ranking: Ranking,
    passes: impl Fn(usize, f64) -> bool,
    wanted: Wanted,
) -> Result<Chosen, TrainError> {
    let Ranking { order, measures, reason } = ranking;
    let passing = order.iter().copied().filter(|place| passes(*place, measures[*place]));
    let mut places: Vec<usize> = passing.take(wanted.columns_max.unwrap_or(usize::MAX)).collect();
    if places.is_empty() {
        places.extend(order.first());
    }
    places.sort_unstable();
    let gone: Vec<usize> = order.iter().rev().copied().filter(|place| places.binary_search(place).is_err()).collect();
    let mut steps = vec![first];
    if !gone.is_empty() {
        steps.push(judge.step(&places, &gone)?);
    }
    if let Some(last) = steps.last_mut() {
        last.chosen = true;
    }
    Ok(Chosen { places, dropped: gone.into_iter().map(|place| (place, reason, measures[place])).collect(), steps })
}

/// The smallest set of the order's first columns that is as good as the best of them, but for chance.
fn by_sets(
    judge: &Judge<'_>,
    ranking: Ranking,
    mut dropped: Vec<(usize, &'static str, f64)>,
    wanted: Wanted,
) -> Result<Chosen, TrainError> {
    let Ranking { order, measures, reason } = ranking;
    let gone_already: Vec<usize> = dropped.iter().map(|(place, ..)| *place).collect();
    let columns_max = wanted.columns_max.unwrap_or(usize::MAX).clamp(1, order.len());
    let mut steps = vec![judge.first()?];
    let mut sets = vec![all(judge.columns())];
    let mut before: Vec<usize> = order.clone();
    if !gone_already.is_empty() {
        sets.push(order.clone());
        steps.push(judge.step(&order, &gone_already)?);
    }
    for size in sizes(columns_max).into_iter().filter(|size| *size < order.len()) {
        let gone: Vec<usize> = before[size..].iter().rev().copied().collect();
        before.truncate(size);
        steps.push(judge.step(&before, &gone)?);
        sets.push(before.clone());
    }
    let best = smallest_as_good(&mut steps, wanted.columns_max);
    let mut places = sets.swap_remove(best);
    places.sort_unstable();
    let unranked: Vec<usize> =
        dropped.iter().map(|(place, ..)| *place).filter(|place| places.binary_search(place).is_ok()).collect();
    dropped.retain(|(place, ..)| !unranked.contains(place));
    let gone = order.into_iter().filter(|place| places.binary_search(place).is_err());
    dropped.extend(gone.map(|place| (place, reason, measures[place])));
    Ok(Chosen { places, dropped, steps })
}

/// The place of the smallest set within one standard error of the best, among those of at most so many columns; the smallest
/// of all where none is so small. Marks it. Where few columns are left scores spread more: sets that only seem as good are
/// passed over, by what is sure of them.
fn smallest_as_good(steps: &mut [Step], columns_max: Option<usize>) -> usize {
    let allowed = |step: &Step| step.columns <= columns_max.unwrap_or(usize::MAX);
    let best = steps.iter().filter(|step| allowed(step)).max_by(|a, b| a.score.total_cmp(&b.score));
    let (score, error) = best.map_or((f64::NEG_INFINITY, 0.0), |best| (best.score, best.standard_error));
    let is_as_good =
        |step: &Step| step.score >= score - error && step.score - step.standard_error >= score - 2.0 * error;
    // The best set itself passes.
    let as_good = steps.iter().rposition(|step| allowed(step) && is_as_good(step));
    let chosen = as_good.unwrap_or(steps.len().saturating_sub(1));
    if let Some(step) = steps.get_mut(chosen) {
        step.chosen = true;
    }
    chosen
}

/// The sizes of nested sets of up to `most` columns, descending to 1.
fn sizes(most: usize) -> Vec<usize> {
    let mut sizes = vec![1];
    while let Some(last) = sizes.last().copied().filter(|last| *last < most) {
        sizes.push(((last as f64 * GROWTH) as usize).clamp(last + 1, most));
    }
    sizes.reverse();
    sizes
}

/// All rows, or as many of them, kin together, as a selection can afford.
fn part(set: &TrainingSet, recipe: &Recipe, seed: u64) -> TrainingSet {
    let cost = trainer(recipe.params.get().algorithm()).cost(set, &recipe.params);
    let divisor = cost.saturating_mul(SETS_COST * FOLDS as u64).div_ceil(COST_MAX);
    let divisor = usize::try_from(divisor).unwrap_or(usize::MAX).min(set.len() / PART_ROWS_MIN);
    if divisor <= 1 {
        return set.clone();
    }
    let (rows, _) = Folds::assign(set, divisor, seed).split(0);
    let malicious = rows.iter().filter(|row| set.malicious()[**row]).count();
    let least = crate::train::ROWS_PER_CLASS_MIN;
    // A class of few kin may be missing from a part.
    if malicious < least || rows.len() - malicious < least { set.clone() } else { set.subset(&rows) }
}
