//! Scores rows of a table, whatever the order of its columns.

use crate::model::Contribution;
use crate::table::cell;
use crate::table::read::Record;
use crate::table::{Problem, TableModel, TableModelError, Value};

/// Missing columns that an error names.
const NAMED_MAX: usize = 8;

/// What one column did to one score.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnReason {
    /// Its name.
    pub column: String,
    /// The field as it stands in the row.
    pub field: String,
    /// How far it moved the score, as in [`Contribution::contribution`], over all its features.
    pub contribution: f64,
}

/// A table model bound to the columns of a table.
#[derive(Clone, Debug)]
pub struct RowScorer<'a> {
    model: &'a TableModel,
    /// For each of the model's columns its place in a record.
    places: Vec<usize>,
    column_of_feature: Vec<usize>,
    values: Vec<f32>,
    contributions: Vec<Contribution>,
    tallies: Vec<Tally>,
}

/// What the fields of a column were.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    present: u64,
    unreadable: u64,
}

impl<'a> RowScorer<'a> {
    /// Binds a model to a table with these columns. Further columns do not matter.
    ///
    /// # Errors
    /// [`TableModelError::MissingColumns`].
    pub fn new(model: &'a TableModel, columns: &[String]) -> Result<Self, TableModelError> {
        let prepared = &model.preparation().columns;
        let places: Vec<Option<usize>> =
            prepared.iter().map(|wanted| columns.iter().position(|name| *name == wanted.name)).collect();
        let missing: Vec<&str> = prepared
            .iter()
            .zip(&places)
            .filter(|(_, place)| place.is_none())
            .map(|(column, _)| column.name.as_str())
            .collect();
        if !missing.is_empty() {
            let mut names = missing.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
            if missing.len() > NAMED_MAX {
                names.push_str(", …");
            }
            return Err(TableModelError::MissingColumns { count: missing.len(), names });
        }
        Ok(Self {
            model,
            places: places.into_iter().flatten().collect(),
            column_of_feature: model.preparation().column_of_feature(),
            values: Vec::with_capacity(model.preparation().feature_count()),
            contributions: Vec::new(),
            tallies: vec![Tally::default(); prepared.len()],
        })
    }

    /// The score of a row, 0 to 1.
    pub fn score(&mut self, record: &Record) -> f64 {
        self.values.clear();
        for ((column, place), tally) in self.model.preparation().columns.iter().zip(&self.places).zip(&mut self.tallies)
        {
            let cell = cell::read(column.encoder.kind(), record.field(*place));
            tally.present += u64::from(cell.value != Value::Missing || cell.problem.is_some());
            tally.unreadable += u64::from(matches!(cell.problem, Some(Problem::NotANumber | Problem::NotATime)));
            column.encoder.encode(cell.value, &mut self.values);
        }
        self.model.model().score(&self.values)
    }

    /// What moved the score of the row that was scored last, strongest first. With a `count` of 0 nothing is computed: reasons
    /// take some hundred times as long as a score.
    pub fn reasons(&mut self, record: &Record, count: usize) -> Vec<ColumnReason> {
        if count == 0 {
            return Vec::new();
        }
        self.model.model().explain(&self.values, &mut self.contributions);
        let mut of_column = vec![0.0; self.places.len()];
        for entry in &self.contributions {
            if let Some(column) = self.column_of_feature.get(entry.feature) {
                of_column[*column] += entry.contribution;
            }
        }
        let mut order: Vec<usize> = (0..of_column.len()).filter(|column| of_column[*column] != 0.0).collect();
        order.sort_by(|a, b| of_column[*b].abs().total_cmp(&of_column[*a].abs()).then_with(|| a.cmp(b)));
        order.truncate(count);
        let reason = |column: usize| ColumnReason {
            column: self.model.preparation().columns[column].name.clone(),
            field: record.field(self.places[column]).trim().to_owned(),
            contribution: of_column[column],
        };
        order.into_iter().map(reason).collect()
    }

    /// Whether the fields were what they were in training: to be asked once all rows are scored.
    ///
    /// # Errors
    /// [`TableModelError::OtherKind`] when of a column of numbers or times no field could be read as one.
    pub fn check_fields(&self) -> Result<(), TableModelError> {
        let columns = self.model.preparation().columns.iter().zip(&self.tallies);
        for (column, tally) in columns {
            if tally.present > 0 && tally.unreadable == tally.present {
                let kind = if matches!(column.encoder, crate::table::Encoder::Time) { "time" } else { "number" };
                return Err(TableModelError::OtherKind { column: column.name.clone(), cells: tally.present, kind });
            }
        }
        Ok(())
    }

    /// Fields that were missing because they could not be read.
    pub fn unreadable(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.unreadable).sum()
    }
}
