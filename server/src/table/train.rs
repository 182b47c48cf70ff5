//! A training on files alone: from a table to a folder with the model, its evaluation and how it was made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use picket_common::id::Digest;
use picket_common::model::Algorithm;
use picket_learn::evaluate::page::{self, Card, CardSection};
use picket_learn::evaluate::{Report, survey, text};
use picket_learn::select::{self, Selection};
use picket_learn::table::{
    Division, Evaluation, Parts, SplitRule, TableOptions, TableSearch, TableTrainError, TrainedTable, ValidationRule,
    divide, divide_unsupervised, recipe, train as train_table,
};
use picket_learn::train::tune::{Found, SearchBudget};
use picket_learn::train::{CalibrationMethod, Confidence, Control, Observer, Options, TrainError};
use serde_json::{Value, json};

use crate::table::folder::Folder;
use crate::table::{Loaded, Loader, TableFileError, schema_file};

/// Share of the rows that only evaluation sees, unless asked otherwise.
pub const TEST_FRACTION: f64 = 0.3;
/// Resamples for the intervals of an evaluation.
const BOOTSTRAP_RESAMPLES: u32 = 200;
/// Rows with so many resamples would take minutes: beyond, fewer.
const RESAMPLED_ROWS_MAX: usize = 20_000_000;
/// Hexadecimal digits of the digest in a training's name.
const RUN_DIGITS: usize = 16;
/// Version of the code that trains: part of what a model's bytes depend on.
const CODE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// There is no server whose key could sign: the signature proves that the file is whole, not where it is from.
const NO_SECRET: [u8; 32] = [0; 32];
/// Columns that a page names.
const COLUMNS_LISTED_MAX: usize = 50;
/// Columns that a step of a selection names.
const COLUMNS_NAMED_MAX: usize = 12;
/// Sets of parameters that a page lists.
const CONTESTANTS_LISTED_MAX: usize = 20;

/// Name of the model's file.
pub const MODEL_FILE: &str = "model.picket";
/// Name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";

/// What to train.
#[derive(Clone, Debug)]
pub struct TableTraining {
    /// The table.
    pub input: PathBuf,
    /// A table to evaluate on.
    pub test: Option<PathBuf>,
    /// How to read them.
    pub loader: Loader,
    /// Which algorithms; the best by validation is kept. A search looks among them.
    pub algorithms: Vec<Algorithm>,
    /// Search parameters, too.
    pub search: Option<SearchBudget>,
    /// How to divide; what fits the table without it.
    pub split: Option<SplitRule>,
    /// Share of the rows that only evaluation sees.
    pub test_fraction: f64,
    /// Training rows so near before the test part are left out.
    pub embargo: Duration,
    /// How the training part is divided for validation.
    pub validation: ValidationRule,
    /// Which columns to keep.
    pub selection: select::Wanted,
    /// The same files and options give the same model.
    pub seed: u64,
    /// Share of benign rows that may be alerted.
    pub false_positive_budget: f64,
    /// How surely that is to be kept on new rows; on average without it.
    pub confidence: Option<Confidence>,
    /// Where to.
    pub to: PathBuf,
    /// How scores become probabilities.
    pub calibration: CalibrationMethod,
    /// Replace what is there.
    pub force: bool,
}

/// What a training of one algorithm gave.
#[derive(Debug)]
pub struct Outcome {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How it did in validation, by what the best is chosen; absent without labels.
    pub validation_score: Option<f64>,
    /// Model and evaluation.
    pub trained: TrainedTable,
}

/// What was trained: the best first.
#[derive(Debug)]
pub struct Outcomes {
    /// One for each algorithm, the best by validation first: it is the one that was written.
    pub outcomes: Vec<Outcome>,
    /// The manifest that was written.
    pub manifest: Value,
}

impl TableTraining {
    /// Trains and writes the folder: model, evaluation (JSON, text, page), card, schema, manifest.
    ///
    /// # Errors
    /// [`TableFileError`]; nothing is written then.
    pub fn run(&self, observer: &dyn Observer) -> Result<Outcomes, TableFileError> {
        Folder::check(&self.to, self.force)?;
        let (outcomes, schema) = self.learn(observer)?;
        if let Some(best) = outcomes.outcomes.first() {
            self.write(best, &outcomes.manifest, schema)?;
        }
        Ok(outcomes)
    }

    /// Trains and writes nothing: what was learned, and the schema's text.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub(super) fn learn(&self, observer: &dyn Observer) -> Result<(Outcomes, String), TableFileError> {
        let needs_labels = self.needs_labels();
        let loader = Loader { is_label_optional: !needs_labels, ..self.loader.clone() };
        let loaded = loader.load(&self.input, observer)?;
        let test = match &self.test {
            Some(path) => Some(loader.load_like(path, &loaded.schema, observer)?),
            None => None,
        };
        let rule = self.split.unwrap_or_else(|| SplitRule::of(&loaded.table));
        let Self { test_fraction, seed, embargo, .. } = *self;
        let division = Division { rule, test_fraction, seed, embargo };
        let divide = if needs_labels { divide } else { divide_unsupervised };
        let parts = divide(&loaded.table, test.as_ref().map(|test| &test.table), &division)?;
        let dataset_digest = self.dataset_digest(&loaded, test.as_ref(), parts.rule);
        let mut outcomes = Vec::new();
        // A search is one training, and begins with the first algorithm.
        let trainings = if self.search.is_some() { 1 } else { self.algorithms.len() };
        for algorithm in self.algorithms.iter().take(trainings) {
            outcomes.push(self.fit(*algorithm, &parts, dataset_digest, observer)?);
        }
        // A sort that keeps the order of equals: the first that was asked for.
        let score = |outcome: &Outcome| outcome.validation_score.unwrap_or(0.0);
        outcomes.sort_by(|a, b| score(b).total_cmp(&score(a)));
        if outcomes.is_empty() {
            return Err(TableTrainError::NothingToLearnFrom.into());
        }
        let schema = schema_file::write(&loaded.schema, &file_name(&self.input), loaded.table.rows);
        let manifest = self.manifest(&loaded, test.as_ref(), &parts, &outcomes, (&schema, dataset_digest));
        Ok((Outcomes { outcomes, manifest }, schema))
    }

    /// Whether any of the algorithms learns from labels.
    fn needs_labels(&self) -> bool {
        self.algorithms.iter().any(|algorithm| algorithm.is_supervised())
    }

    fn fit(
        &self,
        algorithm: Algorithm,
        parts: &Parts<'_>,
        dataset_digest: Digest,
        observer: &dyn Observer,
    ) -> Result<Outcome, TableFileError> {
        let (seed, budget) = (self.seed, self.false_positive_budget);
        let unfit = || TrainError::Engine { algorithm, reason: "it has no usual parameters".to_owned() };
        let recipe = recipe(algorithm, parts.train.len(), 1 + parts.train_table.columns.len())
            .ok_or_else(|| TableTrainError::from(unfit()))?;
        let confidence = self.confidence.map_or_else(String::new, |confidence| format!("/{}", f64::from(confidence)));
        let algorithms: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        let (kind, searched) = match self.search {
            // The work is not known yet where it is told in seconds: the model's digest says what came of it.
            Some(_) => ("search", format!("/{}", algorithms.join("+"))),
            None => (algorithm.name(), String::new()),
        };
        let calibration = calibration_part(self.calibration);
        let further = self.further_part();
        let what = format!(
            "{dataset_digest}/{kind}/{seed}/{budget}{confidence}{calibration}{searched}{further}/{CODE_VERSION}"
        );
        let name = Digest::of(what.as_bytes()).to_string();
        let resamples = RESAMPLED_ROWS_MAX / parts.test.len().max(1);
        let options = TableOptions {
            recipe,
            options: Options {
                seed,
                false_positive_budget: budget,
                confidence: self.confidence,
                foldings: 1,
                calibration: self.calibration,
            },
            search: self.search.map(|budget| TableSearch { algorithms: self.algorithms.clone(), budget }),
            training_run: format!("{kind}-{}", &name[..RUN_DIGITS]),
            dataset_digest,
            resamples: BOOTSTRAP_RESAMPLES.min(u32::try_from(resamples).unwrap_or(u32::MAX)),
            selection: self.selection,
            validation: self.validation,
        };
        let control = Control::observed(observer);
        let begin = Instant::now();
        let clock = || begin.elapsed().as_secs_f64();
        let trained = train_table(parts, &options, &SigningKey::from_bytes(&NO_SECRET), &clock, &control)?;
        let algorithm = trained.trained.recipe.params.get().algorithm();
        let validation_score = trained.trained.validation.candidates.first().and_then(|candidate| candidate.score);
        Ok(Outcome { algorithm, validation_score, trained })
    }

    /// What the rows and their division depend on.
    fn dataset_digest(&self, loaded: &Loaded, test: Option<&Loaded>, rule: SplitRule) -> Digest {
        let mut text = format!("{}\n{rule:?}\n{}\n{}\n", loaded.digest, self.test_fraction, self.seed);
        for column in &loaded.schema.columns {
            text.push_str(&format!("{}\t{}\n", column.name, column.role.name()));
        }
        let values = &loaded.schema.label_values;
        text.push_str(&format!("{:?}\n{:?}\n", values.malicious, values.benign));
        if let Some(test) = test {
            text.push_str(&test.digest.to_string());
        }
        if !self.embargo.is_zero() {
            text.push_str(&format!("\nembargo {}", self.embargo.as_secs()));
        }
        Digest::of(text.as_bytes())
    }

    /// What validation and selection add to a training's name, where they are not as usual.
    fn further_part(&self) -> String {
        let validation = match self.validation {
            ValidationRule::KFold { folds: None } => String::new(),
            ValidationRule::KFold { folds: Some(folds) } => format!("/{folds}-fold"),
            ValidationRule::RollingOrigin { folds, .. } => format!("/rolling-origin-{folds}"),
        };
        let most = self.selection.columns_max.map_or_else(String::new, |most| format!("-{most}"));
        match self.selection.method {
            select::Method::None => validation,
            method => format!("{validation}/select-{}{most}", method.name()),
        }
    }

    fn manifest(
        &self,
        loaded: &Loaded,
        test: Option<&Loaded>,
        parts: &Parts<'_>,
        outcomes: &[Outcome],
        (schema, dataset_digest): (&str, Digest),
    ) -> Value {
        let source = |role: &str, path: &Path, loaded: &Loaded| {
            json!({
                "role": role,
                "file": file_name(path),
                "bytes": loaded.bytes,
                "sha256": loaded.digest.to_string(),
                "counts": loaded.table.counts,
                "labels": loaded.table.label_counts,
            })
        };
        let mut inputs = vec![source("train", &self.input, loaded)];
        if let (Some(path), Some(test)) = (&self.test, test) {
            inputs.push(source("test", path, test));
        }
        let outcome = |outcome: &Outcome| {
            let trained = &outcome.trained.trained;
            json!({
                "algorithm": outcome.algorithm.name(),
                "params": trained.recipe.params,
                "training_run": trained.draft.metadata.training_run,
                "validation": trained.validation,
                "search": outcome.trained.found,
                "selection": outcome.trained.selection,
                "threshold": trained.threshold,
                "model_sha256": outcome.trained.model.id().to_string(),
                "model_bytes": outcome.trained.file.len(),
                "features": outcome.trained.model.preparation().feature_count(),
                "columns_left_out": outcome.trained.left_out,
                "test": figures(&outcome.trained.evaluation),
            })
        };
        json!({
            "format": 1,
            "picket_version": CODE_VERSION,
            "inputs": inputs,
            "schema_sha256": Digest::of(schema.as_bytes()).to_string(),
            "split": {
                "rule": parts.rule,
                "test_fraction": self.test_fraction,
                "embargo_seconds": self.embargo.as_secs(),
                "counts": parts.counts,
            },
            "validation": validation(self.validation),
            "select": { "method": self.selection.method, "columns_max": self.selection.columns_max },
            "dataset_digest": dataset_digest.to_string(),
            "seed": self.seed,
            "algorithms": self.algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>(),
            "false_positive_budget": self.false_positive_budget,
            "calibration": self.calibration,
            "false_positive_confidence": self.confidence,
            "model": MODEL_FILE,
            "trainings": outcomes.iter().map(outcome).collect::<Vec<_>>(),
        })
    }

    fn write(&self, best: &Outcome, manifest: &Value, schema: String) -> Result<(), TableFileError> {
        let card = card(best, manifest);
        let (evaluation, text, page) = match &best.trained.evaluation {
            Evaluation::Labelled(report) => {
                (serde_json::to_value(report), text::render(report), page::render(report, &card))
            }
            Evaluation::Unlabelled(survey) => {
                (serde_json::to_value(survey), survey::text::render(survey), survey::page::render(survey, &card))
            }
        };
        let json = |value: &Value| format!("{value:#}\n");
        let mut folder = Folder::default();
        folder.add(MODEL_FILE, best.trained.file.clone());
        let mut evaluation = evaluation.unwrap_or_default();
        if let (Some(object), Some(selection)) = (evaluation.as_object_mut(), &best.trained.selection) {
            object.insert("selection".to_owned(), serde_json::to_value(selection).unwrap_or_default());
        }
        folder.add("evaluation.json", json(&evaluation));
        folder.add("evaluation.txt", text);
        folder.add("report.html", page);
        folder.add("card.md", markdown(&card, &best.trained.evaluation));
        folder.add("schema.toml", schema);
        folder.add(MANIFEST_FILE, json(manifest));
        folder.write(&self.to, self.force)
    }
}

/// How a manifest tells a rule of validation; the embargo is the division's.
fn validation(rule: ValidationRule) -> Value {
    match rule {
        ValidationRule::KFold { folds } => json!({ "method": "k-fold", "folds": folds }),
        ValidationRule::RollingOrigin { folds, .. } => json!({ "method": "rolling-origin", "folds": folds }),
    }
}

/// What a calibration adds to a training's name.
fn calibration_part(calibration: CalibrationMethod) -> String {
    if calibration == CalibrationMethod::None { String::new() } else { format!("/{}", calibration.name()) }
}

/// The figures of an evaluation that lists show.
pub fn figures(evaluation: &Evaluation) -> Value {
    match evaluation {
        Evaluation::Labelled(report) => figures_of_report(report),
        Evaluation::Unlabelled(survey) => json!({
            "rows": survey.rows,
            "threshold": survey.threshold,
            "alerted": survey.alerted,
            "share_alerted": survey.share_alerted,
            "training_share_alerted": survey.training_share_alerted,
        }),
    }
}

fn figures_of_report(report: &Report) -> Value {
    json!({
        "rows": report.rows,
        "malicious": report.positives,
        "roc_auc": report.roc_auc,
        "pr_auc": report.pr_auc,
        "recall_at_1pct_fpr": report.recall_at_1pct_fpr,
        "recall_at_01pct_fpr": report.recall_at_01pct_fpr,
        "threshold": report.threshold,
        "recall": report.recall,
        "false_positive_rate": report.false_positive_rate,
        "brier": report.brier,
        "expected_calibration_error": report.expected_calibration_error,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What there is to say about a model.
fn card(outcome: &Outcome, manifest: &Value) -> Card {
    let mut sections = Vec::new();
    let mut section = |title: &str, facts: Vec<(String, String)>| {
        sections.push(CardSection { title: title.to_owned(), facts });
    };
    let fact = |name: &str, value: &Value| (name.to_owned(), plain(value));
    let input = &manifest["inputs"][0];
    let mut learned_from = vec![
        fact("file", &input["file"]),
        fact("SHA-256", &input["sha256"]),
        fact("rows", &input["counts"]["rows_read"]),
        fact("rows without a label (left out)", &input["counts"]["unlabelled"]),
        fact("fields that could not be read (taken as missing)", &input["counts"]["unreadable_fields"]),
        fact("split", &manifest["split"]["rule"]),
        fact("embargo, in seconds", &manifest["split"]["embargo_seconds"]),
    ];
    if let Some(counts) = manifest["split"]["counts"].as_object() {
        learned_from.extend(counts.iter().map(|(name, value)| fact(&name.replace('_', " "), value)));
    }
    section("Learned from", learned_from);
    let training = &manifest["trainings"][0];
    let is_labelled = training["threshold"]["share_alerted"].is_null();
    let (rows, bound) =
        if is_labelled { ("benign rows", "false_positive_rate_bound") } else { ("rows", "share_alerted_bound") };
    section(
        "How",
        vec![
            fact("algorithm", &training["algorithm"]),
            fact("parameters", &training["params"]),
            fact("seed", &manifest["seed"]),
            fact(&format!("share of {rows} that may be alerted"), &manifest["false_positive_budget"]),
            fact("validation", &training["validation"]["method"]),
            fact("folds", &training["validation"]["folds"]),
            fact("training rows without a validation score", &training["validation"]["rows_without_score"]),
            fact("calibration", &manifest["calibration"]),
            fact(&format!("alerted {rows} to expect at most, with 95 % confidence"), &training["threshold"][bound]),
            fact("features", &training["features"]),
            fact("training", &training["training_run"]),
            fact("Picket", &manifest["picket_version"]),
        ],
    );
    if let Some(selection) = &outcome.trained.selection {
        section("Columns selected", selected(selection));
    }
    if let Some(found) = &outcome.trained.found {
        section("Search", leaderboard(found));
    }
    let columns = &outcome.trained.model.preparation().columns;
    let mut facts: Vec<(String, String)> = columns
        .iter()
        .take(COLUMNS_LISTED_MAX)
        .map(|column| (column.name.clone(), column.encoder.kind().name().to_owned()))
        .collect();
    if columns.len() > COLUMNS_LISTED_MAX {
        facts.push(("and".to_owned(), format!("{} more", columns.len() - COLUMNS_LISTED_MAX)));
    }
    facts.extend(outcome.trained.left_out.iter().map(|(name, reason)| (name.clone(), format!("left out: {reason}"))));
    section("Columns it judges by", facts);
    section(
        "Use",
        vec![
            ("for".to_owned(), "rows of the same columns, gathered in the same way".to_owned()),
            ("not for".to_owned(), "rows of other sensors or sites before it was evaluated on some of them".to_owned()),
            ("SHA-256 of the model".to_owned(), outcome.trained.model.id().to_string()),
        ],
    );
    Card { title: format!("Model of {}", plain(&input["file"])), sections }
}

/// What sets of columns give and cost.
fn selected(selection: &Selection) -> Vec<(String, String)> {
    let mut facts = vec![
        ("method".to_owned(), selection.method.name().to_owned()),
        ("compared on rows (folds)".to_owned(), format!("{} ({})", selection.rows, selection.folds)),
        ("elementary steps of the selection".to_owned(), selection.work.to_string()),
    ];
    facts.extend(selection.steps.iter().map(|step| {
        let mark = if step.chosen { " (chosen)" } else { "" };
        let named: Vec<&str> = step.dropped.iter().take(COLUMNS_NAMED_MAX).map(String::as_str).collect();
        let more = if step.dropped.len() > named.len() { ", …" } else { "" };
        let without = if named.is_empty() { String::new() } else { format!("; without {}{more}", named.join(", ")) };
        let text = format!(
            "tuning score {:.4} ± {:.4}, {} features, {} elementary steps a fit{without}",
            step.score, step.standard_error, step.features, step.fit_work
        );
        (format!("{} columns{mark}", step.columns), text)
    }));
    facts
}

/// How much was searched, and the best of what was tried.
fn leaderboard(found: &Found) -> Vec<(String, String)> {
    let mut facts = vec![
        ("elementary steps".to_owned(), found.work.to_string()),
        ("… of which were planned".to_owned(), found.work_spent.to_string()),
        ("tried".to_owned(), found.leaderboard.len().to_string()),
    ];
    for (place, contestant) in found.leaderboard.iter().take(CONTESTANTS_LISTED_MAX).enumerate() {
        let score = contestant.score.map_or_else(|| "not fitted".to_owned(), |score| format!("{score:.4}"));
        let params = serde_json::to_string(&contestant.recipe.params).unwrap_or_default();
        facts.push((format!("{}. on {} rows", place + 1, contestant.rows), format!("{score}: {params}")));
    }
    facts
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The card as Markdown. Names come from the table: they stand in code spans.
fn markdown(card: &Card, evaluation: &Evaluation) -> String {
    let code = |text: &str| {
        let clean: String =
            text.chars().map(|c| if c == '`' || c == '|' || c.is_control() { '\'' } else { c }).collect();
        format!("`{clean}`")
    };
    let mut out = format!("# {}\n", code(&card.title));
    let figures = figures(evaluation);
    out.push_str("\n## On held-out rows\n\n| figure | value |\n|---|---|\n");
    for (name, value) in figures.as_object().into_iter().flatten() {
        out.push_str(&format!("| {} | {value} |\n", name.replace('_', " ")));
    }
    for section in &card.sections {
        out.push_str(&format!("\n## {}\n\n| | |\n|---|---|\n", section.title));
        for (name, value) in &section.facts {
            out.push_str(&format!("| {} | {} |\n", code(name), code(value)));
        }
    }
    let notes = match evaluation {
        Evaluation::Labelled(report) => &report.notes,
        Evaluation::Unlabelled(survey) => &survey.notes,
    };
    for note in notes {
        out.push_str(&format!("\n* {note}\n"));
    }
    out
}
