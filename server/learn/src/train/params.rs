//! The parameters of each algorithm, checked once.

use picket_common::model::Algorithm;
use picket_common::model::limits::{NODES_MAX, UNITS_MAX};
use serde::{Deserialize, Serialize};

/// Limits of the parameters.
pub mod limits {
    /// Most trees.
    pub const TREES_MAX: u16 = 1000;
    /// Greatest depth, in edges.
    pub const DEPTH_MAX: u16 = 40;
    /// Most rows a leaf may be required to have.
    pub const LEAF_ROWS_MAX: u32 = 100_000;
    /// Smallest learning rate.
    pub const LEARNING_RATE_MIN: f64 = 1e-3;
    /// Fewest and most rows that each tree of an isolation forest learns from.
    pub const SAMPLE_ROWS: [u32; 2] = [2, 65_536];
    /// Most leaves of a boosted tree.
    pub const LEAVES_MAX: u16 = 1024;
    /// Largest curvature that a leaf may be required to have.
    pub const LEAF_WEIGHT_MAX: f64 = 1e6;
    /// Strongest penalty on the values of leaves.
    pub const L2_MAX: f64 = 1e6;
    /// Smallest share of features or rows.
    pub const SHARE_MIN: f64 = 0.01;
    /// Strongest ridge penalty.
    pub const RIDGE_MAX: f64 = 1e6;
    /// Fewest and most bins of naive Bayes.
    pub const BINS: [u16; 2] = [2, 1024];
    /// Least and most rows that a bin's share is smoothed by.
    pub const SMOOTHING: [f64; 2] = [1e-3, 1e6];
    /// Least and greatest cost of a row within a margin.
    pub const COST: [f64; 2] = [1e-6, 1e6];
    /// Least and greatest fall-off of a radial basis function.
    pub const GAMMA: [f64; 2] = [1e-3, 1e3];
    /// Most passes of a neural network over the rows.
    pub const PASSES_MAX: u16 = 1000;
    /// Largest learning rate of a neural network.
    pub const NETWORK_LEARNING_RATE_MAX: f64 = 0.1;
    /// Smallest learning rate of a neural network.
    pub const NETWORK_LEARNING_RATE_MIN: f64 = 1e-5;
    /// Strongest decay of a neural network's weights.
    pub const DECAY_MAX: f64 = 10.0;
}

/// What an algorithm is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "snake_case", deny_unknown_fields)]
pub enum Params {
    /// One tree.
    DecisionTree {
        /// Greatest depth, in edges.
        depth_max: u16,
        /// Fewest rows of a leaf.
        leaf_rows_min: u32,
    },
    /// Many trees, each on a weighted bootstrap sample.
    RandomForest(ForestParams),
    /// Many trees with random thresholds, each on all rows.
    ExtraTrees(ForestParams),
    /// Half of the trees as of a random forest, half as extra trees, which look at all features.
    VotingForest(ForestParams),
    /// Trees that correct each other.
    GradientBoosting(BoostingParams),
    /// Logistic regression with a ridge penalty on the standardised weights.
    LogisticRegression {
        /// Strength of the penalty: half of it times the sum of the squared weights is added to the log-loss.
        ridge: f64,
    },
    /// Naive Bayes on binned values.
    NaiveBayes {
        /// Most bins of a feature.
        bins: u16,
        /// How many rows of the mean a bin's share is mixed with.
        smoothing: f64,
    },
    /// The widest margin in the standardised values.
    LinearSvm {
        /// What a row within the margin costs, times its weight, for its squared distance.
        cost: f64,
    },
    /// The widest margin in the nearness to centres.
    RbfSvm {
        /// As of the linear one.
        cost: f64,
        /// How fast nearness falls off with the mean of the squared distances by feature.
        gamma: f64,
        /// Most centres.
        centres: u16,
    },
    /// Layers of weighted sums.
    NeuralNetwork(NetworkParams),
    /// Trees of random splits.
    IsolationForest(IsolationParams),
}

/// What an isolation forest is told. What a JSON object leaves out is as in [`IsolationParams::default`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IsolationParams {
    /// How many trees.
    pub trees: u16,
    /// Rows that each tree learns from, drawn without replacement; of fewer, all. More of them can hide each other
    /// ("masking"), and make longer paths.
    pub sample_rows: u32,
}

impl Default for IsolationParams {
    fn default() -> Self {
        Self { trees: 100, sample_rows: 256 }
    }
}

/// What a neural network is told. What a JSON object leaves out is as in [`NetworkParams::default`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkParams {
    /// Units of the first hidden layer.
    pub units: u16,
    /// Units of the second hidden layer; 0: there is none.
    pub second_units: u16,
    /// Step size of Adam, falling to a tenth.
    pub learning_rate: f64,
    /// Share of each weight that is taken away with a step, times the step size.
    pub decay: f64,
    /// Most passes over the rows; where rows are few, more.
    pub passes: u16,
    /// Stop when so many passes have not made the log-loss of held-out groups smaller; 0: never, and none are held out.
    pub early_stopping_passes: u16,
}

impl Default for NetworkParams {
    fn default() -> Self {
        Self { units: 64, second_units: 32, learning_rate: 2e-3, decay: 0.01, passes: 40, early_stopping_passes: 10 }
    }
}

/// What a forest is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForestParams {
    /// How many trees.
    pub trees: u16,
    /// Greatest depth, in edges.
    pub depth_max: u16,
    /// Fewest rows of a leaf.
    pub leaf_rows_min: u32,
    /// Features looked at for each split.
    pub features_per_split: u16,
}

/// What gradient boosting is told. What a JSON object leaves out is as in [`BoostingParams::default`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoostingParams {
    /// Most trees.
    pub trees: u16,
    /// What the best value of each leaf is multiplied with, above 0 and at most 1.
    pub learning_rate: f64,
    /// Most leaves of a tree.
    pub leaves_max: u16,
    /// Greatest depth, in edges.
    pub depth_max: u16,
    /// Fewest rows of a leaf. While splits are compared, a side has as many of a node's rows as its share of the node's
    /// curvature.
    pub leaf_rows_min: u32,
    /// Least curvature of a leaf: the sum of weight × p × (1 − p) over its rows.
    pub leaf_weight_min: f64,
    /// L2 penalty on the values of leaves.
    pub l2: f64,
    /// Share of the features that each tree looks at.
    pub feature_share: f64,
    /// Share of the rows, those with the greatest gradients, that each tree learns from …
    pub top_share: f64,
    /// … and share of the rows that are drawn from the others, each of which then stands for many. Both together at most
    /// 1, which means all rows; a top share of 0 is plain sampling of rows.
    pub other_share: f64,
    /// Stop when so many trees have not made the log-loss of held-out groups smaller; 0: never.
    pub early_stopping_rounds: u16,
}

impl Default for BoostingParams {
    fn default() -> Self {
        Self {
            trees: 200,
            learning_rate: 0.1,
            leaves_max: 31,
            depth_max: 16,
            leaf_rows_min: 5,
            leaf_weight_min: 1e-3,
            l2: 1.0,
            feature_share: 1.0,
            top_share: 0.0,
            other_share: 1.0,
            early_stopping_rounds: 20,
        }
    }
}

impl BoostingParams {
    /// Whether every tree learns from all rows.
    pub fn takes_all_rows(&self) -> bool {
        self.top_share + self.other_share >= 1.0
    }

    /// For how many rows each drawn one stands.
    pub(super) fn amplification(&self) -> f64 {
        if self.takes_all_rows() { 1.0 } else { (1.0 - self.top_share) / self.other_share }
    }
}

impl Params {
    /// Which algorithm they are for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::DecisionTree { .. } => Algorithm::DecisionTree,
            Self::RandomForest(_) => Algorithm::RandomForest,
            Self::ExtraTrees(_) => Algorithm::ExtraTrees,
            Self::VotingForest(_) => Algorithm::VotingForest,
            Self::GradientBoosting(_) => Algorithm::GradientBoosting,
            Self::LogisticRegression { .. } => Algorithm::LogisticRegression,
            Self::NaiveBayes { .. } => Algorithm::NaiveBayes,
            Self::LinearSvm { .. } => Algorithm::LinearSvm,
            Self::RbfSvm { .. } => Algorithm::RbfSvm,
            Self::NeuralNetwork(_) => Algorithm::NeuralNetwork,
            Self::IsolationForest(_) => Algorithm::IsolationForest,
        }
    }

    /// A forest's.
    pub fn forest(&self) -> Option<ForestParams> {
        match self {
            Self::RandomForest(forest) | Self::ExtraTrees(forest) | Self::VotingForest(forest) => Some(*forest),
            _ => None,
        }
    }

    /// An isolation forest's.
    pub fn isolation(&self) -> Option<IsolationParams> {
        if let Self::IsolationForest(isolation) = self { Some(*isolation) } else { None }
    }

    /// Gradient boosting's.
    pub fn boosting(&self) -> Option<BoostingParams> {
        if let Self::GradientBoosting(boosting) = self { Some(*boosting) } else { None }
    }
}

/// Parameters within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ValidParams(Params);

/// A parameter out of its limits.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{algorithm}: {parameter} is {found}, allowed is {low} to {high}")]
pub struct ParamsError {
    algorithm: Algorithm,
    parameter: &'static str,
    found: f64,
    low: f64,
    high: f64,
}

impl ValidParams {
    /// Checks parameters.
    ///
    /// # Errors
    /// [`ParamsError`] names the parameter and its limits.
    pub fn new(params: Params) -> Result<Self, ParamsError> {
        let check = |parameter, found: f64, low: f64, high: f64| {
            if (low..=high).contains(&found) {
                Ok(())
            } else {
                Err(ParamsError { algorithm: params.algorithm(), parameter, found, low, high })
            }
        };
        let tree = |depth_max: u16, leaf_rows_min: u32| {
            check("depth_max", depth_max.into(), 1.0, limits::DEPTH_MAX.into())?;
            check("leaf_rows_min", leaf_rows_min.into(), 1.0, limits::LEAF_ROWS_MAX.into())
        };
        match params {
            Params::DecisionTree { depth_max, leaf_rows_min } => tree(depth_max, leaf_rows_min)?,
            Params::RandomForest(forest) | Params::ExtraTrees(forest) | Params::VotingForest(forest) => {
                tree(forest.depth_max, forest.leaf_rows_min)?;
                check("trees", forest.trees.into(), 1.0, limits::TREES_MAX.into())?;
                check("features_per_split", forest.features_per_split.into(), 1.0, u16::MAX.into())?;
            }
            Params::GradientBoosting(boosting) => {
                tree(boosting.depth_max, boosting.leaf_rows_min)?;
                check("trees", boosting.trees.into(), 1.0, limits::TREES_MAX.into())?;
                check("learning_rate", boosting.learning_rate, limits::LEARNING_RATE_MIN, 1.0)?;
                check("leaves_max", boosting.leaves_max.into(), 2.0, limits::LEAVES_MAX.into())?;
                check("leaf_weight_min", boosting.leaf_weight_min, 0.0, limits::LEAF_WEIGHT_MAX)?;
                check("l2", boosting.l2, 0.0, limits::L2_MAX)?;
                check("feature_share", boosting.feature_share, limits::SHARE_MIN, 1.0)?;
                check("top_share", boosting.top_share, 0.0, 1.0 - limits::SHARE_MIN)?;
                check("other_share", boosting.other_share, limits::SHARE_MIN, 1.0 - boosting.top_share)?;
                let nodes = usize::from(boosting.trees) * (2 * usize::from(boosting.leaves_max) - 1);
                check("trees × (2 × leaves_max − 1)", nodes as f64, 1.0, NODES_MAX as f64)?;
            }
            Params::LogisticRegression { ridge } => check("ridge", ridge, 0.0, limits::RIDGE_MAX)?,
            Params::NaiveBayes { bins, smoothing } => {
                check("bins", bins.into(), limits::BINS[0].into(), limits::BINS[1].into())?;
                check("smoothing", smoothing, limits::SMOOTHING[0], limits::SMOOTHING[1])?;
            }
            Params::LinearSvm { cost } => check("cost", cost, limits::COST[0], limits::COST[1])?,
            Params::RbfSvm { cost, gamma, centres } => {
                check("cost", cost, limits::COST[0], limits::COST[1])?;
                check("gamma", gamma, limits::GAMMA[0], limits::GAMMA[1])?;
                check("centres", centres.into(), 2.0, UNITS_MAX as f64)?;
            }
            Params::NeuralNetwork(network) => {
                let (low, high) = (limits::NETWORK_LEARNING_RATE_MIN, limits::NETWORK_LEARNING_RATE_MAX);
                check("units", network.units.into(), 1.0, UNITS_MAX as f64)?;
                check("second_units", network.second_units.into(), 0.0, UNITS_MAX as f64)?;
                check("learning_rate", network.learning_rate, low, high)?;
                check("decay", network.decay, 0.0, limits::DECAY_MAX)?;
                check("passes", network.passes.into(), 1.0, limits::PASSES_MAX.into())?;
            }
            Params::IsolationForest(isolation) => {
                let [low, high] = limits::SAMPLE_ROWS;
                check("trees", isolation.trees.into(), 1.0, limits::TREES_MAX.into())?;
                check("sample_rows", isolation.sample_rows.into(), low.into(), high.into())?;
                let nodes = f64::from(isolation.trees) * (2.0 * f64::from(isolation.sample_rows) - 1.0);
                check("trees × (2 × sample_rows − 1)", nodes, 1.0, NODES_MAX as f64)?;
            }
        }
        Ok(Self(params))
    }

    /// The parameters.
    pub fn get(&self) -> &Params {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        let forest = ForestParams { trees: 10, depth_max: 8, leaf_rows_min: 1, features_per_split: 6 };
        let boosting = BoostingParams::default();
        assert!(ValidParams::new(Params::GradientBoosting(boosting)).is_ok());
        let good = Params::RandomForest(forest);
        assert_eq!(ValidParams::new(good).unwrap().get(), &good);
        for (bad, named) in [
            (Params::DecisionTree { depth_max: 0, leaf_rows_min: 1 }, "depth_max"),
            (Params::DecisionTree { depth_max: 4, leaf_rows_min: 0 }, "leaf_rows_min"),
            (Params::RandomForest(ForestParams { trees: 0, ..forest }), "trees"),
            (Params::ExtraTrees(ForestParams { features_per_split: 0, ..forest }), "features_per_split"),
            (Params::GradientBoosting(BoostingParams { learning_rate: 0.0, ..boosting }), "learning_rate"),
            (Params::GradientBoosting(BoostingParams { leaves_max: 1, ..boosting }), "leaves_max"),
            (Params::GradientBoosting(BoostingParams { top_share: 0.5, other_share: 0.6, ..boosting }), "other_share"),
            (Params::GradientBoosting(BoostingParams { feature_share: f64::NAN, ..boosting }), "feature_share"),
            (Params::GradientBoosting(BoostingParams { l2: -1.0, ..boosting }), "l2"),
            (Params::GradientBoosting(BoostingParams { trees: 1000, leaves_max: 1024, ..boosting }), "trees ×"),
            (Params::LogisticRegression { ridge: f64::NAN }, "ridge"),
            (Params::LogisticRegression { ridge: -1.0 }, "ridge"),
            (Params::NaiveBayes { bins: 1, smoothing: 1.0 }, "bins"),
            (Params::NaiveBayes { bins: 8, smoothing: 0.0 }, "smoothing"),
            (Params::LinearSvm { cost: f64::NAN }, "cost"),
            (Params::RbfSvm { cost: 1.0, gamma: 0.0, centres: 8 }, "gamma"),
            (Params::RbfSvm { cost: 1.0, gamma: 1.0, centres: 513 }, "centres"),
            (Params::NeuralNetwork(NetworkParams { units: 0, ..NetworkParams::default() }), "units"),
            (Params::NeuralNetwork(NetworkParams { decay: -1.0, ..NetworkParams::default() }), "decay"),
            (Params::IsolationForest(IsolationParams { trees: 0, sample_rows: 256 }), "trees"),
            (Params::IsolationForest(IsolationParams { trees: 1, sample_rows: 1 }), "sample_rows"),
            (Params::IsolationForest(IsolationParams { trees: 1000, sample_rows: 1024 }), "sample_rows −"),
        ] {
            let error = ValidParams::new(bad).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn json_names_the_algorithm() {
        let params = Params::LogisticRegression { ridge: 1.0 };
        assert_eq!(serde_json::to_string(&params).unwrap(), r#"{"algorithm":"logistic_regression","ridge":1.0}"#);
        let json = r#"{"algorithm":"extra_trees","trees":9,"depth_max":8,"leaf_rows_min":1,"features_per_split":6}"#;
        let params: Params = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&params).unwrap(), json);
        assert!(serde_json::from_str::<Params>(&json.replace("trees\":9", "shrubs\":9")).is_err());
    }
}
