//! An alert: what was seen, how it scored, and why.
//!
//! One JSON object a line:
//! ```json
//! {"kind":"alert", "time":"2026-01-02T03:04:05.678Z", "time_unix_ns":…, "host_id":"…", "epoch":…, "sequence":…,
//!  "subject":"connection", "score":0.93, "threshold":0.5, "model_digest":"…", "algorithm":"random_forest",
//!  "reasons":[{"feature":"…", "value":31.0, "contribution":0.41, "words":"31 distinct ports in 10 s"}, …],
//!  "vector_digest":"…", "event":{…}}
//! ```
//! `contribution` is how far the feature moved the score (a share of the probability for trees and forests, splits fewer
//! for isolation forests, a share of the log-odds for all others). `vector_digest` is the SHA-256 over the bits of all
//! values (little-endian `f32`): whoever computes the vector again from the stored events can compare.

use picket_common::event::{Event, Timestamp, json};
use picket_common::feature::{FeatureSpec, FeatureVector, Subject, describe};
use picket_common::id::{Digest, HostId};
use picket_common::model::{Contribution, Model};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Alert<'a> {
    host: Option<HostId>,
    event: &'a Event,
    pub(crate) subject: Subject,
    score: f64,
    threshold: f64,
    model: Digest,
    algorithm: &'static str,
    reasons: Vec<Reason>,
    vector: Digest,
}

/// Why a score is what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The feature's name.
    pub feature: &'static str,
    /// Its value; `None` when it was missing.
    pub value: Option<f32>,
    /// How far it moved the score.
    pub contribution: f64,
    /// The value in words.
    pub words: String,
}

impl<'a> Alert<'a> {
    /// The alert about a vector that reached the model's threshold.
    pub(crate) fn new(
        host: Option<HostId>,
        event: &'a Event,
        vector: &FeatureVector<'_>,
        model: &Model,
        score: f64,
        contributions: &[Contribution],
        reasons_max: usize,
    ) -> Self {
        let metadata = model.metadata();
        Self {
            host,
            event,
            subject: vector.subject,
            score,
            threshold: metadata.threshold,
            model: model.id(),
            algorithm: metadata.algorithm.name(),
            reasons: reasons(vector.subject, contributions, reasons_max),
            vector: vector_digest(vector.values),
        }
    }

    /// One line of the alert file.
    pub fn to_json(&self) -> Value {
        json!({
            "kind": "alert",
            "time": rfc3339(self.event.time),
            "time_unix_ns": self.event.time.0,
            "host_id": self.host.map(|host| host.to_string()),
            "epoch": self.event.key.epoch.0,
            "sequence": self.event.key.sequence.0,
            "subject": self.subject.name(),
            "score": self.score,
            "threshold": self.threshold,
            "model_digest": self.model.to_string(),
            "algorithm": self.algorithm,
            "reasons": self.reasons.iter().map(Reason::to_json).collect::<Vec<_>>(),
            "vector_digest": self.vector.to_string(),
            "event": json::to_json(self.event),
        })
    }
}

impl Reason {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "feature": self.feature,
            "value": self.value,
            "contribution": self.contribution,
            "words": self.words,
        })
    }
}

/// The features that spoke for the alert, strongest first; when none did, the strongest of all.
pub(crate) fn reasons(subject: Subject, contributions: &[Contribution], max: usize) -> Vec<Reason> {
    let spec = FeatureSpec::v1(subject);
    let reason = |entry: &Contribution| {
        let definition = spec.features.get(entry.feature)?;
        Some(Reason {
            feature: definition.name,
            value: entry.value.is_finite().then_some(entry.value),
            contribution: entry.contribution,
            words: describe(subject, entry.feature, entry.value),
        })
    };
    let towards: Vec<Reason> =
        contributions.iter().filter(|entry| entry.contribution > 0.0).filter_map(reason).take(max).collect();
    if towards.is_empty() { contributions.iter().filter_map(reason).take(max).collect() } else { towards }
}

/// SHA-256 over the bits of the values.
pub(crate) fn vector_digest(values: &[f32]) -> Digest {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
    Digest::of(&bytes)
}

/// A time for people; the number beside it is exact.
pub(crate) fn rfc3339(time: Timestamp) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0)).ok()?.format(&Rfc3339).ok()
}
