//! A table's file, row by row.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use picket_common::table::limits::{COLUMNS_MAX, ROW_BYTES_MAX};
use picket_common::table::{Record, TableReadError, TableReader, json_fields};

use crate::table::TableFileError;
use crate::table::parquet_rows::ParquetRows;

/// Rows of JSON lines in which the names of the columns are looked for.
const JSON_ROWS_LOOKED_AT: usize = 10_000;
/// Small, so that what is read ahead does not spoil the estimate of the rows.
const BUFFER_BYTES: usize = 1 << 13;

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstandard,
}

/// Rows of a file.
pub struct Input {
    path: PathBuf,
    rows: Rows,
    /// Bytes of the file, and how many of them were read.
    bytes: u64,
    taken: Arc<AtomicU64>,
    rows_read: u64,
}

enum Rows {
    Text(TableReader<Box<dyn BufRead>>),
    Parquet(Box<ParquetRows>),
}

impl Input {
    /// Opens a file. Of JSON lines the columns are `wanted`, else those of its first 10,000 rows.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub fn open(path: &Path, wanted: Option<&[String]>) -> Result<Self, TableFileError> {
        let (format, packing) = format_of(path).ok_or_else(|| TableFileError::Format { path: path.to_owned() })?;
        let file_error = TableFileError::file(path);
        let bytes = std::fs::metadata(path).map_err(&file_error)?.len();
        let taken = Arc::new(AtomicU64::new(0));
        let rows = match format {
            Format::Parquet => Rows::Parquet(Box::new(ParquetRows::open(path)?)),
            Format::Csv => {
                let input = unpacked(path, packing, &taken).map_err(&file_error)?;
                let read_error = |source| TableFileError::Read { path: path.to_owned(), source };
                Rows::Text(TableReader::csv(input).map_err(read_error)?)
            }
            Format::JsonLines => {
                let columns = match wanted {
                    Some(wanted) => wanted.to_vec(),
                    None => json_columns(path, packing)?,
                };
                let input = unpacked(path, packing, &taken).map_err(&file_error)?;
                Rows::Text(TableReader::json_lines(input, columns))
            }
        };
        Ok(Self { path: path.to_owned(), rows, bytes, taken, rows_read: 0 })
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        match &self.rows {
            Rows::Text(reader) => reader.columns(),
            Rows::Parquet(rows) => rows.columns(),
        }
    }

    /// Columns of JSON lines that no row so far had.
    pub fn unseen(&self) -> Vec<String> {
        match &self.rows {
            Rows::Text(reader) => reader.unseen().map(str::to_owned).collect(),
            Rows::Parquet(_) => Vec::new(),
        }
    }

    /// Replaces `record` by the next row; `false` at the end.
    ///
    /// # Errors
    /// [`TableFileError::Read`], [`TableFileError::Parquet`].
    pub fn next(&mut self, record: &mut Record) -> Result<bool, TableFileError> {
        let is_row = match &mut self.rows {
            Rows::Text(reader) => {
                reader.next(record).map_err(|source| TableFileError::Read { path: self.path.clone(), source })?
            }
            Rows::Parquet(rows) => rows.next(record)?,
        };
        self.rows_read += u64::from(is_row);
        Ok(is_row)
    }

    /// How many rows the file has: known of Parquet, else by what the rows so far took of it.
    pub fn rows_estimate(&self) -> u64 {
        match &self.rows {
            Rows::Parquet(rows) => rows.row_count(),
            Rows::Text(_) => {
                let taken = self.taken.load(Ordering::Relaxed).max(1);
                (self.rows_read as f64 * (self.bytes as f64 / taken as f64).max(1.0)).ceil() as u64
            }
        }
    }
}

fn format_of(path: &Path) -> Option<(Format, Packing)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (name, Packing::Gzip),
        (_, Some(name)) => (name, Packing::Zstandard),
        _ => (name.as_str(), Packing::Plain),
    };
    let format = match name.rsplit_once('.')?.1 {
        "csv" | "tsv" | "txt" => Format::Csv,
        "jsonl" | "ndjson" | "json" => Format::JsonLines,
        "parquet" if packing == Packing::Plain => Format::Parquet,
        _ => return None,
    };
    Some((format, packing))
}

fn unpacked(path: &Path, packing: Packing, taken: &Arc<AtomicU64>) -> io::Result<Box<dyn BufRead>> {
    let file = Counted { file: File::open(path)?, taken: Arc::clone(taken) };
    let buffered = |input: Box<dyn Read>| BufReader::with_capacity(BUFFER_BYTES, input);
    Ok(Box::new(match packing {
        Packing::Plain => buffered(Box::new(file)),
        Packing::Gzip => buffered(Box::new(flate2::read::MultiGzDecoder::new(file))),
        Packing::Zstandard => buffered(Box::new(zstd::Decoder::new(file)?)),
    }))
}

/// A file that knows how much of it was read.
struct Counted {
    file: File,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// The names in the first rows, in the order in which they come.
fn json_columns(path: &Path, packing: Packing) -> Result<Vec<String>, TableFileError> {
    let read_error = |source| TableFileError::Read { path: path.to_owned(), source };
    let mut input = unpacked(path, packing, &Arc::default()).map_err(TableFileError::file(path))?;
    let (mut columns, mut known, mut line) = (Vec::new(), BTreeSet::new(), Vec::new());
    for number in 1..=JSON_ROWS_LOOKED_AT as u64 {
        line.clear();
        let limit = ROW_BYTES_MAX as u64 + 2;
        let bytes = input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(TableFileError::file(path))?;
        if bytes == 0 {
            break;
        }
        if line.len() > ROW_BYTES_MAX + 1 {
            return Err(read_error(TableReadError::LongRow { line: number }));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        json_fields(object, number, &mut |name, _| {
            if known.insert(name.to_owned()) {
                columns.push(name.to_owned());
            }
        })
        .map_err(read_error)?;
        if columns.len() > COLUMNS_MAX {
            return Err(read_error(TableReadError::TooManyColumns { found: columns.len() }));
        }
    }
    if columns.is_empty() {
        return Err(read_error(TableReadError::Empty));
    }
    Ok(columns)
}
