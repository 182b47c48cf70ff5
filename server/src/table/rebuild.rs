//! A model made again from what its manifest recorded: the same bytes, or it was not made as it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_common::model::Algorithm;
use picket_learn::select;
use picket_learn::table::{SplitRule, ValidationRule};
use picket_learn::train::tune::SearchBudget;
use picket_learn::train::{CalibrationMethod, Confidence, Observer};
use serde::Deserialize;

use crate::table::load::digest_of;
use crate::table::train::{MANIFEST_FILE, TableTraining};
use crate::table::{Loader, TableFileError};

/// Name of the schema in a training's folder.
const SCHEMA_FILE: &str = "schema.toml";

/// A model that was made again.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// SHA-256 of the model on record.
    pub recorded: String,
    /// SHA-256 of the one that was made now.
    pub found: String,
    /// The version that made the one on record, where it was another than this.
    pub other_version: Option<String>,
    /// The file that was made now.
    pub file: Vec<u8>,
}

impl Rebuilt {
    /// Whether both are the same, byte for byte.
    pub fn is_same(&self) -> bool {
        self.recorded == self.found
    }
}

/// What a rebuild reads of a manifest.
#[derive(Debug, Deserialize)]
struct Manifest {
    picket_version: String,
    inputs: Vec<Source>,
    split: Split,
    seed: u64,
    algorithms: Vec<String>,
    false_positive_budget: f64,
    false_positive_confidence: Option<Confidence>,
    #[serde(default)]
    calibration: CalibrationMethod,
    #[serde(default)]
    validation: Validation,
    #[serde(default)]
    select: Select,
    trainings: Vec<Training>,
}

#[derive(Debug, Default, Deserialize)]
struct Validation {
    method: ValidationMethod,
    folds: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ValidationMethod {
    #[default]
    KFold,
    RollingOrigin,
}

#[derive(Debug, Default, Deserialize)]
struct Select {
    method: select::Method,
    columns_max: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Source {
    file: String,
    sha256: String,
}

#[derive(Debug, Deserialize)]
struct Split {
    rule: SplitRule,
    test_fraction: f64,
    #[serde(default)]
    embargo_seconds: u64,
}

#[derive(Debug, Deserialize)]
struct Training {
    algorithm: String,
    model_sha256: String,
    search: Option<Search>,
}

#[derive(Debug, Deserialize)]
struct Search {
    work: u64,
}

/// Makes the model of `folder` again, from the tables that it was made of. `memory_bytes` may be taken.
///
/// # Errors
/// [`TableFileError::Manifest`] when the manifest cannot be read, or the tables are others; as a training.
pub fn rebuild(
    folder: &Path,
    (input, test): (&Path, Option<&Path>),
    memory_bytes: u64,
    observer: &dyn Observer,
) -> Result<Rebuilt, TableFileError> {
    let path = folder.join(MANIFEST_FILE);
    let refuse = |reason: String| TableFileError::Manifest { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(TableFileError::file(&path))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let given: Vec<&Path> = std::iter::once(input).chain(test).collect();
    if given.len() != manifest.inputs.len() {
        let names: Vec<&str> = manifest.inputs.iter().map(|source| source.file.as_str()).collect();
        return Err(refuse(format!(
            "the model was made of {}: give --input, and --test where there are two",
            names.join(" and ")
        )));
    }
    for (path, source) in given.iter().zip(&manifest.inputs) {
        let (digest, _) = digest_of(path)?;
        if digest.to_string() != source.sha256 {
            let (path, Source { file, sha256 }) = (path.display(), source);
            return Err(refuse(format!(
                "{path} is not the {file} that the model was made of: its SHA-256 is {digest}, not {sha256}"
            )));
        }
    }
    let training = manifest.trainings.first().ok_or_else(|| refuse("it records no training".to_owned()))?;
    let search = training.search.as_ref().map(|search| SearchBudget::Work(search.work));
    // Of several algorithms only the one whose model was kept.
    let names = if search.is_some() { manifest.algorithms.clone() } else { vec![training.algorithm.clone()] };
    let algorithms: Result<Vec<Algorithm>, _> = names.iter().map(|name| name.parse()).collect();
    let embargo = Duration::from_secs(manifest.split.embargo_seconds);
    let validation = match (manifest.validation.method, manifest.validation.folds) {
        (ValidationMethod::KFold, folds) => ValidationRule::KFold { folds },
        (ValidationMethod::RollingOrigin, Some(folds)) => ValidationRule::RollingOrigin { folds, embargo },
        (ValidationMethod::RollingOrigin, None) => {
            return Err(refuse("it does not say into how many folds".to_owned()));
        }
    };
    let mut loader = Loader { is_for_training: true, memory_bytes, ..Loader::default() };
    loader.read_schema(&folder.join(SCHEMA_FILE))?;
    let again = TableTraining {
        input: input.to_owned(),
        test: test.map(Path::to_owned),
        loader,
        algorithms: algorithms.map_err(|error| refuse(error.to_string()))?,
        search,
        split: Some(manifest.split.rule),
        test_fraction: manifest.split.test_fraction,
        embargo,
        validation,
        selection: select::Wanted { method: manifest.select.method, columns_max: manifest.select.columns_max },
        seed: manifest.seed,
        false_positive_budget: manifest.false_positive_budget,
        confidence: manifest.false_positive_confidence,
        calibration: manifest.calibration,
        to: PathBuf::new(),
        force: false,
    };
    let (mut outcomes, _) = again.learn(observer)?;
    let best = outcomes.outcomes.swap_remove(0);
    let version = env!("CARGO_PKG_VERSION");
    Ok(Rebuilt {
        recorded: training.model_sha256.clone(),
        found: best.trained.model.id().to_string(),
        other_version: (manifest.picket_version != version).then_some(manifest.picket_version),
        file: best.trained.file,
    })
}
