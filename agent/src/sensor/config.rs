//! Section `[sensor]` of the agent's configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shortest interval of anything periodic: below it the sensors would only be busy with themselves.
const INTERVAL_MS_MIN: u64 = 10;
/// Longest interval of anything periodic.
const INTERVAL_MS_MAX: u64 = 60_000;
/// Shortest time until a flow has ended: idle flows are looked for once a second.
const FLOW_IDLE_MS_MIN: u64 = 1_000;
/// Longest.
const FLOW_IDLE_MS_MAX: u64 = 3_600_000;
/// Highest rate a recording is played at, events per second; 0 means "as fast as possible".
pub(crate) const REPLAY_EVENTS_PER_SECOND_MAX: u32 = 1_000_000;

/// Which sensors run, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensorConfig {
    /// Processes: `[sensor.process]`.
    pub process: ProcessSensorConfig,
    /// Connections: `[sensor.connection]`.
    pub connection: ConnectionSensorConfig,
    /// UDP flows and DNS: `[sensor.datagram]`.
    pub datagram: DatagramSensorConfig,
    /// Logins: `[sensor.authentication]`.
    pub authentication: AuthenticationSensorConfig,
    /// Files: `[sensor.file]`.
    pub file: FileSensorConfig,
    /// Modules, ptrace, eBPF programs, namespaces, rights: `[sensor.kernel]`.
    pub kernel: KernelSensorConfig,
    /// Whether netlink sensors may use the kernel's trace events where that is permitted (root, tracefs): with them a
    /// connection is known with its owner at the moment it begins, as with eBPF. Where tracefs is not mounted, it is mounted at its usual place.
    pub trace: bool,
    /// A recording to play: `[sensor.replay]`; none by default.
    pub replay: Option<ReplayConfig>,
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            process: ProcessSensorConfig::default(),
            connection: ConnectionSensorConfig::default(),
            datagram: DatagramSensorConfig::default(),
            authentication: AuthenticationSensorConfig::default(),
            file: FileSensorConfig::default(),
            kernel: KernelSensorConfig::default(),
            trace: true,
            replay: None,
        }
    }
}

/// How events are to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeChoice {
    /// The best way that works here; what it is and why no better is in the sensor's mode.
    #[default]
    Auto,
    /// eBPF (root, or `CAP_BPF` and `CAP_PERFMON`) or nothing: the agent refuses to start where it is not permitted.
    Ebpf,
    /// Netlink or nothing.
    Netlink,
    /// Periodic looks only.
    Polling,
    /// Not at all.
    Off,
}

impl ModeChoice {
    /// Whether eBPF is to be tried.
    pub(crate) fn wants_ebpf(self) -> bool {
        matches!(self, Self::Auto | Self::Ebpf)
    }

    /// Whether netlink is to be tried, where nothing better is there.
    pub(crate) fn wants_netlink(self) -> bool {
        matches!(self, Self::Auto | Self::Netlink)
    }
}

/// The process sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessSensorConfig {
    /// How.
    pub mode: ModeChoice,
    /// Time between two looks at the process table when polling, milliseconds.
    pub poll_interval_ms: u64,
    /// Most program starts of one cgroup in a second on average, further ones are counted (eBPF only); 0: no limit. A
    /// second's worth may come at once.
    pub starts_per_second_max: u32,
    /// Whether secrets are taken out of command lines: see [`crate::enrich::redaction`].
    pub redact_arguments: bool,
    /// Further regular expressions for secrets: of a match the first group is taken out, or all of it without a group.
    pub redact_patterns: Vec<String>,
}

impl Default for ProcessSensorConfig {
    fn default() -> Self {
        Self {
            mode: ModeChoice::Auto,
            poll_interval_ms: 250,
            starts_per_second_max: 0,
            redact_arguments: true,
            redact_patterns: Vec::new(),
        }
    }
}

/// The connection sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionSensorConfig {
    /// How.
    pub mode: ModeChoice,
    /// Time between two dumps of the live sockets where trace events do not tell of openings, milliseconds: how late an
    /// opening is seen, and how long a connection must live for its owner to be found. Ends are pushed by the kernel and
    /// do not wait for it.
    pub dump_interval_ms: u64,
    /// Most beginnings and ends of connections of one cgroup in a second on average, further ones are counted (eBPF
    /// only); 0: no limit. A second's worth may come at once.
    pub events_per_second_max: u32,
}

impl Default for ConnectionSensorConfig {
    fn default() -> Self {
        Self { mode: ModeChoice::Auto, dump_interval_ms: 100, events_per_second_max: 0 }
    }
}

/// Whether a sensor that needs eBPF runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EbpfChoice {
    /// Where it is permitted; where not, the sensor's mode says why.
    #[default]
    Auto,
    /// The agent refuses to start where it is not permitted.
    Ebpf,
    /// Not at all.
    Off,
}

/// The datagram sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatagramSensorConfig {
    /// Whether.
    pub mode: EbpfChoice,
    /// How long nothing passes until a flow has ended, milliseconds.
    pub flow_idle_ms: u64,
}

impl Default for DatagramSensorConfig {
    fn default() -> Self {
        Self { mode: EbpfChoice::Auto, flow_idle_ms: 30_000 }
    }
}

/// The kernel sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelSensorConfig {
    /// Whether.
    pub mode: EbpfChoice,
    /// Most activities of one cgroup in a second on average, further ones are counted; 0: no limit. A second's worth may
    /// come at once.
    pub events_per_second_max: u32,
}

impl Default for KernelSensorConfig {
    fn default() -> Self {
        Self { mode: EbpfChoice::Auto, events_per_second_max: 100 }
    }
}

/// Whether a sensor that has one way to see runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorSwitch {
    /// Where it can; whether it can, and why not, is in the sensor's mode.
    #[default]
    Auto,
    /// Not at all.
    Off,
}

/// The authentication sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthenticationSensorConfig {
    /// Whether.
    pub mode: SensorSwitch,
    /// The logs that syslog daemons write logins to. Those that are not there are waited for.
    pub log_paths: Vec<PathBuf>,
    /// Where journald writes, for hosts without these logs.
    pub journal_folders: Vec<PathBuf>,
    /// Records of sessions, for hosts without journal.
    pub wtmp_path: PathBuf,
    /// Records of failed logins, for hosts without journal.
    pub btmp_path: PathBuf,
    /// Shortest time between two looks at the logs, milliseconds.
    pub poll_interval_ms: u64,
}

impl Default for AuthenticationSensorConfig {
    fn default() -> Self {
        Self {
            mode: SensorSwitch::Auto,
            log_paths: ["/var/log/auth.log", "/var/log/secure"].map(PathBuf::from).to_vec(),
            journal_folders: ["/var/log/journal", "/run/log/journal"].map(PathBuf::from).to_vec(),
            wtmp_path: PathBuf::from("/var/log/wtmp"),
            btmp_path: PathBuf::from("/var/log/btmp"),
            poll_interval_ms: 250,
        }
    }
}

impl AuthenticationSensorConfig {
    /// Shortest time between two looks at the logs.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}

/// How changes of files are to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileModeChoice {
    /// The best way that works here; what it is and why no better is in the sensor's mode.
    #[default]
    Auto,
    /// `fanotify` or nothing: the agent refuses to start where it is not permitted.
    Fanotify,
    /// `inotify`, which does not tell who made a change.
    Inotify,
    /// Not at all.
    Off,
}

/// The file sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileSensorConfig {
    /// How.
    pub mode: FileModeChoice,
    /// Files, and folders with what is in them, that are watched; `~` is the home of every user.
    pub paths: Vec<PathBuf>,
    /// Folders in which programs are watched, and nothing else.
    pub program_folders: Vec<PathBuf>,
}

impl Default for FileSensorConfig {
    fn default() -> Self {
        Self {
            mode: FileModeChoice::Auto,
            paths: WATCHED_PATHS.map(PathBuf::from).to_vec(),
            program_folders: ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from).to_vec(),
        }
    }
}

/// Where attackers stay: what is run by cron, at boot, at login, with every program, or as root.
const WATCHED_PATHS: [&str; 27] = [
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "~/.config/systemd/user",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/zsh",
    "~/.bashrc",
    "~/.bash_profile",
    "~/.bash_login",
    "~/.profile",
    "~/.zshrc",
    "~/.ssh",
    "/etc/rc.local",
    "/etc/ld.so.preload",
    "/etc/sudoers",
    "/etc/sudoers.d",
];

/// A recording (JSON lines, see `picket_common::event::json`) to be played as if a sensor saw it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// The recording.
    pub path: PathBuf,
    /// Rate, events per second; 0: as fast as possible.
    #[serde(default)]
    pub events_per_second: u32,
    /// How often the recording is played; 0: until the agent stops.
    #[serde(default = "one")]
    pub loops: u64,
    /// Stop after so many events, however many loops remain; 0: no such limit.
    #[serde(default)]
    pub stop_after_events: u64,
    /// What time the events carry.
    #[serde(default)]
    pub time: ReplayTime,
    /// Sets the pid of each event to a running number from 1, so that each can be accounted for.
    #[serde(default)]
    pub number_pids: bool,
}

/// The time of replayed events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayTime {
    /// As recorded.
    Original,
    /// Moved so that the first event of each loop happens now and the distances stay.
    #[default]
    Shifted,
}

fn one() -> u64 {
    1
}

/// A value of `[sensor]` that is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sensor.{key} is {value}: must be between {min} and {max}")]
pub struct SensorConfigError {
    key: &'static str,
    value: u64,
    min: u64,
    max: u64,
}

impl SensorConfig {
    /// No sensor at all.
    pub fn all_off() -> Self {
        let mut config = Self::default();
        (config.process.mode, config.connection.mode) = (ModeChoice::Off, ModeChoice::Off);
        (config.datagram.mode, config.kernel.mode) = (EbpfChoice::Off, EbpfChoice::Off);
        (config.authentication.mode, config.file.mode) = (SensorSwitch::Off, FileModeChoice::Off);
        config
    }

    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), SensorConfigError> {
        let in_range = |key, value, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(SensorConfigError { key, value, min, max }) }
        };
        in_range("process.poll_interval_ms", self.process.poll_interval_ms, INTERVAL_MS_MIN, INTERVAL_MS_MAX)?;
        in_range("connection.dump_interval_ms", self.connection.dump_interval_ms, INTERVAL_MS_MIN, INTERVAL_MS_MAX)?;
        in_range("datagram.flow_idle_ms", self.datagram.flow_idle_ms, FLOW_IDLE_MS_MIN, FLOW_IDLE_MS_MAX)?;
        let interval_ms = self.authentication.poll_interval_ms;
        in_range("authentication.poll_interval_ms", interval_ms, INTERVAL_MS_MIN, INTERVAL_MS_MAX)?;
        if let Some(replay) = &self.replay {
            let rate = u64::from(replay.events_per_second);
            in_range("replay.events_per_second", rate, 0, u64::from(REPLAY_EVENTS_PER_SECOND_MAX))?;
        }
        Ok(())
    }
}

impl ProcessSensorConfig {
    /// Time between two looks at the process table.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}

impl ConnectionSensorConfig {
    /// Time between two dumps of the socket table.
    pub fn dump_interval(&self) -> Duration {
        Duration::from_millis(self.dump_interval_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_means_the_defaults() {
        let config: SensorConfig = toml::from_str("").unwrap();
        assert_eq!(config, SensorConfig::default());
        config.check().unwrap();
    }

    #[test]
    fn every_key_can_be_set() {
        let text = r#"
            trace = false
            process = { mode = "polling", poll_interval_ms = 500 }
            connection = { mode = "ebpf", dump_interval_ms = 200 }
            datagram = { mode = "off", flow_idle_ms = 5000 }
            [replay]
            path = "events.jsonl"
            events_per_second = 1500
            loops = 0
            stop_after_events = 9
            time = "original"
            number_pids = true
        "#;
        let config: SensorConfig = toml::from_str(text).unwrap();
        config.check().unwrap();
        assert!(!config.trace);
        assert_eq!(config.process.mode, ModeChoice::Polling);
        assert_eq!(config.connection.mode, ModeChoice::Ebpf);
        assert_eq!(config.connection.dump_interval(), Duration::from_millis(200));
        assert_eq!((config.datagram.mode, config.datagram.flow_idle_ms), (EbpfChoice::Off, 5_000));
        let replay = config.replay.unwrap();
        assert_eq!((replay.loops, replay.stop_after_events, replay.time), (0, 9, ReplayTime::Original));
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_refused() {
        assert!(toml::from_str::<SensorConfig>("[process]\npoll_intervall_ms = 1").is_err());
        assert!(toml::from_str::<SensorConfig>("[process]\nmode = \"audit\"").is_err());
        let config: SensorConfig = toml::from_str("[connection]\ndump_interval_ms = 1").unwrap();
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "sensor.connection.dump_interval_ms is 1: must be between 10 and 60000");
    }
}
