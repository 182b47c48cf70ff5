//! The rows that a model is fitted on.

use crate::train::{ROWS_MAX, ROWS_PER_CLASS_MIN, TrainError};

/// Rows of features with their labels and groups; never empty, both classes are there, values are finite or missing
/// (NaN).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingSet {
    feature_count: usize,
    /// Row by row.
    values: Vec<f32>,
    malicious: Vec<bool>,
    /// Which group each row belongs to, as a number.
    groups: Vec<u32>,
}

impl TrainingSet {
    /// Takes rows: `values` row by row, and for each row its label and the number of its group.
    ///
    /// # Errors
    /// [`TrainError::Shape`], [`TrainError::Infinite`], [`TrainError::TooFewRows`], [`TrainError::TooManyRows`].
    pub fn new(
        feature_count: usize,
        values: Vec<f32>,
        malicious: Vec<bool>,
        groups: Vec<u32>,
    ) -> Result<Self, TrainError> {
        let rows = malicious.len();
        if feature_count == 0 || rows.checked_mul(feature_count) != Some(values.len()) || groups.len() != rows {
            return Err(TrainError::Shape { values: values.len(), labels: rows, groups: groups.len(), feature_count });
        }
        if rows > ROWS_MAX {
            return Err(TrainError::TooManyRows { found: rows });
        }
        if let Some(place) = values.iter().position(|value| value.is_infinite()) {
            return Err(TrainError::Infinite { row: place / feature_count, feature: place % feature_count });
        }
        let set = Self { feature_count, values, malicious, groups };
        for (class, found) in [("malicious", set.positives()), ("benign", rows - set.positives())] {
            if found < ROWS_PER_CLASS_MIN {
                return Err(TrainError::TooFewRows { class, found });
            }
        }
        Ok(set)
    }

    /// Features of a row.
    pub fn feature_count(&self) -> usize {
        self.feature_count
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.malicious.len()
    }

    /// Never: there are rows of both classes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Malicious rows.
    pub fn positives(&self) -> usize {
        self.malicious.iter().filter(|malicious| **malicious).count()
    }

    /// The labels.
    pub fn malicious(&self) -> &[bool] {
        &self.malicious
    }

    /// The groups' numbers.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.feature_count..(row + 1) * self.feature_count]
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.feature_count)
    }

    /// The values of one feature.
    pub fn column(&self, feature: usize) -> impl Iterator<Item = f32> + Clone + '_ {
        self.rows().map(move |row| row[feature])
    }

    /// Some of the rows, in the order given. They may lack a class.
    pub(super) fn subset(&self, rows: &[usize]) -> Self {
        Self {
            feature_count: self.feature_count,
            values: rows.iter().flat_map(|row| self.row(*row)).copied().collect(),
            malicious: rows.iter().map(|row| self.malicious[*row]).collect(),
            groups: rows.iter().map(|row| self.groups[*row]).collect(),
        }
    }
}
