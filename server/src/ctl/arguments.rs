//! What can be asked of picketctl.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use picket_learn::train::{CalibrationMethod, Confidence};

pub use crate::ctl::arguments::table::{
    ColumnArguments, CompareArguments, FileTrainingArguments, OutputArgument, RebuildArguments, SplitArgument,
    TableArguments, ValidationArgument,
};

pub mod exchange;
mod table;

/// Operate Picket: hosts, events, labels, data sets, models.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "picketctl",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 findings, 2 bad input, 3 configuration, 4 identity or rights, 5 server not \
                  reachable, 70 and above internal.\n\nA session on the server's machine:\n  \
                  export PICKET_SERVER=127.0.0.1:8445 PICKET_CA=/var/lib/picket-server/ca.pem \\\n         \
                  PICKET_TOKEN_FILE=/var/lib/picket-server/admin.token\n  \
                  picketctl host list\n  \
                  picketctl event query --sql \"SELECT executable, count(*) AS n FROM process_activity GROUP BY 1 ORDER BY 2 DESC\"\n  \
                  picketctl label import labels.csv\n  \
                  picketctl dataset build --subject process_start\n  \
                  picketctl train --dataset process_start-0123456789ab\n  \
                  picketctl model push 4f5e…"
)]
pub struct Arguments {
    /// Address of the server's admin API.
    #[arg(long, global = true, env = "PICKET_SERVER", value_name = "HOST:PORT")]
    pub server: Option<String>,

    /// The server's CA certificate (PEM); the server writes it to `ca.pem` in its state folder.
    #[arg(long, global = true, env = "PICKET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// File with the API token; the first start of the server writes `admin.token`.
    #[arg(long, global = true, env = "PICKET_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How results are written: table, json or ndjson. For `model score` it may be the file for the scores.
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", value_parser = table::output)]
    pub output: OutputArgument,

    /// What to do.
    #[command(subcommand)]
    pub noun: Noun,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// What it is about.
#[derive(Clone, Debug, Subcommand)]
pub enum Noun {
    /// Tokens that let hosts enrol.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Hosts of the fleet.
    #[command(subcommand)]
    Host(HostVerb),
    /// The certificate authority of hosts and the server.
    #[command(subcommand)]
    Ca(CaVerb),
    /// Events that hosts sent.
    #[command(subcommand)]
    Event(EventVerb),
    /// What people and scripts say about events.
    #[command(subcommand)]
    Label(LabelVerb),
    /// Labelled vectors to learn from.
    #[command(subcommand)]
    Dataset(DatasetVerb),
    /// Train models on a data set and evaluate them.
    Train(TrainArguments),
    /// Models, their evaluation, and which of them agents use.
    #[command(subcommand)]
    Model(ModelVerb),
    /// The event store.
    #[command(subcommand)]
    Lake(LakeVerb),
}

/// What to do with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a join token. It is shown once.
    Create {
        /// How long it can be used: `90s`, `30m`, `12h`, `7d` (at most 30d).
        #[arg(long, default_value = "1h", value_parser = duration)]
        valid_for: Duration,
        /// How many hosts may enrol with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        max_uses: u32,
    },
}

/// What to do with hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum HostVerb {
    /// All hosts, with what their agents report.
    List,
    /// Where the events of a host went, by epoch: stored, lost (at which stage, for what reason), waiting, unaccounted.
    Losses {
        /// Only this host, as `host list` shows it.
        #[arg(value_name = "HOST_ID")]
        host: Option<String>,
    },
    /// Whether batches of a host were removed or changed before they came, by epoch. Ends with 1 if there are any.
    Chain {
        /// Only this host, as `host list` shows it.
        #[arg(value_name = "HOST_ID")]
        host: Option<String>,
    },
    /// End the quarantine of a host, once only one agent with its identity is left.
    Release {
        /// The host, as `host list` shows it.
        #[arg(value_name = "HOST_ID")]
        host: String,
    },
    /// Give every machine with a host's identity one of its own: revokes the host and makes a join token for them.
    Reenroll {
        /// The host, as `host list` shows it.
        #[arg(value_name = "HOST_ID")]
        host: String,
        /// How many machines.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        machines: u32,
    },
    /// Refuse a host from now on and cut its connections. Its events stay; the machine can enrol again, as a new host.
    Revoke {
        /// The host, as `host list` shows it.
        #[arg(value_name = "HOST_ID")]
        host: String,
    },
}

/// What to do with the certificate authority.
#[derive(Clone, Debug, Subcommand)]
pub enum CaVerb {
    /// The authorities, and how many hosts are ready for the next one.
    List,
    /// Make the authority that is to take over. Both are accepted from now on; agents learn of it and renew their
    /// certificates as they connect.
    Rotate,
    /// Put the next authority in the place of the present one, which is refused from then on. Join tokens made before
    /// do not work any more, and copies of `ca.pem` must be replaced.
    Retire {
        /// Also when hosts are not ready; these must be enrolled again.
        #[arg(long)]
        force: bool,
    },
}

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventVerb {
    /// Run one SELECT over the tables `process_activity`, `network_activity`, `authentication`, `file_activity`,
    /// `dns_activity`, `kernel_activity`, `sensor_loss`, `agent_activity`.
    Query {
        /// The statement.
        #[arg(long)]
        sql: String,
        /// Most rows.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// Show events as they are accepted, until interrupted.
    Tail {
        /// Only of this host.
        #[arg(long, value_name = "HOST_ID")]
        host: Option<String>,
        /// Stop after so many events.
        #[arg(long, value_name = "EVENTS")]
        count: Option<u64>,
    },
}

/// What to do with labels.
#[derive(Clone, Debug, Subcommand)]
pub enum LabelVerb {
    /// Label some events.
    Add {
        /// Events, `<host>/<epoch>/<sequence>`.
        #[arg(required = true, value_name = "EVENT_ID")]
        events: Vec<String>,
        /// What they were.
        #[arg(long, value_enum)]
        verdict: VerdictArgument,
        /// MITRE ATT&CK id, `T1046` or `T1059.004`.
        #[arg(long, default_value = "")]
        technique: String,
        /// The attack or piece of work they are part of; keeps them on one side of a split.
        #[arg(long, default_value = "")]
        group: String,
        /// Where the labels come from.
        #[arg(long, default_value = "analyst")]
        source: String,
    },
    /// Add labels from a file: CSV with the columns event_id, verdict, technique, group, or JSON lines with these keys.
    Import {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Its form; by its name (.csv, .jsonl, .ndjson) when not given.
        #[arg(long, value_enum)]
        format: Option<LabelFormat>,
        /// Where the labels come from.
        #[arg(long, default_value = "import")]
        source: String,
        /// Check the file and add nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Labels in the order they were added.
    List {
        /// Most labels.
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerdictArgument {
    /// Nothing to worry about.
    Benign,
    /// Part of an attack.
    Malicious,
}

/// The form of a file of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LabelFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// What to do with data sets.
#[derive(Clone, Debug, Subcommand)]
pub enum DatasetVerb {
    /// Build a data set of all labels in force and the events stored now.
    Build {
        /// What its rows are.
        #[arg(long, value_enum)]
        subject: SubjectArgument,
        /// Share of the rows, by time, that only evaluation sees: 0.05 to 0.9 [default: 0.3].
        #[arg(long)]
        test_fraction: Option<f64>,
    },
    /// One data set and its manifest.
    Show {
        /// Its id.
        dataset_id: String,
    },
    /// All data sets, the newest first.
    List,
    /// Guess what the columns of a file are, and write it as a schema to edit; on standard output without --to.
    Schema(TableArguments),
    /// Look at a file before learning from it: types, missing values, duplicates, columns that are the label in other
    /// words or number the rows, balance, drift. With --to also as one HTML page.
    Profile(TableArguments),
    /// Compare two files of like columns: rows in both, columns that differ, values that are new or gone.
    Diff {
        /// The first.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// Their columns.
        #[command(flatten)]
        columns: Box<ColumnArguments>,
    },
}

/// A subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SubjectArgument {
    /// Starts of programs.
    ProcessStart,
    /// Ends of connections.
    Connection,
}

impl SubjectArgument {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessStart => "process_start",
            Self::Connection => "connection",
        }
    }
}

/// What to train.
#[derive(Args, Clone, Debug)]
pub struct TrainArguments {
    /// The data set's id.
    #[arg(long, value_name = "DATASET_ID", required_unless_present = "input", conflicts_with = "input")]
    pub dataset: Option<String>,
    /// Training on a file instead.
    #[command(flatten)]
    pub file: FileTrainingArguments,
    /// Only this algorithm; may be given more than once [default: all that learn from labels;
    /// gradient_boosting on a file].
    #[arg(long = "algorithm", value_enum)]
    pub algorithms: Vec<AlgorithmArgument>,
    /// The same data set, algorithm and options give the same model.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Share of benign events (without labels: of all) that may be alerted: what the threshold is chosen by.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub false_positive_budget: f64,
    /// The same as a number of false alerts, for every 1,000 hosts and day.
    #[arg(long, value_name = "ALERTS", requires = "events_per_host_day", conflicts_with = "false_positive_budget")]
    pub alert_budget: Option<f64>,
    /// Rows to judge that a host has in a day, for --alert-budget.
    #[arg(long, value_name = "ROWS", requires = "alert_budget")]
    pub events_per_host_day: Option<f64>,
    /// Keep the budget with this confidence on new rows like those learned from, not on average only: 0.5 to below 1.
    #[arg(long, value_name = "SHARE", value_parser = confidence)]
    pub false_positive_confidence: Option<Confidence>,
    /// Make probabilities of the scores: by a line in the log-odds (platt), or any rising line (isotonic, for thousands of
    /// rows). What is alerted stays the same.
    #[arg(long, value_name = "none|platt|isotonic", default_value = "none")]
    pub calibration: CalibrationMethod,
    /// Once evaluated, fit the model anew on all rows, the held-out ones too.
    #[arg(long, conflicts_with = "input")]
    pub refit: bool,
}

impl TrainArguments {
    /// Share of benign rows that may be alerted, by whichever argument said it.
    pub fn false_positive_share(&self) -> f64 {
        /// Hosts that an alert budget is for.
        const HOSTS: f64 = 1_000.0;
        match (self.alert_budget, self.events_per_host_day) {
            (Some(alerts), Some(rows)) => alerts / (HOSTS * rows),
            _ => self.false_positive_budget,
        }
    }
}

/// An algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum AlgorithmArgument {
    /// One tree.
    DecisionTree,
    /// The mean of many trees, each on a part of the rows.
    RandomForest,
    /// The mean of many trees with random thresholds.
    ExtraTrees,
    /// The mean of a random forest's trees and as many extra trees.
    VotingForest,
    /// The sum of trees that correct each other, through the logistic function.
    GradientBoosting,
    /// A weighted sum through the logistic function.
    LogisticRegression,
    /// What each value says by itself, added up.
    NaiveBayes,
    /// A weighted sum with the widest margin between the classes.
    LinearSvm,
    /// How near a row is to each of some rows, with the widest margin between the classes.
    RbfSvm,
    /// Layers of weighted sums.
    NeuralNetwork,
    /// How few random splits set a row apart; on a file also without a label.
    IsolationForest,
}

impl AlgorithmArgument {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecisionTree => "decision_tree",
            Self::RandomForest => "random_forest",
            Self::ExtraTrees => "extra_trees",
            Self::VotingForest => "voting_forest",
            Self::GradientBoosting => "gradient_boosting",
            Self::LogisticRegression => "logistic_regression",
            Self::NaiveBayes => "naive_bayes",
            Self::LinearSvm => "linear_svm",
            Self::RbfSvm => "rbf_svm",
            Self::NeuralNetwork => "neural_network",
            Self::IsolationForest => "isolation_forest",
        }
    }
}

/// What to do with models.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelVerb {
    /// All models, the newest first.
    List {
        /// Only of this subject.
        #[arg(long, value_enum)]
        subject: Option<SubjectArgument>,
    },
    /// One model and its evaluation.
    Show {
        /// Its digest, or the unambiguous beginning of it (at least 6 digits).
        model: String,
    },
    /// What the gate says of a model: whether it may take the place of the one in force, and by which figures on the same
    /// held-out rows. Ends with 1 if it may not.
    Judge {
        /// Its digest, or the unambiguous beginning of it (at least 6 digits).
        model: String,
    },
    /// Make a model the one that every agent uses for its subject, if the gate lets it. Ends with 1 if it does not.
    Push {
        /// Its digest, or the unambiguous beginning of it (at least 6 digits).
        model: String,
        /// Whatever the gate says. That goes on record.
        #[arg(long)]
        force: bool,
    },
    /// Write what is known about a model, with its evaluation and plots, as one HTML page.
    Report(ModelFileArguments),
    /// Score the rows of a file with a table model: one score, verdict and the reasons for each. Ends with 1 if there are
    /// findings and --fail-on-findings is given.
    Score {
        /// The model, as `train --input` wrote it.
        #[arg(long, value_name = "FILE")]
        model: PathBuf,
        /// The rows: CSV, JSON lines (also .gz, .zst) or Parquet.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Where to, as CSV; `--output FILE` does the same.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Reasons given for each row. They take most of the time; 0 does without.
        #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=50))]
        reasons: u8,
        /// Replace a file that is there already.
        #[arg(long)]
        force: bool,
        /// End with 1 if there are findings.
        #[arg(long)]
        fail_on_findings: bool,
    },
    /// Make a table model of another tool's model. Pickles are refused.
    Import(exchange::ImportArguments),
    /// Write a model's trees or coefficients as ONNX, for use elsewhere.
    Convert {
        /// The model's file, as `export` or `train --input` wrote it.
        #[arg(long, value_name = "FILE")]
        model: PathBuf,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Replace a file that is there already.
        #[arg(long)]
        force: bool,
    },
    /// Write a model's signed file.
    Export(ModelFileArguments),
    /// Compare two table models on a labelled file that neither learned from: verdicts (McNemar), figures (paired bootstrap by
    /// group), and whether the second may take the place of the first. Ends with 1 if it may not.
    Compare(Box<CompareArguments>),
    /// Make a model again from its record: of a table model (--input) the manifest of its folder, else what the server knows of
    /// it. Ends with 1 if the bytes differ.
    Rebuild(RebuildArguments),
}

/// A model's page or file.
#[derive(Args, Clone, Debug)]
pub struct ModelFileArguments {
    /// Its digest, or the unambiguous beginning of it (at least 6 digits).
    pub model: String,
    /// Where to.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Replace a file that is there already.
    #[arg(long)]
    pub force: bool,
}

/// What to do with the event store.
#[derive(Clone, Debug, Subcommand)]
pub enum LakeVerb {
    /// Move everything acknowledged so far into the tables, so that queries see it.
    Commit,
}

fn confidence(text: &str) -> Result<Confidence, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    Confidence::try_from(number).map_err(|error| error.to_string())
}

/// Reads `90s`, `30m`, `12h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no duration: expected a number and s, m, h or d, such as 30m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "s", "10", "1.5h", "-1m", "10x", "99999999999999999999d", "5µ"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
