//! What is known about a model, for the page about it.

use std::fmt::Display;

use picket_learn::evaluate::page::{Card, CardSection};

use crate::dataset::Manifest;
use crate::dataset::manifest::Part;
use crate::metastore::DatasetRecord;
use crate::registry::{ModelRecord, RunRecord};

/// Hexadecimal digits of a digest that suffice in a headline.
const TITLE_DIGITS: usize = 12;

/// The card of a model and the data set it learned from.
pub(super) fn of(record: &ModelRecord, dataset: &DatasetRecord) -> Card {
    let digest = record.model.digest.to_string();
    Card {
        title: format!("{} for {}: model {}", record.model.algorithm, record.model.subject, &digest[..TITLE_DIGITS]),
        sections: vec![about(record), training(&record.model.run), data(dataset), limits()],
    }
}

fn section(title: &str, facts: Vec<(&str, String)>) -> CardSection {
    let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    CardSection { title: title.to_owned(), facts }
}

fn about(record: &ModelRecord) -> CardSection {
    let model = &record.model;
    section(
        "Model",
        vec![
            ("digest (SHA-256 of the signed file)", model.digest.to_string()),
            ("judges", model.subject.to_string()),
            ("algorithm", model.algorithm.to_string()),
            ("version and stage", format!("{}, {}", record.version, record.stage.name())),
            ("size", format!("{} bytes", model.model_bytes)),
            ("alert from score", model.threshold.to_string()),
        ],
    )
}

fn training(run: &RunRecord) -> CardSection {
    let tried = run.tried.iter().map(|tried| {
        format!("{:.3}: {}{}", tried.score, json(&tried.params), if tried.witnesses { ", on witnesses" } else { "" })
    });
    section(
        "How it was trained",
        vec![
            ("run", run.training_run.clone()),
            ("parameters", json(&run.params)),
            ("learned from", if run.witnesses { "those rows of each attack that show it" } else { "all rows" }.into()),
            ("tried, with its score in validation", tried.collect::<Vec<_>>().join("; ")),
            (
                "validation",
                format!(
                    "{} folds, dealt {} times; {}",
                    run.folds,
                    run.foldings,
                    if run.folds_grouped { "no attack in two of them" } else { "by row: its figures are too good" }
                ),
            ),
            (
                "threshold",
                format!(
                    "for {} % of benign rows alerted{}{}{}",
                    100.0 * run.threshold.false_positive_budget,
                    run.threshold
                        .false_positive_rate
                        .map_or_else(String::new, |rate| format!("; {:.3} % in validation", 100.0 * rate)),
                    run.threshold.recall.map_or_else(String::new, |recall| format!("; recall {recall:.3} there")),
                    run.threshold.false_positive_rate_bound.map_or_else(String::new, |bound| format!(
                        "; at most {:.3} % of new ones to be expected, with 95 % confidence",
                        100.0 * bound
                    ))
                ),
            ),
            ("calibration", run.calibration.name().to_owned()),
            ("seed", run.seed.to_string()),
            (
                "fitted anew on all rows after its evaluation",
                if run.refit {
                    "yes: the figures are those of a model that did not see the held-out rows"
                } else {
                    "no"
                }
                .into(),
            ),
            ("version of the server", run.code_version.clone()),
        ],
    )
}

fn data(dataset: &DatasetRecord) -> CardSection {
    let Manifest { split, labels, lake_versions, feature_spec, label_snapshot, .. } = &dataset.manifest;
    let part = |part: Part| {
        dataset.manifest.file(part).map_or_else(
            |_| "missing".to_owned(),
            |file| format!("{} rows, {} malicious, {} groups", file.rows, file.malicious, file.groups),
        )
    };
    section(
        "What it learned from",
        vec![
            ("data set", dataset.dataset_id.clone()),
            ("digest of its manifest", dataset.digest.to_string()),
            ("to learn from", part(Part::Train)),
            ("held out", part(Part::Test)),
            ("split", format!("{}, {} of the groups held out", json(&split.rule), share(split.test_fraction))),
            ("duplicates removed from the held-out part", split.duplicates_removed.to_string()),
            ("held-out rows that contradict one to learn from", split.contradictions.to_string()),
            (
                "labels",
                format!(
                    "{} in force up to number {label_snapshot}, {} of them rows here",
                    labels.in_force, labels.rows
                ),
            ),
            ("versions of the lake's tables", json(lake_versions)),
            (
                "features",
                format!("{}, version {}, {}", feature_spec.features.len(), feature_spec.version, feature_spec.sha256),
            ),
        ],
    )
}

/// What holds for every model of this build.
fn limits() -> CardSection {
    section(
        "What it is for, and what not",
        vec![
            ("for", "pointing people to events of their own fleet that are like what they labelled malicious".into()),
            ("not for", "blocking, or judging people: an alert is a question, not a verdict".into()),
            ("scores", "are probabilities only as far as the calibration plot follows the dashed line".into()),
        ],
    )
}

fn share(part: f64) -> impl Display {
    format!("{} %", 100.0 * part)
}

/// Parameters and names as programs read them.
fn json(value: &impl serde::Serialize) -> String {
    // What is on record came from JSON.
    serde_json::to_string(value).unwrap_or_default()
}
