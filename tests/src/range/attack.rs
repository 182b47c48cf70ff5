//! Harmless imitations of attacks, each with its MITRE ATT&CK id.
//!
//! What makes each harmless: scans touch only loopback ports that nobody but the range listens on; passwords are
//! guessed against the range's own service; the reverse shell ends at a helper whose commands read and print; beacons
//! and uploads go to the range's own servers; copies under misleading names are `sleep` and `sh`; persistence is
//! written into the range's own folders, where nothing reads it.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use std::io;

use super::Round;
use super::activity::{Prepared, Stage};

mod command_and_control;
mod discovery;
mod local;
mod login;

/// A technique of MITRE ATT&CK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Technique {
    /// Network Service Discovery.
    NetworkServiceDiscovery,
    /// Brute Force: Password Guessing.
    PasswordGuessing,
    /// Brute Force: Password Spraying.
    PasswordSpraying,
    /// System Information Discovery, with what comes with it (T1033, T1057, T1049).
    SystemInformationDiscovery,
    /// Command and Scripting Interpreter: Unix Shell, on a socket.
    UnixShell,
    /// Application Layer Protocol: Web Protocols, as a beacon.
    WebProtocols,
    /// Exfiltration Over C2 Channel.
    ExfiltrationOverC2,
    /// Exfiltration Over Alternative Protocol: unencrypted, not C2.
    ExfiltrationOverAlternativeProtocol,
    /// Masquerading: Match Legitimate Name or Location.
    MatchLegitimateName,
    /// Scheduled Task/Job: Cron.
    Cron,
    /// Scheduled Task/Job: Systemd Timers.
    SystemdTimers,
    /// Event Triggered Execution: Unix Shell Configuration Modification.
    ShellConfiguration,
}

impl Technique {
    /// Every technique the range plays.
    pub const ALL: [Self; 12] = [
        Self::NetworkServiceDiscovery,
        Self::PasswordGuessing,
        Self::PasswordSpraying,
        Self::SystemInformationDiscovery,
        Self::UnixShell,
        Self::WebProtocols,
        Self::ExfiltrationOverC2,
        Self::ExfiltrationOverAlternativeProtocol,
        Self::MatchLegitimateName,
        Self::Cron,
        Self::SystemdTimers,
        Self::ShellConfiguration,
    ];

    /// Its ATT&CK id.
    pub fn id(self) -> &'static str {
        match self {
            Self::NetworkServiceDiscovery => "T1046",
            Self::PasswordGuessing => "T1110.001",
            Self::PasswordSpraying => "T1110.003",
            Self::SystemInformationDiscovery => "T1082",
            Self::UnixShell => "T1059.004",
            Self::WebProtocols => "T1071.001",
            Self::ExfiltrationOverC2 => "T1041",
            Self::ExfiltrationOverAlternativeProtocol => "T1048.003",
            Self::MatchLegitimateName => "T1036.005",
            Self::Cron => "T1053.003",
            Self::SystemdTimers => "T1053.006",
            Self::ShellConfiguration => "T1546.004",
        }
    }

    /// What ATT&CK calls it, shortened.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkServiceDiscovery => "network service discovery",
            Self::PasswordGuessing => "password guessing",
            Self::PasswordSpraying => "password spraying",
            Self::SystemInformationDiscovery => "system information discovery",
            Self::UnixShell => "unix shell on a socket",
            Self::WebProtocols => "beaconing over HTTP",
            Self::ExfiltrationOverC2 => "bulk upload",
            Self::ExfiltrationOverAlternativeProtocol => "upload without a protocol",
            Self::MatchLegitimateName => "masquerading",
            Self::Cron => "cron job written",
            Self::SystemdTimers => "systemd timer written",
            Self::ShellConfiguration => "shell profile changed",
        }
    }
}

/// An imitation and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Attack {
    /// Connects to many ports.
    PortScan {
        /// How.
        style: ScanStyle,
        /// Ports looked at.
        ports: usize,
        /// Pause between two.
        gap_ms: u64,
    },
    /// Many passwords for one account.
    PasswordGuessing {
        /// Tries in all.
        tries: usize,
        /// Tries per connection.
        tries_per_connection: usize,
        /// Pause between connections.
        gap_ms: u64,
    },
    /// A few passwords for many accounts.
    PasswordSpraying {
        /// Accounts.
        accounts: usize,
        /// Passwords for each.
        passwords: usize,
        /// Pause between connections.
        gap_ms: u64,
    },
    /// Looks around the machine, quickly.
    Discovery {
        /// How.
        style: DiscoveryStyle,
        /// How many looks.
        looks: usize,
    },
    /// A shell with its standard streams on a socket.
    ReverseShell {
        /// How it is made.
        style: ShellStyle,
        /// Commands the far end sends.
        commands: usize,
        /// Pause before each.
        pause_ms: u64,
    },
    /// Calls home now and then.
    Beacon {
        /// How.
        style: BeaconStyle,
        /// Calls.
        calls: usize,
        /// Time between two.
        interval_ms: u64,
        /// How much of the interval is chance, 0 to 1.
        jitter: f64,
        /// Bytes of an answer, or of a post.
        bytes: usize,
    },
    /// Sends much away.
    Upload {
        /// How.
        style: UploadStyle,
        /// Bytes in all.
        bytes: usize,
    },
    /// Runs something under the name of something else.
    Masquerade {
        /// Where.
        place: MasqueradePlace,
        /// `sleep` only, or a shell that runs commands.
        shell: bool,
    },
    /// Leaves something behind that would be started again.
    Persistence {
        /// What.
        style: PersistenceStyle,
    },
}

/// How ports are scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanStyle {
    /// One after another.
    Sequential,
    /// In random order.
    Random,
    /// By a shell with `/dev/tcp`.
    Bash,
    /// Round two: slowly.
    Slow,
    /// Round two: waits for what the service says.
    Banner,
    /// Round two: a few lines of Python.
    Python,
}

/// How the machine is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryStyle {
    /// The usual commands, from `sh -c`.
    Commands,
    /// The usual commands, from a script.
    Script,
    /// Round two: system calls and commands from Python.
    Python,
    /// Round two: the same from Perl.
    Perl,
    /// Round two: by reading files.
    Files,
}

/// How a shell gets onto a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellStyle {
    /// A program connects and starts it.
    Direct,
    /// bash and `/dev/tcp`.
    Bash,
    /// Round two: Python.
    Python,
    /// Round two: a FIFO and a relay.
    Fifo,
}

/// How a beacon calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconStyle {
    /// Asks.
    Get,
    /// Round two: posts a little.
    Post,
    /// Round two: a shell loop with a fetch program.
    ShellLoop,
}

/// How much is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStyle {
    /// One POST.
    Post,
    /// Packed first, then one POST.
    Packed,
    /// Round two: many smaller POSTs, each its own connection.
    Chunked,
    /// Round two: plain bytes, no protocol.
    Raw,
}

/// Where something runs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasqueradePlace {
    /// The temporary folder.
    Temporary,
    /// A hidden folder in it.
    Hidden,
    /// Round two: the memory-backed temporary folder.
    SharedMemory,
    /// Round two: the file is removed while it runs.
    Deleted,
}

/// What is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistenceStyle {
    /// A cron line, written by the shell.
    CronShell,
    /// A cron line, written through `tee`.
    CronTee,
    /// A cron file, put there by `install`.
    CronInstall,
    /// Round two: a systemd service and timer.
    SystemdTimer,
    /// Round two: a line in a shell profile.
    Profile,
}

/// Which imitations exist, by issue number of the play.
const KINDS: usize = 8;

impl Attack {
    /// Its technique.
    pub fn technique(&self) -> Technique {
        match self {
            Self::PortScan { .. } => Technique::NetworkServiceDiscovery,
            Self::PasswordGuessing { .. } => Technique::PasswordGuessing,
            Self::PasswordSpraying { .. } => Technique::PasswordSpraying,
            Self::Discovery { .. } => Technique::SystemInformationDiscovery,
            Self::ReverseShell { .. } => Technique::UnixShell,
            Self::Beacon { .. } => Technique::WebProtocols,
            Self::Upload { style: UploadStyle::Raw, .. } => Technique::ExfiltrationOverAlternativeProtocol,
            Self::Upload { .. } => Technique::ExfiltrationOverC2,
            Self::Masquerade { .. } => Technique::MatchLegitimateName,
            Self::Persistence { style: PersistenceStyle::SystemdTimer } => Technique::SystemdTimers,
            Self::Persistence { style: PersistenceStyle::Profile } => Technique::ShellConfiguration,
            Self::Persistence { .. } => Technique::Cron,
        }
    }

    /// How it is done, for people.
    pub fn style(&self) -> String {
        match self {
            Self::PortScan { style, .. } => format!("{style:?}"),
            Self::PasswordGuessing { .. } => "Guessing".to_owned(),
            Self::PasswordSpraying { .. } => "Spraying".to_owned(),
            Self::Discovery { style, .. } => format!("{style:?}"),
            Self::ReverseShell { style, .. } => format!("{style:?}"),
            Self::Beacon { style, .. } => format!("{style:?}"),
            Self::Upload { style, .. } => format!("{style:?}"),
            Self::Masquerade { place, shell } => format!("{place:?}{}", if *shell { "Shell" } else { "" }),
            Self::Persistence { style } => format!("{style:?}"),
        }
        .to_ascii_lowercase()
    }

    /// Imitation number `index` of kind `kind` for `round`: variants take turns, parameters are drawn.
    pub fn generate(kind: usize, index: usize, round: Round, rng: &mut StdRng) -> Self {
        match round {
            Round::One => Self::round_one(kind, index, rng),
            Round::Two => Self::round_two(kind, index, rng),
        }
    }

    /// How many kinds there are.
    pub fn kinds() -> usize {
        KINDS
    }

    fn round_one(kind: usize, index: usize, rng: &mut StdRng) -> Self {
        match kind % KINDS {
            0 => Self::PortScan {
                style: [ScanStyle::Random, ScanStyle::Sequential, ScanStyle::Bash][index % 3],
                ports: rng.random_range(30..150),
                gap_ms: *[0, 2, 10, 25].choose(rng).unwrap_or(&2),
            },
            1 => Self::PasswordGuessing {
                tries: rng.random_range(15..60),
                tries_per_connection: rng.random_range(1..4),
                gap_ms: rng.random_range(5..80),
            },
            2 => Self::Discovery {
                style: [DiscoveryStyle::Commands, DiscoveryStyle::Script][index % 2],
                looks: rng.random_range(6..14),
            },
            3 => Self::ReverseShell {
                style: [ShellStyle::Direct, ShellStyle::Bash][index % 2],
                commands: rng.random_range(4..9),
                pause_ms: rng.random_range(30..250),
            },
            4 => Self::Beacon {
                style: BeaconStyle::Get,
                calls: rng.random_range(10..18),
                interval_ms: rng.random_range(350..800),
                jitter: rng.random_range(0.15..0.4),
                bytes: rng.random_range(40..400),
            },
            5 => Self::Upload {
                style: [UploadStyle::Post, UploadStyle::Packed][index % 2],
                bytes: rng.random_range(3 << 20..16 << 20),
            },
            6 => Self::Masquerade {
                place: [MasqueradePlace::Temporary, MasqueradePlace::Hidden][index % 2],
                shell: rng.random_bool(0.5),
            },
            _ => Self::Persistence {
                style: [PersistenceStyle::CronShell, PersistenceStyle::CronTee, PersistenceStyle::CronInstall]
                    [index % 3],
            },
        }
    }

    fn round_two(kind: usize, index: usize, rng: &mut StdRng) -> Self {
        match kind % KINDS {
            0 => match [ScanStyle::Slow, ScanStyle::Banner, ScanStyle::Random, ScanStyle::Python][index % 4] {
                ScanStyle::Slow => Self::PortScan {
                    style: ScanStyle::Slow,
                    ports: rng.random_range(20..40),
                    gap_ms: rng.random_range(120..250),
                },
                style => Self::PortScan { style, ports: rng.random_range(25..200), gap_ms: rng.random_range(0..40) },
            },
            1 if index.is_multiple_of(2) => Self::PasswordSpraying {
                accounts: rng.random_range(8..25),
                passwords: rng.random_range(1..3),
                gap_ms: rng.random_range(60..220),
            },
            1 => Self::PasswordGuessing {
                tries: rng.random_range(12..50),
                tries_per_connection: rng.random_range(1..6),
                gap_ms: rng.random_range(20..150),
            },
            2 => Self::Discovery {
                style: [DiscoveryStyle::Python, DiscoveryStyle::Commands, DiscoveryStyle::Files, DiscoveryStyle::Perl]
                    [index % 4],
                looks: rng.random_range(5..12),
            },
            3 => Self::ReverseShell {
                style: [ShellStyle::Python, ShellStyle::Fifo, ShellStyle::Direct][index % 3],
                commands: rng.random_range(3..10),
                pause_ms: rng.random_range(60..350),
            },
            4 => Self::Beacon {
                style: [BeaconStyle::Post, BeaconStyle::Get, BeaconStyle::ShellLoop][index % 3],
                calls: rng.random_range(9..16),
                interval_ms: rng.random_range(450..900),
                jitter: rng.random_range(0.2..0.5),
                bytes: rng.random_range(60..700),
            },
            5 => Self::Upload {
                style: [UploadStyle::Chunked, UploadStyle::Post, UploadStyle::Raw][index % 3],
                bytes: rng.random_range(2 << 20..20 << 20),
            },
            6 => Self::Masquerade {
                place: [MasqueradePlace::SharedMemory, MasqueradePlace::Deleted, MasqueradePlace::Hidden][index % 3],
                shell: rng.random_bool(0.5),
            },
            _ => Self::Persistence {
                style: [PersistenceStyle::SystemdTimer, PersistenceStyle::Profile, PersistenceStyle::CronTee]
                    [index % 3],
            },
        }
    }

    pub(super) fn prepare(&self, stage: &mut Stage<'_>) -> io::Result<Prepared> {
        match self {
            Self::PortScan { style, ports, gap_ms } => discovery::port_scan(stage, *style, *ports, *gap_ms),
            Self::PasswordGuessing { tries, tries_per_connection, gap_ms } => {
                Ok(login::guessing(stage, *tries, *tries_per_connection, *gap_ms))
            }
            Self::PasswordSpraying { accounts, passwords, gap_ms } => {
                Ok(login::spraying(stage, *accounts, *passwords, *gap_ms))
            }
            Self::Discovery { style, looks } => discovery::look_around(stage, *style, *looks),
            Self::ReverseShell { style, commands, pause_ms } => {
                command_and_control::reverse_shell(stage, *style, *commands, *pause_ms)
            }
            Self::Beacon { style, calls, interval_ms, jitter, bytes } => {
                Ok(command_and_control::beacon(stage, *style, *calls, *interval_ms, *jitter, *bytes))
            }
            Self::Upload { style, bytes } => command_and_control::upload(stage, *style, *bytes),
            Self::Masquerade { place, shell } => local::masquerade(stage, *place, *shell),
            Self::Persistence { style } => local::persistence(stage, *style),
        }
    }
}
