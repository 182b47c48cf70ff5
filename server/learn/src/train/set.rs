//! The rows that a model is fitted on.
//!
//! Two kinds of belonging together are told apart. A **group** is one attack or one piece of work, as whoever labelled it
//! said: weights are divided by it, and an attack counts once. **Kin** are rows that must not be on two sides of a fold:
//! those of one group, or near-duplicates of each other. A table without a group column has rows that count one by one,
//! but kin that stay together: a fold whose rows have doubles in the others makes scores, and the threshold chosen by
//! them, better than they are on new rows.

use crate::train::fold::{Folding, Folds};
use crate::train::{ROWS_MAX, ROWS_MIN, ROWS_PER_CLASS_MIN, TrainError};

/// Rows of features with their labels and groups; never empty, both classes are there unless nothing is labelled, values
/// are finite or missing (NaN).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingSet {
    feature_count: usize,
    /// Row by row.
    values: Vec<f32>,
    malicious: Vec<bool>,
    /// Whether anybody labelled the rows; else all count as benign.
    is_labelled: bool,
    /// Which group each row belongs to, as a number.
    groups: Vec<u32>,
    /// Which rows folds keep together, as a number; nothing when these are the groups.
    kin: Option<Vec<u32>>,
    /// How rows are divided for validation.
    folding: Folding,
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
        let set = Self::checked(feature_count, values, malicious, groups)?;
        for (class, found) in [("malicious", set.positives()), ("benign", set.len() - set.positives())] {
            if found < ROWS_PER_CLASS_MIN {
                return Err(TrainError::TooFewRows { class, found });
            }
        }
        Ok(set)
    }

    /// As [`Self::new`] without labels, or with rows that all are benign: for algorithms that need no other ones.
    ///
    /// # Errors
    /// [`TrainError::Shape`], [`TrainError::Infinite`], [`TrainError::TooFewUnlabelled`], [`TrainError::TooManyRows`].
    pub fn unlabelled(feature_count: usize, values: Vec<f32>, groups: Vec<u32>) -> Result<Self, TrainError> {
        let set = Self::checked(feature_count, values, vec![false; groups.len()], groups)?;
        if set.len() < ROWS_MIN {
            return Err(TrainError::TooFewUnlabelled { found: set.len() });
        }
        Ok(Self { is_labelled: false, ..set })
    }

    fn checked(
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
        let folding = Folding::default();
        Ok(Self { feature_count, values, malicious, is_labelled: true, groups, kin: None, folding })
    }

    /// Says which rows folds keep together, by a number for each row that kin share, where these are not the groups.
    ///
    /// # Errors
    /// [`TrainError::Shape`] when there is not one number for each row.
    pub fn with_kin(self, kin: Vec<u32>) -> Result<Self, TrainError> {
        if kin.len() != self.len() {
            return Err(self.not_of_shape(kin.len()));
        }
        Ok(Self { kin: Some(kin), ..self })
    }

    /// Says how rows are divided for validation.
    ///
    /// # Errors
    /// [`TrainError::Shape`] when there is not one time for each row, [`TrainError::NoRollingOrigin`] when these rows cannot
    /// be divided so.
    pub fn with_folding(self, folding: Folding) -> Result<Self, TrainError> {
        if let Folding::RollingOrigin { times, .. } = &folding
            && times.len() != self.len()
        {
            return Err(self.not_of_shape(times.len()));
        }
        let set = Self { folding, ..self };
        if let Folding::RollingOrigin { folds, .. } = set.folding {
            Folds::of(&set, folds, 0)?;
        }
        Ok(set)
    }

    fn not_of_shape(&self, numbers: usize) -> TrainError {
        let Self { feature_count, values, malicious, .. } = self;
        let (values, labels) = (values.len(), malicious.len());
        TrainError::Shape { values, labels, groups: numbers, feature_count: *feature_count }
    }

    /// Features of a row.
    pub fn feature_count(&self) -> usize {
        self.feature_count
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.malicious.len()
    }

    /// Never: there are rows.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Malicious rows.
    pub fn positives(&self) -> usize {
        self.malicious.iter().filter(|malicious| **malicious).count()
    }

    /// Whether anybody labelled the rows.
    pub fn is_labelled(&self) -> bool {
        self.is_labelled
    }

    /// The labels; none is malicious where nobody labelled them.
    pub fn malicious(&self) -> &[bool] {
        &self.malicious
    }

    /// The groups' numbers.
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// For each row a number that those share which folds keep together.
    pub fn kin(&self) -> &[u32] {
        self.kin.as_deref().unwrap_or(&self.groups)
    }

    /// How rows are divided for validation.
    pub fn folding(&self) -> &Folding {
        &self.folding
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

    /// The same rows with some of the features (at least one), in the order given.
    pub(crate) fn with_features(&self, features: &[usize]) -> Self {
        Self {
            feature_count: features.len(),
            values: self.rows().flat_map(|row| features.iter().map(|feature| row[*feature])).collect(),
            malicious: self.malicious.clone(),
            is_labelled: self.is_labelled,
            groups: self.groups.clone(),
            kin: self.kin.clone(),
            folding: self.folding.clone(),
        }
    }

    /// Some of the rows, in the order given. They may lack a class.
    pub(crate) fn subset(&self, rows: &[usize]) -> Self {
        Self {
            feature_count: self.feature_count,
            values: rows.iter().flat_map(|row| self.row(*row)).copied().collect(),
            malicious: rows.iter().map(|row| self.malicious[*row]).collect(),
            is_labelled: self.is_labelled,
            groups: rows.iter().map(|row| self.groups[*row]).collect(),
            kin: self.kin.as_ref().map(|kin| rows.iter().map(|row| kin[*row]).collect()),
            folding: self.folding.subset(rows),
        }
    }
}
