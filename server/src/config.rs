//! The configuration: `server.toml`, `server.d/*.toml`, `PICKET_SECTION__KEY`, flags; the later wins.
//!
//! `server/config/server.toml` shows every key with its default. What a peer can rely on (sizes of messages, streams
//! per agent …) is a constant of the protocol and not here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_common::settings::{Document, Layers, SettingsError};
use picket_learn::gate::Policy;
use serde::{Deserialize, Serialize};

use crate::lake::LakeConfig;

#[cfg(test)]
mod tests;

/// Where the configuration is looked for when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/picket/server.toml";

const SECONDS_PER_DAY: u64 = 86_400;

/// Everything an administrator can set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The server as a whole.
    pub server: ServerConfig,
    /// Where agents connect.
    pub agent_listener: AgentListenerConfig,
    /// Where operators connect.
    pub admin_listener: AdminListenerConfig,
    /// Certificates.
    pub pki: PkiConfig,
    /// Batches in.
    pub ingest: IngestConfig,
    /// Event tables and queries.
    pub lake: LakeSettings,
    /// `[gate]`: what is demanded of a model before agents get it.
    pub gate: Policy,
    /// What the server says about itself.
    pub log: LogConfig,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Everything the server keeps is below this folder.
    pub state_dir: PathBuf,
    /// How long streams may take to end when the server stops, seconds.
    pub stop_timeout_s: NonZeroU32,
}

/// `[agent_listener]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentListenerConfig {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections at a time in all.
    pub connections_max: NonZeroU32,
    /// How long a connection lives before its agent is asked to make a new one, seconds, ± 10 %.
    pub connection_age_s: NonZeroU32,
}

/// `[admin_listener]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminListenerConfig {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections at a time in all.
    pub connections_max: NonZeroU32,
}

/// `[pki]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PkiConfig {
    /// DNS names and IP addresses in the server's certificate, besides `picket-server`, `localhost` and loopback.
    pub server_names: Vec<String>,
    /// How long a host's certificate is valid, days.
    pub host_certificate_days: NonZeroU32,
    /// How long the server's certificate is valid, days. It is made anew at each start and after 2/3 of this.
    pub server_certificate_days: NonZeroU32,
}

/// `[ingest]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestConfig {
    /// What one agent may deliver for long, bytes a second of compressed batches.
    pub agent_bytes_per_second: NonZeroU64,
    /// What one agent may deliver at once after a pause, bytes.
    pub agent_burst_bytes: NonZeroU64,
}

/// `[lake]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeSettings {
    /// How long an acknowledged event waits at most before queries see it, seconds.
    pub commit_interval_s: NonZeroU32,
    /// Memory for all queries together, and again for each building of a data set, bytes.
    pub query_memory_bytes: NonZeroU64,
    /// Disk space for sorts that do not fit into memory, bytes.
    pub spill_bytes: u64,
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
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The content is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
        Ok(layers.finish())
    }
}

impl ServerConfig {
    /// How long streams may take to end when the server stops.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout_s.get().into())
    }
}

impl AgentListenerConfig {
    /// How long a connection lives.
    pub fn connection_age(&self) -> Duration {
        Duration::from_secs(self.connection_age_s.get().into())
    }
}

impl LakeSettings {
    /// The lake's own settings.
    pub fn lake_config(&self) -> LakeConfig {
        LakeConfig {
            commit_interval: Duration::from_secs(self.commit_interval_s.get().into()),
            query_memory_bytes: usize::try_from(self.query_memory_bytes.get()).unwrap_or(usize::MAX),
            spill_bytes: self.spill_bytes,
            ..LakeConfig::default()
        }
    }
}

impl PkiConfig {
    /// How long a host's certificate is valid.
    pub fn host_certificate_life(&self) -> Duration {
        Duration::from_secs(SECONDS_PER_DAY * u64::from(self.host_certificate_days.get()))
    }

    /// How long the server's certificate is valid.
    pub fn server_certificate_life(&self) -> Duration {
        Duration::from_secs(SECONDS_PER_DAY * u64::from(self.server_certificate_days.get()))
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { state_dir: PathBuf::from("/var/lib/picket-server"), stop_timeout_s: non_zero(10) }
    }
}

impl Default for AgentListenerConfig {
    fn default() -> Self {
        Self { address: loopback(8443), connections_max: non_zero(8_192), connection_age_s: non_zero(3_600) }
    }
}

impl Default for AdminListenerConfig {
    fn default() -> Self {
        Self { address: loopback(8445), connections_max: non_zero(256) }
    }
}

impl Default for PkiConfig {
    fn default() -> Self {
        Self { server_names: Vec::new(), host_certificate_days: non_zero(30), server_certificate_days: non_zero(7) }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { agent_bytes_per_second: mebibytes(4), agent_burst_bytes: mebibytes(32) }
    }
}

impl Default for LakeSettings {
    fn default() -> Self {
        Self { commit_interval_s: non_zero(5), query_memory_bytes: mebibytes(512), spill_bytes: 4 << 30 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "warn,picket_server=info".to_owned() }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn non_zero(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

fn mebibytes(count: u32) -> NonZeroU64 {
    NonZeroU64::from(non_zero(count)).saturating_mul(NonZeroU64::from(non_zero(1 << 20)))
}

fn read(path: &Path) -> Result<Document, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(Document { name: path.display().to_string(), text })
}

/// `*.toml` in this folder by name; none when there is no such folder.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |source| ConfigError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(other) => return Err(error(other)),
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
