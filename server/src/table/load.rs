//! From a file to a table in memory: schema, memory, rows, digest.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use picket_common::id::Digest;
use picket_common::table::Record;
use picket_learn::table::{MemoryNeed, Sample, Schema, Table, TableBuilder, estimate};
use picket_learn::train::{Observer, ROWS_MAX};
use sha2::{Digest as _, Sha256};

use crate::table::{Input, TableFileError, schema_file};

/// How often progress is told, in rows.
const PROGRESS_ROWS: u64 = 10_000;
/// Largest schema file, in bytes.
const SCHEMA_BYTES_MAX: u64 = 4 << 20;

/// What is asked about the table.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    /// A schema's text and where it is from; else the guess.
    pub schema: Option<(std::path::PathBuf, String)>,
    /// Columns with their roles, over schema or guess.
    pub roles: Vec<(String, picket_learn::table::Role)>,
    /// Label values that are malicious.
    pub positive: Vec<String>,
    /// Label values that are benign.
    pub benign: Vec<String>,
    /// Keep ignored columns, as no features.
    pub keep_ignored: bool,
    /// Whether it is to be learned from: then there must be a label, and memory for a training.
    pub is_for_training: bool,
    /// Whether it can be learned from without a label.
    pub is_label_optional: bool,
    /// Bytes that may be taken.
    pub memory_bytes: u64,
}

/// A table with what it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rows.
    pub table: Table,
    /// Its schema.
    pub schema: Schema,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Size of the file.
    pub bytes: u64,
}

impl Loader {
    /// Reads a schema file.
    ///
    /// # Errors
    /// [`TableFileError::File`].
    pub fn read_schema(&mut self, path: &Path) -> Result<(), TableFileError> {
        let mut text = String::new();
        let file = File::open(path).map_err(TableFileError::file(path))?;
        file.take(SCHEMA_BYTES_MAX).read_to_string(&mut text).map_err(TableFileError::file(path))?;
        self.schema = Some((path.to_owned(), text));
        Ok(())
    }

    /// The schema of a file: the guess from its first rows, then the schema file, then single roles. Also what the table
    /// will need, and how many rows were looked at.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub fn schema_of(&self, path: &Path) -> Result<(Schema, MemoryNeed, usize), TableFileError> {
        let mut input = Input::open(path, None)?;
        let mut sample = Sample::new(input.columns());
        let mut record = Record::default();
        while input.next(&mut record)? {
            if !sample.push(&record) {
                break;
            }
        }
        let mut schema = sample.schema();
        if let Some((schema_path, text)) = &self.schema {
            schema_file::apply(text, &mut schema)
                .map_err(|source| TableFileError::SchemaFile { path: schema_path.clone(), source })?;
        }
        let error = |source| TableFileError::Schema { path: path.to_owned(), source };
        for (name, role) in &self.roles {
            schema.assign(name, *role).map_err(error)?;
        }
        if !self.positive.is_empty() || !self.benign.is_empty() {
            schema.label_values.malicious = self.positive.clone();
            schema.label_values.benign = self.benign.clone();
        }
        schema.check(self.is_for_training && !self.is_label_optional).map_err(error)?;
        let rows = if sample.rows() < picket_learn::table::SAMPLE_ROWS_MAX {
            sample.rows() as u64
        } else {
            input.rows_estimate()
        };
        let need = estimate(&schema, &sample, rows);
        Ok((schema, need, sample.rows()))
    }

    /// Refuses a table that would not fit, before it is read.
    fn check_memory(&self, path: &Path, need: &MemoryNeed) -> Result<(), TableFileError> {
        let bytes = if self.is_for_training { need.training_bytes } else { need.table_bytes };
        if bytes > self.memory_bytes {
            return Err(TableFileError::Memory {
                path: path.to_owned(),
                rows: need.rows,
                need_mib: bytes.div_ceil(1 << 20),
                available_mib: self.memory_bytes >> 20,
            });
        }
        // The estimate of a packed file is rough; what is surely too much is said now.
        if self.is_for_training && need.rows > 2 * ROWS_MAX as u64 {
            return Err(TableFileError::TooManyRows { path: path.to_owned(), rows: need.rows, rows_max: ROWS_MAX });
        }
        Ok(())
    }

    /// Reads a table with the schema it has.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub fn load(&self, path: &Path, observer: &dyn Observer) -> Result<Loaded, TableFileError> {
        let (schema, need, _) = self.schema_of(path)?;
        self.check_memory(path, &need)?;
        self.load_as(path, schema, &need, observer)
    }

    /// Reads a table with the schema of another: a test part, or the second of two.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub fn load_like(&self, path: &Path, like: &Schema, observer: &dyn Observer) -> Result<Loaded, TableFileError> {
        let (found, need, _) =
            Self { schema: None, roles: Vec::new(), is_for_training: false, ..self.clone() }.schema_of(path)?;
        self.check_memory(path, &need)?;
        let error = |source| TableFileError::Schema { path: path.to_owned(), source };
        let mut schema = found.clone();
        schema.columns.iter_mut().for_each(|column| column.role = picket_learn::table::Role::Ignore);
        for wanted in &like.columns {
            schema.assign(&wanted.name, wanted.role).map_err(error)?;
            schema.columns.iter_mut().filter(|c| c.name == wanted.name).for_each(|column| column.kind = wanted.kind);
        }
        schema.label_values = like.label_values.clone();
        self.load_as(path, schema, &need, observer)
    }

    fn load_as(
        &self,
        path: &Path,
        schema: Schema,
        need: &MemoryNeed,
        observer: &dyn Observer,
    ) -> Result<Loaded, TableFileError> {
        let mut builder = TableBuilder::new(&schema, self.keep_ignored, self.memory_bytes);
        push_rows(path, &schema, &mut builder, (need.rows, observer))?;
        let (digest, bytes) = digest_of(path)?;
        let error = |source| TableFileError::Table { path: path.to_owned(), source };
        Ok(Loaded { table: builder.finish().map_err(error)?, schema, digest, bytes })
    }

    /// Reads two tables into one; the rows of the second begin at the boundary. Columns that only one has are left out and
    /// named.
    ///
    /// # Errors
    /// [`TableFileError`].
    pub fn load_both(&self, paths: [&Path; 2], observer: &dyn Observer) -> Result<Both, TableFileError> {
        let (mut schema, mut need, _) = self.schema_of(paths[0])?;
        let (other, other_need, _) = Self { schema: None, roles: Vec::new(), ..self.clone() }.schema_of(paths[1])?;
        need.rows += other_need.rows;
        need.table_bytes += other_need.table_bytes;
        self.check_memory(paths[1], &need)?;
        let lacks = |schema: &Schema, name: &str| !schema.columns.iter().any(|column| column.name == name);
        let of_second: Vec<String> =
            other.columns.iter().map(|column| column.name.clone()).filter(|name| lacks(&schema, name)).collect();
        let of_first: Vec<String> =
            schema.columns.iter().map(|column| column.name.clone()).filter(|name| lacks(&other, name)).collect();
        schema.columns.retain(|column| !of_first.contains(&column.name));
        let error = |source| TableFileError::Schema { path: paths[1].to_owned(), source };
        schema.check(false).map_err(error)?;
        let mut builder = TableBuilder::new(&schema, false, self.memory_bytes);
        push_rows(paths[0], &schema, &mut builder, (need.rows, observer))?;
        let boundary = builder.rows();
        push_rows(paths[1], &schema, &mut builder, (need.rows, observer))?;
        let error = |source| TableFileError::Table { path: paths[1].to_owned(), source };
        Ok(Both { table: builder.finish().map_err(error)?, boundary, only_in: [of_first, of_second] })
    }
}

/// Two tables in one.
#[derive(Clone, Debug)]
pub struct Both {
    /// The rows of the first, then those of the second.
    pub table: Table,
    /// Where those of the second begin.
    pub boundary: usize,
    /// Columns that only the first has, and only the second.
    pub only_in: [Vec<String>; 2],
}

/// Adds the rows of a file, its columns put into the schema's order.
fn push_rows(
    path: &Path,
    schema: &Schema,
    builder: &mut TableBuilder,
    (rows_expected, observer): (u64, &dyn Observer),
) -> Result<(), TableFileError> {
    let error = |source| TableFileError::Table { path: path.to_owned(), source };
    let names: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let mut input = Input::open(path, Some(&names))?;
    // Nothing where the order is the schema's already.
    let places: Option<Vec<usize>> = (input.columns() != names.as_slice()).then(|| {
        let place = |name: &String| input.columns().iter().position(|column| column == name);
        names.iter().map(|name| place(name).unwrap_or(usize::MAX)).collect()
    });
    let (mut record, mut ordered) = (Record::default(), Record::default());
    while input.next(&mut record)? {
        match &places {
            Some(places) => {
                ordered.clear();
                places.iter().for_each(|place| ordered.push(record.field(*place)));
                builder.push(&ordered).map_err(error)?;
            }
            None => builder.push(&record).map_err(error)?,
        }
        let rows = builder.rows() as u64;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            observer.progress("read rows", rows, rows_expected.max(rows));
        }
    }
    Ok(())
}

/// SHA-256 and size of a file.
///
/// # Errors
/// [`TableFileError::File`].
pub fn digest_of(path: &Path) -> Result<(Digest, u64), TableFileError> {
    let mut file = File::open(path).map_err(TableFileError::file(path))?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        let taken = file.read(&mut buffer).map_err(TableFileError::file(path))?;
        if taken == 0 {
            return Ok((Digest::from_bytes(hasher.finalize().into()), bytes));
        }
        hasher.update(&buffer[..taken]);
        bytes += taken as u64;
    }
}
