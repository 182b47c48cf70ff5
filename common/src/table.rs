//! Tables of any columns: reading their rows, making vectors of them, and the file of a model that judges them.
//!
//! ```text
//! CSV, JSON lines ─▶ Record (texts) ─▶ cell (typed) ─▶ Preparation ─▶ vector ─▶ Model ─▶ score, verdict, reasons
//! ```
//!
//! Training and scoring run this same code. What preparation learns (which values a column has, which n-grams tell
//! classes apart) it learns elsewhere, on the training part alone; here it is applied.
//!
//! # Format of a table model, version 1
//!
//! All numbers are little-endian. One model has one encoding.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `PKTTABLE` |
//! | 2 | format version, 1 |
//! | 4 | length *P* of the preparation |
//! | *P* | preparation |
//! | rest | a [model](crate::model), whole |
//!
//! The preparation is a `u32` column count, then for each column a `u8` kind (1 numeric, 2 categorical, 3 text, 4 time), its
//! name and what it learned:
//!
//! * names and values are a `u16` length and so many bytes of UTF-8;
//! * categorical: `f32` log-odds of all other values, `u32` value count, then values in ascending order, each with `f32`
//!   log-odds and `f32` logarithm of how often it occurred;
//! * text: `u32` count, then n-grams in ascending order, each a `u32` below 2^20.
//!
//! The model's feature specification hash is the SHA-256 of everything before the model: its checksum, signature and
//! self-test cover the preparation, too. Its subject says nothing; no subject's specification has that hash, so an agent
//! never takes it for a model of events.

use ed25519_dalek::VerifyingKey;

use crate::id::Digest;
use crate::model::{Model, ModelError};
pub use crate::table::cell::{Cell, ColumnKind, Problem, Value};
pub use crate::table::error::{TableModelError, TableReadError};
pub use crate::table::preparation::{Categories, Category, Encoder, Preparation, PreparedColumn};
pub use crate::table::read::{Record, TableReader, json_fields};
pub use crate::table::score::{ColumnReason, RowScorer};

pub mod cell;
pub mod text;
pub mod time;

mod error;
mod format;
mod preparation;
mod read;
mod score;
#[cfg(test)]
mod tests;

/// Limits of tables and of table models.
pub mod limits {
    /// Most columns of a table.
    pub const COLUMNS_MAX: usize = 4096;
    /// Longest name of a column, in bytes.
    pub const NAME_BYTES_MAX: usize = 256;
    /// Longest row, in bytes.
    pub const ROW_BYTES_MAX: usize = 1 << 20;
    /// Most values that a categorical column tells apart; further ones count as rare.
    pub const CATEGORIES_MAX: usize = 4096;
    /// Longest value of a categorical column that is told apart, in bytes; longer ones count as rare.
    pub const CATEGORY_BYTES_MAX: usize = 256;
    /// Most n-grams of a text column.
    pub const NGRAMS_MAX: usize = 1024;
    /// N-grams are numbered below this: those of equal number are one.
    pub const NGRAM_NUMBERS: u32 = 1 << 20;
    /// N-grams are taken of so many bytes of a text; the rest is not looked at.
    pub const TEXT_BYTES_MAX: usize = 4096;
    /// Largest preparation, in bytes.
    pub const PREPARATION_BYTES_MAX: usize = 16 << 20;
    /// Largest file of a table model, in bytes.
    pub const TABLE_MODEL_BYTES_MAX: usize = PREPARATION_BYTES_MAX + crate::model::limits::MODEL_BYTES_MAX + 14;
}

/// A model of a table's rows, with the preparation of its vectors.
#[derive(Clone, Debug)]
pub struct TableModel {
    preparation: Preparation,
    model: Model,
    id: Digest,
}

impl TableModel {
    /// Whether a file begins like a table model.
    pub fn is_table_model(bytes: &[u8]) -> bool {
        bytes.starts_with(&format::MAGIC)
    }

    /// Reads a table model without asking who signed it.
    ///
    /// # Errors
    /// [`TableModelError`] when a limit, the structure, the checksum or the self-test does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableModelError> {
        format::parse(bytes, Model::parse)
    }

    /// Checks that one of the `trusted` keys signed it, then reads it as [`TableModel::parse`] does.
    ///
    /// # Errors
    /// As for [`TableModel::parse`], and [`ModelError::UntrustedKey`], [`ModelError::Signature`].
    pub fn verify(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<Self, TableModelError> {
        format::parse(bytes, |model| Model::verify(model, trusted))
    }

    /// The file of a preparation and a model of its vectors, which must carry the preparation's
    /// [hash](Preparation::hash).
    ///
    /// # Errors
    /// [`TableModelError`] when the two do not belong together.
    pub fn encode(preparation: &Preparation, model_file: &[u8]) -> Result<Vec<u8>, TableModelError> {
        let mut bytes = format::head(preparation);
        bytes.extend_from_slice(model_file);
        Self::parse(&bytes)?;
        Ok(bytes)
    }

    /// How rows become vectors.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// The model of the vectors.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model's name: SHA-256 of the whole file.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The score from which on a row is a finding.
    pub fn threshold(&self) -> f64 {
        self.model.metadata().threshold
    }
}

impl From<ModelError> for TableModelError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}
