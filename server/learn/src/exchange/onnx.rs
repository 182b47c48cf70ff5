//! ONNX: tree ensembles and linear classifiers of `ai.onnx.ml`, alone or behind scalers.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::exchange::ImportError;
use crate::exchange::foreign::{ForeignBody, ForeignModel, ForeignNode, ForeignTree};
use crate::exchange::onnx::message::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

mod message;
mod write;

pub use crate::exchange::onnx::write::export;

const TOOL: &str = "ONNX";
/// Operators that pass scores on, or make labels of them.
const PASSED: [&str; 10] = [
    "Normalizer",
    "ZipMap",
    "Cast",
    "Identity",
    "ArrayFeatureExtractor",
    "ArgMax",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Label",
];

/// Whether a file could be one: its version comes first.
pub(super) fn is_onnx(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x08)
}

/// Reads a model.
pub(super) fn read(bytes: &[u8]) -> Result<ForeignModel, ImportError> {
    let model = ModelProto::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
    let graph = model.graph.ok_or_else(|| malformed("it has no graph"))?;
    let features = feature_count(&graph)?;
    let mut scaling = Scaling { mean: vec![0.0; features], inverse_scale: vec![1.0; features], is_there: false };
    let mut body = None;
    let has = |operator: &str| graph.node.iter().any(|node| node.op_type.as_deref() == Some(operator));
    let (has_sigmoid, is_regressor) = (has("Sigmoid"), has("TreeEnsembleRegressor"));
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let attributes = Attributes::of(node);
        match operator {
            _ if body.is_some() && PASSED.contains(&operator) => {}
            "Identity" | "Cast" => {}
            "Scaler" if body.is_none() => scaling.add(&attributes)?,
            "TreeEnsembleClassifier" if body.is_none() => {
                body = Some(trees(&attributes, true, attributes.text("post_transform") == "LOGISTIC")?);
            }
            "TreeEnsembleRegressor" if body.is_none() => body = Some(trees(&attributes, false, has_sigmoid)?),
            "Sigmoid" if is_regressor => {}
            "LinearClassifier" if body.is_none() => body = Some(linear(&attributes, features)?),
            _ => {
                let reason = format!(
                    "it has the operator {operator:?}: tree ensembles and linear classifiers are taken, alone or behind a Scaler"
                );
                return Err(ImportError::Unsupported { tool: TOOL, reason });
            }
        }
    }
    let mut body = body.ok_or_else(|| malformed("it has neither trees nor a linear classifier"))?;
    match &mut body {
        ForeignBody::Linear { mean, inverse_scale, .. } => {
            (*mean, *inverse_scale) = (scaling.mean, scaling.inverse_scale);
        }
        _ if scaling.is_there => return Err(unsupported("its trees stand behind a Scaler: train them without")),
        _ => {}
    }
    let mut notes = Vec::new();
    if !matches!(body, ForeignBody::Linear { .. }) {
        notes.push(
            "ONNX does not say how many rows reached a leaf: reasons take all leaves for equally likely".to_owned(),
        );
    }
    Ok(ForeignModel {
        tool: TOOL,
        feature_names: (0..features).map(|feature| format!("f{feature}")).collect(),
        body,
        notes,
    })
}

/// How many features the one input has.
fn feature_count(graph: &GraphProto) -> Result<usize, ImportError> {
    let [input] = graph.input.as_slice() else {
        return Err(unsupported("it has several inputs: export it with one tensor of all features"));
    };
    let count = |input: &ValueInfoProto| {
        let shape = input.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
        usize::try_from(shape.dim.last()?.dim_value?).ok()
    };
    let most = picket_common::model::limits::FEATURES_MAX;
    count(input)
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| unsupported("the number of features of its input is not known, or too large"))
}

/// A standard scaler.
struct Scaling {
    mean: Vec<f64>,
    inverse_scale: Vec<f64>,
    is_there: bool,
}

impl Scaling {
    fn add(&mut self, attributes: &Attributes<'_>) -> Result<(), ImportError> {
        if self.is_there {
            return Err(unsupported("it has several scalers"));
        }
        self.is_there = true;
        for (to, name) in [(&mut self.mean, "offset"), (&mut self.inverse_scale, "scale")] {
            let from = attributes.floats(name)?;
            match from.as_slice() {
                [all] => to.fill(*all),
                each if each.len() == to.len() => to.copy_from_slice(each),
                _ => return Err(malformed("a Scaler does not have one number for each feature")),
            }
        }
        Ok(())
    }
}

/// A node's attributes by name.
struct Attributes<'a>(BTreeMap<&'a str, &'a AttributeProto>);

impl<'a> Attributes<'a> {
    fn of(node: &'a NodeProto) -> Self {
        Self(
            node.attribute.iter().map(|attribute| (attribute.name.as_deref().unwrap_or_default(), attribute)).collect(),
        )
    }

    fn ints(&self, name: &str) -> &'a [i64] {
        self.0.get(name).map_or(&[], |attribute| &attribute.ints)
    }

    fn strings(&self, name: &str) -> &'a [Vec<u8>] {
        self.0.get(name).map_or(&[], |attribute| &attribute.strings)
    }

    fn text(&self, name: &str) -> String {
        let text = self.0.get(name).and_then(|attribute| attribute.s.as_deref()).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// Numbers, in `f32`, or in `f64` under the same name and `_as_tensor`.
    fn floats(&self, name: &str) -> Result<Vec<f64>, ImportError> {
        if let Some(tensor) =
            self.0.get(format!("{name}_as_tensor").as_str()).and_then(|attribute| attribute.t.as_ref())
        {
            /// `TensorProto.DataType.DOUBLE`.
            const DOUBLE: i32 = 11;
            if tensor.data_type != Some(DOUBLE) {
                return Err(unsupported("a tensor of numbers is not of 64 bits"));
            }
            let raw = tensor.raw_data.as_deref().unwrap_or_default();
            let raw = raw.as_chunks::<8>().0.iter().map(|number| f64::from_le_bytes(*number));
            return Ok(tensor.double_data.iter().copied().chain(raw).collect());
        }
        let floats = self.0.get(name).map_or(&[][..], |attribute| &attribute.floats);
        Ok(floats.iter().map(|number| f64::from(*number)).collect())
    }

    /// Refuses more than two classes.
    fn check_classes(&self) -> Result<(), ImportError> {
        let classes = self.ints("classlabels_int64s").len().max(self.ints("classlabels_ints").len());
        match classes.max(self.strings("classlabels_strings").len()) {
            2 => Ok(()),
            _ => Err(unsupported("it does not tell exactly two classes apart")),
        }
    }
}

/// A tree ensemble's classifier, or regressor; its sums may pass through the logistic function.
fn trees(attributes: &Attributes<'_>, classifies: bool, is_logistic: bool) -> Result<ForeignBody, ImportError> {
    // ONNX Runtime leaves out what a regressor's `post_transform` asks for.
    let transform = attributes.text("post_transform");
    let is_kept = matches!(transform.as_str(), "" | "NONE") || classifies && is_logistic;
    if !is_kept {
        return Err(unsupported(&format!("its scores pass through {transform:?}")));
    }
    if classifies {
        attributes.check_classes()?;
    }
    let (mut trees, place) = splits(attributes)?;
    let kind = if classifies { "class" } else { "target" };
    let name = |of: &str| format!("{kind}_{of}");
    let (tree_ids, node_ids) = (attributes.ints(&name("treeids")), attributes.ints(&name("nodeids")));
    let (classes, weights) = (attributes.ints(&name("ids")), attributes.floats(&name("weights"))?);
    if [node_ids.len(), classes.len(), weights.len()].iter().any(|length| *length != tree_ids.len()) {
        return Err(malformed("the lists of its leaves differ in length"));
    }
    // With weights of one class only, they are those of the second class.
    let wanted = if classifies && classes.contains(&1) { 1 } else { 0 };
    if classes.iter().any(|class| *class > 1 || !classifies && *class > 0) {
        return Err(unsupported("it does not tell exactly two classes apart"));
    }
    for (leaf, (tree, node)) in tree_ids.iter().zip(node_ids).enumerate().filter(|(leaf, _)| classes[*leaf] == wanted) {
        let place = place.get(&(*tree, *node)).ok_or_else(|| malformed("a leaf is in no tree"))?;
        match &mut trees[place.0].nodes[place.1] {
            ForeignNode::Leaf { value, .. } => *value += weights[leaf],
            ForeignNode::Split { .. } => return Err(malformed("a split has a weight")),
        }
    }
    let base = attributes.floats("base_values")?;
    let base = if wanted == 1 { base.get(1).or(base.first()) } else { base.first() }.copied().unwrap_or(0.0);
    let averages = attributes.text("aggregate_function") == "AVERAGE";
    let count = trees.len() as f64;
    let mut scale = |factor: f64| {
        for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if let ForeignNode::Leaf { value, .. } = node {
                *value *= factor;
            }
        }
    };
    if is_logistic {
        scale(if averages { 1.0 / count } else { 1.0 });
        return Ok(ForeignBody::Boosting { base, trees });
    }
    if base != 0.0 {
        return Err(unsupported("its scores have a base without a logistic function"));
    }
    scale(if averages { 1.0 } else { count });
    // What is 1 in all may be a little more in numbers of 32 bits.
    for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
        if let ForeignNode::Leaf { value, .. } = node {
            if !(-1e-5..=1.0 + 1e-5).contains(value) {
                return Err(unsupported("its scores are no probabilities"));
            }
            *value = value.clamp(0.0, 1.0);
        }
    }
    Ok(ForeignBody::Forest(trees))
}

/// Where the node of a tree is, by the numbers of both.
type Places = BTreeMap<(i64, i64), (usize, usize)>;

/// The trees without their leaves' values.
fn splits(attributes: &Attributes<'_>) -> Result<(Vec<ForeignTree>, Places), ImportError> {
    let lists = ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"];
    let [tree_ids, node_ids, features, on_true, on_false] = lists.map(|name| attributes.ints(name));
    let (thresholds, modes) = (attributes.floats("nodes_values")?, attributes.strings("nodes_modes"));
    let missing_true = attributes.ints("nodes_missing_value_tracks_true");
    let count = tree_ids.len();
    let lengths = [node_ids.len(), features.len(), on_true.len(), on_false.len(), thresholds.len(), modes.len()];
    if count == 0 || lengths.iter().any(|length| *length != count) {
        return Err(malformed("the lists of its nodes are empty or differ in length"));
    }
    let (mut places, mut sizes, mut numbers) = (Places::new(), Vec::<usize>::new(), BTreeMap::new());
    for (tree, node) in tree_ids.iter().zip(node_ids) {
        let tree_place = *numbers.entry(*tree).or_insert(sizes.len());
        if tree_place == sizes.len() {
            sizes.push(0);
        }
        if places.insert((*tree, *node), (tree_place, sizes[tree_place])).is_some() {
            return Err(malformed("two nodes of a tree have one number"));
        }
        sizes[tree_place] += 1;
    }
    let mut trees = vec![ForeignTree::default(); sizes.len()];
    for node in 0..count {
        let child = |to: &[i64]| {
            let place = places.get(&(tree_ids[node], to[node]));
            place.map(|place| place.1).ok_or_else(|| malformed("a child is not there"))
        };
        let missing = missing_true.get(node).is_some_and(|tracks| *tracks != 0);
        let feature = usize::try_from(features[node]).map_err(|_| malformed("a feature's number is negative"))?;
        let threshold = thresholds[node];
        // "Greater" is "less or equal" with the sides exchanged.
        let (or_equal, turned) = match modes[node].as_slice() {
            b"LEAF" => {
                trees[places[&(tree_ids[node], node_ids[node])].0]
                    .nodes
                    .push(ForeignNode::Leaf { value: 0.0, cover: None });
                continue;
            }
            b"BRANCH_LEQ" => (true, false),
            b"BRANCH_LT" => (false, false),
            b"BRANCH_GT" => (true, true),
            b"BRANCH_GTE" => (false, true),
            _ => return Err(unsupported("a split compares for equality, which is categorical")),
        };
        let (on_true, on_false) = (child(on_true)?, child(on_false)?);
        let (left, right) = if turned { (on_false, on_true) } else { (on_true, on_false) };
        let split = ForeignNode::Split { feature, threshold, or_equal, missing_left: missing != turned, left, right };
        trees[places[&(tree_ids[node], node_ids[node])].0].nodes.push(split);
    }
    Ok((trees, places))
}

fn linear(attributes: &Attributes<'_>, features: usize) -> Result<ForeignBody, ImportError> {
    attributes.check_classes()?;
    if attributes.text("post_transform") != "LOGISTIC" {
        return Err(unsupported("its scores do not pass through the logistic function"));
    }
    let (mut weights, bias) = (attributes.floats("coefficients")?, attributes.floats("intercepts")?);
    // Of two rows of coefficients the second is that of the second class.
    if weights.len() == 2 * features {
        weights.drain(..features);
    }
    if weights.len() != features || bias.len() > 2 {
        return Err(malformed("there is not one coefficient for each feature"));
    }
    let bias = bias.last().copied().unwrap_or(0.0);
    Ok(ForeignBody::Linear { weights, bias, mean: vec![0.0; features], inverse_scale: vec![1.0; features] })
}

fn malformed(reason: &str) -> ImportError {
    ImportError::Malformed { tool: TOOL, reason: reason.to_owned() }
}

fn unsupported(reason: &str) -> ImportError {
    ImportError::Unsupported { tool: TOOL, reason: reason.to_owned() }
}
