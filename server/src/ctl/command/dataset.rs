//! `picketctl dataset …`

use picket_proto::v1;
use serde_json::Value;

use crate::ctl::arguments::DatasetVerb;
use crate::ctl::client::Client;
use crate::ctl::command::{object, time_text};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Column, Output, Row, columns, safe, table};
use crate::ctl::progress::Progress;

pub(super) async fn run(client: &mut Client, verb: &DatasetVerb, output: &mut Output<'_>) -> Result<(), CtlError> {
    match verb {
        DatasetVerb::Build { subject, test_fraction } => {
            let request = v1::BuildDatasetRequest {
                subject: subject.name().to_owned(),
                test_fraction: test_fraction.unwrap_or(0.0),
            };
            let dataset = build(client, request).await?;
            let text = table(&shown(), &[row(&dataset)]);
            output.one(&text, row(&dataset))
        }
        // Done without a server already.
        DatasetVerb::Schema(_) | DatasetVerb::Profile(_) | DatasetVerb::Diff { .. } => Ok(()),
        DatasetVerb::List => {
            let datasets = fetch(client, "").await?;
            output.rows(&shown(), datasets.iter().map(row).collect())
        }
        DatasetVerb::Show { dataset_id } => {
            let datasets = fetch(client, dataset_id).await?;
            let dataset = datasets.first().ok_or_else(|| CtlError::Answer("no data set came".to_owned()))?;
            let mut whole = row(dataset);
            let manifest: Value =
                serde_json::from_str(&dataset.manifest_json).map_err(|error| CtlError::Answer(error.to_string()))?;
            whole.insert("manifest".to_owned(), manifest);
            output
                .one(&format!("{}\n{}", table(&shown(), &[row(dataset)]), manifest_text(&dataset.manifest_json)), whole)
        }
    }
}

async fn build(client: &mut Client, request: v1::BuildDatasetRequest) -> Result<v1::Dataset, CtlError> {
    let mut answers = client.build_dataset(request).await?.into_inner();
    let progress = Progress::new();
    let mut dataset = None;
    while let Some(answer) = answers.message().await? {
        if let Some(step) = &answer.progress {
            progress.show(step);
        }
        dataset = answer.dataset.or(dataset);
    }
    dataset.ok_or_else(|| CtlError::Answer("no data set came".to_owned()))
}

async fn fetch(client: &mut Client, dataset_id: &str) -> Result<Vec<v1::Dataset>, CtlError> {
    let request = v1::ListDatasetsRequest { dataset_id: dataset_id.to_owned() };
    Ok(client.list_datasets(request).await?.into_inner().datasets)
}

fn shown() -> Vec<Column> {
    columns([
        ("data set", "dataset_id"),
        ("subject", "subject"),
        ("train", "rows_train"),
        ("malicious", "malicious_train"),
        ("test", "rows_test"),
        ("malicious", "malicious_test"),
        ("labels up to", "label_snapshot"),
        ("created", "created"),
    ])
}

fn row(dataset: &v1::Dataset) -> Row {
    object([
        ("dataset_id", dataset.dataset_id.as_str().into()),
        ("subject", dataset.subject.as_str().into()),
        ("created", time_text(dataset.created_unix_s)),
        ("manifest_digest", dataset.manifest_digest.as_str().into()),
        ("feature_spec_hash", dataset.feature_spec_hash.as_str().into()),
        ("rows_train", dataset.rows_train.into()),
        ("rows_test", dataset.rows_test.into()),
        ("malicious_train", dataset.malicious_train.into()),
        ("malicious_test", dataset.malicious_test.into()),
        ("label_snapshot", dataset.label_snapshot.into()),
    ])
}

/// The manifest is JSON already, and what people want to see of a data set.
fn manifest_text(json: &str) -> String {
    json.lines().map(|line| safe(line) + "\n").collect()
}
