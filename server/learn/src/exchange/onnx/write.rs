//! Compact models as ONNX: one input of all features, one output, the score.

use picket_common::model::{Model, ModelBody, TreeDraft};
use prost::Message as _;

use crate::exchange::ExportError;
use crate::exchange::onnx::message::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Versions that ONNX Runtime knows since 1.10.
const IR_VERSION: i64 = 8;
const OPERATORS: (&str, i64) = ("", 15);
const ML_OPERATORS: (&str, i64) = ("ai.onnx.ml", 3);
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// The tensors.
const INPUT: &str = "features";
const LOG_ODDS: &str = "log_odds";
const EXPONENT: &str = "exponent";
const OUTPUT: &str = "score";

/// Writes a model's trees or coefficients as ONNX (`ai.onnx.ml` 3): an input `features` of rows of 32-bit numbers, NaN for
/// missing, and an output `score` of one number a row, 0 to 1. The names of the features are in the graph's documentation.
/// Scores are those of [`Model::score`] but for 32-bit sums; infinities, which are missing here, count as numbers there.
///
/// # Errors
/// [`ExportError`].
pub fn export(model: &Model, names: &[String]) -> Result<Vec<u8>, ExportError> {
    let metadata = model.metadata();
    let body = model.body().ok_or(ExportError::Algorithm(metadata.algorithm))?;
    if model.imputation().iter().any(|value| value.is_finite()) {
        return Err(ExportError::Imputation);
    }
    let node = match &body {
        ModelBody::Forest(trees) => vec![ensemble(trees, OUTPUT, text("aggregate_function", "AVERAGE"))],
        ModelBody::Boosting { base_score, trees } => {
            let base = floats("base_values", [*base_score as f32]);
            vec![ensemble(trees, LOG_ODDS, base), sigmoid()]
        }
        ModelBody::IsolationForest { normaliser, trees } => {
            // 2^(−path / normaliser) is e to the mean of these.
            let scale = -std::f64::consts::LN_2 / normaliser;
            let mut trees = trees.clone();
            let leaves = trees.iter_mut().flat_map(|tree| &mut tree.nodes).filter(|node| node.is_leaf());
            leaves.for_each(|leaf| leaf.value = (scale * f64::from(leaf.value)) as f32);
            let average = text("aggregate_function", "AVERAGE");
            vec![ensemble(&trees, EXPONENT, average), plain("Exp", EXPONENT)]
        }
        ModelBody::Linear { weights, bias, mean, inverse_scale } => linear(weights, *bias, mean, inverse_scale),
        ModelBody::Additive { .. } | ModelBody::Network { .. } | ModelBody::Kernel { .. } => {
            return Err(ExportError::Algorithm(metadata.algorithm));
        }
    };
    let graph = GraphProto {
        node,
        name: Some(metadata.algorithm.name().to_owned()),
        doc_string: Some(names.join(",")),
        input: vec![tensor(INPUT, metadata.feature_count)],
        output: vec![tensor(OUTPUT, 1)],
    };
    let set =
        |(domain, version): (&str, i64)| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
    let onnx = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("picket".to_owned()),
        graph: Some(graph),
        opset_import: vec![set(OPERATORS), set(ML_OPERATORS)],
    };
    Ok(onnx.encode_to_vec())
}

fn ensemble(trees: &[TreeDraft], output: &str, further: AttributeProto) -> NodeProto {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut lists: [Vec<i64>; 6] = Default::default();
    let (mut values, mut modes) = (Vec::new(), Vec::new());
    let (mut leaf_trees, mut leaf_nodes, mut leaf_values) = (Vec::new(), Vec::new(), Vec::new());
    for (tree, draft) in trees.iter().enumerate() {
        for (index, node) in draft.nodes.iter().enumerate() {
            let [tree, index] = [tree, index].map(number);
            let missing = i64::from(node.missing_left);
            let fields = if node.is_leaf() {
                leaf_trees.push(tree);
                leaf_nodes.push(index);
                leaf_values.push(node.value);
                [tree, index, 0, 0, 0, 0]
            } else {
                [tree, index, node.feature.into(), node.left.into(), node.right.into(), missing]
            };
            lists.iter_mut().zip(fields).for_each(|(list, field)| list.push(field));
            values.push(if node.is_leaf() { 0.0 } else { node.threshold });
            modes.push(if node.is_leaf() { b"LEAF".to_vec() } else { b"BRANCH_LEQ".to_vec() });
        }
    }
    let [tree_ids, node_ids, features, on_true, on_false, missing] = lists;
    let zeros = vec![0; leaf_trees.len()];
    let mut attribute = vec![
        int("n_targets", 1),
        ints("nodes_treeids", tree_ids),
        ints("nodes_nodeids", node_ids),
        ints("nodes_featureids", features),
        floats("nodes_values", values),
        AttributeProto { strings: modes, ..attribute("nodes_modes", 8) },
        ints("nodes_truenodeids", on_true),
        ints("nodes_falsenodeids", on_false),
        ints("nodes_missing_value_tracks_true", missing),
        ints("target_treeids", leaf_trees),
        ints("target_nodeids", leaf_nodes),
        ints("target_ids", zeros),
        floats("target_weights", leaf_values),
    ];
    attribute.push(further);
    node("TreeEnsembleRegressor", [INPUT, output], attribute)
}

/// A missing value is the mean, which adds nothing once it is standardised.
fn linear(weights: &[f64], bias: f64, mean: &[f64], inverse_scale: &[f64]) -> Vec<NodeProto> {
    let narrow = |numbers: &[f64]| numbers.iter().map(|number| *number as f32).collect::<Vec<_>>();
    let missing = AttributeProto { f: Some(f32::NAN), ..attribute("replaced_value_float", 1) };
    vec![
        node("Imputer", [INPUT, "whole"], vec![floats("imputed_value_floats", narrow(mean)), missing]),
        node(
            "Scaler",
            ["whole", "scaled"],
            vec![floats("offset", narrow(mean)), floats("scale", narrow(inverse_scale))],
        ),
        node(
            "LinearRegressor",
            ["scaled", LOG_ODDS],
            vec![floats("coefficients", narrow(weights)), floats("intercepts", [bias as f32]), int("targets", 1)],
        ),
        sigmoid(),
    ]
}

/// ONNX Runtime leaves out what a regressor's `post_transform` asks for.
fn sigmoid() -> NodeProto {
    plain("Sigmoid", LOG_ODDS)
}

/// An operator of ONNX itself, to the output.
fn plain(operator: &str, input: &str) -> NodeProto {
    NodeProto { domain: Some(String::new()), ..node(operator, [input, OUTPUT], Vec::new()) }
}

fn node(operator: &str, [input, output]: [&str; 2], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        name: Some(operator.to_owned()),
        op_type: Some(operator.to_owned()),
        attribute,
        domain: Some(ML_OPERATORS.0.to_owned()),
    }
}

/// An attribute without a value; types are numbered as `AttributeProto.AttributeType` does.
fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind), ..AttributeProto::default() }
}

fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { s: Some(text.as_bytes().to_vec()), ..attribute(name, 3) }
}

fn floats(name: &str, floats: impl Into<Vec<f32>>) -> AttributeProto {
    AttributeProto { floats: floats.into(), ..attribute(name, 6) }
}

fn int(name: &str, number: i64) -> AttributeProto {
    AttributeProto { i: Some(number), ..attribute(name, 2) }
}

fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { ints, ..attribute(name, 7) }
}

/// Rows of 32-bit numbers, any number of rows.
fn tensor(name: &str, width: usize) -> ValueInfoProto {
    let rows = DimensionProto { dim_value: None, dim_param: Some("rows".to_owned()) };
    let width = DimensionProto { dim_value: i64::try_from(width).ok(), dim_param: None };
    let shape = TensorShapeProto { dim: vec![rows, width] };
    let tensor_type = TensorTypeProto { elem_type: Some(FLOAT), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
