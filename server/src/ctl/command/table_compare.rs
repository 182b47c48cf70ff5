//! Commands that judge table models: beside each other, and against their manifest.

use std::path::Path;

use serde_json::Value;

use crate::ctl::arguments::{CompareArguments, RebuildArguments};
use crate::ctl::command::model::written;
use crate::ctl::command::object;
use crate::ctl::command::table::{Shown, loader};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, Row, columns, safe, table};
use crate::table::compare::compare as compare_models;
use crate::table::rebuild::rebuild as rebuild_model;
use crate::table::{Loader, memory};
use picket_learn::compare::{Comparison, Disagreement};
use picket_learn::gate::Verdict;

/// `picketctl model compare`.
pub(super) fn compare(arguments: &CompareArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let CompareArguments { first, second, input, columns, policy, seed } = arguments;
    let loader = Loader { is_for_training: true, ..loader(columns)? };
    let policy = policy.unwrap_or_default();
    let compared = compare_models([first, second], input, &loader, (&policy, *seed), &Shown::new())?;
    let verdict = match compared.decision.verdict {
        Verdict::Promote => "promote: the second model may take the place of the first".to_owned(),
        Verdict::Hold => format!("hold: {}", compared.decision.reasons.join("; ")),
    };
    let text = format!(
        "{}\n{}\n{}\n{verdict}",
        figures(&compared.comparison),
        disagreement("malicious", &compared.comparison.malicious),
        disagreement("benign", &compared.comparison.benign)
    );
    let json = |value: Result<Value, serde_json::Error>| value.unwrap_or_default();
    output.one(
        &text,
        object([
            ("models", compared.models.to_vec().into()),
            ("comparison", json(serde_json::to_value(&compared.comparison))),
            ("policy", json(serde_json::to_value(policy))),
            ("gate", json(serde_json::to_value(&compared.decision))),
        ]),
    )?;
    match compared.decision.verdict {
        Verdict::Promote => Ok(()),
        Verdict::Hold => Err(CtlError::Findings("the gate holds the second model")),
    }
}

fn figures(comparison: &Comparison) -> String {
    let row = |(key, figure): (&&str, &picket_learn::compare::Difference)| -> Row {
        let interval = figure.interval.map_or_else(
            || "too few groups".to_owned(),
            |interval| format!("{:+.5} to {:+.5}", interval.low, interval.high),
        );
        object([
            ("figure", key.replace('_', " ").into()),
            ("first", format!("{:.5}", figure.first).into()),
            ("second", format!("{:.5}", figure.second).into()),
            ("difference", format!("{:+.5}", figure.difference).into()),
            ("interval", interval.into()),
        ])
    };
    let shown = columns([
        ("figure", "figure"),
        ("first", "first"),
        ("second", "second"),
        ("difference", "difference"),
        ("95 % interval", "interval"),
    ]);
    table(&shown, &comparison.figures.iter().map(row).collect::<Vec<_>>())
}

fn disagreement(class: &str, found: &Disagreement) -> String {
    format!(
        "{} {class} rows: only the first judges {} rightly, only the second {} (McNemar p = {:.3})",
        found.rows, found.only_first, found.only_second, found.p_value
    )
}

/// `picketctl model rebuild`.
pub(super) fn rebuild(arguments: &RebuildArguments, input: &Path, output: &mut Output<'_>) -> Result<(), CtlError> {
    let RebuildArguments { model: folder, input: _, test, verify: _, to, force, memory_mib } = arguments;
    let memory_bytes = memory_mib.map_or_else(memory::available_bytes, |mib| mib.saturating_mul(1 << 20));
    let rebuilt = rebuild_model(Path::new(folder), (input, test.as_deref()), memory_bytes, &Shown::new())?;
    if let Some(to) = to {
        written("the model", to, &rebuilt.file, *force, output)?;
    }
    rebuilt_text((&rebuilt.recorded, &rebuilt.found), rebuilt.other_version.as_deref(), output)
}

/// Says whether a model that was made again is the one on record.
pub(super) fn rebuilt_text(
    (recorded, found): (&str, &str),
    other_version: Option<&str>,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    let made_by = other_version
        .map_or_else(String::new, |version| format!(" (version {} made the one on record)", safe(version)));
    let is_same = recorded == found;
    let text = if is_same {
        format!("the same, byte for byte: {found}")
    } else {
        format!("not the same: {} is on record, {found} was made now{made_by}", safe(recorded))
    };
    output.one(
        &text,
        object([("same", is_same.into()), ("recorded_sha256", recorded.into()), ("found_sha256", found.into())]),
    )?;
    if is_same { Ok(()) } else { Err(CtlError::Findings("the rebuilt model differs")) }
}
