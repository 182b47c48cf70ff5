//! Rows as Parquet files.
//!
//! Columns: `host_id` (text), `epoch`, `sequence` (64-bit), `time` (nanoseconds, UTC), `label_group`, `technique` (text),
//! `malicious` (boolean), then one 32-bit float per feature, named `feature_<name>`; null where the value is missing.
//! zstd-compressed. The same rows give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use picket_common::event::Timestamp;
use picket_common::feature::MISSING;
use picket_common::id::{Digest, Epoch, EventId, EventKey, Sequence};
use sha2::Digest as _;

use crate::dataset::manifest::{ManifestFile, Part};
use crate::dataset::{RowInfo, Rows};

/// Columns before the features.
const INFO_COLUMNS: usize = 7;
/// What the name of a feature's column begins with.
const FEATURE_PREFIX: &str = "feature_";
/// Rows encoded at a time.
const BATCH_ROWS: usize = 8192;
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 65_536;
/// zstd level.
const ZSTD_LEVEL: i32 = 3;
const UTC: &str = "+00:00";

/// Why a file of rows was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowFileError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It could not be encoded or decoded.
    #[error("{path}: {source}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParquetError,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {reason}; restore it from a backup, or build the data set again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Writes a part's rows into a new file in `folder`; its bytes are durable when this returns, its name is not yet.
///
/// # Errors
/// [`RowFileError::Io`], also when the file is there already; [`RowFileError::Parquet`].
pub fn write(folder: &Path, part: Part, features: &[String], rows: &Rows) -> Result<ManifestFile, RowFileError> {
    let path = folder.join(part.file_name());
    let io = |source| RowFileError::Io { path: path.clone(), source };
    let parquet = |source| RowFileError::Parquet { path: path.clone(), source };
    let schema = schema(features);
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(parquet)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let hashing = HashingFile { file: File::create_new(&path).map_err(io)?, sha256: sha2::Sha256::new(), bytes: 0 };
    let mut writer = ArrowWriter::try_new(hashing, schema.clone(), Some(properties)).map_err(parquet)?;
    for first in (0..rows.len()).step_by(BATCH_ROWS) {
        let last = rows.len().min(first + BATCH_ROWS);
        let batch = batch(&schema, rows, first..last).map_err(|error| parquet(error.into()))?;
        writer.write(&batch).map_err(parquet)?;
    }
    let hashing = writer.into_inner().map_err(parquet)?;
    hashing.file.sync_all().map_err(io)?;

    let mut techniques = BTreeMap::new();
    for info in rows.info.iter().filter(|info| info.malicious && !info.technique.is_empty()) {
        *techniques.entry(info.technique.clone()).or_default() += 1;
    }
    let groups: BTreeSet<&str> = rows.info.iter().map(|info| info.group.as_str()).collect();
    Ok(ManifestFile {
        part,
        name: part.file_name(),
        sha256: Digest::from_bytes(hashing.sha256.finalize().into()).to_string(),
        bytes: hashing.bytes,
        rows: rows.len() as u64,
        malicious: rows.info.iter().filter(|info| info.malicious).count() as u64,
        groups: groups.len() as u64,
        techniques,
    })
}

/// Reads a part's rows and checks that they are those that were written.
///
/// # Errors
/// [`RowFileError`].
pub fn read(folder: &Path, file: &ManifestFile, features: &[String]) -> Result<Rows, RowFileError> {
    let path = folder.join(file.part.file_name());
    let damaged = |reason: &str| RowFileError::Damaged { path: path.clone(), reason: reason.to_owned() };
    let parquet = |source| RowFileError::Parquet { path: path.clone(), source };
    let io = |source| RowFileError::Io { path: path.clone(), source };
    if std::fs::metadata(&path).map_err(io)?.len() != file.bytes {
        return Err(damaged("it does not have its length"));
    }
    let bytes = Bytes::from(std::fs::read(&path).map_err(io)?);
    if Digest::of(&bytes).to_string() != file.sha256 {
        return Err(damaged("it does not have its SHA-256"));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?;
    let names: Vec<&str> = reader.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let expected = schema(features);
    if names != expected.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>() {
        return Err(damaged("it does not have the columns of the manifest"));
    }
    let mut rows = Rows::new(features.len());
    for batch in reader.with_batch_size(BATCH_ROWS).build().map_err(parquet)? {
        let batch = batch.map_err(|error| parquet(error.into()))?;
        append(&mut rows, &batch).ok_or_else(|| damaged("a value does not have its type"))?;
    }
    if rows.len() as u64 == file.rows { Ok(rows) } else { Err(damaged("it does not have its number of rows")) }
}

fn schema(features: &[String]) -> SchemaRef {
    let info: [(&str, DataType); INFO_COLUMNS] = [
        ("host_id", DataType::Utf8),
        ("epoch", DataType::Int64),
        ("sequence", DataType::Int64),
        ("time", DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()))),
        ("label_group", DataType::Utf8),
        ("technique", DataType::Utf8),
        ("malicious", DataType::Boolean),
    ];
    let info = info.into_iter().map(|(name, data_type)| Field::new(name, data_type, false));
    let features = features.iter().map(|name| Field::new(format!("{FEATURE_PREFIX}{name}"), DataType::Float32, true));
    Arc::new(Schema::new(info.chain(features).collect::<Vec<_>>()))
}

fn batch(schema: &SchemaRef, rows: &Rows, range: std::ops::Range<usize>) -> Result<RecordBatch, ArrowError> {
    let info = &rows.info[range.clone()];
    let key = |number: u64| number.cast_signed();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(info.iter().map(|info| info.event.host.to_string()))),
        Arc::new(Int64Array::from_iter_values(info.iter().map(|info| key(info.event.key.epoch.0)))),
        Arc::new(Int64Array::from_iter_values(info.iter().map(|info| key(info.event.key.sequence.0)))),
        Arc::new(TimestampNanosecondArray::from_iter_values(info.iter().map(|info| info.time.0)).with_timezone(UTC)),
        Arc::new(StringArray::from_iter_values(info.iter().map(|info| &info.group))),
        Arc::new(StringArray::from_iter_values(info.iter().map(|info| &info.technique))),
        Arc::new(BooleanArray::from_iter(info.iter().map(|info| Some(info.malicious)))),
    ];
    for feature in 0..rows.feature_count {
        let values = range.clone().map(|row| Some(rows.values(row)[feature]).filter(|value| !value.is_nan()));
        columns.push(Arc::new(Float32Array::from_iter(values)));
    }
    RecordBatch::try_new(schema.clone(), columns)
}

/// `None` when a column has another type or a value that cannot be.
fn append(rows: &mut Rows, batch: &RecordBatch) -> Option<()> {
    let columns = batch.columns();
    let hosts = columns[0].as_string_opt::<i32>()?;
    let epochs = columns[1].as_primitive_opt::<Int64Type>()?;
    let sequences = columns[2].as_primitive_opt::<Int64Type>()?;
    let times = columns[3].as_primitive_opt::<TimestampNanosecondType>()?;
    let groups = columns[4].as_string_opt::<i32>()?;
    let techniques = columns[5].as_string_opt::<i32>()?;
    let malicious = columns[6].as_boolean_opt()?;
    let features: Vec<&Float32Array> =
        columns[INFO_COLUMNS..].iter().map(|column| column.as_primitive_opt::<Float32Type>()).collect::<Option<_>>()?;
    let mut values = vec![MISSING; rows.feature_count];
    for row in 0..batch.num_rows() {
        for (value, column) in values.iter_mut().zip(&features) {
            *value = if column.is_null(row) { MISSING } else { column.value(row) };
        }
        let key = EventKey {
            epoch: Epoch(epochs.value(row).cast_unsigned()),
            sequence: Sequence(sequences.value(row).cast_unsigned()),
        };
        let info = RowInfo {
            event: EventId { host: hosts.value(row).parse().ok()?, key },
            time: Timestamp(times.value(row)),
            malicious: malicious.value(row),
            technique: techniques.value(row).to_owned(),
            group: groups.value(row).to_owned(),
        };
        rows.push(info, &values);
    }
    Some(())
}

/// Computes the SHA-256 of what is written.
struct HashingFile {
    file: File,
    sha256: sha2::Sha256,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use picket_common::id::HostId;

    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(2);
        for row in 0..20_000u32 {
            let key = EventKey { epoch: Epoch(1_800_000_000_000_000_000), sequence: Sequence(row.into()) };
            let info = RowInfo {
                event: EventId { host: HostId::from_random([(row % 3) as u8; 16]), key },
                time: Timestamp(1_800_000_000_000_000_000 + i64::from(row) * 1_000_001),
                malicious: row % 5 == 0,
                technique: if row % 10 == 0 { "T1046".to_owned() } else { String::new() },
                group: format!("group-{}", row / 100),
            };
            rows.push(info, &[if row % 7 == 0 { MISSING } else { row as f32 * 0.1 }, -0.0]);
        }
        rows
    }

    fn features() -> Vec<String> {
        vec!["a".to_owned(), "time".to_owned()]
    }

    #[test]
    fn rows_come_back_bit_for_bit_and_the_same_rows_give_the_same_file() {
        let (first, second) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let rows = rows();
        let file = write(first.path(), Part::Train, &features(), &rows).unwrap();
        assert_eq!(file, write(second.path(), Part::Train, &features(), &rows).unwrap());
        assert_eq!((file.rows, file.malicious, file.groups, file.techniques["T1046"]), (20_000, 4_000, 200, 2_000));

        let back = read(first.path(), &file, &features()).unwrap();
        assert_eq!(back.info, rows.info);
        let bits = |rows: &Rows| rows.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&rows));
    }

    #[test]
    fn what_was_changed_is_not_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = write(folder.path(), Part::Test, &features(), &rows()).unwrap();
        let path = folder.path().join(&file.name);
        let whole = std::fs::read(&path).unwrap();
        let other = vec!["a".to_owned(), "b".to_owned()];
        assert!(matches!(read(folder.path(), &file, &other), Err(RowFileError::Damaged { .. })));
        for place in [10, whole.len() / 2, whole.len() - 10] {
            let mut changed = whole.clone();
            changed[place] ^= 4;
            std::fs::write(&path, changed).unwrap();
            assert!(matches!(read(folder.path(), &file, &features()), Err(RowFileError::Damaged { .. })));
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(read(folder.path(), &file, &features()), Err(RowFileError::Damaged { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(folder.path(), &file, &features()), Err(RowFileError::Io { .. })));
        // An existing file is never overwritten.
        write(folder.path(), Part::Test, &features(), &rows()).unwrap();
        assert!(matches!(write(folder.path(), Part::Test, &features(), &rows()), Err(RowFileError::Io { .. })));
    }
}
