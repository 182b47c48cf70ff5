//! How well columns tell two classes of rows apart: malicious from benign, late from early, one file from another.

use ed25519_dalek::SigningKey;
use picket_common::event::Timestamp;
use picket_common::feature::{MISSING, Subject};
use picket_common::id::Digest;
use picket_common::model::limits::FEATURES_MAX;
use picket_common::model::{Algorithm, Model, ModelDraft, ModelMetadata};
use picket_common::table::ColumnKind;

use crate::evaluate::curve::Curve;
use crate::table::frame::{Column, Table, Values};
use crate::table::prepare::TrainingRows;
use crate::train::{BoostingParams, Control, Params, TrainError, TrainingSet, ValidParams, trainer};

/// Rows that are looked at; of more, these many, evenly spread.
const ROWS_MAX: usize = 40_000;
/// Bins of a numeric column.
const BINS: usize = 64;
/// Rows of the mean that a bin's share is mixed with.
const PRIOR_ROWS: f64 = 2.0;
/// The file never leaves this process: its signature means nothing.
const NO_SECRET: [u8; 32] = [0; 32];

/// So many of `rows`, evenly spread.
pub(super) fn thinned(rows: &[usize]) -> Vec<usize> {
    let step = rows.len().div_ceil(ROWS_MAX).max(1);
    rows.iter().step_by(step).copied().collect()
}

/// ROC-AUC of the best that one column alone can do, 0.5 to 1: by the order of its numbers, or by the share of the class
/// among the rows of a value (of a sixty-fourth of the numbers), taken from the other half of the rows. Nothing when a class
/// is not there.
pub(super) fn of_column(column: &Column, rows: &[usize], class: &[bool]) -> Option<f64> {
    let auc = |scores: Vec<f64>| {
        let rows = scores.into_iter().zip(rows).map(|(score, row)| (score, class[*row]));
        Curve::new(rows).roc_auc()
    };
    let bins = bins(column, rows);
    let mut counts = vec![[[0.0_f64; 2]; 2]; bins.iter().copied().max().map_or(0, |most| most + 1)];
    let mut all = [[0.0_f64; 2]; 2];
    // Halves by lot, not by place: rows may take turns.
    let mut random = crate::random::SplitMix64::new(1);
    let halves: Vec<usize> = rows.iter().map(|_| random.below(2)).collect();
    for ((row, bin), half) in rows.iter().zip(&bins).zip(&halves) {
        let class = usize::from(class[*row]);
        counts[*bin][*half][class] += 1.0;
        all[*half][class] += 1.0;
    }
    let share = |bin: usize, half: usize| {
        let ([negative, positive], [all_negative, all_positive]) = (counts[bin][half], all[half]);
        let mean = all_positive / (all_positive + all_negative).max(1.0);
        (positive + PRIOR_ROWS * mean) / (positive + negative + PRIOR_ROWS)
    };
    let by_share = auc(bins.iter().zip(&halves).map(|(bin, half)| share(*bin, 1 - half)).collect())?;
    let by_order = match &column.values {
        Values::Numbers(numbers) => {
            let number = |row: &usize| if numbers[*row].is_nan() { f64::MIN } else { numbers[*row] };
            auc(rows.iter().map(number).collect()).map_or(0.5, |auc| auc.max(1.0 - auc))
        }
        Values::Times(times) => {
            let number = |row: &usize| times[*row].map_or(f64::MIN, |time| time.0 as f64);
            auc(rows.iter().map(number).collect()).map_or(0.5, |auc| auc.max(1.0 - auc))
        }
        Values::Words(_) => 0.5,
    };
    Some(by_share.max(by_order).max(0.5))
}

/// A number for each row that rows of one value (or of near numbers) share.
fn bins(column: &Column, rows: &[usize]) -> Vec<usize> {
    let number = |row: usize| match &column.values {
        Values::Numbers(numbers) => Some(numbers[row]).filter(|number| !number.is_nan()),
        Values::Times(times) => times[row].map(|time| time.0 as f64),
        Values::Words(_) => None,
    };
    if let Values::Words(words) = &column.values {
        return rows.iter().map(|row| words.codes[*row].wrapping_add(1) as usize).collect();
    }
    let mut sorted: Vec<f64> = rows.iter().filter_map(|row| number(*row)).collect();
    sorted.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> = (1..BINS).filter_map(|bin| sorted.get(bin * sorted.len() / BINS).copied()).collect();
    edges.dedup();
    let bin = |number: f64| 1 + edges.partition_point(|edge| *edge <= number);
    rows.iter().map(|row| number(*row).map_or(0, bin)).collect()
}

/// ROC-AUC of small boosted trees over all columns but times, learned on half of the rows and judged on the other half.
/// Nothing when there is too little to learn from.
///
/// # Errors
/// [`TrainError`] but for too few rows.
pub(super) fn of_all_columns(
    table: &Table,
    rows: &[usize],
    class: &[bool],
    control: &Control<'_>,
) -> Result<Option<f64>, TrainError> {
    let without_times = Table {
        columns: table.columns.iter().filter(|column| column.kind != ColumnKind::Time).cloned().collect(),
        ..table.clone()
    };
    let (judged, learned): (Vec<(usize, usize)>, Vec<_>) =
        rows.iter().copied().enumerate().partition(|(place, _)| place % 2 == 1);
    let [judged, learned] = [judged, learned].map(|rows| rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    let groups: Vec<u32> = (0..learned.len()).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
    let training = TrainingRows { table: &without_times, rows: &learned, malicious: Some(class), groups: &groups };
    let prepared = training.learn();
    let feature_count = prepared.preparation.feature_count();
    if feature_count == 0 || feature_count > FEATURES_MAX {
        return Ok(None);
    }
    let labels = learned.iter().map(|row| class[*row]).collect();
    let set = match TrainingSet::new(feature_count, training.vectors(&prepared), labels, groups.clone()) {
        Ok(set) => set,
        Err(TrainError::TooFewRows { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let params = BoostingParams { trees: 50, leaves_max: 15, early_stopping_rounds: 0, ..BoostingParams::default() };
    let Ok(params) = ValidParams::new(Params::GradientBoosting(params)) else { return Ok(None) };
    let algorithm = Algorithm::GradientBoosting;
    let fitted = trainer(algorithm).fit(&set, &params, 1, control)?;
    let draft = ModelDraft {
        metadata: ModelMetadata {
            subject: Subject::Connection,
            algorithm,
            feature_spec_hash: prepared.preparation.hash(),
            feature_count,
            threshold: 0.5,
            dataset_digest: Digest::of(b""),
            training_run: "separation".to_owned(),
            created: Timestamp(0),
        },
        imputation: Vec::new(),
        body: fitted.body,
        calibration: None,
        self_test: vec![vec![MISSING; feature_count]],
    };
    let model = Model::parse(&draft.encode(&SigningKey::from_bytes(&NO_SECRET))?)?;
    let mut vector = Vec::with_capacity(feature_count);
    let scores = judged.iter().map(|row| {
        vector.clear();
        for (prepared, place) in prepared.preparation.columns.iter().zip(&prepared.places) {
            prepared.encoder.encode(without_times.columns[*place].value(*row), &mut vector);
        }
        (model.score(&vector), class[*row])
    });
    Ok(Curve::new(scores).roc_auc())
}
