//! The compact model: a file of data, never code.
//!
//! The server's trainers fill a [`ModelDraft`] and [`ModelDraft::encode`] signs it; agents read it back with
//! [`Model::verify`]. The reader proves the structure before anything is used: whatever the bytes are, it neither
//! panics, nor loops, nor allocates more than the file's own size allows. [`Model::score`] allocates nothing and gives
//! the same bits on every machine: every sum has a fixed order, and the one function that is not exactly rounded
//! (the exponential) comes from `libm`, not from the platform.
//!
//! # Format, version 2
//!
//! All numbers are little-endian. There is no free choice: one model has one encoding.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `PKTMODEL` |
//! | 8 | 2 | format version, 2 |
//! | 10 | 1 | algorithm: 1 decision tree, 2 random forest, 3 logistic regression, 4 extra trees, 5 voting forest, 6 gradient boosting, 7 naive Bayes, 8 linear SVM, 9 RBF SVM, 10 neural network, 11 isolation forest |
//! | 11 | 1 | subject: 1 process start, 2 connection |
//! | 12 | 4 | feature count *F* |
//! | 16 | 32 | hash of the feature specification |
//! | 48 | 8 | threshold, `f64`: a score at or above it is an alert |
//! | 56 | 32 | SHA-256 of the data set it was trained on |
//! | 88 | 8 | created, nanoseconds since 1970, `i64` |
//! | 96 | 1 | length *L* of the training run's name |
//! | 97 | 64 | that name, UTF-8, zero after *L* bytes |
//! | 161 | … | sections, in this order, each: `u32` tag, `u32` length of what follows, content |
//! | end − 128 | 32 | SHA-256 of everything before it |
//! | end − 96 | 32 | key id: SHA-256 of the Ed25519 public key |
//! | end − 64 | 64 | Ed25519 signature of everything before it |
//!
//! Sections (the second is 2, 3, 5, 16, 17, 18 or 20, by the algorithm):
//!
//! * 1, imputation (optional): *F* × `f32`; what stands in for a missing value, the canonical NaN for "nothing".
//! * 2, trees (decision tree: exactly one; forests): see [`trees`]. A leaf's value is the mean label of the training rows
//!   that reached it.
//! * 5, boosted trees (gradient boosting): base score `f64`, at most 1e6 in magnitude, then as section 2, but that a leaf's
//!   value is in log-odds, at most 1e6 in magnitude, and added to the base score. The score is the logistic function of the
//!   sum.
//! * 20, isolation trees (isolation forest): normaliser `f64`, from 1 to 128, then as section 2, but that a leaf's value is a
//!   path length, from 0 to 128: its depth, and the mean path length of a search tree of the training rows that reached it.
//!   The score is 2 to the power of −(mean of the trees / normaliser), above 0 and at most 1.
//! * 3, linear (logistic regression): bias `f64`, then *F* × (weight, mean, inverse scale), each `f64`.
//! * 16, steps (naive Bayes): bias `f64`, at most 1e6 in magnitude, then for each feature a `u16` edge count *E* and, unless
//!   it is the `u16` maximum (a feature that says nothing), *E* × `f32` edges, ascending, and *E* + 1 × `f32` log-odds, at
//!   most 1e6 in magnitude. A value adds the log-odds of the step that it stands on: the first for values less than or
//!   equal to the first edge, and so on.
//! * 17, network (linear SVM: one layer; neural network): scaling, `u32` layer count, then for each
//!   layer its `u32` unit count *U*, *U* × `f32` biases and for each of its inputs *U* × `f32` weights, all at most 1e6 in
//!   magnitude. The last layer has one unit; its value is the log-odds. A unit adds its inputs to its bias in their order,
//!   in `f32`; what is below zero, or zero, gives nothing to the next layer.
//! * 18, kernel (RBF SVM): scaling, gamma `f64`, bias `f64`, `u32` centre count *M*, *M* × `f64` coefficients, and for each
//!   feature *M* × `f32`, the centres' standardised values. Squared distances are added up in `f32`, feature by feature.
//! * Scaling stands for *F* × (`u8` signed logarithm 0 or 1, mean `f64`, inverse scale `f64`): the value, or sign(x) · ln(1 + |x|)
//!   of it, less the mean, times the inverse scale, clamped to ±8.
//! * 19, calibration (optional): `u32` knot count; 0: slope `f64` above 0 and offset `f64` of the log-odds (Platt); 2 or
//!   more: so many × (score, probability), `f64` each (isotonic). What the sections before give is mapped by it.
//! * 4, self-test: `u32` row count, then for each row *F* × `f32` and the expected score, `f64`. A reader computes each
//!   score and refuses the file unless all bits are equal: a processor that calculates otherwise must not run the model.
//!
//! The leaves of trees are added up in ten sums: tree *k* belongs to sum *k* mod 10, which adds its trees in order, from
//! zero, and the ten are added in order, from zero. A forest's score, and the mean of an isolation forest, is the total
//! divided by the number of trees.
//!
//! A missing value is first replaced by its imputation value, if there is one. What is still missing follows the node's
//! flag in a tree, and adds nothing to a linear model. Values that are not finite count as missing.

use ed25519_dalek::VerifyingKey;

use crate::event::Timestamp;
use crate::feature::{FeatureSpec, Subject};
use crate::id::Digest;
use crate::model::boosting::Boosting;
pub use crate::model::calibration::Calibration;
pub use crate::model::draft::{ModelBody, ModelDraft, NodeDraft, TreeDraft};
pub use crate::model::error::{ModelError, Section};
use crate::model::forest::Forest;
use crate::model::isolation::Isolation;
use crate::model::kernel::Kernel;
use crate::model::linear::Linear;
pub use crate::model::network::Layer;
use crate::model::network::Network;
pub use crate::model::scaling::Scaling;
use crate::model::steps::Additive;
pub use crate::model::steps::Steps;

mod bits;
mod body;
mod boosting;
pub mod calibration;
mod cursor;
mod draft;
mod error;
mod forest;
mod isolation;
mod kernel;
mod linear;
mod network;
mod order;
mod read;
mod scaling;
mod scorer;
mod shap;
mod shapley;
mod steps;
#[cfg(test)]
mod tests;
mod trees;
mod write;

/// Limits of a model file. The writer refuses what exceeds them, and so does the reader before it allocates.
pub mod limits {
    /// Largest file, in bytes.
    pub const MODEL_BYTES_MAX: usize = 12 << 20;
    /// Most features of a vector.
    pub const FEATURES_MAX: usize = 4096;
    /// Most trees of a forest.
    pub const TREES_MAX: usize = 4096;
    /// Most nodes of all trees together.
    pub const NODES_MAX: usize = 1_000_000;
    /// Longest path from a root to a leaf, in edges.
    pub const DEPTH_MAX: usize = 64;
    /// Most self-test rows; there is at least one.
    pub const SELF_TEST_ROWS_MAX: usize = 64;
    /// Longest name of a training run, in bytes.
    pub const TRAINING_RUN_BYTES_MAX: usize = 64;
    /// Largest magnitude of a linear model's weight, mean, inverse scale and bias: no sum of such terms overflows.
    pub const COEFFICIENT_MAX: f64 = 1e39;
    /// Largest magnitude of a boosted tree's value and of the base score, in log-odds.
    pub const LOG_ODDS_MAX: f64 = 1e6;
    /// Greatest path length of an isolation forest's leaf, and of its normaliser: [`DEPTH_MAX`] and the mean path length of
    /// any count of rows (below 44) are within it.
    pub const PATH_LENGTH_MAX: f64 = 128.0;
    /// Farthest that a standardised value may lie from the mean, in standard deviations; beyond is cut off.
    pub const STANDARDISED_MAX: f64 = 8.0;
    /// Most edges between the steps of a feature.
    pub const EDGES_MAX: usize = 1023;
    /// Most layers of a network, the last one included: no sum overflows.
    pub const LAYERS_MAX: usize = 4;
    /// Most units of a layer, and most centres of a kernel model.
    pub const UNITS_MAX: usize = 512;
    /// Largest magnitude of a network's weight and bias.
    pub const WEIGHT_MAX: f32 = 1e6;
    /// Largest gamma of a kernel model.
    pub const GAMMA_MAX: f64 = 1e3;
    /// Most points of an isotonic calibration.
    pub const KNOTS_MAX: usize = 256;
}

/// How a model came to its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// One classification tree.
    DecisionTree,
    /// The mean of many trees, each on a part of the rows.
    RandomForest,
    /// The mean of many trees with random thresholds.
    ExtraTrees,
    /// The mean of a random forest's trees and as many extra trees (soft voting).
    VotingForest,
    /// The sum of trees that correct each other, through the logistic function.
    GradientBoosting,
    /// A weighted sum through the logistic function.
    LogisticRegression,
    /// What each value says by itself, added up, through the logistic function.
    NaiveBayes,
    /// A weighted sum with the widest margin between the classes.
    LinearSvm,
    /// How near a row is to each of some rows, with the widest margin between the classes.
    RbfSvm,
    /// Layers of weighted sums.
    NeuralNetwork,
    /// How few random splits set a row apart from others; needs no labels.
    IsolationForest,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 11] = [
        Self::DecisionTree,
        Self::RandomForest,
        Self::ExtraTrees,
        Self::VotingForest,
        Self::GradientBoosting,
        Self::LogisticRegression,
        Self::NaiveBayes,
        Self::LinearSvm,
        Self::RbfSvm,
        Self::NeuralNetwork,
        Self::IsolationForest,
    ];

    /// Those that learn from labels how malicious differs from benign.
    pub fn supervised() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|algorithm| algorithm.is_supervised())
    }

    /// Whether it learns from labels. Others may leave out rows that are known to be malicious, and no more.
    pub fn is_supervised(self) -> bool {
        self != Self::IsolationForest
    }

    /// Its name in commands, reports and the registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecisionTree => "decision_tree",
            Self::RandomForest => "random_forest",
            Self::ExtraTrees => "extra_trees",
            Self::VotingForest => "voting_forest",
            Self::GradientBoosting => "gradient_boosting",
            Self::LogisticRegression => "logistic_regression",
            Self::NaiveBayes => "naive_bayes",
            Self::LinearSvm => "linear_svm",
            Self::RbfSvm => "rbf_svm",
            Self::NeuralNetwork => "neural_network",
            Self::IsolationForest => "isolation_forest",
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownAlgorithm)
    }
}

/// A name that is no [`Algorithm`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown algorithm: expected decision_tree, random_forest, extra_trees, voting_forest, gradient_boosting, \
     logistic_regression, naive_bayes, linear_svm, rbf_svm, neural_network or isolation_forest"
)]
pub struct UnknownAlgorithm;

/// What a model is and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMetadata {
    /// What it judges.
    pub subject: Subject,
    /// How.
    pub algorithm: Algorithm,
    /// Hash of the feature specification its vectors follow.
    pub feature_spec_hash: Digest,
    /// Length of its vectors.
    pub feature_count: usize,
    /// A score at or above it is an alert; 0 to 1.
    pub threshold: f64,
    /// SHA-256 of the manifest of the data set it was trained on.
    pub dataset_digest: Digest,
    /// Name of the training run, at most [`limits::TRAINING_RUN_BYTES_MAX`] bytes.
    pub training_run: String,
    /// When it was trained.
    pub created: Timestamp,
}

/// What one feature did to one score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// Place of the feature in its specification.
    pub feature: usize,
    /// The value that was scored; the canonical NaN when it was missing.
    pub value: f32,
    /// How far it moved the score: a share of the probability (trees, forests), of the log-odds (all others), or splits
    /// fewer until the row stands alone, on the mean path (isolation forest). Positive is towards an alert.
    pub contribution: f64,
}

/// A model that is ready to score: its structure is proven and its self-test has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    metadata: ModelMetadata,
    id: Digest,
    key_id: Digest,
    /// Empty, or one value per feature.
    imputation: Vec<f32>,
    body: Body,
    calibration: Option<Calibration>,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Forest(Forest),
    Boosting(Boosting),
    Isolation(Isolation),
    Linear(Linear),
    Additive(Additive),
    Network(Network),
    Kernel(Kernel),
}

impl Model {
    /// Reads a model without asking who signed it: for tools that look at a file. Agents use [`Model::verify`].
    ///
    /// # Errors
    /// [`ModelError`] when the checksum, a limit, the structure or the self-test does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        read::parse(bytes)
    }

    /// Checks that one of the `trusted` keys signed exactly these bytes, then reads them as [`Model::parse`] does.
    ///
    /// # Errors
    /// [`ModelError::UntrustedKey`] or [`ModelError::Signature`], before any content is looked at; then as for
    /// [`Model::parse`].
    pub fn verify(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<Self, ModelError> {
        read::check_signature(bytes, trusted)?;
        read::parse(bytes)
    }

    /// What the model is and where it comes from.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// The model's name everywhere: SHA-256 of the whole file.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// SHA-256 of the public key the file says it was signed with; proven only by [`Model::verify`].
    pub fn key_id(&self) -> Digest {
        self.key_id
    }

    /// Checks that vectors of `spec` are what this model was trained on.
    ///
    /// # Errors
    /// [`ModelError::SpecMismatch`] when not.
    pub fn check_spec(&self, spec: &FeatureSpec) -> Result<(), ModelError> {
        let found = self.metadata.feature_spec_hash;
        let expected = spec.hash();
        if found != expected
            || self.metadata.subject != spec.subject
            || self.metadata.feature_count != spec.features.len()
        {
            return Err(ModelError::SpecMismatch { expected, found });
        }
        Ok(())
    }

    /// The score of a vector, 0 (benign) to 1. Values beyond the vector's end count as missing.
    pub fn score(&self, values: &[f32]) -> f64 {
        let vector = Vector { values, imputation: &self.imputation };
        let score = match &self.body {
            Body::Forest(forest) => forest.score(vector),
            Body::Boosting(boosting) => boosting.score(vector),
            Body::Isolation(isolation) => isolation.score(vector),
            Body::Linear(linear) => linear.score(vector),
            Body::Additive(additive) => additive.score(vector),
            Body::Network(network) => network.score(vector),
            Body::Kernel(kernel) => kernel.score(vector),
        };
        self.calibration.as_ref().map_or(score, |calibration| calibration.apply(score))
    }

    /// What is done to the body's score, if anything.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Whether a score is at or above the model's threshold.
    pub fn is_alert(&self, score: f64) -> bool {
        score >= self.metadata.threshold
    }

    /// Where the contributions start from, before calibration: for trees and forests the mean probability over the training
    /// rows, for boosting the mean of the log-odds, for isolation forests the mean path length, negative, for all others the
    /// log-odds of a row without any information.
    pub fn baseline(&self) -> f64 {
        match &self.body {
            Body::Forest(forest) => forest.expected(),
            Body::Boosting(boosting) => boosting.baseline(),
            Body::Isolation(isolation) => isolation.baseline(),
            Body::Linear(linear) => linear.baseline(),
            Body::Additive(additive) => additive.baseline(),
            Body::Network(network) => network.baseline(),
            Body::Kernel(kernel) => kernel.baseline(),
        }
    }

    /// Replaces the content of `into` by the features that moved the score of `values`, strongest first.
    ///
    /// Shapley values. Trees: exactly those of TreeSHAP with the training rows as background ([`shap`]); for boosting in
    /// log-odds, for isolation forests in splits, negative. Linear: weight × (value − mean) × inverse scale. Naive Bayes: the
    /// value's log-likelihood ratio. Support vector machines and networks: by fixed permutations ([`shapley`]), exact where
    /// every order gives the same. The contributions and [`Model::baseline`] add up to the probability (trees, forests), the
    /// negative mean path length (isolation forest) or the log-odds (all others), but for rounding. A calibration, which is
    /// monotone, comes after: they explain what it maps. Takes some hundred times as long as a score; allocates nothing once
    /// `into` has room for all features.
    pub fn explain(&self, values: &[f32], into: &mut Vec<Contribution>) {
        let vector = Vector { values, imputation: &self.imputation };
        into.clear();
        into.extend((0..self.metadata.feature_count).map(|feature| Contribution {
            feature,
            value: vector.raw(feature).unwrap_or(crate::feature::MISSING),
            contribution: 0.0,
        }));
        match &self.body {
            Body::Forest(forest) => forest.explain(vector, into),
            Body::Boosting(boosting) => boosting.explain(vector, into),
            Body::Isolation(isolation) => isolation.explain(vector, into),
            Body::Linear(linear) => linear.explain(vector, into),
            Body::Additive(additive) => additive.explain(vector, into),
            Body::Network(network) => network.explain(vector, into),
            Body::Kernel(kernel) => kernel.explain(vector, into),
        }
        into.retain(|entry| entry.contribution != 0.0);
        into.sort_unstable_by(|a, b| {
            b.contribution.abs().total_cmp(&a.contribution.abs()).then_with(|| a.feature.cmp(&b.feature))
        });
    }

    /// The model proper as it was drafted, trees with their nodes breadth first; nothing for kinds that no other tool takes, and
    /// where a calibration comes after.
    pub fn body(&self) -> Option<ModelBody> {
        if self.calibration.is_some() {
            return None;
        }
        match &self.body {
            Body::Additive(_) | Body::Network(_) | Body::Kernel(_) => None,
            Body::Forest(forest) => Some(ModelBody::Forest(forest.drafts())),
            Body::Boosting(boosting) => {
                Some(ModelBody::Boosting { base_score: boosting.base_score, trees: boosting.trees.drafts() })
            }
            Body::Isolation(isolation) => {
                let (normaliser, trees) = (isolation.normaliser, isolation.trees.drafts());
                Some(ModelBody::IsolationForest { normaliser, trees })
            }
            Body::Linear(linear) => {
                let column = |number: fn(&linear::Term) -> f64| linear.terms.iter().map(number).collect();
                Some(ModelBody::Linear {
                    weights: column(|term| term.weight),
                    bias: linear.bias,
                    mean: column(|term| term.mean),
                    inverse_scale: column(|term| term.inverse_scale),
                })
            }
        }
    }

    /// What stands in for missing values: empty, or one value per feature, NaN for nothing.
    pub fn imputation(&self) -> &[f32] {
        &self.imputation
    }

    /// Memory the model takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(self.imputation.as_slice())
            + match &self.body {
                Body::Forest(forest) => forest.memory_bytes(),
                Body::Boosting(boosting) => boosting.memory_bytes(),
                Body::Isolation(isolation) => isolation.memory_bytes(),
                Body::Linear(linear) => linear.memory_bytes(),
                Body::Additive(additive) => additive.memory_bytes(),
                Body::Network(network) => network.memory_bytes(),
                Body::Kernel(kernel) => kernel.memory_bytes(),
            }
            + self.calibration.as_ref().map_or(0, Calibration::memory_bytes)
    }
}

/// A vector as a model sees it.
#[derive(Clone, Copy)]
struct Vector<'a> {
    values: &'a [f32],
    imputation: &'a [f32],
}

impl Vector<'_> {
    /// The value as it came, if it is not missing.
    #[inline]
    fn raw(self, feature: usize) -> Option<f32> {
        self.values.get(feature).copied().filter(|value| value.is_finite())
    }

    /// The value, or its stand-in.
    #[inline]
    fn get(self, feature: usize) -> Option<f32> {
        match self.raw(feature) {
            Some(value) => Some(value),
            None => self.imputation.get(feature).copied().filter(|value| value.is_finite()),
        }
    }
}
