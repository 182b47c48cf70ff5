//! One training on a table.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::Subject;
use picket_common::id::Digest;
use picket_common::model::limits::FEATURES_MAX;
use picket_common::model::{Algorithm, ModelError};
use picket_common::table::{ColumnKind, Preparation, TableModel, TableModelError};

use crate::evaluate::survey::{self, SurveyedRow};
use crate::evaluate::{self, EvaluateError, Report, ScoredRow, Survey, importance};
use crate::select::{self, Columns, Selection};
use crate::table::frame::{Table, TableError};
use crate::table::prepare::{Prepared, TrainingRows};
use crate::table::split::{Parts, SplitError};
use crate::train::tune::{self, Found, SearchBudget};
use crate::train::{
    BoostingParams, CalibrationMethod, Control, DraftContext, Folding, Options, Params, ROWS_PER_CLASS_MIN, Recipe,
    TrainError, Trained, TrainingSet, ValidParams, train_with, trainer,
};

/// From so many training rows on, boosting grows larger trees, and more of them.
const MANY_ROWS: usize = 2_000;

/// What is asked of a training.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// How to fit, or what a search begins with.
    pub recipe: Recipe,
    /// Look for something better.
    pub search: Option<TableSearch>,
    /// Seed and budget.
    pub options: Options,
    /// Name of the training.
    pub training_run: String,
    /// Digest of what it learns from.
    pub dataset_digest: Digest,
    /// Resamples for the intervals of the evaluation.
    pub resamples: u32,
    /// Which columns to keep.
    pub selection: select::Wanted,
    /// How rows are divided for validation.
    pub validation: ValidationRule,
}

/// How the training part is divided for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationRule {
    /// Kin by lot.
    KFold {
        /// Into so many folds; as many as the number of rows allows without it.
        folds: Option<usize>,
    },
    /// In the order of time.
    RollingOrigin {
        /// So many blocks are scored.
        folds: usize,
        /// Rows closer than this before a block are not learned from by the model that scores it.
        embargo: Duration,
    },
}

impl Default for ValidationRule {
    fn default() -> Self {
        Self::KFold { folds: None }
    }
}

/// A search for the algorithm and its parameters.
#[derive(Clone, Debug)]
pub struct TableSearch {
    /// Which algorithms. All learn from one preparation, which takes labels as soon as one of them does: beside others an
    /// isolation forest sees categories by their log-odds.
    pub algorithms: Vec<Algorithm>,
    /// How much.
    pub budget: SearchBudget,
}

/// What a training gave.
#[derive(Clone, Debug)]
pub struct TrainedTable {
    /// The model's file.
    pub file: Vec<u8>,
    /// The model, read back from it.
    pub model: TableModel,
    /// How it was found.
    pub trained: Trained,
    /// What the search tried.
    pub found: Option<Found>,
    /// Which columns were kept, where that was asked.
    pub selection: Option<Selection>,
    /// How good it is on the test part.
    pub evaluation: Evaluation,
    /// Columns that the model does not judge by, with the reason.
    pub left_out: BTreeMap<String, &'static str>,
}

/// What a test part says about a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// How good its verdicts are.
    Labelled(Box<Report>),
    /// What it alerts, as nobody knows what is right.
    Unlabelled(Survey),
}

impl Evaluation {
    /// The report, where there are labels.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Labelled(report) => Some(report),
            Self::Unlabelled(_) => None,
        }
    }

    fn notes_mut(&mut self) -> &mut Vec<String> {
        match self {
            Self::Labelled(report) => &mut report.notes,
            Self::Unlabelled(survey) => &mut survey.notes,
        }
    }
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum TableTrainError {
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its division.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// Too many features.
    #[error("the columns give {found} features, at most {FEATURES_MAX} are supported: ignore some, texts first")]
    TooManyFeatures {
        /// How many.
        found: usize,
    },
    /// Something that takes labels is asked for.
    #[error("{what} takes labels, and the training part has none, or of one class")]
    NeedsLabels {
        /// What was asked for.
        what: &'static str,
    },
    /// Every column is constant.
    #[error("no column tells one row from another in the training part: all are constant or empty")]
    NothingToLearnFrom,
    /// Learning failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model cannot be written.
    #[error("cannot write the learned model: {0}")]
    Model(#[from] ModelError),
    /// The table model cannot be written.
    #[error("cannot write the learned model: {0}")]
    TableModel(#[from] TableModelError),
    /// It cannot be evaluated.
    #[error("cannot evaluate the model: {0}")]
    Evaluate(#[from] EvaluateError),
}

/// The usual recipe of an algorithm for so many training rows.
pub fn recipe(algorithm: Algorithm, rows: usize, features: usize) -> Option<Recipe> {
    let usual = trainer(algorithm).candidates(features).into_iter().next();
    let params = match algorithm {
        Algorithm::GradientBoosting if rows >= MANY_ROWS => {
            let boosting = BoostingParams { trees: 300, leaves_max: 31, ..BoostingParams::default() };
            ValidParams::new(Params::GradientBoosting(boosting)).ok()
        }
        _ => usual,
    };
    params.map(|params| Recipe { params, witnesses: false })
}

/// Learns preparation and model from the training part, and evaluates them on the test part. The model is signed with
/// `key`. The same parts and options give the same bytes; where a search is told its budget in seconds, the same budget in
/// steps as was found then. `clock` tells the seconds since some moment; only a budget in seconds asks it.
///
/// # Errors
/// [`TableTrainError`].
pub fn train(
    parts: &Parts<'_>,
    options: &TableOptions,
    key: &SigningKey,
    clock: &dyn Fn() -> f64,
    control: &Control<'_>,
) -> Result<TrainedTable, TableTrainError> {
    control.observer.progress("preparation", 0, 1);
    let learned = Learned::of(parts, options)?;
    let mut prepared = learned.ordinary().learn();
    let feature_count = prepared.preparation.feature_count();
    if feature_count == 0 {
        return Err(TableTrainError::NothingToLearnFrom);
    }
    if feature_count > FEATURES_MAX {
        return Err(TableTrainError::TooManyFeatures { found: feature_count });
    }
    let mut set = learned.set(&prepared, options.validation)?;
    let needs_labels = [
        (options.search.is_some(), "a search"),
        (options.selection.method != select::Method::None, "a selection of columns"),
        (options.options.calibration != CalibrationMethod::None, "a calibration"),
    ];
    if let Some((_, what)) = needs_labels.into_iter().find(|(is_asked, _)| *is_asked && !set.is_labelled()) {
        return Err(TableTrainError::NeedsLabels { what });
    }
    control.observer.progress("preparation", 1, 1);
    let mut context = DraftContext {
        // Says nothing: the specification is the preparation.
        subject: Subject::Connection,
        feature_spec_hash: prepared.preparation.hash(),
        dataset_digest: options.dataset_digest,
        training_run: options.training_run.clone(),
        // A clock would give other bytes each time; this is when the model's knowledge ends.
        created: parts.newest.unwrap_or(Timestamp(0)),
    };
    let selection = selection(&prepared, &set, options, &context, control)?;
    if let Some(selection) = &selection {
        set = set.with_features(&selection.features);
        let reasons = selection.dropped.iter().map(|dropped| (dropped.column.clone(), dropped.reason));
        prepared = prepared.keep(&selection.places, reasons);
        context.feature_spec_hash = prepared.preparation.hash();
    }
    let found = match &options.search {
        Some(wanted) => Some(search(wanted, options, &set, &context, clock, control)?),
        None => None,
    };
    let recipe = found.as_ref().map_or(options.recipe, |found| found.recipe);
    let trained = train_with(recipe, &set, options.options, &context, control)?;
    let file = TableModel::encode(&prepared.preparation, &trained.draft.encode(key)?)?;
    let model = TableModel::parse(&file)?;
    control.observer.progress("evaluation", 0, 1);
    let mut evaluation = match &parts.test_table.malicious {
        Some(_) => Evaluation::Labelled(Box::new(judge(&model, parts, options)?)),
        None => Evaluation::Unlabelled(look(&model, parts, (&set, trained.threshold.share_alerted), options)?),
    };
    evaluation.notes_mut().extend(selection.as_ref().and_then(selection_note));
    control.observer.progress("evaluation", 1, 1);
    Ok(TrainedTable { file, model, trained, found, selection, evaluation, left_out: prepared.left_out })
}

/// Rows of the training part.
#[derive(Clone)]
struct Rows {
    rows: Vec<usize>,
    /// For each row the number of its group.
    groups: Vec<u32>,
    /// For each row what stays together in folds.
    kin: Vec<u32>,
}

impl Rows {
    fn of(parts: &Parts<'_>, keep: impl Fn(usize) -> bool) -> Self {
        let places: Vec<usize> = (0..parts.train.len()).filter(|place| keep(parts.train[*place])).collect();
        Self {
            rows: places.iter().map(|place| parts.train[*place]).collect(),
            groups: places.iter().map(|place| parts.train_groups[*place]).collect(),
            kin: places.iter().map(|place| parts.train_kin[*place]).collect(),
        }
    }
}

/// The rows that a training may look at, and how far.
struct Learned<'a> {
    parts: &'a Parts<'a>,
    all: Rows,
    /// Those of them that are not known to be malicious.
    ordinary: Rows,
    /// Of every row of the table; nothing when they are not to be looked at.
    labels: Option<&'a [bool]>,
    /// Whether what is learned depends on the labels.
    is_supervised: bool,
}

impl<'a> Learned<'a> {
    /// All rows and labels for what learns from them. Other algorithms leave malicious rows out; the threshold takes those
    /// as it does elsewhere, where they are enough to tell a class.
    fn of(parts: &'a Parts<'a>, options: &TableOptions) -> Result<Self, TableTrainError> {
        let of_search = options.search.iter().flat_map(|search| &search.algorithms);
        let is_supervised =
            of_search.chain([&options.recipe.params.get().algorithm()]).any(|algorithm| algorithm.is_supervised());
        let labels =
            if is_supervised { Some(parts.train_table.labels()?) } else { parts.train_table.malicious.as_deref() };
        let ordinary = Rows::of(parts, |row| labels.is_none_or(|labels| !labels[row]));
        let is_labelled = is_supervised || parts.train.len() - ordinary.rows.len() >= ROWS_PER_CLASS_MIN;
        let all = if is_labelled { Rows::of(parts, |_| true) } else { ordinary.clone() };
        Ok(Self { parts, all, ordinary, labels: labels.filter(|_| is_labelled), is_supervised })
    }

    /// What the preparation is learned from: a model of what is ordinary must not see, through it, what is malicious.
    fn ordinary(&self) -> TrainingRows<'_> {
        self.view(if self.is_supervised { &self.all } else { &self.ordinary })
    }

    fn view<'b>(&'b self, rows: &'b Rows) -> TrainingRows<'b> {
        TrainingRows {
            table: self.parts.train_table,
            rows: &rows.rows,
            malicious: self.labels.filter(|_| self.is_supervised),
            groups: &rows.kin,
        }
    }

    fn set(&self, prepared: &Prepared, rule: ValidationRule) -> Result<TrainingSet, TableTrainError> {
        let (values, features) = (self.view(&self.all).vectors(prepared), prepared.preparation.feature_count());
        let groups = self.weighed_groups();
        let set = match self.labels {
            Some(labels) => {
                let labels = self.all.rows.iter().map(|row| labels[*row]).collect();
                TrainingSet::new(features, values, labels, groups)?
            }
            None => TrainingSet::unlabelled(features, values, groups)?,
        };
        Ok(set.with_kin(self.all.kin.clone())?.with_folding(self.folding(rule)?)?)
    }

    /// What weights are divided by: the groups of the group column. Without one each row is its own, so that rows count
    /// alike; folds keep near-duplicates together all the same.
    fn weighed_groups(&self) -> Vec<u32> {
        if self.parts.train_table.group.is_some() {
            return self.all.groups.clone();
        }
        (0..self.all.rows.len()).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect()
    }

    /// Validation of the rows, as they allow.
    fn folding(&self, rule: ValidationRule) -> Result<Folding, SplitError> {
        Ok(match rule {
            ValidationRule::KFold { folds } => Folding::KFold { folds },
            ValidationRule::RollingOrigin { folds, embargo } => {
                let times = self.parts.train_table.times().ok_or(SplitError::RollingWithoutTimes)?;
                Folding::RollingOrigin { folds, times: self.all.rows.iter().map(|row| times[*row]).collect(), embargo }
            }
        })
    }
}

fn selection(
    prepared: &Prepared,
    set: &TrainingSet,
    options: &TableOptions,
    context: &DraftContext,
    control: &Control<'_>,
) -> Result<Option<Selection>, TrainError> {
    let names: Vec<String> = prepared.preparation.columns.iter().map(|column| column.name.clone()).collect();
    let columns = Columns { set, names: &names, of_feature: &prepared.preparation.column_of_feature() };
    select::select(&columns, options.selection, (&options.recipe, options.options), context, control)
}

/// What was dropped and what that cost.
fn selection_note(selection: &Selection) -> Option<String> {
    let (before, after) = selection.before_and_after()?;
    Some(format!(
        "{} of {} columns were kept ({}): tuning score {:.4} instead of {:.4} (standard error {:.4}), {} features instead of {}",
        after.columns,
        before.columns,
        selection.method.name(),
        after.score,
        before.score,
        before.standard_error,
        after.features,
        before.features,
    ))
}

fn search(
    wanted: &TableSearch,
    options: &TableOptions,
    set: &TrainingSet,
    context: &DraftContext,
    clock: &dyn Fn() -> f64,
    control: &Control<'_>,
) -> Result<Found, TableTrainError> {
    let work = wanted.budget.work(set, clock, control)?;
    Ok(tune::search(set, options.recipe, &wanted.algorithms, work, options.options, context, control)?)
}

/// The test part's vectors, row by row.
fn vectors(preparation: &Preparation, table: &Table, rows: &[usize]) -> Vec<f32> {
    let places: Vec<Option<usize>> = preparation
        .columns
        .iter()
        .map(|prepared| table.columns.iter().position(|column| column.name == prepared.name))
        .collect();
    let mut values = Vec::with_capacity(rows.len() * preparation.feature_count());
    for row in rows {
        for (prepared, place) in preparation.columns.iter().zip(&places) {
            let value = place.map_or(picket_common::table::Value::Missing, |place| table.columns[place].value(*row));
            prepared.encoder.encode(value, &mut values);
        }
    }
    values
}

/// The scores of some rows of a table with the model's columns; a column that it lacks is missing.
pub fn scores(model: &TableModel, table: &Table, rows: &[usize]) -> Vec<f64> {
    let values = vectors(model.preparation(), table, rows);
    values.chunks_exact(model.preparation().feature_count().max(1)).map(|row| model.model().score(row)).collect()
}

fn judge(model: &TableModel, parts: &Parts<'_>, options: &TableOptions) -> Result<Report, TableTrainError> {
    let table = parts.test_table;
    let malicious = table.labels()?;
    let preparation = model.preparation();
    let values = vectors(preparation, table, &parts.test);
    let vectors = || values.chunks_exact(preparation.feature_count().max(1));
    let family = |table: &Table, row: usize| {
        let family = table.family.as_ref().and_then(|family| family.get(row));
        family.unwrap_or_default().to_owned()
    };
    let families: Vec<String> = parts.test.iter().map(|row| family(table, *row)).collect();
    let rows: Vec<ScoredRow<'_>> = vectors()
        .zip(&parts.test)
        .zip(parts.test_groups.iter().zip(&families))
        .map(|((vector, row), (group, family))| ScoredRow {
            score: model.model().score(vector),
            malicious: malicious[*row],
            technique: if malicious[*row] { family } else { "" },
            group,
        })
        .collect();
    let is_malicious = |row: usize| parts.train_table.malicious.as_ref().is_some_and(|labels| labels[row]);
    let known = parts.train.iter().filter(|row| is_malicious(**row)).map(|row| family(parts.train_table, *row));
    let options = evaluate::Options {
        threshold: model.threshold(),
        known_techniques: &known.filter(|family| !family.is_empty()).collect(),
        resamples: options.resamples,
        seed: options.options.seed,
    };
    let mut report = evaluate::evaluate(&rows, &options)?;
    let column_of_feature = preparation.column_of_feature();
    let names: Vec<&str> = column_of_feature.iter().map(|column| preparation.columns[*column].name.as_str()).collect();
    report.importances = importance::mean_contributions(model.model(), &names, vectors());
    report.notes.extend(notes(parts));
    if !model.model().metadata().algorithm.is_supervised() && model.model().calibration().is_none() {
        report
            .notes
            .push("scores of an isolation forest are no probabilities: Brier score and calibration say nothing".into());
    }
    Ok(report)
}

/// What the model alerts among rows without labels, and how they differ from those that it learned from.
fn look(
    model: &TableModel,
    parts: &Parts<'_>,
    (set, share_alerted): (&TrainingSet, Option<f64>),
    options: &TableOptions,
) -> Result<Survey, TableTrainError> {
    let preparation = model.preparation();
    let values = vectors(preparation, parts.test_table, &parts.test);
    let vectors = || values.chunks_exact(preparation.feature_count().max(1));
    let rows: Vec<SurveyedRow<'_>> = vectors()
        .zip(&parts.test_groups)
        .map(|(vector, group)| SurveyedRow { score: model.model().score(vector), group })
        .collect();
    let mut survey = survey::survey(&rows, model.threshold(), options.resamples, options.options.seed)?;
    let column_of_feature = preparation.column_of_feature();
    let names: Vec<&str> = column_of_feature.iter().map(|column| preparation.columns[*column].name.as_str()).collect();
    survey.importances = importance::mean_contributions(model.model(), &names, vectors());
    // Of times only the hour and the day are there, of which a division by time decides.
    let is_time = |feature: usize| preparation.columns[column_of_feature[feature]].encoder.kind() == ColumnKind::Time;
    let compared: Vec<Option<&str>> =
        names.iter().enumerate().map(|(feature, name)| Some(*name).filter(|_| !is_time(feature))).collect();
    survey.drift = survey::drift(&compared, set.rows(), vectors());
    survey.training_share_alerted = share_alerted;
    survey.notes.extend(notes(parts));
    Ok(survey)
}

fn notes(parts: &Parts<'_>) -> Vec<String> {
    let counts = &parts.counts;
    let mut notes = Vec::new();
    let mut note = |count: Option<usize>, text: &str| {
        if let Some(count) = count.filter(|count| *count > 0) {
            notes.push(format!("{count} {text}"));
        }
    };
    note(Some(counts.embargoed), "training rows were left out: they are too near before the test part");
    note(Some(counts.duplicates_removed), "test rows equal a training row in all columns and the label: removed");
    note(counts.train_contradictions, "training rows equal one with the other label: they stay");
    note(
        counts.test_contradictions,
        "test rows equal a training row with the other label: they stay, and count as errors",
    );
    notes
}
