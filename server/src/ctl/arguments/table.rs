//! What can be asked about tables of users: files, with no server.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use picket_learn::gate::Policy;

use crate::ctl::arguments::Format;

/// What the columns of a table are, over the guess from its first rows.
#[derive(Args, Clone, Debug, Default)]
pub struct ColumnArguments {
    /// Schema of the table, as `dataset schema` writes it.
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// The column that says what a row is [default: the one called "label"].
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// A label value that is malicious; all others are benign. May be given more than once.
    #[arg(long, value_name = "VALUE", num_args = 1..)]
    pub positive: Vec<String>,
    /// A label value that is benign; all others are malicious. May be given more than once.
    #[arg(long, value_name = "VALUE", num_args = 1..)]
    pub benign: Vec<String>,
    /// A column whose rows of one value stay together: an attack, a piece of work.
    #[arg(long, value_name = "COLUMN")]
    pub group: Option<String>,
    /// The column of the hosts that rows are from, for `--split host`; never a feature.
    #[arg(long, value_name = "COLUMN")]
    pub host: Option<String>,
    /// The column of the rows' times.
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
    /// The column of the attacks' families, by which is evaluated; never a feature.
    #[arg(long, value_name = "COLUMN")]
    pub family: Option<String>,
    /// A column that is not looked at. May be given more than once.
    #[arg(long, value_name = "COLUMN", num_args = 1..)]
    pub ignore: Vec<String>,
    /// Memory that may be taken [default: four fifths of what is available].
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
}

/// Training on a file.
#[derive(Args, Clone, Debug)]
pub struct FileTrainingArguments {
    /// A table to train on, with no server: CSV, JSON lines (also .gz, .zst) or Parquet.
    #[arg(long, value_name = "FILE", requires = "to")]
    pub input: Option<PathBuf>,
    /// The table's columns.
    #[command(flatten)]
    pub columns: Box<ColumnArguments>,
    /// Another table to evaluate on, of the same columns.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub test: Option<PathBuf>,
    /// How to choose the rows that only evaluation sees [default: time where there are times and no groups, else group].
    #[arg(long, value_enum, requires = "input", conflicts_with = "test")]
    pub split: Option<SplitArgument>,
    /// Share of the rows that only evaluation sees.
    #[arg(long, value_name = "SHARE", requires = "input", default_value_t = crate::table::train::TEST_FRACTION, value_parser = share)]
    pub test_fraction: f64,
    /// Leave out training rows that are not earlier than the first row to evaluate on by so much: `90s`, `1h`, `1d`. Takes
    /// rows divided by time, or --test.
    #[arg(long, value_name = "DURATION", requires = "input", value_parser = super::duration)]
    pub embargo: Option<Duration>,
    /// How the training rows are divided for validation, thresholds and calibration.
    #[arg(long, value_enum, requires = "input", default_value = "k-fold")]
    pub validation: ValidationArgument,
    /// How many folds [default: k-fold: 10, or 3 where rows are many; rolling-origin: 5].
    #[arg(long, value_name = "COUNT", requires = "input", value_parser = clap::value_parser!(u8).range(2..=20))]
    pub folds: Option<u8>,
    /// Keep the columns that are needed, by what the training rows say: `none`, `variance`, `mutual-information`, `mrmr`,
    /// `permutation`, `elimination`, or `auto` (variance, then mRMR, then the smallest set that validation finds as good).
    #[arg(long, value_name = "METHOD", requires = "input", default_value = "none")]
    pub select: picket_learn::select::Method,
    /// Keep at most so many columns.
    #[arg(long, value_name = "COLUMNS", requires = "select")]
    pub select_max: Option<std::num::NonZeroUsize>,
    /// Search algorithms and parameters for what does best in validation; the rows to evaluate on are never looked at.
    #[arg(long)]
    pub auto: bool,
    /// How long the search may take, about: `90s`, `10m`, `2h`.
    #[arg(long, value_name = "DURATION", requires = "auto", default_value = "10m", value_parser = super::duration)]
    pub budget: Duration,
    /// How much it may do instead, in elementary steps, as a manifest tells them: then the same is found on any machine.
    #[arg(long, value_name = "STEPS", requires = "auto", conflicts_with = "budget")]
    pub search_work: Option<u64>,
    /// Folder for the model, its evaluation, and how it was made.
    #[arg(long, value_name = "FOLDER", requires = "input")]
    pub to: Option<PathBuf>,
    /// Replace what is in the folder.
    #[arg(long, requires = "input")]
    pub force: bool,
}

/// A table to look at.
#[derive(Args, Clone, Debug)]
pub struct TableArguments {
    /// The table: CSV, JSON lines (also .gz, .zst) or Parquet.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Its columns.
    #[command(flatten)]
    pub columns: Box<ColumnArguments>,
    /// Where to.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Replace a file that is there already.
    #[arg(long)]
    pub force: bool,
}

/// Two models to compare.
#[derive(Args, Clone, Debug)]
pub struct CompareArguments {
    /// The model in force, as `train --input` wrote it.
    #[arg(value_name = "FIRST")]
    pub first: PathBuf,
    /// The one that is to take its place.
    #[arg(value_name = "SECOND")]
    pub second: PathBuf,
    /// Labelled rows that neither learned from: CSV, JSON lines (also .gz, .zst) or Parquet.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Its columns.
    #[command(flatten)]
    pub columns: ColumnArguments,
    /// What is demanded, as a JSON object; what it leaves out is as usual.
    #[arg(long, value_name = "JSON", value_parser = policy)]
    pub policy: Option<Policy>,
    /// Seed of the resampling.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// A model to make again.
#[derive(Args, Clone, Debug)]
pub struct RebuildArguments {
    /// The folder that `train --input` wrote; or the digest of a model of the server, or its unambiguous beginning.
    #[arg(value_name = "FOLDER|MODEL")]
    pub model: String,
    /// The table that it was trained on.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// The table that it was evaluated on, where that was another.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub test: Option<PathBuf>,
    /// Only tell whether the bytes are the same.
    #[arg(long, required_unless_present = "to")]
    pub verify: bool,
    /// Write the model, too.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub to: Option<PathBuf>,
    /// Replace a file that is there already.
    #[arg(long, requires = "to")]
    pub force: bool,
    /// Memory that may be taken, in MiB [default: what is available].
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
}

fn policy(text: &str) -> Result<Policy, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// How rows are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitArgument {
    /// The latest rows are evaluated on.
    Time,
    /// Whole hosts are, of the column that --host names.
    Host,
    /// Whole groups are: those of the group column, else rows that are nearly the same.
    Group,
    /// Rows of each class by lot. Kind to the model: near-duplicates are on both sides.
    Stratified,
    /// Rows by lot. Kind to the model, too.
    Random,
}

/// How training rows are divided for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ValidationArgument {
    /// By lot; groups, hosts or near-duplicates stay together.
    KFold,
    /// Blocks of time, each scored by a model that learned from earlier rows only. The earliest rows have no score.
    RollingOrigin,
}

/// What stands after `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputArgument {
    /// How results are written.
    Format(Format),
    /// Where scores go.
    File(PathBuf),
}

impl OutputArgument {
    /// How results are written.
    pub fn format(&self) -> Format {
        match self {
            Self::Format(format) => *format,
            Self::File(_) => Format::Table,
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Format(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// A format, or what can only be a file.
pub(super) fn output(text: &str) -> Result<OutputArgument, String> {
    match Format::from_str(text, false) {
        Ok(format) => Ok(OutputArgument::Format(format)),
        Err(_) if text.contains(['.', '/']) => Ok(OutputArgument::File(text.into())),
        Err(_) => Err("expected table, json or ndjson".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.05..=0.9).contains(share));
    share.ok_or_else(|| "expected a share from 0.05 to 0.9".to_owned())
}
