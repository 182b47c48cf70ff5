//! How fields become a vector.

use crate::feature::MISSING;
use crate::id::Digest;
use crate::table::cell::{ColumnKind, Value};
use crate::table::{format, text, time};

/// What is done with each column, in the order of the vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// The columns.
    pub columns: Vec<PreparedColumn>,
}

/// What is done with a column.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedColumn {
    /// Its name.
    pub name: String,
    /// How its values become features.
    pub encoder: Encoder,
}

/// How values become features.
#[derive(Clone, Debug, PartialEq)]
pub enum Encoder {
    /// The number.
    Numeric,
    /// Log-odds and frequency of the value in training.
    Categorical(Categories),
    /// Shape, and how often each of these n-grams (ascending) occurs.
    Text(Vec<u32>),
    /// Hour of the day and day of the week, as points on circles.
    Time,
}

/// What training knew of a column's values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Categories {
    /// Log-odds of all values that are not known: those that were rare in training, and those it had not.
    pub other: f32,
    /// The known ones, ascending by value.
    pub known: Vec<Category>,
}

/// A value that is frequent enough to be told apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Category {
    /// The value.
    pub value: String,
    /// Log-odds of malicious among its rows, drawn towards the mean of all; 0 where labels were not looked at.
    pub log_odds: f32,
    /// Natural logarithm of 1 + its rows.
    pub frequency: f32,
}

impl Encoder {
    /// What the column holds.
    pub fn kind(&self) -> ColumnKind {
        match self {
            Self::Numeric => ColumnKind::Numeric,
            Self::Categorical(_) => ColumnKind::Categorical,
            Self::Text(_) => ColumnKind::Text,
            Self::Time => ColumnKind::Time,
        }
    }

    /// How many features it gives.
    pub fn feature_count(&self) -> usize {
        match self {
            Self::Numeric => 1,
            Self::Categorical(_) => 2,
            Self::Text(ngrams) => text::SHAPES + ngrams.len(),
            Self::Time => 4,
        }
    }

    /// Appends the features of a value. One of another kind counts as missing.
    pub fn encode(&self, value: Value<'_>, out: &mut Vec<f32>) {
        match (self, value) {
            (Self::Numeric, Value::Number(number)) => {
                let number = number as f32;
                out.push(if number.is_finite() { number + 0.0 } else { MISSING });
            }
            (Self::Categorical(categories), Value::Text(value)) => out.extend(categories.features(value)),
            (Self::Text(ngrams), Value::Text(value)) => text::encode(Some(value), ngrams, out),
            (Self::Time, Value::Time(time)) => out.extend(time::cycles(time)),
            (Self::Text(ngrams), _) => text::encode(None, ngrams, out),
            _ => out.extend(std::iter::repeat_n(MISSING, self.feature_count())),
        }
    }
}

impl Categories {
    /// Log-odds and frequency.
    fn features(&self, value: &str) -> [f32; 2] {
        match self.known.binary_search_by(|known| known.value.as_str().cmp(value)) {
            Ok(place) => [self.known[place].log_odds, self.known[place].frequency],
            Err(_) => [self.other, 0.0],
        }
    }
}

impl Preparation {
    /// Features of a vector.
    pub fn feature_count(&self) -> usize {
        self.columns.iter().map(|column| column.encoder.feature_count()).sum()
    }

    /// For each feature the place of its column.
    pub fn column_of_feature(&self) -> Vec<usize> {
        let columns = self.columns.iter().enumerate();
        columns.flat_map(|(place, column)| std::iter::repeat_n(place, column.encoder.feature_count())).collect()
    }

    /// What a model of its vectors carries as the hash of its feature specification.
    pub fn hash(&self) -> Digest {
        Digest::of(&format::head(self))
    }
}
