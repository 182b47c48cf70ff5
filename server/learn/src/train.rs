//! Training: from the training part of a data set to a model draft.
//!
//! ```text
//! TrainingSet ─▶ folds (grouped) ─▶ tuning ─▶ out-of-fold scores ─▶ threshold
//!            │                               └──▶ calibration ┐
//!            └──────────────────── chosen parameters ────────────▶ fit ─▶ ModelDraft
//! ```
//!
//! * **Only the training part is looked at**: parameters, threshold, imputation, standardisation, weights.
//! * **Deterministic**: the same rows, algorithm and seed give the same model bytes, whatever the number of threads.
//!   Work is cut into the same jobs everywhere, each with a seed of its own, and results are put together in the order
//!   of the jobs. No decision depends on a clock.
//! * **Missing values**: a tree can split off "missing", and every node records the way missing values go; naive Bayes
//!   takes them for no evidence; all others leave them out (they stand at the mean, `standard`).
//! * **Probabilities**: margins become log-odds by a line fitted to rows that were not learned from (`platt`); what any
//!   algorithm gives can be mapped to the shares that occur ([`calibration`]).
//! * **Imbalance**: rows are weighted as [`weight`] says.
//! * **Attacks are labelled as a whole**: models learn from those of their rows that show them (`witness`).
//! * **Without labels** an isolation forest learns what is ordinary (`isolation_forest`); its budget is a share of all rows.
//!
//! Forests grow on Picket's own engine (`tree`), boosted trees on its bins (`boosting`); `smartcore` grows the single tree and
//! fits the regression; support vector machines (`margin`) and the network are Picket's own. [`Trainer`] is the seam between
//! them.

use std::collections::BTreeSet;

use picket_common::model::{Algorithm, ModelBody, ModelError};

pub use crate::train::calibration::CalibrationMethod;
pub use crate::train::fold::Folding;
pub use crate::train::params::{
    BoostingParams, ForestParams, IsolationParams, NetworkParams, Params, ParamsError, ValidParams,
};
pub use crate::train::run::{
    Candidate, DraftContext, FOLDINGS, Options, Recipe, Trained, Validation, train, train_with,
};
pub use crate::train::set::TrainingSet;
pub use crate::train::threshold::{Confidence, ThresholdChoice};

pub mod calibration;
pub mod conformal;
pub mod fold;
pub mod params;
pub mod set;
pub mod threshold;
pub mod tune;
pub mod weight;

mod boosting;
mod crew;
mod decision_tree;
mod forest;
mod gain;
mod isolation_forest;
mod linear_svm;
mod logistic_regression;
mod margin;
mod naive_bayes;
mod neural_network;
pub(crate) mod parallel;
mod platt;
mod rbf_svm;
pub(crate) mod run;
mod smartcore_tree;
mod standard;
#[cfg(test)]
mod tests;
mod tree;
mod witness;

/// Fewest training rows of each class.
pub const ROWS_PER_CLASS_MIN: usize = 4;
/// Fewest training rows without labels.
pub const ROWS_MIN: usize = 2 * ROWS_PER_CLASS_MIN;
/// Most rows of a training part.
pub const ROWS_MAX: usize = 1_000_000;

/// Learns one kind of model.
pub trait Trainer: Sync {
    /// Which algorithm this is.
    fn algorithm(&self) -> Algorithm;

    /// The parameter sets worth trying, the default first.
    fn candidates(&self, feature_count: usize) -> Vec<ValidParams>;

    /// Roughly how many elementary steps one fit takes; decides how much tuning a data set gets.
    fn cost(&self, set: &TrainingSet, params: &ValidParams) -> u64;

    /// Fits a model. The same arguments give the same model, whatever `control` says about threads.
    ///
    /// # Errors
    /// [`TrainError::Engine`] when the algorithm fails, [`TrainError::Cancelled`].
    fn fit(
        &self,
        set: &TrainingSet,
        params: &ValidParams,
        seed: u64,
        control: &Control<'_>,
    ) -> Result<FittedModel, TrainError>;
}

/// The trainer of an algorithm.
pub fn trainer(algorithm: Algorithm) -> &'static dyn Trainer {
    match algorithm {
        Algorithm::DecisionTree => &decision_tree::DecisionTree,
        Algorithm::RandomForest => &forest::RandomForest,
        Algorithm::ExtraTrees => &forest::ExtraTrees,
        Algorithm::VotingForest => &forest::VotingForest,
        Algorithm::GradientBoosting => &boosting::GradientBoosting,
        Algorithm::LogisticRegression => &logistic_regression::LogisticRegression,
        Algorithm::NaiveBayes => &naive_bayes::NaiveBayes,
        Algorithm::LinearSvm => &linear_svm::LinearSvm,
        Algorithm::RbfSvm => &rbf_svm::RbfSvm,
        Algorithm::NeuralNetwork => &neural_network::NeuralNetwork,
        Algorithm::IsolationForest => &isolation_forest::IsolationForest,
    }
}

/// What a fit learned. Missing values need no imputation: trees know the way, the regression leaves them out.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedModel {
    /// The model proper.
    pub body: ModelBody,
}

/// Who watches a training.
pub trait Observer: Sync {
    /// `done` of `total` steps of a stage are done.
    fn progress(&self, stage: &str, done: u64, total: u64);

    /// Whether to give up at the next opportunity.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn progress(&self, _stage: &str, _done: u64, _total: u64) {}
}

/// How a training may use the machine, and who watches.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Threads to use, at least 1.
    pub threads: usize,
    /// Who watches.
    pub observer: &'a dyn Observer,
}

impl<'a> Control<'a> {
    /// All processors, nobody watching.
    pub fn unobserved() -> Control<'static> {
        Control { threads: all_processors(), observer: &Unobserved }
    }

    /// All processors.
    pub fn observed(observer: &'a dyn Observer) -> Self {
        Self { threads: all_processors(), observer }
    }

    fn single_threaded(&self) -> Self {
        Self { threads: 1, observer: self.observer }
    }

    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if self.observer.cancelled() { Err(TrainError::Cancelled) } else { Ok(()) }
    }
}

fn all_processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Not enough to learn from.
    #[error("the training part has {found} {class} rows, at least {ROWS_PER_CLASS_MIN} are needed: label more events")]
    TooFewRows {
        /// `benign` or `malicious`.
        class: &'static str,
        /// How many there are.
        found: usize,
    },
    /// Not enough to learn from without labels.
    #[error("the training part has {found} rows, at least {ROWS_MIN} are needed")]
    TooFewUnlabelled {
        /// How many there are.
        found: usize,
    },
    /// Too much for this machine.
    #[error("the training part has {found} rows, at most {ROWS_MAX} are supported")]
    TooManyRows {
        /// How many there are.
        found: usize,
    },
    /// Values, labels and groups do not belong together.
    #[error("{values} values, {labels} labels and {groups} groups do not make rows of {feature_count} features")]
    Shape {
        /// Values given.
        values: usize,
        /// Labels given.
        labels: usize,
        /// Group numbers given.
        groups: usize,
        /// Features of a row.
        feature_count: usize,
    },
    /// A value is infinite.
    #[error("row {row}, feature {feature}: the value is infinite")]
    Infinite {
        /// Which row, from 0.
        row: usize,
        /// Which feature, from 0.
        feature: usize,
    },
    /// The rows have no order in time that validation could follow.
    #[error(
        "rolling-origin validation needs at least 2 blocks of time with {ROWS_PER_CLASS_MIN} rows of each class before \
         them, and as many in them; {found} of {folds} have that: choose --validation k-fold, other --folds, or a shorter \
         --embargo"
    )]
    NoRollingOrigin {
        /// Blocks that were to be scored.
        folds: usize,
        /// Those that can be.
        found: usize,
    },
    /// The algorithm failed.
    #[error("{algorithm}: {reason}")]
    Engine {
        /// Which.
        algorithm: Algorithm,
        /// What went wrong.
        reason: String,
    },
    /// A model that was learned cannot be written.
    #[error("cannot write the learned model: {0}")]
    Model(#[from] ModelError),
    /// Whoever asked has gone.
    #[error("cancelled")]
    Cancelled,
}

/// The techniques of a training part, to tell known from unseen ones later.
pub fn techniques<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
