//! `picket-agent score`: the agent's own features and model over recorded events and logs of other programs, offline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use picket_common::event::{Event, EventBody};
use picket_common::feature::{ContextLimits, FeaturePipeline, FeatureSpec};
use picket_common::import::{ImportedEvent, LogFormat};
use picket_common::model::{Model, ModelError};
use picket_common::table::limits::TABLE_MODEL_BYTES_MAX;
use picket_common::table::{TableModel, TableModelError, TableReadError};
use serde_json::{Value, json};

use crate::cli::{complain, exit};
use crate::detector::alert::{Reason, reasons, rfc3339};
use crate::identity::{IdentityStore, IdentityStoreError};
use crate::log_reader::LogReader;
use crate::state_file;

/// Most hosts and epochs in one input that are told apart.
const STREAMS_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct ScoreArguments {
    /// The model file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Events or a log, in their order; for a table model the rows of a table (CSV or JSON lines, also .zst). `-` for
    /// standard input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// What the input is; without this, what its first line looks like.
    #[arg(long, value_enum)]
    format: Option<InputFormat>,
    /// Ed25519 public key that must have signed the model, hex.
    #[arg(long, value_name = "HEX", conflicts_with = "state_dir")]
    trusted_key: Option<String>,
    /// State folder of an enrolled agent, whose trusted keys count. Without this and --trusted-key the model's
    /// signature is not checked.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How to show the verdicts.
    #[arg(short, long, value_enum, default_value_t = ScoreOutput::Table)]
    output: ScoreOutput,
    /// Show only what reaches the model's threshold.
    #[arg(long)]
    findings_only: bool,
    /// Reasons shown of each. Of a table's rows they take most of the time; 0 does without.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=50))]
    reasons: u8,
}

/// A log that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum InputFormat {
    /// Picket's own JSON lines.
    Events,
    /// Zeek's conn.log and dns.log, tab-separated or JSON.
    Zeek,
    /// Suricata's eve.json: flow, alert and dns records.
    Suricata,
    /// Linux audit, raw: program starts and logins.
    Auditd,
}

impl InputFormat {
    pub(super) fn to_log_format(self) -> LogFormat {
        match self {
            Self::Events => LogFormat::Events,
            Self::Zeek => LogFormat::Zeek,
            Self::Suricata => LogFormat::Suricata,
            Self::Auditd => LogFormat::Auditd,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ScoreOutput {
    /// For people.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object a line, as they come.
    Ndjson,
}

/// Why the events could not be scored.
#[derive(Debug, thiserror::Error)]
enum ScoreError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("--trusted-key: expected 64 hexadecimal digits, an Ed25519 public key")]
    Key,
    #[error("{} holds no identity: enrol this host, or give --trusted-key", path.display())]
    NotEnrolled { path: PathBuf },
    #[error(transparent)]
    Identity(#[from] IdentityStoreError),
    #[error("{}", path.display())]
    Model { path: PathBuf, source: ModelError },
    #[error("{}", path.display())]
    TableModel { path: PathBuf, source: TableModelError },
    #[error("{}", path.display())]
    Table { path: PathBuf, source: TableReadError },
    #[error("{} holds no event: none of {lines} lines could be read; --format says what it is", path.display())]
    NoEvent { path: PathBuf, lines: u64 },
    #[error("cannot write the verdicts")]
    Write(#[source] io::Error),
}

mod table;
#[cfg(test)]
mod tests;

pub(super) fn score(arguments: &ScoreArguments) -> ExitCode {
    match try_score(arguments, BufWriter::new(io::stdout().lock())) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(exit::FINDINGS),
        Err(error) => {
            complain(&error);
            ExitCode::from(match error {
                ScoreError::NotEnrolled { .. } | ScoreError::Identity(_) => exit::IDENTITY,
                ScoreError::Write(_) => exit::INTERNAL,
                _ => exit::BAD_INPUT,
            })
        }
    }
}

/// Scores everything; returns the number of findings.
fn try_score(arguments: &ScoreArguments, out: impl Write) -> Result<u64, ScoreError> {
    let trusted = trusted_keys(arguments)?;
    let bytes = read_model(&arguments.model)?;
    if trusted.is_none() {
        eprintln!("picket-agent: the model's signature is not checked (no --trusted-key, no --state-dir)");
    }
    if TableModel::is_table_model(&bytes) {
        return table::score(arguments, &bytes, trusted.as_deref(), out);
    }
    let model = load_model(arguments, &bytes, trusted.as_deref())?;
    let path = &arguments.input;
    let read_error = |source| ScoreError::Read { path: path.clone(), source };
    let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(read_error)?))
    };
    let mut log = LogReader::new(input, arguments.format.map(InputFormat::to_log_format));
    let mut verdicts = Verdicts::new(arguments.output, out);
    let mut streams = Streams::default();
    let mut contributions = Vec::new();
    while let Some(ImportedEvent { host, event }) = log.next_event().map_err(read_error)? {
        let Some(vector) = streams.get(&host, event.key.epoch.0).observe(&event) else { continue };
        if vector.subject != model.metadata().subject {
            continue;
        }
        let score = model.score(vector.values);
        let is_finding = model.is_alert(score);
        if is_finding || !arguments.findings_only {
            model.explain(vector.values, &mut contributions);
            let reasons = reasons(vector.subject, &contributions, usize::from(arguments.reasons));
            let verdict = Verdict { host: &host, event: &event, model: &model, score, is_finding, reasons };
            verdicts.write(&verdict).map_err(ScoreError::Write)?;
        }
        verdicts.count(is_finding);
    }
    let findings = verdicts.finish().map_err(ScoreError::Write)?;
    report(&log, path);
    if log.events() == 0 && log.bad().count > 0 {
        return Err(ScoreError::NoEvent { path: path.clone(), lines: log.bad().count });
    }
    Ok(findings)
}

/// Says on standard error what was not scored.
fn report<R: BufRead>(log: &LogReader<R>, path: &Path) {
    if log.bad().count > 0 {
        eprint!("picket-agent: {} lines of {} could not be read:\n{}", log.bad().count, path.display(), log.bad());
    }
    if log.skipped() > 0 {
        eprintln!("picket-agent: {} lines of {} are about something else", log.skipped(), path.display());
    }
}

/// The context of each host and epoch. Beyond [`STREAMS_MAX`], further ones share one.
#[derive(Default)]
struct Streams(BTreeMap<(String, u64), FeaturePipeline>);

impl Streams {
    fn get(&mut self, host: &str, epoch: u64) -> &mut FeaturePipeline {
        let mut key = (host.to_owned(), epoch);
        if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&key) {
            key = (String::new(), 0);
        }
        self.0.entry(key).or_insert_with(|| FeaturePipeline::new(ContextLimits::default()))
    }
}

fn read_model(path: &Path) -> Result<Vec<u8>, ScoreError> {
    state_file::read_limited(path, TABLE_MODEL_BYTES_MAX as u64)
        .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|source| ScoreError::Read { path: path.to_owned(), source })
}

fn load_model(arguments: &ScoreArguments, bytes: &[u8], trusted: Option<&[VerifyingKey]>) -> Result<Model, ScoreError> {
    let model = match trusted {
        Some(trusted) => Model::verify(bytes, trusted),
        None => Model::parse(bytes),
    };
    model
        .and_then(|model| model.check_spec(FeatureSpec::v1(model.metadata().subject)).map(|()| model))
        .map_err(|source| ScoreError::Model { path: arguments.model.clone(), source })
}

fn trusted_keys(arguments: &ScoreArguments) -> Result<Option<Vec<VerifyingKey>>, ScoreError> {
    if let Some(text) = &arguments.trusted_key {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| ScoreError::Key)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ScoreError::Key)?;
        return Ok(Some(vec![VerifyingKey::from_bytes(&bytes).map_err(|_| ScoreError::Key)?]));
    }
    let Some(state_dir) = &arguments.state_dir else { return Ok(None) };
    let identity = IdentityStore::in_state_dir(state_dir).load()?;
    let identity = identity.ok_or_else(|| ScoreError::NotEnrolled { path: state_dir.clone() })?;
    Ok(Some(identity.model_verifying_keys))
}

struct Verdict<'a> {
    host: &'a str,
    event: &'a Event,
    model: &'a Model,
    score: f64,
    is_finding: bool,
    reasons: Vec<Reason>,
}

impl Verdict<'_> {
    fn name(&self) -> &'static str {
        if self.is_finding { "finding" } else { "ok" }
    }

    fn to_json(&self) -> Value {
        json!({
            "host_id": (!self.host.is_empty()).then_some(self.host),
            "epoch": self.event.key.epoch.0,
            "sequence": self.event.key.sequence.0,
            "time": rfc3339(self.event.time),
            "time_unix_ns": self.event.time.0,
            "subject": self.model.metadata().subject.name(),
            "verdict": self.name(),
            "score": self.score,
            "threshold": self.model.metadata().threshold,
            "model_digest": self.model.id().to_string(),
            "what": what(self.event),
            "reasons": self.reasons.iter().map(Reason::to_json).collect::<Vec<_>>(),
        })
    }
}

/// The event in a few words.
fn what(event: &Event) -> String {
    match &event.body {
        EventBody::ProcessStart(start) => {
            let arguments = start.arguments.iter().skip(1).map(|argument| format!(" {argument}"));
            format!("{}{}", start.executable, arguments.collect::<String>())
        }
        EventBody::ConnectionClose(close) => format!("{} → {}", close.connection.executable, close.connection.remote),
        _ => String::new(),
    }
}

/// Writes verdicts in the wanted form and counts them.
struct Verdicts<W> {
    output: ScoreOutput,
    out: W,
    written: u64,
    scored: u64,
    findings: u64,
}

impl<W: Write> Verdicts<W> {
    fn new(output: ScoreOutput, out: W) -> Self {
        Self { output, out, written: 0, scored: 0, findings: 0 }
    }

    fn count(&mut self, is_finding: bool) {
        self.scored += 1;
        self.findings += u64::from(is_finding);
    }

    fn write(&mut self, verdict: &Verdict<'_>) -> io::Result<()> {
        let first = self.written == 0;
        self.written += 1;
        match self.output {
            ScoreOutput::Ndjson => writeln!(self.out, "{}", verdict.to_json()),
            ScoreOutput::Json => {
                write!(self.out, "{}\n  {}", if first { "[" } else { "," }, verdict.to_json())
            }
            ScoreOutput::Table => {
                if first {
                    writeln!(self.out, "{:<8} {:>6}  {:<30}  WHAT", "VERDICT", "SCORE", "TIME")?;
                }
                let time = rfc3339(verdict.event.time).unwrap_or_default();
                writeln!(
                    self.out,
                    "{:<8} {:>6.3}  {time:<30}  {}",
                    verdict.name(),
                    verdict.score,
                    what(verdict.event)
                )?;
                for reason in &verdict.reasons {
                    writeln!(self.out, "{:>15}  {:+.3} {}", "", reason.contribution, reason.words)?;
                }
                Ok(())
            }
        }
    }

    /// The number of findings.
    fn finish(mut self) -> io::Result<u64> {
        match self.output {
            ScoreOutput::Json if self.written == 0 => writeln!(self.out, "[]")?,
            ScoreOutput::Json => writeln!(self.out, "\n]")?,
            ScoreOutput::Table => writeln!(self.out, "{} scored, {} findings", self.scored, self.findings)?,
            ScoreOutput::Ndjson => {}
        }
        self.out.flush()?;
        Ok(self.findings)
    }
}
