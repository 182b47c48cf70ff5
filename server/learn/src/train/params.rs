//! The parameters of each algorithm, checked once.

use picket_common::model::Algorithm;
use serde::{Deserialize, Serialize};

/// Limits of the parameters.
pub mod limits {
    /// Most trees.
    pub const TREES_MAX: u16 = 1000;
    /// Greatest depth, in edges.
    pub const DEPTH_MAX: u16 = 40;
    /// Most rows a leaf may be required to have.
    pub const LEAF_ROWS_MAX: u32 = 100_000;
    /// Strongest ridge penalty.
    pub const RIDGE_MAX: f64 = 1e6;
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
    /// Logistic regression with a ridge penalty on the standardised weights.
    LogisticRegression {
        /// Strength of the penalty: half of it times the sum of the squared weights is added to the log-loss.
        ridge: f64,
    },
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

impl Params {
    /// Which algorithm they are for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::DecisionTree { .. } => Algorithm::DecisionTree,
            Self::RandomForest(_) => Algorithm::RandomForest,
            Self::ExtraTrees(_) => Algorithm::ExtraTrees,
            Self::VotingForest(_) => Algorithm::VotingForest,
            Self::LogisticRegression { .. } => Algorithm::LogisticRegression,
        }
    }

    /// A forest's.
    pub fn forest(&self) -> Option<ForestParams> {
        match self {
            Self::RandomForest(forest) | Self::ExtraTrees(forest) | Self::VotingForest(forest) => Some(*forest),
            Self::DecisionTree { .. } | Self::LogisticRegression { .. } => None,
        }
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
            Params::LogisticRegression { ridge } => check("ridge", ridge, 0.0, limits::RIDGE_MAX)?,
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
        let good = Params::RandomForest(forest);
        assert_eq!(ValidParams::new(good).unwrap().get(), &good);
        for (bad, named) in [
            (Params::DecisionTree { depth_max: 0, leaf_rows_min: 1 }, "depth_max"),
            (Params::DecisionTree { depth_max: 4, leaf_rows_min: 0 }, "leaf_rows_min"),
            (Params::RandomForest(ForestParams { trees: 0, ..forest }), "trees"),
            (Params::ExtraTrees(ForestParams { features_per_split: 0, ..forest }), "features_per_split"),
            (Params::LogisticRegression { ridge: f64::NAN }, "ridge"),
            (Params::LogisticRegression { ridge: -1.0 }, "ridge"),
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
