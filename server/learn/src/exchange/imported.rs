//! From a file of another tool to a table model whose scores are proven.

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::limits::FEATURES_MAX;
use picket_common::model::{Algorithm, Model, ModelDraft, ModelMetadata};
use picket_common::table::{Encoder, Preparation, PreparedColumn, TableModel};

use crate::exchange::foreign::ForeignModel;
use crate::exchange::{IMPORT_BYTES_MAX, ImportError, PARITY_TOLERANCE, algorithm, lightgbm, onnx, xgboost};
use crate::random::SplitMix64;

/// Rows that are made to compare scores …
const PARITY_ROWS: usize = 2_000;
/// … and how many of them become the self-test.
const SELF_TEST_ROWS: usize = 16;

/// How an imported model is written.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// A score at or above it is a finding; 0 to 1.
    pub threshold: f64,
    /// The training run's name.
    pub name: String,
}

/// A model that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Whose it was.
    pub tool: &'static str,
    /// How it comes to its scores.
    pub algorithm: Algorithm,
    /// The table model's file.
    pub file: Vec<u8>,
    /// The same, read.
    pub model: TableModel,
    /// What a user should know.
    pub notes: Vec<String>,
    /// Rows on which its scores were compared with the tool's rules.
    pub rows_compared: usize,
    /// The greatest difference of a score on them.
    pub difference_max: f64,
}

/// Reads another tool's model and makes a table model of it whose columns are its features, all numeric. It is signed with
/// `key`; its data set digest is that of `bytes`. The same bytes and options give the same file.
///
/// # Errors
/// [`ImportError`].
pub fn import(bytes: &[u8], options: &ImportOptions, key: &SigningKey) -> Result<Imported, ImportError> {
    let foreign = read(bytes)?;
    let (tool, features) = (foreign.tool, foreign.feature_names.len());
    if features > FEATURES_MAX {
        let reason = format!("it has {features} features, at most {FEATURES_MAX} are supported");
        return Err(ImportError::Unsupported { tool, reason });
    }
    let column = |name: &String| PreparedColumn { name: name.clone(), encoder: Encoder::Numeric };
    let preparation = Preparation { columns: foreign.feature_names.iter().map(column).collect() };
    let rows = rows(&foreign);
    let body = foreign.body()?;
    let draft = ModelDraft {
        metadata: ModelMetadata {
            // Says nothing: the specification is the preparation.
            subject: Subject::Connection,
            algorithm: algorithm(&body),
            feature_spec_hash: preparation.hash(),
            feature_count: features,
            threshold: options.threshold,
            dataset_digest: Digest::of(bytes),
            training_run: options.name.clone(),
            created: Timestamp(0),
        },
        imputation: Vec::new(),
        body,
        self_test: rows.iter().take(SELF_TEST_ROWS).cloned().collect(),
    };
    let file = TableModel::encode(&preparation, &draft.encode(key)?)?;
    let model = TableModel::parse(&file)?;
    let difference_max = compare(&foreign, model.model(), &rows)?;
    Ok(Imported {
        tool,
        algorithm: draft.metadata.algorithm,
        file,
        model,
        notes: foreign.notes,
        rows_compared: rows.len(),
        difference_max,
    })
}

/// Reads a model of whatever tool wrote it.
pub(super) fn read(bytes: &[u8]) -> Result<ForeignModel, ImportError> {
    if bytes.len() > IMPORT_BYTES_MAX {
        return Err(ImportError::TooLarge { found: bytes.len() });
    }
    match bytes {
        _ if lightgbm::is_lightgbm(bytes) => lightgbm::read(bytes),
        _ if xgboost::is_json(bytes) => xgboost::read_json(bytes),
        _ if xgboost::is_ubj(bytes) => xgboost::read_ubj(bytes),
        [0x80, 2..=5, ..] => Err(ImportError::Pickle { what: "a pickle (as joblib and pickle write)" }),
        [b'c' | b'(' | b']' | b'}', ..] if bytes.ends_with(b".") => {
            Err(ImportError::Pickle { what: "a pickle of the oldest kind" })
        }
        [b'P', b'K', 3, 4, ..] => {
            Err(ImportError::Pickle { what: "a ZIP archive (as PyTorch writes), which holds pickles" })
        }
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] | [0x1f, 0x8b, ..] | [b'Z', b'F', ..] | [b'B', b'Z', b'h', ..] => {
            Err(ImportError::Pickle { what: "compressed (as joblib writes), most likely a pickle" })
        }
        _ if onnx::is_onnx(bytes) => onnx::read(bytes),
        _ => Err(ImportError::Unknown),
    }
}

/// Rows of values at which something is decided, and the numbers beside them; the first has everything missing.
fn rows(foreign: &ForeignModel) -> Vec<Vec<f32>> {
    let thresholds = foreign.thresholds();
    let mut random = SplitMix64::new(1);
    let mut value = |of_feature: &[f64]| {
        let at = match random.next_u64() % 16 {
            0 => return MISSING,
            1 => 0.0,
            2 => (random.unit() * 8.0 - 4.0) as f32,
            _ if of_feature.is_empty() => (random.unit() * 8.0 - 4.0) as f32,
            _ => of_feature[(random.next_u64() % of_feature.len() as u64) as usize] as f32,
        };
        let value = match random.next_u64() % 4 {
            0 => at.next_up(),
            1 => at.next_down(),
            2 => at * (1.0 + random.unit() as f32 / 8.0),
            _ => at,
        };
        if value.is_finite() { value } else { MISSING }
    };
    let first = vec![MISSING; thresholds.len()];
    let others = (1..PARITY_ROWS).map(|_| thresholds.iter().map(|of_feature| value(of_feature)).collect());
    std::iter::once(first).chain(others).collect()
}

/// The greatest difference of the scores of these rows.
fn compare(foreign: &ForeignModel, model: &Model, rows: &[Vec<f32>]) -> Result<f64, ImportError> {
    let mut greatest: f64 = 0.0;
    for (row, values) in rows.iter().enumerate() {
        let (expected, found) = (foreign.score(values), model.score(values));
        let difference = (expected - found).abs();
        if difference.is_nan() || difference > PARITY_TOLERANCE {
            return Err(ImportError::Parity { row, expected, found });
        }
        greatest = greatest.max(difference);
    }
    Ok(greatest)
}
