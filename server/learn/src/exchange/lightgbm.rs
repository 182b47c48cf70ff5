//! LightGBM's text format, versions 2 to 4.

use std::collections::BTreeMap;

use crate::exchange::ImportError;
use crate::exchange::foreign::{ForeignBody, ForeignModel, ForeignNode, ForeignTree, place};

const TOOL: &str = "LightGBM";
/// Bits of a decision type.
const CATEGORICAL: u32 = 1;
const DEFAULT_LEFT: u32 = 2;
const MISSING_SHIFT: u32 = 2;
/// How a node takes missing values.
const MISSING_NONE: u32 = 0;
const MISSING_ZERO: u32 = 1;
/// What LightGBM takes for zero.
const ZERO_MAX: f64 = 1e-35;

/// Whether a file begins like one.
pub(super) fn is_lightgbm(bytes: &[u8]) -> bool {
    bytes.starts_with(b"tree\n") || bytes.starts_with(b"tree\r\n")
}

/// Reads a model.
pub(super) fn read(bytes: &[u8]) -> Result<ForeignModel, ImportError> {
    let text = str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
    let mut blocks = text.split("\n\n").map(fields);
    let head = blocks.next().unwrap_or_default();
    if head.get("num_class").is_some_and(|classes| *classes != "1") {
        return Err(unsupported("it tells several classes apart, a compact model two"));
    }
    let objective = head.get("objective").copied().unwrap_or_default();
    let mut words = objective.split(' ');
    let slope = match words.next().unwrap_or_default() {
        "binary" => words.find_map(|word| word.strip_prefix("sigmoid:")).map_or(Ok(1.0), number)?,
        "cross_entropy" | "xentropy" => 1.0,
        other => {
            let reason =
                format!("its objective is {other:?}, whose scores are no probabilities: binary or cross_entropy is");
            return Err(ImportError::Unsupported { tool: TOOL, reason });
        }
    };
    let names = head.get("feature_names").ok_or_else(|| malformed("feature_names is missing"))?;
    let feature_names = names.split(' ').map(str::to_owned).collect();
    let mut trees = Vec::new();
    for block in blocks.filter(|block| block.contains_key("Tree")) {
        trees.push(read_tree(&block)?);
    }
    if trees.is_empty() {
        return Err(malformed("it has no trees"));
    }
    // A random forest's leaves are averaged before the logistic function.
    let share = if head.contains_key("average_output") { slope / trees.len() as f64 } else { slope };
    for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
        if let ForeignNode::Leaf { value, .. } = node {
            *value *= share;
        }
    }
    Ok(ForeignModel { tool: TOOL, feature_names, body: ForeignBody::Boosting { base: 0.0, trees }, notes: Vec::new() })
}

/// The lines of a block: what stands before the first `=`, and what behind it.
fn fields(block: &str) -> BTreeMap<&str, &str> {
    block.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).collect()
}

fn read_tree(block: &BTreeMap<&str, &str>) -> Result<ForeignTree, ImportError> {
    let list = |name: &'static str| -> Result<Vec<f64>, ImportError> {
        let text = block.get(name).copied().unwrap_or_default();
        text.split(' ').filter(|word| !word.is_empty()).map(number).collect()
    };
    if block.get("is_linear").is_some_and(|linear| *linear == "1") {
        return Err(unsupported("it has linear models in its leaves: train with linear_tree=false"));
    }
    let values = list("leaf_value")?;
    let counts = list("leaf_count")?;
    let thresholds = list("threshold")?;
    let inner = thresholds.len();
    if values.len() != inner + 1 {
        return Err(malformed("a tree does not have one leaf more than splits"));
    }
    let [features, kinds, lefts, rights] = ["split_feature", "decision_type", "left_child", "right_child"].map(list);
    let (features, kinds, lefts, rights) = (features?, kinds?, lefts?, rights?);
    if [&features, &kinds, &lefts, &rights].iter().any(|list| list.len() != inner) {
        return Err(malformed("the lists of a tree's splits differ in length"));
    }
    // Splits come first; the leaf with number n is child −1 − n.
    let child = |number: f64| if number < 0.0 { inner.saturating_add(place(-1.0 - number)) } else { place(number) };
    let mut nodes = Vec::with_capacity(2 * inner + 1);
    for split in 0..inner {
        let (threshold, kind) = (thresholds[split], kinds[split] as u32);
        if kind & CATEGORICAL != 0 {
            return Err(unsupported("it has categorical splits: encode the categories as numbers before training"));
        }
        nodes.push(ForeignNode::Split {
            feature: place(features[split]),
            threshold,
            or_equal: true,
            missing_left: missing_left(kind, threshold)?,
            left: child(lefts[split]),
            right: child(rights[split]),
        });
    }
    nodes.extend(
        values
            .iter()
            .enumerate()
            .map(|(leaf, value)| ForeignNode::Leaf { value: *value, cover: counts.get(leaf).copied() }),
    );
    Ok(ForeignTree { nodes })
}

/// Where a missing value goes.
fn missing_left(kind: u32, threshold: f64) -> Result<bool, ImportError> {
    let default_left = kind & DEFAULT_LEFT != 0;
    match kind >> MISSING_SHIFT & 3 {
        // It counts as zero.
        MISSING_NONE => Ok(0.0 <= threshold),
        // So does zero as missing, which is the same where zeros go that way in any case.
        MISSING_ZERO if default_left && ZERO_MAX <= threshold || !default_left && -ZERO_MAX > threshold => {
            Ok(default_left)
        }
        MISSING_ZERO => Err(unsupported("it takes zeros for missing values: train with zero_as_missing=false")),
        _ => Ok(default_left),
    }
}

fn number(word: &str) -> Result<f64, ImportError> {
    word.trim().parse().map_err(|_| malformed("a number cannot be read"))
}

fn malformed(reason: &str) -> ImportError {
    ImportError::Malformed { tool: TOOL, reason: reason.to_owned() }
}

fn unsupported(reason: &str) -> ImportError {
    ImportError::Unsupported { tool: TOOL, reason: reason.to_owned() }
}
