//! Models of other tools as compact models, and compact models as ONNX.
//!
//! ```text
//! LightGBM text ─┐
//! XGBoost JSON ──┼▶ ForeignModel (its own rules, f64) ─▶ ModelBody (f32 thresholds, ≤) ─▶ table model
//! XGBoost UBJ ───┤                    └──────── parity ────────┘
//! ONNX ──────────┘
//! ```
//!
//! * **Decisions are exact** for `f32` values: a threshold is rounded down to the next `f32` where a value may equal it, and
//!   to the one below where it may not. Values that are not finite are missing here, whatever the tool makes of infinities.
//! * **Leaf values** are rounded to `f32`; scores agree within [`PARITY_TOLERANCE`].
//! * **Parity** is checked before a model leaves: on rows made of its own thresholds and the numbers beside them, against
//!   the tool's rules in `f64`; and by the caller on rows with predictions, where there are any.
//! * What cannot be the same is refused with a reason: several classes, categorical splits, scores that are no
//!   probabilities, linear models in leaves. Pickles are refused: reading one runs whatever program it holds.

use picket_common::model::{Algorithm, ModelBody, ModelError};
use picket_common::table::TableModelError;

pub use crate::exchange::imported::{ImportOptions, Imported, import};
pub use crate::exchange::onnx::export;

mod foreign;
mod imported;
mod lightgbm;
mod onnx;
mod ubjson;
mod xgboost;

#[cfg(test)]
mod tests;

/// Largest file that is read, in bytes.
pub const IMPORT_BYTES_MAX: usize = 256 << 20;
/// How far a score may be from the tool's, which adds up `f32` or `f64`.
pub const PARITY_TOLERANCE: f64 = 1e-5;

/// Why a model of another tool cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nobody knows what it is.
    #[error("not a model that can be imported: expected LightGBM text, XGBoost JSON or UBJ, or ONNX")]
    Unknown,
    /// It is, or may hold, a pickle.
    #[error(
        "this is {what}, which is refused: reading a pickle runs whatever program is in it. Save the model as LightGBM text \
         (booster_.save_model), XGBoost JSON or UBJ (save_model) or ONNX (skl2onnx) with the tool that made it"
    )]
    Pickle {
        /// What it looks like.
        what: &'static str,
    },
    /// It is too large.
    #[error("the file has {found} bytes, at most {IMPORT_BYTES_MAX} are read")]
    TooLarge {
        /// How many it has.
        found: usize,
    },
    /// It says something that a compact model cannot.
    #[error("{tool}: {reason}")]
    Unsupported {
        /// Whose model it is.
        tool: &'static str,
        /// What, and what to do.
        reason: String,
    },
    /// It contradicts itself.
    #[error("malformed {tool} model: {reason}")]
    Malformed {
        /// Whose model it is.
        tool: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A score differs from the tool's.
    #[error("row {row}: the tool's score is {expected}, the imported model's is {found}")]
    Parity {
        /// Which row, from 0.
        row: usize,
        /// By the tool.
        expected: f64,
        /// By the imported model.
        found: f64,
    },
    /// It cannot be written.
    #[error("cannot write the imported model: {0}")]
    Model(#[from] ModelError),
    /// It cannot be written.
    #[error("cannot write the imported model: {0}")]
    Table(#[from] TableModelError),
}

/// Why a compact model cannot be written for other tools.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no operator for it.
    #[error(
        "{0} has no counterpart in ONNX here: trees and isolation forests without calibration and logistic regression have"
    )]
    Algorithm(Algorithm),
    /// It replaces missing values.
    #[error("the model replaces missing values, which is not exported")]
    Imputation,
}

/// Which algorithm a body is of.
fn algorithm(body: &ModelBody) -> Algorithm {
    match body {
        ModelBody::Forest(_) => Algorithm::RandomForest,
        ModelBody::Linear { .. } => Algorithm::LogisticRegression,
        ModelBody::Boosting { .. } => Algorithm::GradientBoosting,
        ModelBody::Additive { .. } => Algorithm::NaiveBayes,
        ModelBody::Network { .. } => Algorithm::NeuralNetwork,
        ModelBody::Kernel { .. } => Algorithm::RbfSvm,
        ModelBody::IsolationForest { .. } => Algorithm::IsolationForest,
    }
}
