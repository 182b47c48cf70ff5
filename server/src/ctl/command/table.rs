//! Commands on tables of users: files alone, no server.

use std::path::{Path, PathBuf};

use picket_common::model::Algorithm;
use picket_learn::select::{self, Selection};
use picket_learn::table::{Role, SplitRule, ValidationRule};
use picket_learn::train::Observer;
use picket_learn::train::threshold::FALSE_POSITIVE_BUDGET_MAX;
use picket_learn::train::tune::SearchBudget;
use picket_learn::train::tune::{Found, SEARCHED};
use serde_json::Value;

use crate::ctl::arguments::{
    ColumnArguments, FileTrainingArguments, ModelVerb, SplitArgument, TableArguments, TrainArguments,
    ValidationArgument,
};
use crate::ctl::command::model::written;
use crate::ctl::command::{bytes_text, object};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Column, Output, Row, columns, safe, table};
use crate::ctl::progress::Progress;
use crate::table::train::{Outcome, Outcomes, TableTraining, figures};
use crate::table::{Loader, memory, schema_file, score as scoring};

/// Digits of a digest in a table.
const SHOWN_DIGITS: usize = 12;

/// `picketctl dataset schema`.
pub(super) fn schema(arguments: &TableArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let TableArguments { input, columns, to, force } = arguments;
    let (schema, _, rows) = loader(columns)?.schema_of(input)?;
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let text = schema_file::write(&schema, &name, rows);
    match to {
        Some(to) => written(&name, to, text.as_bytes(), *force, output),
        None => output.text(&text.lines().map(|line| safe(line) + "\n").collect::<String>()),
    }
}

/// `picketctl train --input`.
pub(super) fn train(arguments: &TrainArguments, input: &Path, output: &mut Output<'_>) -> Result<(), CtlError> {
    let file = &arguments.file;
    let budget = arguments.false_positive_share();
    if !(budget > 0.0 && budget < FALSE_POSITIVE_BUDGET_MAX) {
        let text = format!("--false-positive-budget: expected a share above 0 and below {FALSE_POSITIVE_BUDGET_MAX}");
        return Err(CtlError::Argument(text));
    }
    let to = file.to.clone().ok_or_else(|| CtlError::Argument("--to: a folder is needed".to_owned()))?;
    let mut algorithms: Vec<Algorithm> =
        arguments.algorithms.iter().filter_map(|algorithm| algorithm.name().parse().ok()).collect();
    let search =
        file.auto.then(|| file.search_work.map_or(SearchBudget::Seconds(file.budget.as_secs()), SearchBudget::Work));
    match search {
        _ if !algorithms.is_empty() => {}
        Some(_) => algorithms.extend(SEARCHED),
        None => algorithms.push(Algorithm::GradientBoosting),
    }
    let training = TableTraining {
        input: input.to_owned(),
        test: file.test.clone(),
        loader: Loader { is_for_training: true, ..loader(&file.columns)? },
        algorithms,
        search,
        split: file.split.map(|split| match split {
            SplitArgument::Time => SplitRule::Time,
            SplitArgument::Host => SplitRule::Host,
            SplitArgument::Group => SplitRule::Group,
            SplitArgument::Stratified => SplitRule::Stratified,
            SplitArgument::Random => SplitRule::Random,
        }),
        test_fraction: file.test_fraction,
        embargo: file.embargo.unwrap_or_default(),
        validation: validation(file),
        selection: select::Wanted { method: file.select, columns_max: file.select_max.map(usize::from) },
        seed: arguments.seed,
        false_positive_budget: budget,
        calibration: arguments.calibration,
        confidence: arguments.false_positive_confidence,
        to,
        force: file.force,
    };
    let outcomes = training.run(&Shown::new())?;
    let rows: Vec<Row> = outcomes.outcomes.iter().map(row).collect();
    let counts = &outcomes.manifest["split"]["counts"];
    let best = outcomes.outcomes.first();
    let found = best.and_then(|best| best.trained.found.as_ref());
    let leaders = found.map_or_else(String::new, leaderboard);
    let selected = best.and_then(|best| best.trained.selection.as_ref()).map_or_else(String::new, selected);
    let of_part = |part: &str| {
        let malicious = &counts[format!("{part}_malicious")];
        let malicious = if malicious.is_null() { "no labels".to_owned() } else { format!("{malicious} malicious") };
        format!("{} ({malicious})", counts[format!("{part}_rows")])
    };
    let embargoed = match counts["embargoed"].as_u64() {
        None | Some(0) => String::new(),
        Some(rows) => format!(", left out by the embargo: {rows}"),
    };
    let text = format!(
        "{selected}{leaders}{}\nsplit by {}: rows to learn from: {}{embargoed}, to evaluate on: {}, {} duplicates removed\n\
         best by validation: {}, written to {}",
        table(&shown(&outcomes), &rows),
        outcomes.manifest["split"]["rule"].as_str().unwrap_or_default(),
        of_part("train"),
        of_part("test"),
        counts["duplicates_removed"],
        outcomes.outcomes.first().map_or("", |best| best.algorithm.name()),
        safe(&training.to.display().to_string()),
    );
    match outcomes.manifest {
        Value::Object(manifest) => output.one(&text, manifest),
        _ => output.text(&text),
    }
}

fn validation(file: &FileTrainingArguments) -> ValidationRule {
    /// Blocks of time that are scored, unless asked otherwise.
    const BLOCKS: usize = 5;
    let folds = file.folds.map(usize::from);
    match file.validation {
        ValidationArgument::KFold => ValidationRule::KFold { folds },
        ValidationArgument::RollingOrigin => {
            ValidationRule::RollingOrigin { folds: folds.unwrap_or(BLOCKS), embargo: file.embargo.unwrap_or_default() }
        }
    }
}

/// `picketctl model score`.
pub(super) fn score(verb: &ModelVerb, file: Option<&PathBuf>, output: &mut Output<'_>) -> Result<(), CtlError> {
    let ModelVerb::Score { model, input, to, reasons, force, fail_on_findings } = verb else { return Ok(()) };
    let nowhere = || CtlError::Argument("where do the scores go? Give --output FILE".to_owned());
    let to = to.as_ref().or(file).ok_or_else(nowhere)?;
    let model = scoring::read_model(model)?;
    let progress = Progress::new();
    let show = |done, total| progress.set("score rows", done, total);
    let scored = scoring::score(&model, input, to, (usize::from(*reasons), *force), show)?;
    drop(progress);
    let unreadable = match scored.unreadable_fields {
        0 => String::new(),
        fields => format!("; {fields} fields could not be read and count as missing"),
    };
    let text = format!(
        "{} rows scored, {} findings (score {:.4} or more){unreadable}; {} written",
        scored.rows,
        scored.findings,
        model.threshold(),
        safe(&to.display().to_string())
    );
    output.one(
        &text,
        object([
            ("rows", scored.rows.into()),
            ("findings", scored.findings.into()),
            ("unreadable_fields", scored.unreadable_fields.into()),
            ("threshold", model.threshold().into()),
            ("model_digest", model.id().to_string().into()),
        ]),
    )?;
    if *fail_on_findings && scored.findings > 0 {
        return Err(CtlError::Findings("there are findings"));
    }
    Ok(())
}

/// How a table is read, by the command line.
pub(super) fn loader(arguments: &ColumnArguments) -> Result<Loader, CtlError> {
    let role = |name: &Option<String>, role| name.iter().map(|name| (name.clone(), role)).collect::<Vec<_>>();
    let time = Role::Feature(picket_common::table::ColumnKind::Time);
    let mut roles: Vec<(String, Role)> = arguments.ignore.iter().map(|name| (name.clone(), Role::Ignore)).collect();
    for (name, of) in [
        (&arguments.time, time),
        (&arguments.group, Role::Group),
        (&arguments.host, Role::Host),
        (&arguments.family, Role::Family),
        (&arguments.label, Role::Label),
    ] {
        roles.extend(role(name, of));
    }
    let memory_bytes = arguments.memory_mib.map_or_else(memory::available_bytes, |mib| mib.saturating_mul(1 << 20));
    let mut loader = Loader {
        roles,
        positive: arguments.positive.clone(),
        benign: arguments.benign.clone(),
        memory_bytes,
        ..Loader::default()
    };
    if let Some(path) = &arguments.schema {
        loader.read_schema(path)?;
    }
    Ok(loader)
}

fn shown(outcomes: &Outcomes) -> Vec<Column> {
    if outcomes.outcomes.iter().all(|outcome| outcome.trained.evaluation.report().is_none()) {
        return columns([
            ("algorithm", "algorithm"),
            ("rows", "rows"),
            ("alerted", "alerted"),
            ("share", "share_alerted"),
            ("share in training", "training_share_alerted"),
            ("threshold", "threshold"),
            ("size", "size"),
            ("model", "model"),
        ]);
    }
    columns([
        ("algorithm", "algorithm"),
        ("validation", "validation"),
        ("recall at 1 % FPR", "recall_at_1pct_fpr"),
        ("at 0.1 %", "recall_at_01pct_fpr"),
        ("PR-AUC", "pr_auc"),
        ("ROC-AUC", "roc_auc"),
        ("recall", "recall"),
        ("FPR", "false_positive_rate"),
        ("size", "size"),
        ("model", "model"),
    ])
}

/// What sets of columns give and cost, and which one stays.
fn selected(selection: &Selection) -> String {
    let steps = selection.steps.iter().map(|step| {
        object([
            ("columns", step.columns.into()),
            ("features", step.features.into()),
            ("score", step.score.into()),
            ("error", step.standard_error.into()),
            ("work", step.fit_work.into()),
            ("chosen", if step.chosen { "chosen" } else { "" }.into()),
        ])
    });
    let shown = columns([
        ("columns", "columns"),
        ("features of a row", "features"),
        ("tuning score", "score"),
        ("standard error", "error"),
        ("steps of a fit", "work"),
        ("", "chosen"),
    ]);
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { safe(&names.join(", ")) };
    format!(
        "{}\n{}, on {} rows in {} folds\nkept: {}\ndropped: {}\n\n",
        table(&shown, &steps.collect::<Vec<_>>()),
        selection.method.name(),
        selection.rows,
        selection.folds,
        names(selection.kept.iter().map(String::as_str).collect()),
        names(selection.dropped.iter().map(|dropped| dropped.column.as_str()).collect()),
    )
}

/// The best of what a search tried.
fn leaderboard(found: &Found) -> String {
    /// Lines of it.
    const LEADERS: usize = 10;
    let leaders = found.leaderboard.iter().take(LEADERS).map(|contestant| {
        object([
            ("score", contestant.score.into()),
            ("rows", contestant.rows.into()),
            ("parameters", serde_json::to_value(contestant.recipe.params).unwrap_or_default().to_string().into()),
        ])
    });
    let shown = columns([("validation", "score"), ("on rows", "rows"), ("parameters", "parameters")]);
    format!("{}\n{} tried\n\n", table(&shown, &leaders.collect::<Vec<_>>()), found.leaderboard.len())
}

fn row(outcome: &Outcome) -> Row {
    let mut row = object([
        ("algorithm", outcome.algorithm.name().into()),
        ("validation", outcome.validation_score.into()),
        ("size", bytes_text(outcome.trained.file.len() as u64).into()),
        ("model", outcome.trained.model.id().to_string().chars().take(SHOWN_DIGITS).collect::<String>().into()),
    ]);
    if let Value::Object(figures) = figures(&outcome.trained.evaluation) {
        row.extend(figures);
    }
    row
}

/// Shows the steps of a training.
pub(super) struct Shown(Progress);

impl Shown {
    pub(super) fn new() -> Self {
        Self(Progress::new())
    }
}

impl Observer for Shown {
    fn progress(&self, stage: &str, done: u64, total: u64) {
        self.0.set(stage, done, total);
    }
}
