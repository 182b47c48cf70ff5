//! `picketctl model judge`, `push` and `rebuild`: whether a model may go to agents, and sending it there.

use picket_proto::v1;
use serde_json::Value;
use tonic::Code;

use crate::ctl::client::Client;
use crate::ctl::command::model::resolve;
use crate::ctl::command::object;
use crate::ctl::command::table_compare::rebuilt_text;
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, Row, columns, safe, table};
use crate::ctl::progress::Progress;

/// `picketctl model judge`.
pub(super) async fn judge(client: &mut Client, model: &str, output: &mut Output<'_>) -> Result<(), CtlError> {
    let model_digest = resolve(client, model).await?;
    let request = v1::JudgeModelRequest { model_digest: model_digest.clone() };
    let judgement = client.judge_model(request).await?.into_inner().judgement;
    let judgement = judgement.ok_or_else(|| CtlError::Answer("no judgement came".to_owned()))?;
    let promote = judgement.promote;
    let mut row = judgement_row(&judgement);
    row.insert("model_digest".to_owned(), model_digest.into());
    output.one(&text(&judgement), row)?;
    if promote { Ok(()) } else { Err(CtlError::Findings("the gate holds this model")) }
}

/// `picketctl model push`.
pub(super) async fn push(
    client: &mut Client,
    model: &str,
    force: bool,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    let model_digest = resolve(client, model).await?;
    let request = v1::PushModelRequest { model_digest: model_digest.clone(), force };
    let answer = match client.push_model(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::FailedPrecondition => return Err(CtlError::Held(Box::new(status))),
        Err(status) => return Err(status.into()),
    };
    let judgement = answer.judgement.unwrap_or_default();
    let text = format!(
        "{}\ngeneration {}: every agent is to use model {model_digest}; {} agents are connected and were told",
        text(&judgement),
        answer.generation,
        answer.agents_connected
    );
    let result = object([
        ("model_digest", model_digest.into()),
        ("generation", answer.generation.into()),
        ("agents_connected", answer.agents_connected.into()),
        ("gate", Value::Object(judgement_row(&judgement))),
    ]);
    output.one(&text, result)
}

/// `picketctl model rebuild` of a model of the server.
pub(super) async fn rebuild(client: &mut Client, model: &str, output: &mut Output<'_>) -> Result<(), CtlError> {
    let model_digest = resolve(client, model).await?;
    let request = v1::RebuildModelRequest { model_digest: model_digest.clone() };
    let mut answers = client.rebuild_model(request).await?.into_inner();
    let mut found = String::new();
    {
        let progress = Progress::new();
        while let Some(answer) = answers.message().await? {
            if let Some(step) = &answer.progress {
                progress.show(step);
            }
            if !answer.found_digest.is_empty() {
                found = answer.found_digest;
            }
        }
    }
    rebuilt_text((&model_digest, &safe(&found)), None, output)
}

/// What the gate said of a model as it went into production; nothing for other changes.
pub(super) fn history(changes: &[v1::StageChange]) -> Vec<Row> {
    let row = |change: &v1::StageChange| {
        let gate = change.judgement.as_ref().map_or_else(String::new, verdict);
        object([
            ("stage", change.stage.as_str().into()),
            ("changed", super::time_text(change.changed_unix_s)),
            ("author", change.author.as_str().into()),
            ("gate", gate.into()),
        ])
    };
    changes.iter().map(row).collect()
}

fn verdict(judgement: &v1::Judgement) -> String {
    let reasons = judgement.reasons.join("; ");
    match judgement {
        v1::Judgement { is_return: true, .. } => "promote: it was in force before".to_owned(),
        v1::Judgement { promote: true, .. } => "promote".to_owned(),
        v1::Judgement { forced: true, .. } => format!("hold, but released by force: {reasons}"),
        _ => format!("hold: {reasons}"),
    }
}

fn text(judgement: &v1::Judgement) -> String {
    let verdict = safe(&verdict(judgement));
    if judgement.figures.is_empty() {
        return verdict;
    }
    let shown = columns([("figure", "name"), ("this model", "candidate"), ("in force", "in_force")]);
    let rows: Vec<Row> = judgement.figures.iter().map(figure).collect();
    let left_out = match judgement.rows_left_out {
        0 => String::new(),
        rows => format!(", {rows} left out as the model in force learned from them"),
    };
    format!(
        "{}{} held-out rows ({} malicious){left_out}\n{verdict}",
        table(&shown, &rows),
        judgement.rows,
        judgement.malicious
    )
}

fn figure(figure: &v1::JudgedFigure) -> Row {
    object([
        ("name", figure.name.as_str().into()),
        ("candidate", figure.candidate.into()),
        ("in_force", figure.in_force.into()),
    ])
}

fn judgement_row(judgement: &v1::Judgement) -> Row {
    object([
        ("verdict", if judgement.promote { "promote" } else { "hold" }.into()),
        ("reasons", judgement.reasons.clone().into()),
        ("forced", judgement.forced.into()),
        ("is_return", judgement.is_return.into()),
        ("in_force_digest", judgement.in_force_digest.as_str().into()),
        ("rows", judgement.rows.into()),
        ("malicious", judgement.malicious.into()),
        ("rows_left_out", judgement.rows_left_out.into()),
        ("figures", judgement.figures.iter().map(figure).map(Value::Object).collect()),
    ])
}
