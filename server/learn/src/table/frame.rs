//! A table in memory, column by column.

use std::collections::BTreeMap;
use std::sync::Arc;

use picket_common::event::Timestamp;
use picket_common::table::{ColumnKind, Record, Value, cell};
use serde::Serialize;

use crate::table::schema::{LabelValues, Role, Schema, SchemaError};

/// Label values that a message lists.
const LISTED_MAX: usize = 12;

/// Texts of a column, each different one once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// For each row its word; [`Words::NONE`] when it is missing.
    pub codes: Vec<u32>,
    /// The words.
    pub words: Vec<Arc<str>>,
}

impl Words {
    /// The code of a missing value.
    pub const NONE: u32 = u32::MAX;

    /// The word of a row.
    pub fn get(&self, row: usize) -> Option<&str> {
        self.words.get(self.codes[row] as usize).map(|word| &**word)
    }
}

/// The values of a column, row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers; NaN when missing.
    Numbers(Vec<f64>),
    /// Categories or texts.
    Words(Words),
    /// Times.
    Times(Vec<Option<Timestamp>>),
}

/// A column that may become features.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether it is a feature: a profile looks at ignored ones, too.
    pub is_feature: bool,
    /// Its values.
    pub values: Values,
    /// Fields that could not be read as its kind, and are missing therefore.
    pub unreadable: u64,
}

impl Column {
    /// The value of a row.
    pub fn value(&self, row: usize) -> Value<'_> {
        match &self.values {
            Values::Numbers(numbers) if numbers[row].is_nan() => Value::Missing,
            Values::Numbers(numbers) => Value::Number(numbers[row]),
            Values::Words(words) => words.get(row).map_or(Value::Missing, Value::Text),
            Values::Times(times) => times[row].map_or(Value::Missing, Value::Time),
        }
    }
}

/// What was read and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows of the file.
    pub rows_read: u64,
    /// Rows without a label: left out.
    pub unlabelled: u64,
    /// Fields that could not be read as their column's kind (infinite numbers among them): taken as missing.
    pub unreadable_fields: u64,
}

/// Rows with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Features, and in a profile ignored columns.
    pub columns: Vec<Column>,
    /// Number of rows.
    pub rows: usize,
    /// Whether each row is malicious; nothing without a label.
    pub malicious: Option<Vec<bool>>,
    /// How often each label value occurs.
    pub label_counts: BTreeMap<String, u64>,
    /// What belongs together.
    pub group: Option<Words>,
    /// The hosts that rows are from.
    pub host: Option<Words>,
    /// Families of malicious rows: of the family column, else of a label with more than two values.
    pub family: Option<Words>,
    /// What was left out.
    pub counts: Counts,
}

impl Table {
    /// The columns that are features.
    pub fn features(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.is_feature)
    }

    /// The times of the first column of times that is a feature.
    pub fn times(&self) -> Option<&[Option<Timestamp>]> {
        self.features().find_map(|column| match &column.values {
            Values::Times(times) => Some(times.as_slice()),
            _ => None,
        })
    }

    /// The labels.
    ///
    /// # Errors
    /// [`TableError::Schema`] when the table has none.
    pub fn labels(&self) -> Result<&[bool], TableError> {
        let names: Vec<&str> = self.columns.iter().take(20).map(|column| column.name.as_str()).collect();
        self.malicious.as_deref().ok_or_else(|| SchemaError::NoLabel { columns: names.join(", ") }.into())
    }
}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Its schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Label values whose meaning is not known.
    #[error(
        "what the label's values mean is not known: say which are malicious (--positive VALUE) or which are benign \
         (--benign VALUE); they are {values}"
    )]
    LabelValues {
        /// The values with their rows.
        values: String,
    },
    /// All rows have one label.
    #[error("all {rows} rows are {class}: to learn a difference takes both benign and malicious rows")]
    OneClass {
        /// Labelled rows.
        rows: usize,
        /// `benign` or `malicious`.
        class: &'static str,
    },
    /// No row.
    #[error("the table has no row, or none with a label")]
    NoRows,
    /// It grew beyond the memory it may take.
    #[error(
        "the table needs more memory than the {allowed_mib} MiB it may take, at row {row}: give it fewer rows or columns"
    )]
    Memory {
        /// How many rows fitted.
        row: u64,
        /// What it may take.
        allowed_mib: u64,
    },
}

/// Collects rows.
pub struct TableBuilder {
    columns: Vec<(usize, ColumnBuilder, Column)>,
    label: Option<(usize, Interner)>,
    group: Option<(usize, Interner)>,
    host: Option<(usize, Interner)>,
    family: Option<(usize, Interner)>,
    label_values: LabelValues,
    counts: Counts,
    rows: usize,
    bytes: u64,
    bytes_max: u64,
}

/// How a column grows.
struct ColumnBuilder(Interner);

#[derive(Default)]
struct Interner {
    codes: BTreeMap<Arc<str>, u32>,
    words: Words,
}

impl Interner {
    /// Bytes that a different word takes besides its own.
    const WORD_BYTES: u64 = 80;

    /// Adds a row's word; the memory it took, in bytes.
    fn push(&mut self, word: Option<&str>) -> u64 {
        let Some(word) = word else {
            self.words.codes.push(Words::NONE);
            return 4;
        };
        if let Some(code) = self.codes.get(word) {
            self.words.codes.push(*code);
            return 4;
        }
        let code = u32::try_from(self.words.words.len()).unwrap_or(Words::NONE);
        let shared: Arc<str> = word.into();
        self.words.words.push(Arc::clone(&shared));
        self.codes.insert(shared, code);
        self.words.codes.push(code);
        4 + Self::WORD_BYTES + word.len() as u64
    }
}

impl TableBuilder {
    /// Of rows with the columns of `schema`, in its order. `keep_ignored`: ignored columns are kept, as no features.
    /// The rows take at most about `bytes_max` bytes.
    pub fn new(schema: &Schema, keep_ignored: bool, bytes_max: u64) -> Self {
        let place = |role| {
            let place = schema.columns.iter().position(|column| column.role == role)?;
            Some((place, Interner::default()))
        };
        let mut columns = Vec::new();
        for (place, column) in schema.columns.iter().enumerate() {
            let is_feature = matches!(column.role, Role::Feature(_));
            if is_feature || (keep_ignored && column.role == Role::Ignore) {
                let values = match column.kind {
                    ColumnKind::Numeric => Values::Numbers(Vec::new()),
                    ColumnKind::Categorical | ColumnKind::Text => Values::Words(Words::default()),
                    ColumnKind::Time => Values::Times(Vec::new()),
                };
                let column = Column { name: column.name.clone(), kind: column.kind, is_feature, values, unreadable: 0 };
                columns.push((place, ColumnBuilder(Interner::default()), column));
            }
        }
        Self {
            columns,
            label: place(Role::Label),
            group: place(Role::Group),
            host: place(Role::Host),
            family: place(Role::Family),
            label_values: schema.label_values.clone(),
            counts: Counts::default(),
            rows: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds a row. Where there is a label column, a row without a label is counted and left out.
    ///
    /// # Errors
    /// [`TableError::Memory`].
    pub fn push(&mut self, record: &Record) -> Result<(), TableError> {
        self.counts.rows_read += 1;
        let word = |place: usize| Some(record.field(place).trim()).filter(|field| !cell::is_missing(field));
        if let Some((place, interner)) = &mut self.label {
            let Some(label) = word(*place) else {
                self.counts.unlabelled += 1;
                return Ok(());
            };
            self.bytes += interner.push(Some(label));
        }
        for (place, interner) in [&mut self.group, &mut self.host, &mut self.family].into_iter().flatten() {
            self.bytes += interner.push(word(*place));
        }
        for (place, builder, column) in &mut self.columns {
            let cell = cell::read(column.kind, record.field(*place));
            if cell.problem.is_some() {
                column.unreadable += 1;
                self.counts.unreadable_fields += 1;
            }
            self.bytes += match (&mut column.values, cell.value) {
                (Values::Numbers(numbers), Value::Number(number)) => grown(numbers, number),
                (Values::Numbers(numbers), _) => grown(numbers, f64::NAN),
                (Values::Times(times), Value::Time(time)) => grown(times, Some(time)),
                (Values::Times(times), _) => grown(times, None),
                (Values::Words(_), Value::Text(text)) => builder.0.push(Some(text)),
                (Values::Words(_), _) => builder.0.push(None),
            };
        }
        self.rows += 1;
        if self.bytes > self.bytes_max {
            return Err(TableError::Memory { row: self.counts.rows_read, allowed_mib: self.bytes_max >> 20 });
        }
        Ok(())
    }

    /// Rows so far, without those that were left out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The table.
    ///
    /// # Errors
    /// [`TableError::LabelValues`] when a label's meaning is not known, [`TableError::NoRows`].
    pub fn finish(self) -> Result<Table, TableError> {
        if self.rows == 0 {
            return Err(TableError::NoRows);
        }
        let mut label_counts = BTreeMap::new();
        let (mut malicious, mut families) = (None, None);
        if let Some((_, interner)) = self.label {
            malicious = Some(labels(&interner.words, &self.label_values, &mut label_counts)?);
            // A label of many values names the families.
            families = Some(interner.words).filter(|words| words.words.len() > 2);
        }
        let columns = self.columns.into_iter().map(|(_, builder, mut column)| {
            if let Values::Words(words) = &mut column.values {
                *words = builder.0.words;
            }
            column
        });
        let words = |role: Option<(usize, Interner)>| role.map(|(_, interner)| interner.words);
        Ok(Table {
            columns: columns.collect(),
            rows: self.rows,
            malicious,
            label_counts,
            group: words(self.group),
            host: words(self.host),
            family: words(self.family).or(families),
            counts: self.counts,
        })
    }
}

fn grown<T>(values: &mut Vec<T>, value: T) -> u64 {
    values.push(value);
    size_of::<T>() as u64
}

fn labels(words: &Words, meaning: &LabelValues, counts: &mut BTreeMap<String, u64>) -> Result<Vec<bool>, TableError> {
    let mut rows_of = vec![0_u64; words.words.len()];
    words.codes.iter().for_each(|code| rows_of[*code as usize] += 1);
    let meanings: Vec<Option<bool>> = words.words.iter().map(|word| meaning.is_malicious(word)).collect();
    for (word, rows) in words.words.iter().zip(&rows_of).take(super::schema::SAMPLE_ROWS_MAX) {
        counts.insert(word.to_string(), *rows);
    }
    if meanings.contains(&None) {
        let mut values: Vec<(&Arc<str>, u64)> = words.words.iter().zip(rows_of).collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        let mut listed: Vec<String> =
            values.iter().take(LISTED_MAX).map(|(value, rows)| format!("{value:?} ({rows} rows)")).collect();
        if values.len() > LISTED_MAX {
            listed.push(format!("and {} more", values.len() - LISTED_MAX));
        }
        return Err(TableError::LabelValues { values: listed.join(", ") });
    }
    Ok(words.codes.iter().map(|code| meanings[*code as usize] == Some(true)).collect())
}
