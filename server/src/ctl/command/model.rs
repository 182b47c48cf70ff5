//! `picketctl train` and `picketctl model …`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use picket_common::id::Digest;
use picket_proto::v1;
use serde_json::Value;

use crate::ctl::arguments::{ModelFileArguments, ModelVerb, TrainArguments};
use crate::ctl::client::Client;
use crate::ctl::command::{bytes_text, object, release, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Column, Output, Row, columns, safe, table};
use crate::ctl::progress::Progress;

/// Fewest digits that a digest may be shortened to.
const PREFIX_DIGITS_MIN: usize = 6;
/// Digits of a digest in a table.
const SHOWN_DIGITS: usize = 12;

pub(super) async fn run(client: &mut Client, verb: &ModelVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    match verb {
        ModelVerb::List { subject } => {
            let subject = subject.map_or("", |subject| subject.name());
            let models = list(client, subject).await?;
            output.rows(&shown(), models.iter().map(row).collect())
        }
        // Done without a server already.
        ModelVerb::Score { .. } | ModelVerb::Import(_) | ModelVerb::Convert { .. } | ModelVerb::Compare(_) => Ok(()),
        ModelVerb::Rebuild(arguments) => release::rebuild(client, &arguments.model, output).await,
        ModelVerb::Show { model } => show(client, model, output).await,
        ModelVerb::Judge { model } => release::judge(client, model, output).await,
        ModelVerb::Push { model, force } => release::push(client, model, *force, output).await,
        ModelVerb::Report(arguments) => report(client, arguments, output).await,
        ModelVerb::Export(arguments) => export(client, arguments, output).await,
    }
}

pub(super) async fn train(
    client: &mut Client,
    arguments: &TrainArguments,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    let (search_seconds, search_work) = match (arguments.file.auto, arguments.file.search_work) {
        (false, _) => (0, 0),
        (true, Some(work)) => (0, work),
        (true, None) => (u32::try_from(arguments.file.budget.as_secs()).unwrap_or(u32::MAX).max(1), 0),
    };
    let request = v1::TrainRequest {
        dataset_id: arguments.dataset.clone().unwrap_or_default(),
        algorithms: arguments.algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect(),
        seed: arguments.seed,
        false_positive_budget: arguments.false_positive_share(),
        refit: arguments.refit,
        calibration: arguments.calibration.name().to_owned(),
        search_seconds,
        search_work,
        false_positive_confidence: arguments.false_positive_confidence.map_or(0.0, f64::from),
    };
    let mut answers = client.train(request).await?.into_inner();
    let mut rows = Vec::new();
    {
        let progress = Progress::new();
        while let Some(answer) = answers.message().await? {
            if let Some(step) = &answer.progress {
                progress.show(step);
            }
            rows.extend(answer.model.iter().map(row));
        }
    }
    output.rows(&shown(), rows)
}

async fn show(client: &mut Client, model: &str, output: &mut Output<'_>) -> Result<(), CtlError> {
    let model_digest = resolve(client, model).await?;
    let answer = client
        .get_model(v1::GetModelRequest { model_digest, with_bytes: false, with_report_page: false })
        .await?
        .into_inner();
    let model = answer.model.ok_or_else(|| CtlError::Answer("no model came".to_owned()))?;
    let mut whole = row(&model);
    whole.insert("evaluation".to_owned(), evaluation(&model));
    let history = release::history(&answer.history);
    whole.insert("history".to_owned(), history.iter().cloned().map(Value::Object).collect());
    whole.insert("run".to_owned(), serde_json::from_str(&answer.run_json).unwrap_or_default());
    let shown_history = columns([("stage", "stage"), ("since", "changed"), ("author", "author"), ("gate", "gate")]);
    let history = table(&shown_history, &history);
    let report: String = answer.report_text.lines().map(|line| safe(line) + "\n").collect();
    let refit = if model.refit {
        "fitted anew on all rows after this evaluation, which is that of a model that did not see the held-out ones\n"
    } else {
        ""
    };
    let table = table(&shown(), &[row(&model)]);
    output.one(&format!("model {}\n{table}\n{history}\n{refit}{report}", model.model_digest), whole)
}

async fn report(client: &mut Client, arguments: &ModelFileArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let ModelFileArguments { model, to, force } = arguments;
    let model_digest = resolve(client, model).await?;
    let request = v1::GetModelRequest { model_digest: model_digest.clone(), with_bytes: false, with_report_page: true };
    let page = client.get_model(request).await?.into_inner().report_page;
    if page.is_empty() {
        return Err(CtlError::Answer("no page came: the server is older than this picketctl".to_owned()));
    }
    written(&model_digest, to, page.as_bytes(), *force, output)
}

async fn export(client: &mut Client, arguments: &ModelFileArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let ModelFileArguments { model, to, force } = arguments;
    let model_digest = resolve(client, model).await?;
    let request = v1::GetModelRequest { model_digest: model_digest.clone(), with_bytes: true, with_report_page: false };
    let file = client.get_model(request).await?.into_inner().model_file;
    if Digest::of(&file).to_string() != model_digest {
        return Err(CtlError::Answer(format!("the file that came is not the model {model_digest}")));
    }
    written(&model_digest, to, &file, *force, output)
}

/// Writes a file; one that is there already only when `force` says so.
pub(super) fn write_file(to: &Path, bytes: &[u8], force: bool) -> Result<(), CtlError> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(force).create(force).create_new(!force);
    let write = || -> std::io::Result<()> {
        let mut opened = options.open(to)?;
        opened.write_all(bytes)?;
        opened.sync_all()
    };
    write().map_err(|source| CtlError::File { path: to.to_owned(), source })
}

/// Writes a file about a model and says so.
pub(super) fn written(
    model_digest: &str,
    to: &Path,
    bytes: &[u8],
    force: bool,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    write_file(to, bytes, force)?;
    let text = format!("{} written, {}", to.display(), bytes_text(bytes.len() as u64));
    let result = object([
        ("model_digest", model_digest.into()),
        ("file", to.to_string_lossy().into()),
        ("bytes", bytes.len().into()),
    ]);
    output.one(&safe(&text), result)
}

async fn list(client: &mut Client, subject: &str) -> Result<Vec<v1::Model>, CtlError> {
    Ok(client.list_models(v1::ListModelsRequest { subject: subject.to_owned() }).await?.into_inner().models)
}

/// The whole digest of a model that was named by it or by its beginning.
pub(super) async fn resolve(client: &mut Client, given: &str) -> Result<String, CtlError> {
    let given = given.to_ascii_lowercase();
    if given.parse::<Digest>().is_ok() {
        return Ok(given);
    }
    let is_prefix = given.len() >= PREFIX_DIGITS_MIN && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_prefix {
        return Err(CtlError::Argument(format!(
            "{given:?} is no model: expected 64 hexadecimal digits or at least the first {PREFIX_DIGITS_MIN}"
        )));
    }
    let models = list(client, "").await?;
    let mut matching = models.into_iter().filter(|model| model.model_digest.starts_with(&given));
    match (matching.next(), matching.next()) {
        (Some(model), None) => Ok(model.model_digest),
        (None, _) => Err(CtlError::Argument(format!("there is no model {given}…"))),
        (Some(_), Some(_)) => {
            Err(CtlError::Argument(format!("more than one model begins with {given}: give more digits")))
        }
    }
}

fn shown() -> Vec<Column> {
    columns([
        ("model", "model"),
        ("subject", "subject"),
        ("version", "version"),
        ("algorithm", "algorithm"),
        ("stage", "stage"),
        ("recall at 1 % FPR", "recall_at_1pct_fpr"),
        ("PR-AUC", "pr_auc"),
        ("ROC-AUC", "roc_auc"),
        ("recall", "recall"),
        ("FPR", "false_positive_rate"),
        ("size", "size"),
        ("training s", "training_seconds"),
        ("created", "created"),
    ])
}

fn evaluation(model: &v1::Model) -> Value {
    // An evaluation that cannot be read has no figures.
    serde_json::from_str(&model.evaluation_json).unwrap_or_default()
}

fn row(model: &v1::Model) -> Row {
    let evaluation = evaluation(model);
    let figure = |key: &str| evaluation.get(key).cloned().unwrap_or_default();
    object([
        ("model", model.model_digest.chars().take(SHOWN_DIGITS).collect::<String>().into()),
        ("model_digest", model.model_digest.as_str().into()),
        ("subject", model.subject.as_str().into()),
        ("version", model.version.into()),
        ("algorithm", model.algorithm.as_str().into()),
        ("stage", model.stage.as_str().into()),
        ("dataset_id", model.dataset_id.as_str().into()),
        ("recall_at_1pct_fpr", figure("recall_at_1pct_fpr")),
        ("recall_at_01pct_fpr", figure("recall_at_01pct_fpr")),
        ("pr_auc", figure("pr_auc")),
        ("roc_auc", figure("roc_auc")),
        ("recall", figure("recall")),
        ("false_positive_rate", figure("false_positive_rate")),
        ("threshold", model.threshold.into()),
        ("model_bytes", model.model_bytes.into()),
        ("size", bytes_text(model.model_bytes).into()),
        ("training_seconds", model.training_seconds.into()),
        ("created", time_text(model.created_unix_s)),
    ])
}
