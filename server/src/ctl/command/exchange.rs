//! Models of other tools: files alone, no server.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use picket_common::model::Model;
use picket_common::table::{Record, TableModel};
use picket_learn::exchange::{IMPORT_BYTES_MAX, ImportError, ImportOptions, Imported, export, import};

use crate::ctl::arguments::exchange::ImportArguments;
use crate::ctl::command::model::write_file;
use crate::ctl::command::{bytes_text, object};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Output, safe};
use crate::table::score::compare;

/// Whoever imports a model vouches for it by where it is put: its signature says nothing.
const NO_SECRET: [u8; 32] = [0; 32];

/// `picketctl model import`.
pub(super) fn import_model(arguments: &ImportArguments, output: &mut Output<'_>) -> Result<(), CtlError> {
    let ImportArguments { from, to, threshold, rows, predictions, force } = arguments;
    if !(0.0..=1.0).contains(threshold) {
        return Err(CtlError::Argument("--threshold: expected a share from 0 to 1".to_owned()));
    }
    let bytes = read(from)?;
    let options = ImportOptions { threshold: *threshold, name: "import".to_owned() };
    let refused = |error: ImportError| CtlError::Argument(format!("{}: {error}", from.display()));
    let imported = import(&bytes, &options, &SigningKey::from_bytes(&NO_SECRET)).map_err(refused)?;
    let (compared, difference) = match rows.as_ref().zip(predictions.as_ref()) {
        Some((rows, column)) => compare_rows(&imported, rows, column)?,
        None => (imported.rows_compared as u64, imported.difference_max),
    };
    write_file(to, &imported.file, *force)?;
    let mut text = format!(
        "{} of {} columns imported from {}: {} written, {}; scores agree within {difference:.1e} on {compared} {}",
        imported.algorithm,
        imported.model.preparation().columns.len(),
        imported.tool,
        to.display(),
        bytes_text(imported.file.len() as u64),
        if rows.is_some() { "rows" } else { "rows that were made" },
    );
    imported.notes.iter().for_each(|note| text += &format!("\nnote: {note}"));
    let text: String = text.lines().map(|line| safe(line) + "\n").collect();
    output.one(
        text.trim_end(),
        object([
            ("model_digest", imported.model.id().to_string().into()),
            ("tool", imported.tool.into()),
            ("algorithm", imported.algorithm.name().into()),
            ("file", to.to_string_lossy().into()),
            ("bytes", imported.file.len().into()),
            ("rows_compared", compared.into()),
            ("difference_max", difference.into()),
            ("notes", imported.notes.into()),
        ]),
    )
}

/// The given rows, and the greatest difference of a score to their column.
fn compare_rows(imported: &Imported, rows: &Path, column: &str) -> Result<(u64, f64), CtlError> {
    let (mut count, mut greatest): (u64, f64) = (0, 0.0);
    let judge = |record: &Record, place: usize, found: f64| {
        let text = record.field(place).trim();
        let expected: Option<f64> = text.parse().ok();
        let row = format!("{}: row {}", rows.display(), count + 1);
        let unreadable = || CtlError::Argument(format!("{row}: the prediction {text:?} is not a number"));
        let expected = expected.ok_or_else(unreadable)?;
        let difference = (found - expected).abs();
        if difference.is_nan() || difference > picket_learn::exchange::PARITY_TOLERANCE {
            let text = format!("{row}: the tool's score is {expected}, the imported model's is {found}");
            return Err(CtlError::Argument(text));
        }
        (count, greatest) = (count + 1, greatest.max(difference));
        Ok(())
    };
    compare(&imported.model, rows, column, judge)?;
    if count == 0 {
        return Err(CtlError::Argument(format!("{}: there are no rows to compare scores on", rows.display())));
    }
    Ok((count, greatest))
}

/// `picketctl model convert`.
pub(super) fn convert(from: &Path, to: &Path, force: bool, output: &mut Output<'_>) -> Result<(), CtlError> {
    let bytes = read(from)?;
    let refused = |reason: String| CtlError::Argument(format!("{}: {reason}", from.display()));
    let (model, names) = if TableModel::is_table_model(&bytes) {
        let table = TableModel::parse(&bytes).map_err(|error| refused(error.to_string()))?;
        let columns = table.preparation().column_of_feature();
        let names = columns.iter().map(|column| table.preparation().columns[*column].name.clone()).collect();
        (table.model().clone(), names)
    } else {
        (Model::parse(&bytes).map_err(|error| refused(error.to_string()))?, Vec::new())
    };
    let onnx = export(&model, &names).map_err(|error| refused(error.to_string()))?;
    write_file(to, &onnx, force)?;
    let text = format!(
        "{} written, {}: an input of {} features",
        to.display(),
        bytes_text(onnx.len() as u64),
        model.metadata().feature_count
    );
    output.one(
        &safe(&text),
        object([
            ("model_digest", model.id().to_string().into()),
            ("file", to.to_string_lossy().into()),
            ("bytes", onnx.len().into()),
            ("features", model.metadata().feature_count.into()),
        ]),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, CtlError> {
    let error = |source| CtlError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(error)?;
    // One byte more tells a file that is too large.
    file.take(IMPORT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}
