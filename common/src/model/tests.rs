//! Tests of the model format and the scorer.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::error::NodeProblem;
use super::write::seal;
use super::*;
use crate::feature::MISSING;

pub(super) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn metadata(algorithm: Algorithm, feature_count: usize) -> ModelMetadata {
    ModelMetadata {
        subject: Subject::Connection,
        algorithm,
        feature_spec_hash: Digest::of(b"spec"),
        feature_count,
        threshold: 0.5,
        dataset_digest: Digest::of(b"data"),
        training_run: "run-1".to_owned(),
        created: Timestamp(1_700_000_000_000_000_000),
    }
}

fn inner(feature: u16, threshold: f32, missing_left: bool, left: u32, right: u32) -> NodeDraft {
    NodeDraft::inner(feature, threshold, missing_left, [left, right])
}

fn leaf(value: f32) -> NodeDraft {
    NodeDraft::leaf(value, 1)
}

/// Depth first, as trainers number nodes.
fn tree() -> TreeDraft {
    TreeDraft { nodes: vec![inner(0, 1.5, false, 1, 4), inner(1, -2.0, true, 2, 3), leaf(0.0), leaf(0.75), leaf(1.0)] }
}

fn forest() -> ModelDraft {
    let stump = TreeDraft { nodes: vec![inner(2, 0.0, true, 1, 2), leaf(0.25), leaf(1.0)] };
    ModelDraft {
        metadata: metadata(Algorithm::RandomForest, 3),
        imputation: Vec::new(),
        body: ModelBody::Forest(vec![tree(), stump]),
        calibration: None,
        self_test: vec![vec![0.0, 0.0, 0.0], vec![2.0, MISSING, 3.5]],
    }
}

fn boosting() -> ModelDraft {
    let stump = TreeDraft { nodes: vec![inner(2, 0.0, true, 1, 2), leaf(-1.25), leaf(3.0)] };
    ModelDraft {
        metadata: metadata(Algorithm::GradientBoosting, 3),
        body: ModelBody::Boosting { base_score: -0.5, trees: vec![tree(), stump] },
        ..forest()
    }
}

fn linear() -> ModelDraft {
    ModelDraft {
        metadata: metadata(Algorithm::LogisticRegression, 2),
        imputation: vec![MISSING, 4.0],
        body: ModelBody::Linear {
            weights: vec![2.0, -1.0],
            bias: 0.5,
            mean: vec![1.0, 3.0],
            inverse_scale: vec![0.5, 2.0],
        },
        calibration: None,
        self_test: vec![vec![0.1, MISSING]],
    }
}

fn isolation() -> ModelDraft {
    let stump = TreeDraft { nodes: vec![inner(2, 0.0, true, 1, 2), leaf(3.5), leaf(1.0)] };
    ModelDraft {
        metadata: metadata(Algorithm::IsolationForest, 3),
        body: ModelBody::IsolationForest { normaliser: 2.5, trees: vec![tree(), stump] },
        ..forest()
    }
}

fn drafts() -> [ModelDraft; 4] {
    [forest(), boosting(), linear(), isolation()]
}

pub(super) fn encode(draft: &ModelDraft) -> Vec<u8> {
    draft.encode(&key()).unwrap()
}

pub(super) fn model(draft: &ModelDraft) -> Model {
    Model::verify(&encode(draft), &[key().verifying_key()]).unwrap()
}

/// Changes the content of a model file and seals it again, so that only the structure can be at fault.
pub(super) fn resealed(file: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut content = file[..file.len() - 128].to_vec();
    change(&mut content);
    seal(content, &key())
}

#[test]
fn a_model_comes_back_as_it_was_drafted() {
    for draft in drafts() {
        let bytes = encode(&draft);
        let model = model(&draft);
        assert_eq!(model.metadata(), &draft.metadata);
        assert_eq!(model.id(), Digest::of(&bytes));
        assert_eq!(model.key_id(), Digest::of(key().verifying_key().as_bytes()));
        assert_eq!(encode(&draft), bytes, "one model, one encoding");
    }
}

#[test]
fn trees_send_each_value_where_the_draft_says() {
    let mut draft = forest();
    draft.metadata.algorithm = Algorithm::DecisionTree;
    draft.body = ModelBody::Forest(vec![tree()]);
    let model = model(&draft);
    for (values, expected) in [
        ([1.5, -2.0, 0.0], 0.0),
        ([1.5, -1.9, 0.0], 0.75),
        ([1.6, -2.0, 0.0], 1.0),
        ([MISSING, -2.0, 0.0], 1.0),
        ([0.0, MISSING, 0.0], 0.0),
        ([0.0, f32::INFINITY, 0.0], 0.0),
    ] {
        assert_eq!(model.score(&values), expected, "{values:?}");
    }
    assert_eq!(model.score(&[]), 1.0, "beyond the end is missing");
}

#[test]
fn a_forest_is_the_mean_of_its_trees() {
    assert_eq!(model(&forest()).score(&[0.0, 0.0, 1.0]), (0.75 + 1.0) / 2.0);
}

#[test]
fn boosting_is_the_logistic_of_the_sum_of_its_trees() {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let model = model(&boosting());
    for (values, sum) in [([0.0, 0.0, 1.0], -0.5 + 0.75 + 3.0), ([2.0, MISSING, MISSING], -0.5 + 1.0 - 1.25)] {
        assert!((model.score(&values) - logistic(sum)).abs() < 1e-12);
        let mut into = Vec::new();
        model.explain(&values, &mut into);
        let explained: f64 = into.iter().map(|entry| entry.contribution).sum();
        assert!((model.baseline() + explained - sum).abs() < 1e-6, "contributions are in log-odds");
    }
    assert!((model.baseline() - (-0.5 + (0.0 + 0.75 + 1.0) / 3.0 + (-1.25 + 3.0) / 2.0)).abs() < 1e-12);
}

#[test]
fn boosting_refuses_values_that_are_no_log_odds() {
    for wrong in [f64::NAN, f64::INFINITY, -1e7] {
        let mut draft = boosting();
        draft.body = ModelBody::Boosting { base_score: wrong, trees: vec![tree()] };
        assert!(matches!(draft.encode(&key()), Err(ModelError::Malformed { section: Section::Trees, .. })), "{wrong}");
        let wrong_leaf = TreeDraft { nodes: vec![leaf(wrong as f32)] };
        draft.body = ModelBody::Boosting { base_score: 0.0, trees: vec![tree(), wrong_leaf] };
        let error = ModelError::Node { tree: 1, node: 0, problem: NodeProblem::Value };
        assert_eq!(draft.encode(&key()), Err(error), "{wrong}");
    }
    let mut draft = boosting();
    draft.metadata.algorithm = Algorithm::RandomForest;
    assert!(matches!(draft.encode(&key()), Err(ModelError::Draft { .. })));
}

#[test]
fn a_linear_model_is_the_logistic_of_its_sum_and_imputes() {
    let model = model(&linear());
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(close(model.score(&[3.0, 3.5]), logistic(0.5 + 2.0 * 2.0 * 0.5 - 0.5 * 2.0)));
    assert!(close(model.score(&[MISSING, MISSING]), logistic(0.5 - 2.0)), "the first adds nothing, the second is 4");
}

#[test]
fn contributions_and_baseline_add_up_to_the_score() {
    let mut into = vec![Contribution { feature: 99, value: 0.0, contribution: 9.0 }];
    let forest = model(&forest());
    for values in [[0.0, 0.0, 1.0], [2.0, MISSING, MISSING], [1.0, -3.0, -1.0]] {
        forest.explain(&values, &mut into);
        let sum: f64 = into.iter().map(|entry| entry.contribution).sum();
        assert!((forest.baseline() + sum - forest.score(&values)).abs() < 1e-12);
        assert!(into.is_sorted_by(|a, b| a.contribution.abs() >= b.contribution.abs()));
        for entry in &into {
            assert_eq!(entry.value.to_bits(), values[entry.feature].to_bits());
        }
    }
    let linear = model(&linear());
    linear.explain(&[3.0, MISSING], &mut into);
    assert_eq!(into.iter().map(|entry| (entry.feature, entry.contribution)).collect::<Vec<_>>(), [(0, 2.0), (1, -2.0)]);
    assert!(into[1].value.is_nan(), "the value that came, not its stand-in");
    assert_eq!(linear.baseline(), 0.5);
}

#[test]
fn any_flipped_bit_is_refused() {
    for draft in drafts() {
        let bytes = encode(&draft);
        for position in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            assert!(Model::verify(&flipped, &[key().verifying_key()]).is_err(), "bit {position}");
            let content = position / 8 < bytes.len() - 96;
            assert_eq!(Model::parse(&flipped).is_err(), content, "bit {position}: the checksum covers the content");
        }
    }
}

#[test]
fn any_truncation_or_extension_is_refused() {
    for draft in drafts() {
        let bytes = encode(&draft);
        for length in 0..bytes.len() {
            assert!(Model::verify(&bytes[..length], &[key().verifying_key()]).is_err(), "{length} bytes");
            assert!(Model::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Model::parse(&longer).is_err());
        assert!(Model::verify(&longer, &[key().verifying_key()]).is_err());
    }
}

#[test]
fn truncation_is_refused_where_the_content_stops_even_if_sealed_anew() {
    let bytes = encode(&forest());
    for length in 0..bytes.len() - 128 {
        let cut = resealed(&bytes, |content| content.truncate(length));
        assert!(Model::verify(&cut, &[key().verifying_key()]).is_err(), "{length} bytes");
    }
    let longer = resealed(&bytes, |content| content.push(0));
    assert!(matches!(
        Model::parse(&longer),
        Err(ModelError::Malformed { section: Section::SelfTest, what: "bytes are left over", .. })
    ));
}

#[test]
fn a_wrong_key_is_refused_before_anything_is_read() {
    let bytes = encode(&forest());
    let stranger = SigningKey::from_bytes(&[8; 32]);
    let id = Digest::of(key().verifying_key().as_bytes());
    assert_eq!(Model::verify(&bytes, &[stranger.verifying_key()]), Err(ModelError::UntrustedKey(id)));
    assert_eq!(Model::verify(&bytes, &[]), Err(ModelError::UntrustedKey(id)));
    assert!(Model::verify(&bytes, &[stranger.verifying_key(), key().verifying_key()]).is_ok());
    // A stranger who writes a trusted key's id into his file still lacks that key.
    let mut forged = forest().encode(&stranger).unwrap();
    let id_at = forged.len() - 96;
    forged[id_at..id_at + 32].copy_from_slice(id.as_bytes());
    assert_eq!(Model::verify(&forged, &[key().verifying_key()]), Err(ModelError::Signature(id)));
}

#[test]
fn a_wrong_feature_specification_is_refused() {
    let spec = FeatureSpec::v1(Subject::Connection);
    let mut draft = forest();
    draft.metadata.feature_count = spec.features.len();
    draft.metadata.feature_spec_hash = spec.hash();
    draft.self_test = vec![vec![0.0; spec.features.len()]];
    let model = model(&draft);
    assert_eq!(model.check_spec(spec), Ok(()));
    let other = FeatureSpec { version: spec.version + 1, ..*spec };
    let error = ModelError::SpecMismatch { expected: other.hash(), found: spec.hash() };
    assert_eq!(model.check_spec(&other), Err(error));
    assert!(model.check_spec(FeatureSpec::v1(Subject::ProcessStart)).is_err());
}

#[test]
fn drafts_that_form_no_tree_are_refused() {
    let leaf_of = leaf;
    let refuse = |nodes: Vec<NodeDraft>| {
        let draft = ModelDraft { body: ModelBody::Forest(vec![TreeDraft { nodes }]), ..forest() };
        match draft.encode(&key()) {
            Err(ModelError::Node { tree: 0, node, problem }) => (node, problem),
            other => panic!("{other:?}"),
        }
    };
    let leaf = leaf(0.5);
    let root = inner(0, 0.0, false, 1, 2);
    assert_eq!(refuse(vec![root, inner(0, 0.0, false, 1, 2), leaf]), (1, NodeProblem::Cycle));
    assert_eq!(refuse(vec![root, inner(0, 0.0, false, 3, 0), leaf, leaf]), (1, NodeProblem::Cycle));
    assert_eq!(refuse(vec![inner(0, 0.0, false, 1, 1), leaf]), (0, NodeProblem::Shared));
    assert_eq!(refuse(vec![root, leaf]), (0, NodeProblem::OutOfRange));
    assert_eq!(refuse(vec![]), (0, NodeProblem::OutOfRange));
    assert_eq!(refuse(vec![leaf, leaf]), (1, NodeProblem::Unreachable));
    assert_eq!(refuse(vec![root, leaf, leaf_of(f32::NAN)]), (2, NodeProblem::Value));
    assert_eq!(refuse(vec![root, leaf, leaf_of(1.5)]), (2, NodeProblem::Value));
    assert_eq!(refuse(vec![root, leaf, NodeDraft::leaf(0.5, 0)]), (2, NodeProblem::Cover));
    assert_eq!(refuse(vec![inner(3, 0.0, false, 1, 2), leaf, leaf]), (0, NodeProblem::Feature));
    assert_eq!(refuse(vec![inner(0, f32::NAN, false, 1, 2), leaf, leaf]), (0, NodeProblem::Threshold));
}

/// A tree that is one long branch: inner nodes 0, 2, 4 … each with a leaf beside the next.
fn branch(depth: u32) -> TreeDraft {
    let mut nodes = vec![leaf(0.5)];
    for level in 0..depth {
        nodes[2 * level as usize] = inner(0, 0.0, false, 2 * level + 1, 2 * level + 2);
        nodes.extend([leaf(0.0), leaf(1.0)]);
    }
    TreeDraft { nodes }
}

#[test]
fn a_tree_may_be_as_deep_as_the_limit_and_no_deeper() {
    let draft = |depth| ModelDraft { body: ModelBody::Forest(vec![branch(depth)]), ..forest() };
    let deepest = u32::try_from(limits::DEPTH_MAX).unwrap();
    assert_eq!(model(&draft(deepest)).score(&[1.0, 0.0, 0.0]), 1.0);
    assert!(matches!(draft(deepest + 1).encode(&key()), Err(ModelError::Node { problem: NodeProblem::Depth, .. })));
}

#[test]
fn oversize_counts_are_refused_before_anything_is_allocated() {
    let bytes = encode(&forest());
    let put =
        |at: usize, count: u32| resealed(&bytes, |content| content[at..at + 4].copy_from_slice(&count.to_le_bytes()));
    let limit_of = |file: Vec<u8>| match Model::parse(&file) {
        Err(ModelError::Limit { what, limit, .. }) => (what, limit as usize),
        other => panic!("{other:?}"),
    };
    assert_eq!(limit_of(put(12, u32::MAX)), ("features", limits::FEATURES_MAX));
    assert_eq!(limit_of(put(169, u32::MAX)), ("trees", limits::TREES_MAX));
    assert_eq!(limit_of(put(173, u32::MAX)), ("nodes", limits::NODES_MAX));
    assert_eq!(limit_of(put(177, u32::MAX)), ("splits", limits::NODES_MAX));
    assert_eq!(limit_of(put(181, u32::MAX)), ("leaf values", limits::NODES_MAX));
    assert!(matches!(Model::parse(&put(173, 400_000)), Err(ModelError::Truncated { section: Section::Trees, .. })));
    assert!(matches!(Model::parse(&put(165, u32::MAX)), Err(ModelError::Truncated { section: Section::Trees, .. })));
    let too_large = vec![0; limits::MODEL_BYTES_MAX + 1];
    assert_eq!(limit_of(too_large), ("bytes", limits::MODEL_BYTES_MAX));
    let rows = ModelDraft { self_test: vec![vec![0.0; 3]; limits::SELF_TEST_ROWS_MAX + 1], ..forest() };
    assert!(matches!(rows.encode(&key()), Err(ModelError::Limit { what: "self-test rows", .. })));
}

#[test]
fn a_self_test_that_does_not_reproduce_is_refused() {
    let bytes = encode(&forest());
    let changed = resealed(&bytes, |content| {
        let last = content.len() - 8;
        content[last] ^= 1;
    });
    assert!(matches!(Model::parse(&changed), Err(ModelError::SelfTest { row: 1, .. })));
    let none = ModelDraft { self_test: Vec::new(), ..forest() };
    assert!(matches!(none.encode(&key()), Err(ModelError::Malformed { section: Section::SelfTest, .. })));
}

#[test]
fn other_files_and_newer_versions_are_told_apart() {
    assert_eq!(Model::parse(b"PK\x03\x04 not a model"), Err(ModelError::NotAModel));
    assert!(matches!(Model::parse(b""), Err(ModelError::Truncated { .. })));
    let of_version = |version| Model::parse(&resealed(&encode(&forest()), |content| content[8] = version));
    assert_eq!(of_version(3), Err(ModelError::UnsupportedVersion(3)));
    let outdated = of_version(1).unwrap_err();
    assert_eq!(outdated, ModelError::OutdatedVersion(1));
    assert!(outdated.to_string().ends_with("train the model again"));
}

#[test]
fn drafts_that_contradict_themselves_are_refused() {
    let linear_of = |body: ModelBody| ModelDraft { body, ..linear() };
    let body = |weights: Vec<f64>, bias: f64, inverse_scale: Vec<f64>| ModelBody::Linear {
        weights,
        bias,
        mean: vec![0.0; 2],
        inverse_scale,
    };
    let mut wrong_algorithm = linear();
    wrong_algorithm.metadata.algorithm = Algorithm::RandomForest;
    let mut two_trees = forest();
    two_trees.metadata.algorithm = Algorithm::DecisionTree;
    let mut long_name = forest();
    long_name.metadata.training_run = "x".repeat(limits::TRAINING_RUN_BYTES_MAX + 1);
    let mut threshold = forest();
    threshold.metadata.threshold = f64::NAN;
    for draft in [
        ModelDraft { imputation: vec![0.0], ..linear() },
        ModelDraft { imputation: vec![f32::INFINITY; 2], ..linear() },
        ModelDraft { self_test: vec![vec![0.0]], ..linear() },
        ModelDraft { self_test: vec![vec![f32::NEG_INFINITY; 2]], ..linear() },
        linear_of(body(vec![1.0], 0.0, vec![1.0; 2])),
        linear_of(body(vec![1.0, f64::NAN], 0.0, vec![1.0; 2])),
        linear_of(body(vec![1.0; 2], f64::INFINITY, vec![1.0; 2])),
        linear_of(body(vec![1.0; 2], 0.0, vec![-1.0; 2])),
        ModelDraft { body: ModelBody::Forest(Vec::new()), ..forest() },
        wrong_algorithm,
        two_trees,
        long_name,
        threshold,
    ] {
        assert!(draft.encode(&key()).is_err(), "{draft:?}");
    }
}

#[test]
fn extreme_values_give_scores_between_0_and_1() {
    let mut draft = linear();
    let largest = limits::COEFFICIENT_MAX;
    draft.body = ModelBody::Linear {
        weights: vec![largest, -largest],
        bias: -largest,
        mean: vec![-largest, largest],
        inverse_scale: vec![largest; 2],
    };
    let linear = model(&draft);
    for values in [[f32::MAX, f32::MIN], [f32::MIN, f32::MAX], [f32::INFINITY, f32::NAN], [0.0, 0.0]] {
        assert!((0.0..=1.0).contains(&linear.score(&values)), "{values:?}");
    }
}

proptest! {
    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Model::parse(&bytes).is_err());
        let mut headed = b"PKTMODEL\x02\x00".to_vec();
        headed.extend(&bytes);
        prop_assert!(Model::parse(&headed).is_err());
        // Past the checksum: all of this reaches the structure's reader.
        if let Ok(model) = Model::parse(&seal(headed, &key())) {
            model.score(&[]);
        }
    }

    /// Any change that is sealed anew is refused, or gives a model that scores without a panic.
    #[test]
    fn changed_and_sealed_anew_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in 0..4usize,
        values in prop::collection::vec(any::<f32>(), 0..5),
    ) {
        let bytes = encode(&drafts()[which]);
        let changed = resealed(&bytes, |content| for (index, byte) in changes {
            let at = index.index(content.len());
            content[at] = byte;
        });
        if let Ok(model) = Model::parse(&changed) {
            prop_assert!((0.0..=1.0).contains(&model.score(&values)));
            model.explain(&values, &mut Vec::new());
        }
    }

    #[test]
    fn scores_of_any_values_are_probabilities(values in prop::collection::vec(any::<f32>(), 0..5)) {
        for draft in drafts() {
            prop_assert!((0.0..=1.0).contains(&model(&draft).score(&values)));
        }
    }
}
