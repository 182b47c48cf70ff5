//! Small models of every kind.

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::{
    Algorithm, Calibration, Layer, ModelBody, ModelDraft, ModelMetadata, NodeDraft, Scaling, Steps, TreeDraft,
};
use picket_common::table::{Categories, Category, Encoder, Preparation, PreparedColumn, TableModel};

const FEATURES: usize = 5;

/// A tree of so many splits, each below the one before or beside it.
fn tree(seed: u32, splits: u32, values: impl Fn(u32) -> f32) -> TreeDraft {
    let inner = |node: u32| {
        let feature = ((node + seed) * 7 % FEATURES as u32) as u16;
        let threshold = (node * 13 % 9) as f32 - 4.0 + seed as f32 / 8.0;
        let children = if node % 3 == 2 { [2 * node + 1, 2 * node + 2] } else { [2 * node + 2, 2 * node + 1] };
        NodeDraft::inner(feature, threshold, (node + seed).is_multiple_of(2), children)
    };
    let leaf = |node: u32| NodeDraft::leaf(values(node * 37 + seed * 11), 1 + node * node * seed);
    TreeDraft { nodes: (0..2 * splits + 1).map(|node| if node < splits { inner(node) } else { leaf(node) }).collect() }
}

/// Steps of every kind: none, one, several.
fn steps(feature: usize) -> Steps {
    match feature {
        0 => Steps::default(),
        1 => Steps { edges: Vec::new(), log_odds: vec![0.25] },
        _ => Steps {
            edges: (0..feature).map(|edge| edge as f32 - 0.5).collect(),
            log_odds: (0..=feature).map(|step| step as f32 / 4.0 - 1.0).collect(),
        },
    }
}

fn scaling() -> Vec<Scaling> {
    let one = |feature: usize| Scaling {
        signed_log: feature.is_multiple_of(2),
        mean: feature as f64 - 1.0,
        inverse_scale: 1.0 / (1 + feature) as f64,
    };
    (0..FEATURES).map(one).collect()
}

/// Layers of these widths, the features first.
fn network(widths: &[usize]) -> ModelBody {
    let number = |index: usize| (index * 37 % 19) as f32 / 8.0 - 1.0;
    let layer = |pair: &[usize]| Layer {
        biases: (0..pair[1]).map(number).collect(),
        weights: (0..pair[0] * pair[1]).map(|index| number(index + 5)).collect(),
    };
    ModelBody::Network { scaling: scaling(), layers: widths.windows(2).map(layer).collect() }
}

fn draft(algorithm: Algorithm) -> ModelDraft {
    let share = |number: u32| (number % 101) as f32 / 100.0;
    let log_odds = |number: u32| (number % 101) as f32 / 25.0 - 2.0;
    let path = |number: u32| 1.0 + (number % 101) as f32 / 20.0;
    let body = match algorithm {
        Algorithm::DecisionTree => ModelBody::Forest(vec![tree(1, 12, share)]),
        Algorithm::RandomForest => ModelBody::Forest((1..13).map(|seed| tree(seed, seed, share)).collect()),
        Algorithm::ExtraTrees => ModelBody::Forest((1..4).map(|seed| tree(seed, 20, share)).collect()),
        Algorithm::VotingForest => ModelBody::Forest((1..3).map(|seed| tree(seed, 0, share)).collect()),
        Algorithm::GradientBoosting => {
            ModelBody::Boosting { base_score: -1.5, trees: (1..15).map(|seed| tree(seed, 7, log_odds)).collect() }
        }
        Algorithm::IsolationForest => {
            ModelBody::IsolationForest { normaliser: 3.25, trees: (1..6).map(|seed| tree(seed, 9, path)).collect() }
        }
        Algorithm::LogisticRegression => ModelBody::Linear {
            weights: vec![0.5, -1.5, 0.0, 2.0, 1e-3],
            bias: -0.25,
            mean: vec![0.0, 1.0, -3.5, 100.0, 0.1],
            inverse_scale: vec![1.0, 0.5, 0.0, 1e-3, 10.0],
        },
        Algorithm::NaiveBayes => ModelBody::Additive { bias: 0.5, features: (0..FEATURES).map(steps).collect() },
        Algorithm::LinearSvm => network(&[FEATURES, 1]),
        Algorithm::RbfSvm => ModelBody::Kernel {
            scaling: scaling(),
            gamma: 0.5,
            bias: -0.5,
            coefficients: (0..3).map(|number| f64::from(log_odds(number * 37))).collect(),
            centres: (0..15).map(|number| log_odds(number * 29)).collect(),
        },
        Algorithm::NeuralNetwork => network(&[FEATURES, 6, 3, 1]),
    };
    let calibration = match algorithm {
        Algorithm::LinearSvm => Some(Calibration::Platt { slope: 0.5, offset: -3.0 }),
        Algorithm::NeuralNetwork => Some(Calibration::Isotonic { knots: vec![(0.0, 0.01), (0.5, 0.1), (1.0, 0.9)] }),
        _ => None,
    };
    let imputes = matches!(algorithm, Algorithm::LogisticRegression | Algorithm::ExtraTrees);
    ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::ProcessStart,
            algorithm,
            feature_spec_hash: Digest::of(b"corpus"),
            feature_count: FEATURES,
            threshold: 0.75,
            dataset_digest: Digest::of(b"nothing"),
            training_run: "corpus".to_owned(),
            created: Timestamp(0),
        },
        imputation: if imputes { vec![0.5, MISSING, -1.0, 2.0, MISSING] } else { Vec::new() },
        body,
        calibration,
        self_test: vec![vec![0.0, 1.0, MISSING, -2.0, 3.5], vec![MISSING; FEATURES]],
    }
}

/// A model of a table with a column of each kind.
fn table(key: &SigningKey) -> Vec<u8> {
    let known = ["tcp", "udp"].map(|value| Category { value: value.to_owned(), log_odds: -1.0, frequency: 3.0 });
    let encoders = [
        ("proto", Encoder::Categorical(Categories { other: 0.5, known: known.to_vec() })),
        ("bytes", Encoder::Numeric),
        ("command", Encoder::Text(vec![7, 9, 1 << 19])),
        ("time", Encoder::Time),
    ];
    let column = |(name, encoder): (&str, Encoder)| PreparedColumn { name: name.to_owned(), encoder };
    let preparation = Preparation { columns: encoders.map(column).to_vec() };
    let mut model = draft(Algorithm::GradientBoosting);
    model.metadata.feature_count = preparation.feature_count();
    model.metadata.feature_spec_hash = preparation.hash();
    model.self_test = vec![vec![1.0; preparation.feature_count()]];
    TableModel::encode(&preparation, &model.encode(key).unwrap()).unwrap()
}

/// For each kind of model its file's name and content.
pub(super) fn files(key: &SigningKey) -> Vec<(String, Vec<u8>)> {
    let of_algorithm = |algorithm: Algorithm| (format!("{algorithm}.bin"), draft(algorithm).encode(key).unwrap());
    let mut files: Vec<_> = Algorithm::ALL.into_iter().map(of_algorithm).collect();
    files.push(("table.bin".to_owned(), table(key)));
    files
}
