//! Files that never change, versions, stages, pushes, restarts.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use picket_common::event::Timestamp;
use picket_common::model::{ModelBody, ModelMetadata, NodeDraft, TreeDraft};
use tempfile::TempDir;

use super::*;
use crate::dataset::manifest::{LabelCounts, Manifest, ManifestSpec, ManifestSplit};
use crate::dataset::split::SplitRule;
use crate::metastore::{DatasetRecord, DatasetStore as _};
use picket_learn::evaluate::{Options, ScoredRow, evaluate};
use picket_learn::train::{CalibrationMethod, threshold};

const DATASET: &str = "connection-0123456789ab";

async fn registry(state: &Path) -> Registry {
    let metastore = Metastore::open(&state.join("metadata.sqlite")).await.unwrap();
    let manifest = Manifest {
        format: 1,
        subject: "connection".to_owned(),
        feature_spec: ManifestSpec { version: 1, sha256: String::new(), features: Vec::new() },
        lake_versions: [("network_activity".to_owned(), 3)].into(),
        label_snapshot: 5,
        labels: LabelCounts::default(),
        split: ManifestSplit {
            rule: SplitRule::Time,
            test_fraction: 0.3,
            boundary_unix_ns: 7,
            duplicates_removed: 0,
            contradictions: 0,
        },
        files: Vec::new(),
    };
    let bytes = manifest.to_bytes().unwrap();
    let dataset = DatasetRecord {
        dataset_id: DATASET.to_owned(),
        created: UnixSeconds(1),
        author: "ada".to_owned(),
        digest: Digest::of(&bytes),
        manifest_json: String::from_utf8(bytes).unwrap(),
        manifest,
    };
    metastore.add_dataset(&dataset).await.unwrap();
    metastore.add_dataset(&dataset).await.unwrap();
    assert_eq!(metastore.datasets().await.unwrap(), [dataset]);
    Registry::open(state, metastore).await.unwrap()
}

fn draft(subject: Subject, value: f32) -> ModelDraft {
    ModelDraft {
        metadata: ModelMetadata {
            subject,
            algorithm: Algorithm::DecisionTree,
            feature_spec_hash: Digest::of(b"spec"),
            feature_count: 1,
            threshold: 0.5,
            dataset_digest: Digest::of(b"dataset"),
            training_run: "run".to_owned(),
            created: Timestamp(1),
        },
        imputation: Vec::new(),
        body: ModelBody::Forest(vec![TreeDraft { nodes: vec![NodeDraft::leaf(value, 1)] }]),
        calibration: None,
        self_test: vec![vec![0.0]],
    }
}

/// Pushes without asking the gate.
async fn push(registry: &Registry, digest: Digest, author: &str) -> Result<DesiredState, RegistryError> {
    let judgement = Judgement { forced: true, ..Judgement::default() };
    loop {
        let beside = match registry.model(digest).await {
            Ok(record) => registry.in_force(record.model.subject),
            Err(error) => return Err(error),
        };
        match registry.push(digest, author, (&judgement, beside)).await {
            Err(RegistryError::Overtaken) => {}
            pushed => return pushed,
        }
    }
}

async fn add(registry: &Registry, subject: Subject, value: f32) -> ModelRecord {
    let signed = registry.sign(&draft(subject, value)).unwrap();
    let row = |score, malicious| ScoredRow { score, malicious, technique: "", group: "" };
    let known = BTreeSet::new();
    let options = Options { threshold: 0.5, known_techniques: &known, resamples: 0, seed: 0 };
    let model = NewModel {
        digest: signed.digest,
        subject,
        algorithm: Algorithm::DecisionTree,
        dataset_id: DATASET.to_owned(),
        model_bytes: signed.bytes.len() as u64,
        threshold: 0.5,
        training_seconds: 1.5,
        run: RunRecord {
            training_run: "run".to_owned(),
            calibration: CalibrationMethod::None,
            seed: 1,
            refit: false,
            params: Params::DecisionTree { depth_max: 4, leaf_rows_min: 1 },
            witnesses: false,
            code_version: "0".to_owned(),
            dataset_digest: String::new(),
            folds: 5,
            foldings: 1,
            folds_grouped: true,
            tried: vec![TriedParams {
                params: Params::DecisionTree { depth_max: 4, leaf_rows_min: 1 },
                witnesses: false,
                score: 0.1 + 0.2,
            }],
            threshold: threshold::choose(&[(0.1, false), (0.9, true)], &[0, 1], 0.01, None),
            confidence: None,
            search: None,
        },
        evaluation: evaluate(&[row(0.9, true), row(0.1, false)], &options).unwrap(),
    };
    let record = registry.add(&signed, &model, "ada").await.unwrap();
    assert_eq!(record.model, model);
    record
}

#[tokio::test]
async fn models_are_kept_signed_and_numbered_by_subject() {
    let state = TempDir::new().unwrap();
    let registry = registry(state.path()).await;
    let first = add(&registry, Subject::Connection, 0.1).await;
    let second = add(&registry, Subject::Connection, 0.2).await;
    let other = add(&registry, Subject::ProcessStart, 0.2).await;
    assert_eq!((first.version, second.version, other.version), (1, 2, 1));
    assert_eq!(first.stage, Stage::Candidate);
    // The same bytes again are the same model.
    assert_eq!(add(&registry, Subject::Connection, 0.1).await, first);

    let file = registry.file(first.model.digest).await.unwrap();
    let model = Model::verify(&file, &[registry.verifying_key()]).unwrap();
    assert_eq!(model.id(), first.model.digest);
    assert_eq!(registry.models(None).await.unwrap().len(), 3);
    assert_eq!(registry.models(Some(Subject::ProcessStart)).await.unwrap(), [other]);
    let unknown = Digest::of(b"unknown");
    assert!(matches!(registry.model(unknown).await, Err(RegistryError::NotFound(_))));
    assert_eq!(registry.model_file(unknown).await.unwrap(), None);
    assert_eq!(registry.model_file(first.model.digest).await.unwrap(), Some(file));
}

#[tokio::test]
async fn a_push_is_told_at_once_and_survives_a_restart() {
    let state = TempDir::new().unwrap();
    let first_life = registry(state.path()).await;
    let mut told = first_life.subscribe();
    assert_eq!(*told.borrow_and_update(), DesiredState::default());
    let old = add(&first_life, Subject::Connection, 0.1).await.model.digest;
    let new = add(&first_life, Subject::Connection, 0.2).await.model.digest;
    let process = add(&first_life, Subject::ProcessStart, 0.3).await.model.digest;

    assert_eq!(push(&first_life, old, "ada").await.unwrap().generation, 1);
    assert!(told.has_changed().unwrap());
    assert_eq!(push(&first_life, process, "ada").await.unwrap().generation, 2);
    let state_now = push(&first_life, new, "bob").await.unwrap();
    assert_eq!(*told.borrow_and_update(), state_now);
    let desired: Vec<_> = state_now.models.iter().map(|model| (model.subject, model.digest, model.version)).collect();
    assert_eq!(desired, [(Subject::Connection, new, 2), (Subject::ProcessStart, process, 1)]);
    assert_eq!(first_life.model(old).await.unwrap().stage, Stage::Retired);

    // Judged beside a model that is not in force any more.
    let judgement = Judgement::default();
    let late = first_life.push(old, "bob", (&judgement, Some(old))).await;
    assert!(matches!(late, Err(RegistryError::Overtaken)), "{late:?}");

    // Back to the older model: a new generation, and the history keeps everything.
    assert_eq!(push(&first_life, old, "bob").await.unwrap().generation, 4);
    let stages: Vec<_> = first_life.history(old).await.unwrap().iter().map(|change| change.stage).collect();
    assert_eq!(stages, [Stage::Candidate, Stage::Production, Stage::Retired, Stage::Production]);
    assert!(matches!(push(&first_life, Digest::of(b"x"), "ada").await, Err(RegistryError::NotFound(_))));

    let (key, desired) = (first_life.verifying_key(), first_life.desired_state());
    drop(first_life);
    let second_life = registry(state.path()).await;
    assert_eq!(second_life.verifying_key(), key);
    assert_eq!(second_life.desired_state(), desired);
    assert_eq!(second_life.desired_state().generation, 4);
}

#[tokio::test]
async fn pushes_at_the_same_time_are_published_in_the_order_of_their_generations() {
    let state = TempDir::new().unwrap();
    let registry = std::sync::Arc::new(registry(state.path()).await);
    let mut digests = Vec::new();
    for value in 0..8u8 {
        digests.push(add(&registry, Subject::Connection, f32::from(value) / 10.0).await.model.digest);
    }
    let pushes = digests.iter().map(|digest| {
        let (registry, digest) = (registry.clone(), *digest);
        tokio::spawn(async move { push(&registry, digest, "ada").await.unwrap() })
    });
    let states = futures::future::join_all(pushes.collect::<Vec<_>>()).await;
    let newest = states.into_iter().map(Result::unwrap).max_by_key(|state| state.generation).unwrap();
    assert_eq!(newest.generation, 8);
    assert_eq!(registry.desired_state(), newest);
    let production: Vec<_> = registry
        .models(None)
        .await
        .unwrap()
        .into_iter()
        .filter(|model| model.stage == Stage::Production)
        .map(|model| model.model.digest)
        .collect();
    assert_eq!(production, [newest.models[0].digest]);
}

#[tokio::test]
async fn a_damaged_file_is_not_pushed() {
    let state = TempDir::new().unwrap();
    let registry = registry(state.path()).await;
    let digest = add(&registry, Subject::Connection, 0.1).await.model.digest;
    let path = state.path().join("models").join(format!("{digest}.model"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(push(&registry, digest, "ada").await, Err(RegistryError::Damaged { .. })));
    assert!(registry.model_file(digest).await.is_err());
    assert_eq!(registry.desired_state(), DesiredState::default());
    // Training the same again heals it.
    add(&registry, Subject::Connection, 0.1).await;
    assert_eq!(push(&registry, digest, "ada").await.unwrap().generation, 1);
}

#[tokio::test]
async fn the_signing_key_is_for_the_servers_user_alone() {
    let state = TempDir::new().unwrap();
    drop(registry(state.path()).await);
    let path = state.path().join("model-signing.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(open_key(&path).is_ok());
    std::fs::write(&path, b"short").unwrap();
    assert!(matches!(open_key(&path), Err(RegistryError::SigningKey { found: 5, .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open_key(&path), Err(RegistryError::File(SecretError::Exposed { .. }))));
}
