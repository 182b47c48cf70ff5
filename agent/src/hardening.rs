//! What the agent gives up once it has started (Linux).
//!
//! The agent is one process with two kinds of threads, which the kernel treats apart:
//!
//! | threads | capabilities | Landlock | seccomp |
//! |---|---|---|---|
//! | sensors | those of [`capabilities::of_sensor`] | no: it would hide what other processes have open | [`seccomp::sensor`]: no program, no new process, no internet, no file opened for writing |
//! | all others: uplink, pipeline, buffer, detector, status | none | write below the state folder, read what name resolution and configuration need, no listening | [`seccomp::common`]: no program, no new process, no change of the system |
//!
//! So what talks to the network cannot touch the host, and what sees the host cannot talk to the network or change files.
//! eBPF programs are loaded before, by a process of their own; the agent itself keeps no right to load any.
//!
//! Two processes would be a stronger wall: threads share their memory. It is not done so because every event would be
//! encoded, copied and decoded once more, which is most of what an event costs here, and because the wall that threads
//! lack is one against code that breaks memory safety, of which the agent has none of its own (`unsafe` is forbidden).
//!
//! Everything is as much as the kernel has; [`HardeningReport`] says what that came to.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::event::Origin;
use serde::{Deserialize, Serialize};

pub use crate::hardening::privileged_thread::PrivilegedThread;

#[cfg(target_os = "linux")]
mod capabilities;
#[cfg(target_os = "linux")]
mod landlock;
mod privileged_thread;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(all(test, target_os = "linux"))]
mod tests;

/// `[hardening]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardeningConfig {
    /// Whether the agent restricts itself.
    pub mode: HardeningMode,
}

/// Whether the agent restricts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardeningMode {
    /// As much as the kernel has.
    #[default]
    Auto,
    /// All of it, or the agent does not start.
    Require,
    /// Not at all.
    Off,
}

/// What was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HardeningReport {
    /// Restrictions in force.
    pub applied: Vec<String>,
    /// Those that are not, each with the reason.
    pub not_applied: Vec<String>,
}

/// A restriction that was required and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hardening.mode is \"require\", and not everything can be applied: {0}; or set it to \"auto\"")]
pub struct HardeningError(String);

/// What the restricted threads still need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Folders (or files) below which they write.
    pub write: Vec<PathBuf>,
    /// Folders and files that they read, beside those that every process of a host reads.
    pub read: Vec<PathBuf>,
}

/// Restricts threads, and keeps what it came to. Clones share that.
#[derive(Clone, Debug, Default)]
pub struct Hardening {
    mode: HardeningMode,
    report: Arc<Mutex<HardeningReport>>,
}

/// One restriction: what it is called, and what it came to, or why it is not there.
type Applied = (String, Result<String, String>);

impl Hardening {
    /// Hardening as configured.
    pub fn new(config: HardeningConfig) -> Self {
        Self { mode: config.mode, report: Arc::default() }
    }

    /// What has been applied so far.
    pub fn report(&self) -> HardeningReport {
        self.report.lock().clone()
    }

    /// Restricts the calling thread and every thread that it starts from now on.
    ///
    /// # Errors
    /// [`HardeningError`], when everything is required.
    pub fn restrict_agent(&self, needs: &Needs) -> Result<(), HardeningError> {
        if self.mode == HardeningMode::Off {
            self.note(vec![("hardening".to_owned(), Err("switched off by hardening.mode".to_owned()))]).ok();
            return Ok(());
        }
        self.note(restrict_agent(needs))
    }

    /// Restricts the calling thread to what a sensor needs.
    ///
    /// # Errors
    /// [`HardeningError`], when everything is required.
    pub fn restrict_sensor(&self, sensor: &'static str, origin: Origin) -> Result<(), HardeningError> {
        if self.mode == HardeningMode::Off {
            return Ok(());
        }
        self.note(restrict_sensor(sensor, origin))
    }

    fn note(&self, applied: Vec<Applied>) -> Result<(), HardeningError> {
        let mut report = self.report.lock();
        let mut missing = Vec::new();
        for (name, outcome) in applied {
            match outcome {
                Ok(what) if what.is_empty() => report.applied.push(name),
                Ok(what) => report.applied.push(format!("{name}: {what}")),
                Err(why) => missing.push(format!("{name}: {why}")),
            }
        }
        report.not_applied.extend_from_slice(&missing);
        drop(report);
        if missing.is_empty() || self.mode != HardeningMode::Require {
            return Ok(());
        }
        Err(HardeningError(missing.join("; ")))
    }
}

#[cfg(target_os = "linux")]
fn restrict_agent(needs: &Needs) -> Vec<Applied> {
    // Capabilities first: what is lost then cannot be needed for the others, which need none.
    let kept = capabilities::of_agent(needs);
    vec![
        ("capabilities of the agent".to_owned(), capabilities::keep(&kept)),
        ("landlock".to_owned(), landlock::restrict(needs)),
        ("seccomp".to_owned(), seccomp::apply(&seccomp::common())),
    ]
}

#[cfg(target_os = "linux")]
fn restrict_sensor(sensor: &'static str, origin: Origin) -> Vec<Applied> {
    let kept = capabilities::of_sensor(sensor, origin);
    vec![
        (format!("capabilities of sensor {sensor}"), capabilities::keep(&kept)),
        (format!("seccomp of sensor {sensor}"), seccomp::apply(&seccomp::sensor(origin))),
    ]
}

#[cfg(not(target_os = "linux"))]
fn restrict_agent(_needs: &Needs) -> Vec<Applied> {
    vec![("hardening".to_owned(), Err("exists only on Linux".to_owned()))]
}

#[cfg(not(target_os = "linux"))]
fn restrict_sensor(_sensor: &'static str, _origin: Origin) -> Vec<Applied> {
    Vec::new()
}
