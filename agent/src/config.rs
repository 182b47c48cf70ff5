//! The configuration: `agent.toml`, `agent.d/*.toml`, `PICKET_SECTION__KEY`, flags; the later wins.
//!
//! `agent/config/agent.toml` shows every key with its default. This configuration is the ceiling: nothing the server
//! says can raise it. What both sides rely on (sizes of batches, streams …) is a constant of the protocol and not here.

use std::io;
use std::path::{Path, PathBuf};

use picket_common::settings::{Document, Layers, SettingsError};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use crate::budget::BudgetConfig;
use crate::buffer::StoreKind;
use crate::detector::DetectorConfig;
use crate::hardening::HardeningConfig;
use crate::pipeline::PipelineConfig;
use crate::sensor::SensorConfig;
use crate::sensor::config::{ReplayConfig, ReplayTime, SensorConfigError};
use crate::uplink::UplinkConfig;

pub mod live;
pub mod reload;
#[cfg(test)]
mod tests;

/// Where the configuration is looked for when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/picket/agent.toml";
/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything an administrator can set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The agent as a whole.
    pub agent: AgentConfig,
    /// Events on disk.
    pub buffer: BufferSection,
    /// What the agent may cost.
    pub budget: BudgetConfig,
    /// From the sensors to the buffer.
    pub pipeline: PipelineConfig,
    /// The way to the server.
    pub uplink: UplinkConfig,
    /// Scores and alerts.
    pub detector: DetectorConfig,
    /// What is observed.
    pub sensor: SensorConfig,
    /// What the agent gives up once it has started.
    pub hardening: HardeningConfig,
    /// What the agent says about itself.
    pub log: LogConfig,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Everything the agent keeps is below this folder.
    pub state_dir: PathBuf,
    /// How long the agent goes on delivering when it is stopped, milliseconds.
    pub stop_drain_ms: u64,
}

/// `[buffer]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferSection {
    /// Most bytes of events kept on disk. When they are reached, the oldest of the least valuable batches go.
    pub bytes_max: u64,
    /// What keeps them there. When it is changed, what waits is taken over at the next start.
    pub store: StoreKind,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// How the log looks.
    pub format: LogFormat,
    /// What is logged: a level, or `target=level` with commas between.
    pub filter: String,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The content is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A value is out of range.
    #[error("{key} is {value}: must be between {min} and {max}")]
    Range {
        /// The key, with its section.
        key: &'static str,
        /// What it is.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `log.filter` cannot be used.
    #[error("log.filter is {filter:?}: {reason}; expected a level, or target=level with commas between")]
    LogFilter {
        /// What it is.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value of `[sensor]` is out of range.
    #[error(transparent)]
    Sensor(#[from] SensorConfigError),
}

/// What the command line adds to the files.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`; the file must exist.
    pub config: Option<PathBuf>,
    /// Flags: name, key, value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Config {
    /// Reads all layers. `variables` is the environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file, variable or flag and the key.
    pub fn load(
        overrides: &Overrides,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::<Self>::new()?;
        let main = overrides.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        if overrides.config.is_some() || main.exists() {
            layers.document(&read(main)?)?;
        }
        for path in fragments(&main.with_extension("d"))? {
            layers.document(&read(&path)?)?;
        }
        layers.environment(variables)?;
        for (flag, key, value) in &overrides.flags {
            layers.text(flag, key, value)?;
        }
        layers.finish().checked()
    }

    /// Checks what the types do not say.
    fn checked(mut self) -> Result<Self, ConfigError> {
        const MIB: u64 = 1024 * 1024;
        let batch_events = self.pipeline.batch_events_max as u64;
        let reasons = self.detector.alert_reasons_max as u64;
        let budget = &self.budget;
        // 0 is no ceiling.
        let none_or = |min: u64, value: u64| if value == 0 { 0 } else { min };
        for (key, value, min, max) in [
            ("agent.stop_drain_ms", self.agent.stop_drain_ms, 0, 600_000),
            ("buffer.bytes_max", self.buffer.bytes_max, MIB, 1024 * 1024 * MIB),
            ("pipeline.batch_age_ms", self.pipeline.batch_age_ms, 1, 60_000),
            ("pipeline.batch_events_max", batch_events, 1, picket_common::batch::limits::BATCH_EVENTS_MAX as u64),
            ("uplink.backoff_max_ms", self.uplink.backoff_max_ms, 100, 3_600_000),
            ("uplink.check_in_interval_ms", self.uplink.check_in_interval_ms, 2_000, 3_600_000),
            ("uplink.acknowledgement_timeout_ms", self.uplink.acknowledgement_timeout_ms, 1_000, 600_000),
            ("uplink.silence_max_ms", self.uplink.silence_max_ms, 3_000, 600_000),
            ("detector.alert_file_bytes_max", self.detector.alert_file_bytes_max, MIB / 16, 1024 * MIB),
            ("detector.alert_reasons_max", reasons, 1, 20),
            ("budget.cpu_percent_max", budget.cpu_percent_max.into(), 0, 100_000),
            (
                "budget.resident_bytes_max",
                budget.resident_bytes_max,
                none_or(16 * MIB, budget.resident_bytes_max),
                u64::MAX,
            ),
            (
                "budget.disk_write_bytes_per_second_max",
                budget.disk_write_bytes_per_second_max,
                none_or(MIB / 64, budget.disk_write_bytes_per_second_max),
                u64::MAX,
            ),
            // Slower, and the largest batch would not be through before its acknowledgement is given up.
            (
                "budget.uplink_bytes_per_second_max",
                budget.uplink_bytes_per_second_max,
                none_or(MIB / 16, budget.uplink_bytes_per_second_max),
                u64::MAX,
            ),
            ("budget.window_ms", budget.window_ms, 1_000, 600_000),
            ("budget.recovery_ms", budget.recovery_ms, 1_000, 3_600_000),
            ("budget.exec_sample_one_in", budget.exec_sample_one_in.into(), 2, 1_000_000),
        ] {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { key, value, min, max });
            }
        }
        if self.sensor.replay.as_ref().is_some_and(|replay| replay.path.as_os_str().is_empty()) {
            self.sensor.replay = None;
        }
        self.sensor.check()?;
        log_filter(&self.log.filter)?;
        Ok(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        // Every key must have a default that can be written down; no path means no replay (see `checked`).
        let replay = ReplayConfig {
            path: PathBuf::new(),
            events_per_second: 0,
            loops: 1,
            stop_after_events: 0,
            time: ReplayTime::default(),
            number_pids: false,
        };
        Self {
            agent: AgentConfig::default(),
            buffer: BufferSection::default(),
            budget: BudgetConfig::default(),
            pipeline: PipelineConfig::default(),
            uplink: UplinkConfig::default(),
            detector: DetectorConfig::default(),
            sensor: SensorConfig { replay: Some(replay), ..SensorConfig::default() },
            hardening: HardeningConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { state_dir: PathBuf::from("/var/lib/picket"), stop_drain_ms: 3_000 }
    }
}

impl Default for BufferSection {
    fn default() -> Self {
        Self { bytes_max: 256 * 1024 * 1024, store: StoreKind::Sled }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

/// What is logged.
///
/// # Errors
/// [`ConfigError::LogFilter`].
pub(crate) fn log_filter(filter: &str) -> Result<Targets, ConfigError> {
    let parsed = if filter.is_empty() { Ok(Targets::new()) } else { filter.parse() };
    let targets: Targets = parsed
        .map_err(|error: ParseError| ConfigError::LogFilter { filter: filter.to_owned(), reason: error.to_string() })?;
    Ok(match targets.default_level() {
        Some(_) => targets,
        None => targets.with_default(LevelFilter::INFO),
    })
}

fn read(path: &Path) -> Result<Document, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    let content = crate::state_file::read_limited(path, FILE_BYTES_MAX)
        .map_err(error)?
        .ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
    let text = String::from_utf8(content).map_err(|_| error(io::Error::other("not UTF-8 text")))?;
    Ok(Document { name: path.display().to_string(), text })
}

/// The `*.toml` files of a folder by name; none when there is no folder.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |source| ConfigError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
