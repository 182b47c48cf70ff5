//! What a set of columns gives and costs.

use std::cell::Cell;

use picket_common::model::Model;

use crate::evaluate::bootstrap::Groups;
use crate::evaluate::curve::Curve;
use crate::select::binned::{self, Binned};
use crate::select::{Chosen, Columns, Dropped, Selection, Step, Wanted, all};
use crate::train::fold::Folds;
use crate::train::run::{attacks_once, fold_models, fold_scores};
use crate::train::{Control, DraftContext, Options, Recipe, TrainError, TrainingSet, parallel, threshold, trainer};

/// What observers are told.
pub(super) const STAGE: &str = "selection";
/// Bootstrap samples for a standard error.
const RESAMPLES: u32 = 100;

/// Fits sets of columns on the same folds.
pub(super) struct Judge<'a> {
    columns: Columns<'a>,
    /// Rows of the whole training part.
    rows: usize,
    folds: &'a Folds,
    recipe: &'a Recipe,
    options: Options,
    context: &'a DraftContext,
    control: &'a Control<'a>,
    /// Elementary steps so far.
    work: Cell<u64>,
}

/// The models of the folds for a set of columns.
pub(super) struct Fitted {
    /// The rows with these columns alone.
    pub(super) set: TrainingSet,
    /// One for each fold.
    pub(super) models: Vec<Model>,
    /// For each feature the place of its column.
    pub(super) of_feature: Vec<usize>,
}

impl<'a> Judge<'a> {
    /// `columns` are those of the rows that are looked at, of a training part of so many `rows`.
    pub(super) fn new(
        columns: Columns<'a>,
        rows: usize,
        folds: &'a Folds,
        (recipe, options): (&'a Recipe, Options),
        context: &'a DraftContext,
        control: &'a Control<'a>,
    ) -> Self {
        Self { columns, rows, folds, recipe, options, context, control, work: Cell::new(0) }
    }

    pub(super) fn columns(&self) -> &Columns<'a> {
        &self.columns
    }

    pub(super) fn folds(&self) -> &Folds {
        self.folds
    }

    pub(super) fn options(&self) -> Options {
        self.options
    }

    pub(super) fn control(&self) -> &Control<'a> {
        self.control
    }

    /// Each column as one binned variable.
    pub(super) fn binned(&self) -> Result<Vec<Binned>, TrainError> {
        let (columns, control) = (self.columns, self.control);
        let folds = Folds::assign(columns.set, binned::FOLDS, self.options.seed);
        parallel::try_map(columns.names.len(), control.threads, |column| {
            control.check()?;
            Ok(Binned::of(columns.set, &columns.features(&[column]), &folds))
        })
    }

    /// The step of all columns.
    pub(super) fn first(&self) -> Result<Step, TrainError> {
        self.step(&all(&self.columns), &[])
    }

    /// The step of the columns at some places, which lacks the `gone` ones of the step before.
    pub(super) fn step(&self, places: &[usize], gone: &[usize]) -> Result<Step, TrainError> {
        let set = self.set(places);
        let scores = fold_scores(&set, self.recipe, self.folds, self.options, self.context, self.control)?;
        let (score, standard_error) = self.score(&scores);
        Ok(self.step_of(&set, (places.len(), gone), (score, standard_error)))
    }

    /// As [`Self::step`], with the models.
    pub(super) fn step_and_models(&self, places: &[usize], gone: &[usize]) -> Result<(Step, Fitted), TrainError> {
        let set = self.set(places);
        let models = fold_models(&set, self.recipe, self.folds, self.options, self.context, self.control)?;
        let score_of = |row: usize| {
            let model = self.folds.fold_of_row[row].and_then(|fold| models.get(fold));
            (model.map_or(0.0, |model| model.score(set.row(row))), set.malicious()[row])
        };
        let scores: Vec<(f64, bool)> = self.folds.scored().into_iter().map(score_of).collect();
        let step = self.step_of(&set, (places.len(), gone), self.score(&scores));
        let of_feature =
            self.columns.features(&sorted(places)).into_iter().map(|feature| self.columns.of_feature[feature]);
        let of_feature = of_feature.collect();
        Ok((step, Fitted { set, models, of_feature }))
    }

    fn set(&self, places: &[usize]) -> TrainingSet {
        self.columns.set.with_features(&self.columns.features(&sorted(places)))
    }

    fn step_of(&self, set: &TrainingSet, (columns, gone): (usize, &[usize]), (score, error): (f64, f64)) -> Step {
        let cost = trainer(self.recipe.params.get().algorithm()).cost(set, &self.recipe.params);
        self.work.set(self.work.get().saturating_add(cost.saturating_mul(self.folds.count as u64)));
        let of_all = u128::from(cost) * self.rows as u128 / set.len().max(1) as u128;
        Step {
            columns,
            features: set.feature_count(),
            score,
            standard_error: error,
            fit_work: u64::try_from(of_all).unwrap_or(u64::MAX),
            dropped: gone.iter().map(|place| self.columns.names[*place].clone()).collect(),
            chosen: false,
        }
    }

    /// Tuning score and its standard error: over bootstrap samples of kin, or where those are too few that of a share among
    /// so many attacks.
    fn score(&self, scores: &[(f64, bool)]) -> (f64, f64) {
        let budget = self.options.false_positive_budget;
        let mut once = attacks_once(self.columns.set, &self.folds.scored(), scores);
        once.sort_by(|a, b| b.0.total_cmp(&a.0));
        let score = threshold::tuning_score(&once.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), budget);
        let groups = Groups::of(once.iter().map(|row| (row.2, row.1)));
        let of_sample = |times: Vec<u64>| {
            let rows = once.iter().zip(&groups.of_row);
            threshold::tuning_score_of(
                &Curve::from_sorted(rows.map(|((score, malicious, _), group)| (*score, *malicious, times[*group]))),
                budget,
            )
        };
        let samples: Vec<f64> = groups.draws(RESAMPLES, self.options.seed).map(of_sample).collect();
        if samples.is_empty() {
            let attacks = once.iter().filter(|row| row.1).count().max(1) as f64;
            return (score, (score * (1.0 - score) / attacks).max(0.0).sqrt());
        }
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean) * (sample - mean)).sum();
        (score, (squares / (count - 1.0).max(1.0)).sqrt())
    }

    /// The tuning score of some scored rows.
    pub(super) fn tuning_score(&self, rows: &[usize], scores: &[(f64, bool)]) -> f64 {
        let once = attacks_once(self.columns.set, rows, scores);
        let once: Vec<(f64, bool)> = once.into_iter().map(|(score, malicious, _)| (score, malicious)).collect();
        threshold::tuning_score(&once, self.options.false_positive_budget)
    }

    /// What is told of a choice.
    pub(super) fn selection(&self, wanted: Wanted, chosen: Chosen) -> Selection {
        let Chosen { places, mut dropped, steps } = chosen;
        dropped.sort_by_key(|(place, ..)| *place);
        let name = |place: usize| self.columns.names[place].clone();
        Selection {
            method: wanted.method,
            columns_max: wanted.columns_max,
            rows: self.columns.set.len(),
            folds: self.folds.count,
            work: self.work.get(),
            steps,
            kept: places.iter().map(|place| name(*place)).collect(),
            dropped: dropped
                .into_iter()
                .map(|(place, reason, measure)| Dropped { column: name(place), reason, measure })
                .collect(),
            features: self.columns.features(&places),
            places,
        }
    }
}

fn sorted(places: &[usize]) -> Vec<usize> {
    let mut places = places.to_vec();
    places.sort_unstable();
    places
}
