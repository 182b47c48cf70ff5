//! Arguments of commands on models of other tools.

use std::path::PathBuf;

use clap::Args;

/// `picketctl model import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArguments {
    /// The model: LightGBM text, XGBoost JSON or UBJ, ONNX (trees; linear, also behind a scaler). Two classes only.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Where to: a table model whose columns are the model's features (f0, f1 … where it has no names).
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// The score from which on a row is a finding.
    #[arg(long, default_value_t = 0.5)]
    pub threshold: f64,
    /// Rows to compare scores on: CSV, JSON lines (also .gz, .zst) or Parquet. Without them, rows are made.
    #[arg(long, value_name = "FILE", requires = "predictions")]
    pub rows: Option<PathBuf>,
    /// The column of these rows that has the scores by the tool.
    #[arg(long, value_name = "COLUMN", requires = "rows")]
    pub predictions: Option<String>,
    /// Replace a file that is there already.
    #[arg(long)]
    pub force: bool,
}
