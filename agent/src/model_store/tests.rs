use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::model::{Algorithm, ModelBody, ModelDraft, ModelMetadata, NodeDraft, TreeDraft};

use super::*;

/// A tree with one decision, on the subject's first feature.
pub(crate) fn model_file(subject: Subject, threshold: f32, key: &SigningKey) -> Vec<u8> {
    let spec = FeatureSpec::v1(subject);
    let leaf = |value| NodeDraft::leaf(value, 1);
    let root = NodeDraft::inner(0, threshold, true, [1, 2]);
    ModelDraft {
        metadata: ModelMetadata {
            subject,
            algorithm: Algorithm::DecisionTree,
            feature_spec_hash: spec.hash(),
            feature_count: spec.features.len(),
            threshold: 0.5,
            dataset_digest: Digest::of(b"data set"),
            training_run: "test".to_owned(),
            created: Timestamp(1),
        },
        imputation: Vec::new(),
        body: ModelBody::Forest(vec![TreeDraft { nodes: vec![root, leaf(0.0), leaf(1.0)] }]),
        self_test: vec![vec![0.0; spec.features.len()], vec![9.0; spec.features.len()]],
    }
    .encode(key)
    .unwrap()
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn desired(subject: Subject, bytes: &[u8], version: u64) -> DesiredModel {
    DesiredModel { subject, digest: Digest::of(bytes), bytes: bytes.len() as u64, version }
}

fn state(generation: u64, models: &[&DesiredModel]) -> DesiredState {
    DesiredState { generation, models: models.iter().map(|model| (*model).clone()).collect() }
}

const SUBJECT: Subject = Subject::Connection;

struct Fixture {
    dir: tempfile::TempDir,
    one: Vec<u8>,
    two: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, one: model_file(SUBJECT, 1.0, &key(1)), two: model_file(SUBJECT, 2.0, &key(1)) }
    }

    fn open(&self) -> ModelStore {
        ModelStore::open(&self.dir.path().join("models"), vec![key(1).verifying_key()]).unwrap()
    }

    fn with_two_installed(&self) -> ModelStore {
        let mut store = self.open();
        for (generation, bytes) in [(1, &self.one), (2, &self.two)] {
            let model = desired(SUBJECT, bytes, generation);
            assert_eq!(store.accept(&state(generation, &[&model])).unwrap(), vec![model.clone()]);
            store.install(&model, bytes).unwrap();
        }
        store
    }

    fn path(&self, bytes: &[u8]) -> PathBuf {
        self.dir.path().join("models").join(format!("{}.model", Digest::of(bytes)))
    }
}

fn error_of(store: &ModelStore) -> String {
    let active = store.active().all();
    active.into_iter().find(|active| active.subject == SUBJECT).unwrap().last_error.unwrap_or_default()
}

#[test]
fn a_model_is_installed_survives_a_restart_and_keeps_the_one_before() {
    let fixture = Fixture::new();
    let store = fixture.with_two_installed();
    let revision = store.active().revision();
    assert_eq!(revision, 2);
    let store = fixture.open();
    assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.two)));
    assert_eq!(store.generation(), 2);
    assert!(fixture.path(&fixture.one).exists());
    assert_eq!(error_of(&store), "");
}

#[test]
fn only_two_models_of_a_subject_are_kept() {
    let fixture = Fixture::new();
    let mut store = fixture.with_two_installed();
    let three = model_file(SUBJECT, 3.0, &key(1));
    let model = desired(SUBJECT, &three, 3);
    store.accept(&state(3, &[&model])).unwrap();
    store.install(&model, &three).unwrap();
    assert!(!fixture.path(&fixture.one).exists());
    assert!(fixture.path(&fixture.two).exists());
}

#[test]
fn a_damaged_current_model_gives_way_to_the_previous_one_and_is_fetched_again() {
    let fixture = Fixture::new();
    drop(fixture.with_two_installed());
    let mut bytes = fixture.two.clone();
    bytes[200] ^= 1;
    fs::write(fixture.path(&fixture.two), bytes).unwrap();
    let mut store = fixture.open();
    assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.one)));
    assert!(error_of(&store).contains("SHA-256"), "{}", error_of(&store));
    let model = desired(SUBJECT, &fixture.two, 2);
    assert_eq!(store.accept(&state(2, &[&model])).unwrap().len(), 1);
    store.install(&model, &fixture.two).unwrap();
    drop(store);
    fs::remove_file(fixture.path(&fixture.two)).unwrap();
    assert_eq!(fixture.open().active().digest(SUBJECT), Some(Digest::of(&fixture.one)), "still the previous one");
}

#[test]
fn an_older_generation_or_version_is_refused() {
    let fixture = Fixture::new();
    let mut store = fixture.with_two_installed();
    let old = desired(SUBJECT, &fixture.one, 1);
    let result = store.accept(&state(1, &[&old]));
    assert!(matches!(result, Err(ModelStoreError::GenerationRollback { offered: 1, seen: 2 })));
    assert!(error_of(&store).contains("generation 2"));
    assert_eq!(store.accept(&state(2, &[&old])).unwrap(), vec![], "an older version needs a newer generation");
    assert!(matches!(store.install(&old, &fixture.one), Err(ModelStoreError::VersionRollback { .. })));
    assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.two)));
    // After a restart still.
    drop(store);
    let mut store = fixture.open();
    store.accept(&state(1, &[&old])).unwrap_err();
    // With a newer generation the operator can go back.
    assert_eq!(store.accept(&state(3, &[&old])).unwrap().len(), 1);
    store.install(&old, &fixture.one).unwrap();
    assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.one)));
    assert_eq!(error_of(&store), "");
}

#[test]
fn the_generation_is_remembered_before_anything_is_activated() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.accept(&state(9, &[&desired(SUBJECT, &fixture.one, 1)])).unwrap();
    drop(store);
    assert_eq!(fixture.open().generation(), 9);
}

#[test]
fn what_is_not_exactly_the_announced_model_is_refused() {
    let fixture = Fixture::new();
    let mut store = fixture.with_two_installed();
    let three = model_file(SUBJECT, 3.0, &key(1));
    let announced = desired(SUBJECT, &three, 3);
    store.accept(&state(3, &[&announced])).unwrap();

    let refused = |store: &mut ModelStore, desired: &DesiredModel, bytes: &[u8]| {
        let error = store.install(desired, bytes).unwrap_err().to_string();
        assert_eq!(error_of(store), error);
        assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.two)), "the model before stays");
        error
    };
    assert!(refused(&mut store, &announced, &three[..three.len() - 1]).contains("bytes"));
    let mut flipped = three.clone();
    flipped[100] ^= 4;
    assert!(refused(&mut store, &announced, &flipped).contains("SHA-256"));
    // The digest fits, what it names does not.
    assert!(refused(&mut store, &desired(SUBJECT, &flipped, 3), &flipped).contains("signature"));
    let foreign = model_file(SUBJECT, 3.0, &key(2));
    assert!(refused(&mut store, &desired(SUBJECT, &foreign, 3), &foreign).contains("not trusted"));
    let other = model_file(Subject::ProcessStart, 3.0, &key(1));
    assert!(refused(&mut store, &desired(SUBJECT, &other, 3), &other).contains("judges process_start"));
    let huge = DesiredModel { bytes: u64::MAX, ..announced.clone() };
    assert!(refused(&mut store, &huge, &three).contains("more than"));
    store.install(&announced, &three).unwrap();
}

#[test]
fn models_wait_for_the_keys_that_vouch_for_them() {
    let fixture = Fixture::new();
    drop(fixture.with_two_installed());
    let mut store = ModelStore::open(&fixture.dir.path().join("models"), Vec::new()).unwrap();
    assert_eq!(store.active().digest(SUBJECT), None);
    store.set_trusted(vec![key(1).verifying_key()]);
    assert_eq!(store.active().digest(SUBJECT), Some(Digest::of(&fixture.two)));
}

#[test]
fn a_damaged_record_is_an_error_and_not_a_way_back() {
    let fixture = Fixture::new();
    drop(fixture.with_two_installed());
    fs::write(fixture.dir.path().join("models/active.json"), b"{").unwrap();
    let error = ModelStore::open(&fixture.dir.path().join("models"), Vec::new()).unwrap_err();
    assert!(matches!(error, ModelStoreError::File { .. }));
}
