//! XGBoost's JSON and UBJ formats.

use serde_json::Value;

use crate::exchange::foreign::{ForeignBody, ForeignModel, ForeignNode, ForeignTree, place};
use crate::exchange::{ImportError, ubjson};

const TOOL: &str = "XGBoost";

/// Whether a file begins like JSON.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    let mut letters = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
    letters.next() == Some(&b'{') && letters.next() == Some(&b'"')
}

/// Whether a file begins like UBJ: an object whose first key has a length.
pub(super) fn is_ubj(bytes: &[u8]) -> bool {
    matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'#', ..])
}

/// Reads a model in JSON.
pub(super) fn read_json(bytes: &[u8]) -> Result<ForeignModel, ImportError> {
    read(&serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?)
}

/// Reads a model in UBJ.
pub(super) fn read_ubj(bytes: &[u8]) -> Result<ForeignModel, ImportError> {
    read(&ubjson::read(bytes).map_err(|error| malformed(&error.to_string()))?)
}

fn read(file: &Value) -> Result<ForeignModel, ImportError> {
    let learner = file.get("learner").ok_or_else(|| malformed("learner is missing"))?;
    let parameters = &learner["learner_model_param"];
    if whole(&parameters["num_class"]).unwrap_or(0) > 1 || whole(&parameters["num_target"]).unwrap_or(1) > 1 {
        return Err(unsupported("it tells several classes apart, a compact model two"));
    }
    let objective = learner["objective"]["name"].as_str().unwrap_or_default();
    if !matches!(objective, "binary:logistic" | "reg:logistic") {
        let reason = format!("its objective is {objective:?}, whose scores are no probabilities: binary:logistic is");
        return Err(ImportError::Unsupported { tool: TOOL, reason });
    }
    let base = base_score(&parameters["base_score"])?;
    let features = whole(&parameters["num_feature"]).and_then(|count| usize::try_from(count).ok());
    let features = features.filter(|count| (1..=picket_common::model::limits::FEATURES_MAX).contains(count));
    let features = features.ok_or_else(|| malformed("num_feature is missing or too large"))?;
    let given = learner["feature_names"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |feature: usize| {
        let name = given.get(feature).and_then(Value::as_str);
        name.map_or_else(|| format!("f{feature}"), str::to_owned)
    };
    let booster = &learner["gradient_booster"];
    let body = match booster["name"].as_str() {
        Some("gbtree") => ForeignBody::Boosting { base, trees: read_trees(&booster["model"], &[])? },
        Some("dart") => {
            let weights = numbers(&booster["weight_drop"])?;
            ForeignBody::Boosting { base, trees: read_trees(&booster["gbtree"]["model"], &weights)? }
        }
        Some("gblinear") => linear(&booster["model"], base, features)?,
        other => return Err(unsupported(&format!("its booster is {:?}", other.unwrap_or_default()))),
    };
    Ok(ForeignModel { tool: TOOL, feature_names: (0..features).map(name).collect(), body, notes: Vec::new() })
}

/// The base score as log-odds. Versions from 3.1 on write a list.
fn base_score(value: &Value) -> Result<f64, ImportError> {
    let text = value.as_str().unwrap_or_default();
    let share: Option<f64> = text.trim_matches(['[', ']']).parse().ok();
    let share = share.filter(|share| *share > 0.0 && *share < 1.0);
    let share = share.ok_or_else(|| malformed("base_score is not between 0 and 1"))?;
    Ok(libm::log(share / (1.0 - share)))
}

fn linear(model: &Value, base: f64, features: usize) -> Result<ForeignBody, ImportError> {
    let mut weights = numbers(&model["weights"])?;
    if weights.len() != features + 1 {
        return Err(malformed("there is not one weight for each feature and a bias"));
    }
    let bias = base + weights.pop().unwrap_or_default();
    let (mean, inverse_scale) = (vec![0.0; features], vec![1.0; features]);
    Ok(ForeignBody::Linear { weights, bias, mean, inverse_scale })
}

/// `weights` are those of the trees; 1 where there are none.
fn read_trees(model: &Value, weights: &[f64]) -> Result<Vec<ForeignTree>, ImportError> {
    let trees = model["trees"].as_array().filter(|trees| !trees.is_empty());
    let trees = trees.ok_or_else(|| malformed("it has no trees"))?;
    let weight = |tree: usize| weights.get(tree).copied().unwrap_or(1.0);
    trees.iter().enumerate().map(|(index, tree)| read_tree(tree, weight(index))).collect()
}

fn read_tree(tree: &Value, weight: f64) -> Result<ForeignTree, ImportError> {
    let list = |name: &str| numbers(&tree[name]);
    let (lefts, rights) = (list("left_children")?, list("right_children")?);
    let (conditions, features) = (list("split_conditions")?, list("split_indices")?);
    let (defaults, covers) = (list("default_left")?, list("sum_hessian")?);
    let count = lefts.len();
    if [&rights, &conditions, &features, &defaults].iter().any(|list| list.len() != count) {
        return Err(malformed("the lists of a tree's nodes differ in length"));
    }
    if whole(&tree["tree_param"]["size_leaf_vector"]).unwrap_or(0) > 1 {
        return Err(unsupported("its leaves are vectors: several classes or targets"));
    }
    if tree.get("split_type").map_or(Ok(Vec::new()), numbers)?.iter().any(|kind| *kind != 0.0) {
        return Err(unsupported("it has categorical splits: encode the categories as numbers before training"));
    }
    let node = |node: usize| {
        if lefts[node] < 0.0 {
            return ForeignNode::Leaf { value: weight * conditions[node], cover: covers.get(node).copied() };
        }
        ForeignNode::Split {
            feature: place(features[node]),
            // What the text means is a number of 32 bits.
            threshold: f64::from(conditions[node] as f32),
            or_equal: false,
            missing_left: defaults[node] != 0.0,
            left: place(lefts[node]),
            right: place(rights[node]),
        }
    };
    Ok(ForeignTree { nodes: (0..count).map(node).collect() })
}

/// A list of numbers; truth values count as such.
fn numbers(value: &Value) -> Result<Vec<f64>, ImportError> {
    let list = value.as_array().ok_or_else(|| malformed("a list is missing"))?;
    let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(|truth| f64::from(u8::from(truth))));
    list.iter()
        .map(|value| number(value).ok_or_else(|| malformed("a list holds something else than numbers")))
        .collect()
}

/// A whole number, which XGBoost writes as text.
fn whole(value: &Value) -> Option<i64> {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_i64())
}

fn malformed(reason: &str) -> ImportError {
    ImportError::Malformed { tool: TOOL, reason: reason.to_owned() }
}

fn unsupported(reason: &str) -> ImportError {
    ImportError::Unsupported { tool: TOOL, reason: reason.to_owned() }
}
