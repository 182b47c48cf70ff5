//! Golden files: events → vectors → scores, bit for bit.
//!
//! `PICKET_UPDATE_GOLDEN=1 cargo test -p picket-common golden -- --test-threads=1` writes them anew. Do that only together
//! with a new version of the specification or of the model format: what is in the field was trained on, and computes,
//! the old bits.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::event::json::to_json;
use picket_common::feature::{ContextLimits, FeaturePipeline, FeatureSpec, Subject};
use picket_common::id::Digest;
use picket_common::model::{Algorithm, Model, ModelBody, ModelDraft, ModelMetadata, NodeDraft, TreeDraft};
use serde_json::{Value, json};

use crate::scenes;
use crate::support::golden_events;

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RandomForest, Algorithm::LogisticRegression, Algorithm::GradientBoosting, Algorithm::IsolationForest];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

fn is_update() -> bool {
    std::env::var_os("PICKET_UPDATE_GOLDEN").is_some()
}

/// The golden file's bytes, which are `written` when files are to be updated.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    if is_update() {
        fs::write(path(name), written).unwrap();
    }
    fs::read(path(name)).unwrap()
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn model_name(subject: Subject, algorithm: Algorithm) -> String {
    format!("model_v2_{subject}_{algorithm}.bin")
}

/// The vectors of the golden events: subject, sequence number, values.
fn vectors() -> Vec<(Subject, u64, Vec<f32>)> {
    let text = String::from_utf8(golden("events_v1.jsonl", &event_lines())).unwrap();
    let mut pipeline = FeaturePipeline::new(ContextLimits::default());
    let mut vectors = Vec::new();
    for event in golden_events(&text) {
        if let Some(vector) = pipeline.observe(&event) {
            vectors.push((vector.subject, vector.event.sequence.0, vector.values.to_vec()));
        }
    }
    vectors
}

fn event_lines() -> Vec<u8> {
    lines(&scenes::events().iter().map(to_json).collect::<Vec<_>>()).into_bytes()
}

/// A model that nobody trained, whose thresholds and means are values that occur.
fn draft(subject: Subject, algorithm: Algorithm, rows: &[&Vec<f32>]) -> ModelDraft {
    let spec = FeatureSpec::v1(subject);
    let features = spec.features.len();
    let value = |row: usize, feature: usize| Some(rows[row % rows.len()][feature]).filter(|value| value.is_finite());
    let body = match algorithm {
        Algorithm::LogisticRegression => ModelBody::Linear {
            weights: (0..features).map(|feature| ((feature * 37 % 19) as f64 - 9.0) / 10.0).collect(),
            bias: -0.75,
            mean: (0..features).map(|feature| f64::from(value(feature * 7, feature).unwrap_or(0.25))).collect(),
            inverse_scale: (0..features).map(|feature| 1.0 / (1 + feature % 5) as f64).collect(),
        },
        Algorithm::GradientBoosting => ModelBody::Boosting {
            base_score: -7.25,
            trees: (0..16).map(|tree| complete_tree(tree, features, value)).collect(),
        },
        Algorithm::IsolationForest => ModelBody::IsolationForest {
            normaliser: 0.75 + std::f64::consts::E,
            trees: (0..16).map(|tree| complete_tree(tree, features, value)).collect(),
        },
        _ => ModelBody::Forest((0..16).map(|tree| complete_tree(tree, features, value)).collect()),
    };
    ModelDraft {
        metadata: ModelMetadata {
            subject,
            algorithm,
            feature_spec_hash: spec.hash(),
            feature_count: features,
            threshold: 0.5,
            dataset_digest: Digest::of(b"golden events"),
            training_run: "golden".to_owned(),
            created: Timestamp(1_763_850_000_000_000_000),
        },
        imputation: Vec::new(),
        body,
        calibration: None,
        self_test: rows.iter().step_by(7).take(8).map(|row| (*row).clone()).collect(),
    }
}

fn complete_tree(tree: usize, features: usize, value: impl Fn(usize, usize) -> Option<f32>) -> TreeDraft {
    const INNER: usize = 31;
    let nodes = (0..2 * INNER + 1)
        .map(|node| {
            let pattern = (node * 73 + tree * 151 + node * tree * 29) % 1009;
            let mean_label = pattern as f32 / 1009.0;
            if node >= INNER {
                return NodeDraft::leaf(mean_label, 1 + pattern as u32);
            }
            let feature = pattern % features;
            let threshold = value(pattern, feature).unwrap_or(0.5);
            let children = [1, 2].map(|side| 2 * node as u32 + side);
            NodeDraft::inner(feature as u16, threshold, pattern.is_multiple_of(2), children)
        })
        .collect();
    TreeDraft { nodes }
}

#[test]
fn golden_events_are_those_of_the_scenes() {
    let events = scenes::events();
    let text = String::from_utf8(golden("events_v1.jsonl", &event_lines())).unwrap();
    assert_eq!(golden_events(&text), events);
}

#[test]
fn golden_vectors_come_out_bit_for_bit() {
    let vectors = vectors();
    let written: Vec<Value> = vectors
        .iter()
        .map(|(subject, sequence, values)| {
            let bits: String = values.iter().map(|value| format!("{:08x}", value.to_bits())).collect();
            json!({"subject": subject.name(), "sequence": sequence, "bits": bits})
        })
        .collect();
    let golden = String::from_utf8(golden("vectors_v1.jsonl", lines(&written).as_bytes())).unwrap();
    let golden: Vec<Value> = golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(golden.len(), written.len());
    for (golden, written) in golden.iter().zip(&written) {
        assert_eq!(golden, written, "{}", difference(golden, written));
    }
}

/// Names the first feature whose bits differ.
fn difference(golden: &Value, written: &Value) -> String {
    let bits =
        |value: &Value| value["bits"].as_str().unwrap_or_default().as_bytes().chunks(8).map(<[u8]>::to_vec).collect();
    let (golden, other): (Vec<_>, Vec<_>) = (bits(golden), bits(written));
    let place = golden.iter().zip(&other).position(|(golden, other)| golden != other);
    let subject = written["subject"].as_str().and_then(|name| name.parse().ok());
    match (subject, place) {
        (Some(subject), Some(place)) => FeatureSpec::v1(subject).features[place].name.to_owned(),
        _ => "another subject or another number of features".to_owned(),
    }
}

#[test]
fn golden_models_give_golden_scores_bit_for_bit() {
    let vectors = vectors();
    let mut written = Vec::new();
    for subject in Subject::ALL {
        let rows: Vec<&Vec<f32>> =
            vectors.iter().filter(|vector| vector.0 == subject).map(|vector| &vector.2).collect();
        for algorithm in ALGORITHMS {
            let encoded = draft(subject, algorithm, &rows).encode(&key()).unwrap();
            let file = golden(&model_name(subject, algorithm), &encoded);
            assert!(file == encoded, "{subject} {algorithm}: the encoding changed");
            let model = Model::verify(&file, &[key().verifying_key()]).unwrap();
            model.check_spec(FeatureSpec::v1(subject)).unwrap();
            let scores: String = rows.iter().map(|row| format!("{:016x} ", model.score(row).to_bits())).collect();
            written
                .push(json!({"subject": subject.name(), "algorithm": algorithm.name(), "score_bits": scores.trim()}));
        }
    }
    let golden = String::from_utf8(golden("scores_v1.jsonl", lines(&written).as_bytes())).unwrap();
    let golden: Vec<Value> = golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(golden, written);
}

#[test]
fn golden_vectors_vary_in_every_feature() {
    // A golden file in which everything is equal would prove nothing.
    let vectors = vectors();
    assert!(vectors.len() > 100);
    for subject in Subject::ALL {
        for (feature, definition) in FeatureSpec::v1(subject).features.iter().enumerate() {
            let mut values: Vec<u32> =
                vectors.iter().filter(|vector| vector.0 == subject).map(|vector| vector.2[feature].to_bits()).collect();
            values.sort_unstable();
            values.dedup();
            assert!(values.len() > 1, "{subject} {} is the same in all golden vectors", definition.name);
        }
    }
}
