//! Admin messages to the services' types and back.

use std::fmt::Display;

use picket_common::feature::Subject;
use picket_common::id::{Digest, Epoch, EventId, EventKey, HostId, Sequence};
use picket_common::model::Algorithm;
use picket_proto::v1;
use tonic::Status;

use crate::dataset::manifest::Part;
use crate::dataset::{NewDataset, TEST_FRACTION_DEFAULT};
use crate::fleet::{AuthorityView, HostView};
use crate::label::{Label, LabelPage, LabelParts, LabelRecord, Verdict};
use crate::metastore::DatasetRecord;
use crate::registry::{JudgedFigure, Judgement, ModelRecord, StageChange};
use crate::training::TrainRequest;
use picket_learn::gate::Verdict as GateVerdict;
use picket_learn::train::threshold::{FALSE_POSITIVE_BUDGET, FALSE_POSITIVE_BUDGET_MAX};
use picket_learn::train::tune::{SEARCHED, SearchBudget};
use picket_learn::train::{CalibrationMethod, Confidence, FOLDINGS, Options};

/// INVALID_ARGUMENT that says which field.
pub(super) fn invalid(field: &str, reason: impl Display) -> Status {
    Status::invalid_argument(format!("{field}: {reason}"))
}

pub(super) fn digest(field: &str, text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error| invalid(field, error))
}

fn subject(text: &str) -> Result<Subject, Status> {
    text.parse().map_err(|error| invalid("subject", error))
}

/// Empty: none.
pub(super) fn optional_subject(text: &str) -> Result<Option<Subject>, Status> {
    if text.is_empty() { Ok(None) } else { subject(text).map(Some) }
}

pub(super) fn host_id(text: &str) -> Result<HostId, Status> {
    text.parse().map_err(|error| invalid("host_id", error))
}

/// Empty: none.
pub(super) fn optional_host(text: &str) -> Result<Option<HostId>, Status> {
    if text.is_empty() { Ok(None) } else { host_id(text).map(Some) }
}

pub(super) fn host(events_stored: u64, view: HostView) -> v1::Host {
    let record = view.record;
    v1::Host {
        host_id: record.host.to_string(),
        inventory: Some(record.inventory.into()),
        enrolled_unix_s: record.enrolled.0,
        last_seen_unix_s: record.last_seen.map_or(0, |time| time.0),
        connected: view.connected,
        status: record.status.map(Into::into),
        events_stored,
        revoked_unix_s: record.revoked.map_or(0, |time| time.0),
        quarantined_unix_s: record.quarantined.map_or(0, |time| time.0),
        quarantine_reason: record.quarantine_reason,
    }
}

pub(super) fn authority(view: &AuthorityView) -> v1::Authority {
    v1::Authority {
        sha256: view.digest.to_string(),
        role: if view.is_current { "current" } else { "next" }.to_owned(),
        not_after_unix_s: view.not_after.0,
        issuing: view.is_issuing,
        hosts_trusting: view.hosts_trusting,
        hosts_certified: view.hosts_certified,
    }
}

pub(super) fn labels(wire: &[v1::Label]) -> Result<Vec<Label>, Status> {
    if wire.is_empty() {
        return Err(invalid("labels", "there are none"));
    }
    wire.iter()
        .enumerate()
        .map(|(place, wire)| {
            let within = |field: &str| format!("labels[{place}]{field}");
            let event = wire.event.as_ref().ok_or_else(|| invalid(&within(".event"), "it is missing"))?;
            let host = event.host_id.parse().map_err(|error| invalid(&within(".event.host_id"), error))?;
            let key = EventKey { epoch: Epoch(event.epoch), sequence: Sequence(event.sequence) };
            let verdict = match v1::Verdict::try_from(wire.verdict) {
                Ok(v1::Verdict::Benign) => Verdict::Benign,
                Ok(v1::Verdict::Malicious) => Verdict::Malicious,
                Ok(v1::Verdict::Unspecified) | Err(_) => {
                    return Err(invalid(&within(".verdict"), "expected benign or malicious"));
                }
            };
            let parts = LabelParts {
                event: EventId { host, key },
                verdict,
                technique: &wire.technique,
                group: &wire.group,
                source: &wire.source,
            };
            Label::new(parts).map_err(|error| invalid(&within(""), error))
        })
        .collect()
}

/// The id after which a page begins.
pub(super) fn page_token(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| invalid("page_token", "it is none that this server gave"))
}

pub(super) fn label_page(page: LabelPage) -> v1::ListLabelsResponse {
    let last = page.labels.last().filter(|_| page.more);
    v1::ListLabelsResponse {
        next_page_token: last.map_or_else(String::new, |label| label.label_id.to_string()),
        total: page.total,
        labels: page.labels.into_iter().map(label).collect(),
    }
}

fn label(record: LabelRecord) -> v1::Label {
    let event = record.label.event();
    let verdict = match record.label.verdict() {
        Verdict::Benign => v1::Verdict::Benign,
        Verdict::Malicious => v1::Verdict::Malicious,
    };
    v1::Label {
        event: Some(v1::EventReference {
            host_id: event.host.to_string(),
            epoch: event.key.epoch.0,
            sequence: event.key.sequence.0,
        }),
        verdict: verdict.into(),
        technique: record.label.technique().to_owned(),
        author: record.author,
        source: record.label.source().to_owned(),
        created_unix_ns: record.created.0,
        label_id: record.label_id,
        group: record.label.group().unwrap_or_default().to_owned(),
    }
}

pub(super) fn new_dataset(request: &v1::BuildDatasetRequest) -> Result<NewDataset, Status> {
    // Exactly zero is what an absent field reads as.
    let test_fraction = if request.test_fraction == 0.0 { TEST_FRACTION_DEFAULT } else { request.test_fraction };
    Ok(NewDataset::new(subject(&request.subject)?, test_fraction)?)
}

pub(super) fn dataset(record: &DatasetRecord) -> v1::Dataset {
    let manifest = &record.manifest;
    let count = |part: Part| manifest.file(part).map_or((0, 0), |file| (file.rows, file.malicious));
    let ((rows_train, malicious_train), (rows_test, malicious_test)) = (count(Part::Train), count(Part::Test));
    v1::Dataset {
        dataset_id: record.dataset_id.clone(),
        subject: manifest.subject.clone(),
        created_unix_s: record.created.0,
        manifest_digest: record.digest.to_string(),
        feature_spec_hash: manifest.feature_spec.sha256.clone(),
        rows_train,
        rows_test,
        malicious_train,
        malicious_test,
        label_snapshot: manifest.label_snapshot,
        manifest_json: record.manifest_json.clone(),
    }
}

/// Longest search, seconds.
const SEARCH_SECONDS_MAX: u32 = 86_400;

/// No algorithms: all that learn from labels, or those that are usually searched. One named twice is trained once.
pub(super) fn train_request(request: v1::TrainRequest) -> Result<TrainRequest, Status> {
    let mut algorithms = Vec::new();
    for (place, name) in request.algorithms.iter().enumerate() {
        let algorithm: Algorithm = name.parse().map_err(|error| invalid(&format!("algorithms[{place}]"), error))?;
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    let search = match (request.search_seconds, request.search_work) {
        (0, 0) => None,
        (seconds, 0) if seconds <= SEARCH_SECONDS_MAX => Some(SearchBudget::Seconds(seconds.into())),
        (0, work) => Some(SearchBudget::Work(work)),
        (_, 0) => return Err(invalid("search_seconds", format!("it is above {SEARCH_SECONDS_MAX}"))),
        _ => return Err(invalid("search_work", "there is search_seconds, too: give one of them")),
    };
    if algorithms.is_empty() {
        match search {
            Some(_) => algorithms.extend(SEARCHED),
            None => algorithms.extend(Algorithm::supervised()),
        }
    }
    if request.dataset_id.is_empty() {
        return Err(invalid("dataset_id", "it is empty"));
    }
    let false_positive_budget = match request.false_positive_budget {
        0.0 => FALSE_POSITIVE_BUDGET,
        budget if budget > 0.0 && budget < FALSE_POSITIVE_BUDGET_MAX => budget,
        _ => {
            let range = format!("it is not above 0 and below {FALSE_POSITIVE_BUDGET_MAX}");
            return Err(invalid("false_positive_budget", range));
        }
    };
    let calibration = match request.calibration.as_str() {
        "" => CalibrationMethod::None,
        name => name.parse().map_err(|error| invalid("calibration", error))?,
    };
    let confidence = match request.false_positive_confidence {
        0.0 => None,
        share => Some(Confidence::try_from(share).map_err(|error| invalid("false_positive_confidence", error))?),
    };
    let options = Options { seed: request.seed, false_positive_budget, confidence, foldings: FOLDINGS, calibration };
    Ok(TrainRequest { dataset_id: request.dataset_id, algorithms, search, options, refit: request.refit })
}

pub(super) fn model(record: &ModelRecord) -> v1::Model {
    let model = &record.model;
    v1::Model {
        model_digest: model.digest.to_string(),
        version: record.version,
        subject: model.subject.name().to_owned(),
        algorithm: model.algorithm.name().to_owned(),
        stage: record.stage.name().to_owned(),
        dataset_id: model.dataset_id.clone(),
        model_bytes: model.model_bytes,
        created_unix_s: record.created.0,
        threshold: model.threshold,
        // A report of finite numbers is always JSON.
        evaluation_json: serde_json::to_string(&model.evaluation).unwrap_or_default(),
        training_seconds: model.training_seconds,
        refit: model.run.refit,
    }
}

pub(super) fn stage_change(change: StageChange) -> v1::StageChange {
    v1::StageChange {
        stage: change.stage.name().to_owned(),
        changed_unix_s: change.changed.0,
        author: change.author,
        judgement: change.judgement.map(judgement),
    }
}

pub(super) fn judgement(judgement: Judgement) -> v1::Judgement {
    let figure = |figure: JudgedFigure| {
        let JudgedFigure { name, candidate, in_force } = figure;
        v1::JudgedFigure { name, candidate, in_force }
    };
    v1::Judgement {
        promote: judgement.verdict == GateVerdict::Promote,
        reasons: judgement.reasons,
        in_force_digest: judgement.in_force.unwrap_or_default(),
        rows: judgement.rows,
        malicious: judgement.malicious,
        rows_left_out: judgement.rows_left_out,
        is_return: judgement.is_return,
        forced: judgement.forced,
        figures: judgement.figures.into_iter().map(figure).collect(),
    }
}
