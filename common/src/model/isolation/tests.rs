//! Isolation forests: scores by the formula, reasons, limits.

use crate::feature::MISSING;
use crate::model::error::NodeProblem;
use crate::model::tests::{encode, key, metadata, model, resealed};
use crate::model::{Algorithm, Model, ModelBody, ModelDraft, ModelError, NodeDraft, Section, TreeDraft, limits};

fn draft() -> ModelDraft {
    let root = NodeDraft::inner(0, 1.5, false, [1, 2]);
    let deep = vec![
        root,
        NodeDraft::inner(1, -2.0, true, [3, 4]),
        NodeDraft::leaf(1.0, 1),
        NodeDraft::leaf(3.0, 2),
        NodeDraft::leaf(2.0, 1),
    ];
    let stump = vec![NodeDraft::inner(2, 0.0, true, [1, 2]), NodeDraft::leaf(2.5, 3), NodeDraft::leaf(1.0, 1)];
    ModelDraft {
        metadata: metadata(Algorithm::IsolationForest, 3),
        imputation: Vec::new(),
        body: body(1.5, vec![TreeDraft { nodes: deep }, TreeDraft { nodes: stump }]),
        calibration: None,
        self_test: vec![vec![0.0, 0.0, 0.0], vec![2.0, MISSING, 3.5]],
    }
}

fn body(normaliser: f64, trees: Vec<TreeDraft>) -> ModelBody {
    ModelBody::IsolationForest { normaliser, trees }
}

fn leaf(value: f32) -> TreeDraft {
    TreeDraft { nodes: vec![NodeDraft::leaf(value, 1)] }
}

#[test]
fn the_score_is_a_power_of_the_mean_path() {
    let model = model(&draft());
    for (values, paths) in [
        ([0.0, -3.0, 1.0], [3.0, 1.0]),
        ([0.0, 0.0, -1.0], [2.0, 2.5]),
        ([MISSING, 0.0, MISSING], [1.0, 2.5]),
        ([f32::INFINITY, MISSING, 7.0], [1.0, 1.0]),
    ] {
        let mean = (paths[0] + paths[1]) / 2.0;
        assert!((model.score(&values) - 2.0_f64.powf(-mean / 1.5)).abs() < 1e-15, "{values:?}");
    }
    assert!(model.memory_bytes() > 0);
    assert_eq!(model.body(), Some(draft().body), "its trees are breadth first already");
}

#[test]
fn short_paths_are_towards_an_alert() {
    let model = model(&draft());
    let mut into = Vec::new();
    let expected = ((1.0 + 2.0 * 3.0 + 2.0) / 4.0 + (3.0 * 2.5 + 1.0) / 4.0) / 2.0;
    assert!((model.baseline() + expected).abs() < 1e-12);
    for values in [[0.0, -3.0, 1.0], [9.0, 0.0, -1.0], [MISSING; 3]] {
        model.explain(&values, &mut into);
        let sum: f64 = into.iter().map(|entry| entry.contribution).sum();
        let path = -(model.baseline() + sum);
        assert!((2.0_f64.powf(-path / 1.5) - model.score(&values)).abs() < 1e-12, "{values:?}");
    }
    // The third feature alone makes the path of its tree shorter than that of most rows.
    model.explain(&[0.0, -3.0, 1.0], &mut into);
    let third = into.iter().find(|entry| entry.feature == 2).unwrap();
    assert!((third.contribution - 0.5 * (8.5 / 4.0 - 1.0)).abs() < 1e-12, "{third:?}");
}

#[test]
fn what_is_no_path_length_is_refused() {
    for wrong in [f64::NAN, f64::INFINITY, 0.0, 0.99, -1.0, limits::PATH_LENGTH_MAX + 1.0] {
        let draft = ModelDraft { body: body(wrong, vec![leaf(1.0)]), ..draft() };
        let error = draft.encode(&key()).unwrap_err();
        assert!(matches!(error, ModelError::Malformed { section: Section::Trees, .. }), "{wrong}: {error}");
    }
    for wrong in [f32::NAN, f32::INFINITY, -0.5, 128.5] {
        let draft = ModelDraft { body: body(2.0, vec![leaf(0.0), leaf(wrong)]), ..draft() };
        let error = ModelError::Node { tree: 1, node: 0, problem: NodeProblem::Value };
        assert_eq!(draft.encode(&key()), Err(error), "{wrong}");
    }
    for algorithm in [Algorithm::RandomForest, Algorithm::GradientBoosting] {
        let mut other = draft();
        other.metadata.algorithm = algorithm;
        assert!(matches!(other.encode(&key()), Err(ModelError::Draft { .. })), "{algorithm}");
    }
    // The reader alone: the normaliser is the first field of the section.
    let zero = resealed(&encode(&draft()), |content| content[169..177].copy_from_slice(&0.5_f64.to_le_bytes()));
    assert!(matches!(Model::parse(&zero), Err(ModelError::Malformed { section: Section::Trees, .. })));
}

#[test]
fn the_longest_and_the_shortest_paths_give_scores_between_0_and_1() {
    for (length, normaliser, low, high) in [(0.0, 1.0, 1.0, 1.0), (128.0, 1.0, 0.0, 1e-38), (1.0, 128.0, 0.99, 1.0)] {
        let score = model(&ModelDraft { body: body(normaliser, vec![leaf(length)]), ..draft() }).score(&[]);
        assert!((low..=high).contains(&score), "{length} {normaliser}: {score}");
    }
}
