//! Rows of a Parquet file, as texts: a model learns the same from them as from CSV.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use picket_common::table::{Record, TableReadError, limits};

use crate::table::TableFileError;

/// Rows that are unpacked together.
const BATCH_ROWS: usize = 4_096;

/// See the module documentation.
pub(super) struct ParquetRows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    columns: Vec<String>,
    row_count: u64,
    batch: Vec<StringArray>,
    /// Rows of the batch, and the next one.
    rows: usize,
    next: usize,
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self, TableFileError> {
        let error = |reason: &dyn std::fmt::Display| parquet_error(path, reason);
        let file = File::open(path).map_err(TableFileError::file(path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|reason| error(&reason))?;
        let columns: Vec<String> =
            builder.schema().fields().iter().map(|field| field.name().trim().to_owned()).collect();
        if columns.len() > limits::COLUMNS_MAX {
            let source = TableReadError::TooManyColumns { found: columns.len() };
            return Err(TableFileError::Read { path: path.to_owned(), source });
        }
        let row_count = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|reason| error(&reason))?;
        Ok(Self { path: path.to_owned(), reader, columns, row_count, batch: Vec::new(), rows: 0, next: 0 })
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn row_count(&self) -> u64 {
        self.row_count
    }

    pub(super) fn next(&mut self, record: &mut Record) -> Result<bool, TableFileError> {
        record.clear();
        while self.next >= self.rows {
            let Some(batch) = self.reader.next() else { return Ok(false) };
            let texts = batch.map_err(|reason| reason.to_string()).and_then(|batch| texts(&batch));
            self.batch = texts.map_err(|reason| parquet_error(&self.path, &reason))?;
            (self.rows, self.next) = (self.batch.first().map_or(0, Array::len), 0);
        }
        for column in &self.batch {
            record.push(if column.is_null(self.next) { "" } else { column.value(self.next) });
        }
        self.next += 1;
        Ok(true)
    }
}

/// Every value as a text; what has no plain form (lists, structures) as it is shown.
fn texts(batch: &RecordBatch) -> Result<Vec<StringArray>, String> {
    let column = |column: &arrow::array::ArrayRef| {
        if let Ok(texts) = cast(column, &DataType::Utf8) {
            return Ok(texts.as_string::<i32>().clone());
        }
        let formatter =
            ArrayFormatter::try_new(column, &FormatOptions::default()).map_err(|error| error.to_string())?;
        let shown = |row| (!column.is_null(row)).then(|| formatter.value(row).to_string());
        Ok((0..column.len()).map(shown).collect())
    };
    batch.columns().iter().map(column).collect()
}

fn parquet_error(path: &Path, reason: &dyn std::fmt::Display) -> TableFileError {
    TableFileError::Parquet { path: path.to_owned(), reason: reason.to_string() }
}
