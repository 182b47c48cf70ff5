//! The file of a table model: preparation, then model.

use crate::id::Digest;
use crate::model::{Model, ModelError};
use crate::table::error::TableModelError;
use crate::table::preparation::{Categories, Category, Encoder, Preparation, PreparedColumn};
use crate::table::{TableModel, limits};

pub(super) const MAGIC: [u8; 8] = *b"PKTTABLE";
const VERSION: u16 = 1;

const NUMERIC: u8 = 1;
const CATEGORICAL: u8 = 2;
const TEXT: u8 = 3;
const TIME: u8 = 4;

/// Everything before the model.
pub(super) fn head(preparation: &Preparation) -> Vec<u8> {
    let mut body = Vec::new();
    put_u32(&mut body, preparation.columns.len());
    for column in &preparation.columns {
        body.push(match &column.encoder {
            Encoder::Numeric => NUMERIC,
            Encoder::Categorical(_) => CATEGORICAL,
            Encoder::Text(_) => TEXT,
            Encoder::Time => TIME,
        });
        put_text(&mut body, &column.name);
        match &column.encoder {
            Encoder::Numeric | Encoder::Time => {}
            Encoder::Categorical(categories) => {
                body.extend(categories.other.to_le_bytes());
                put_u32(&mut body, categories.known.len());
                for category in &categories.known {
                    put_text(&mut body, &category.value);
                    body.extend(category.log_odds.to_le_bytes());
                    body.extend(category.frequency.to_le_bytes());
                }
            }
            Encoder::Text(ngrams) => {
                put_u32(&mut body, ngrams.len());
                body.extend(ngrams.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    put_u32(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

/// Lengths above the limits are refused when the file is read back, as it always is before it leaves.
fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Reads a table model; `read_model` reads the model in it.
pub(super) fn parse(
    bytes: &[u8],
    read_model: impl FnOnce(&[u8]) -> Result<Model, ModelError>,
) -> Result<TableModel, TableModelError> {
    if bytes.len() > limits::TABLE_MODEL_BYTES_MAX {
        let (found, limit) = (bytes.len(), limits::TABLE_MODEL_BYTES_MAX);
        return Err(TableModelError::Limit { what: "bytes", found, limit });
    }
    let mut cursor = Cursor { bytes, offset: 0 };
    if cursor.array::<8>().ok() != Some(MAGIC) {
        return Err(TableModelError::NotATableModel);
    }
    let version = u16::from_le_bytes(cursor.array()?);
    if version != VERSION {
        return Err(TableModelError::UnsupportedVersion(version));
    }
    let length = cursor.count("bytes of preparation", limits::PREPARATION_BYTES_MAX)?;
    let end = cursor.offset + length;
    let head = bytes.get(..end).ok_or(TableModelError::Truncated { offset: bytes.len() })?;
    // Its checksum covers the preparation: only then is there sense in looking at it.
    let model = read_model(&bytes[end..])?;
    if model.metadata().feature_spec_hash != Digest::of(head) {
        return Err(TableModelError::Mismatch);
    }
    let preparation = read_preparation(&mut Cursor { bytes: head, offset: cursor.offset })?;
    if preparation.feature_count() != model.metadata().feature_count {
        return Err(TableModelError::Mismatch);
    }
    Ok(TableModel { preparation, model, id: Digest::of(bytes) })
}

fn read_preparation(cursor: &mut Cursor<'_>) -> Result<Preparation, TableModelError> {
    let count = cursor.count("columns", limits::COLUMNS_MAX)?;
    let mut columns: Vec<PreparedColumn> = Vec::new();
    for _ in 0..count {
        let kind = cursor.array::<1>()?[0];
        let name = cursor.text(limits::NAME_BYTES_MAX, "a column's name is too long or no UTF-8")?;
        let encoder = match kind {
            NUMERIC => Encoder::Numeric,
            CATEGORICAL => Encoder::Categorical(read_categories(cursor)?),
            TEXT => Encoder::Text(read_ngrams(cursor)?),
            TIME => Encoder::Time,
            _ => return Err(cursor.malformed("unknown kind of column")),
        };
        columns.push(PreparedColumn { name, encoder });
    }
    if cursor.offset != cursor.bytes.len() {
        return Err(cursor.malformed("bytes are left over"));
    }
    let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(cursor.malformed("two columns have one name"));
    }
    Ok(Preparation { columns })
}

fn read_categories(cursor: &mut Cursor<'_>) -> Result<Categories, TableModelError> {
    let other = cursor.f32()?;
    let count = cursor.count("values of a column", limits::CATEGORIES_MAX)?;
    let mut known: Vec<Category> = Vec::new();
    for _ in 0..count {
        let value = cursor.text(limits::CATEGORY_BYTES_MAX, "a value is too long or no UTF-8")?;
        if known.last().is_some_and(|last| last.value >= value) {
            return Err(cursor.malformed("values are not in ascending order"));
        }
        known.push(Category { value, log_odds: cursor.f32()?, frequency: cursor.f32()? });
    }
    Ok(Categories { other, known })
}

fn read_ngrams(cursor: &mut Cursor<'_>) -> Result<Vec<u32>, TableModelError> {
    let count = cursor.count("n-grams of a column", limits::NGRAMS_MAX)?;
    let mut ngrams: Vec<u32> = Vec::new();
    for _ in 0..count {
        let number = u32::from_le_bytes(cursor.array()?);
        if number >= limits::NGRAM_NUMBERS || ngrams.last().is_some_and(|last| *last >= number) {
            return Err(cursor.malformed("n-grams are not in ascending order"));
        }
        ngrams.push(number);
    }
    Ok(ngrams)
}

/// Takes fields from the front.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TableModelError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let field = rest.first_chunk::<N>().ok_or(TableModelError::Truncated { offset: self.bytes.len() })?;
        self.offset += N;
        Ok(*field)
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, TableModelError> {
        let found = u32::from_le_bytes(self.array()?) as usize;
        if found > limit { Err(TableModelError::Limit { what, found, limit }) } else { Ok(found) }
    }

    fn f32(&mut self) -> Result<f32, TableModelError> {
        let value = f32::from_le_bytes(self.array()?);
        if value.is_finite() { Ok(value) } else { Err(self.malformed("a number is not finite")) }
    }

    fn text(&mut self, bytes_max: usize, what: &'static str) -> Result<String, TableModelError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let text = rest.get(..length).ok_or(TableModelError::Truncated { offset: self.bytes.len() })?;
        let text = str::from_utf8(text).ok().filter(|text| text.len() <= bytes_max);
        let text = text.ok_or_else(|| self.malformed(what))?.to_owned();
        self.offset += length;
        Ok(text)
    }

    fn malformed(&self, what: &'static str) -> TableModelError {
        TableModelError::Malformed { what, offset: self.offset }
    }
}
