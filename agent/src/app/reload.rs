//! SIGHUP: the configuration is read again. A bad one changes nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::event::AgentChange;
use serde::{Deserialize, Serialize};

use crate::budget::control::BudgetControl;
use crate::config::live::Live;
use crate::config::reload::{Difference, difference, merged};
use crate::config::{Config, ConfigError};
use crate::detector::DetectorConfig;
use crate::error_text;
use crate::pipeline::changes::{Changes, text};
use crate::pipeline::now;
use crate::sensor::{SharedRedactor, redactor};

/// Where a new configuration comes from, and what this process's log does with it.
pub struct ReloadSource {
    /// Reads all layers again.
    pub load: Box<dyn Fn() -> Result<Config, ConfigError> + Send>,
    /// Sets what is logged.
    pub set_log_filter: Box<dyn Fn(&str) + Send>,
}

/// The configuration in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigReport {
    /// When it was last read well, nanoseconds since 1970.
    pub loaded_unix_ns: i64,
    /// How often it was read again and taken up.
    pub reloads_total: u64,
    /// Why the last attempt to read it again was refused; empty when it was not. The one before stays in force.
    pub last_error: String,
    /// Keys whose new value takes effect with the next start.
    pub needs_restart: Vec<String>,
}

/// See the module documentation.
pub(super) struct Reloader {
    pub(super) source: ReloadSource,
    /// What is in force.
    pub(super) running: Config,
    pub(super) budget: Arc<BudgetControl>,
    pub(super) detector: Arc<Live<DetectorConfig>>,
    pub(super) redactor: SharedRedactor,
    pub(super) changes: Arc<Changes>,
    pub(super) report: Arc<Mutex<ConfigReport>>,
}

impl Reloader {
    /// Reads the configuration and takes up what can be.
    pub(super) fn reload(&mut self) {
        match self.try_reload() {
            Ok(difference) => self.note(&difference),
            Err(error) => {
                tracing::error!(error, "the new configuration cannot be used: the one before stays in force");
                self.report.lock().last_error = error;
            }
        }
    }

    fn try_reload(&mut self) -> Result<Difference, String> {
        let next = (self.source.load)().map_err(|error| error_text::chain(&error))?;
        // Everything that can fail comes before anything changes.
        let next_redactor = redactor(&next.sensor.process).map_err(|error| error_text::chain(&error))?;
        let difference = difference(&self.running, &next);
        self.running = merged(&self.running, &next);
        self.budget.set_config(self.running.budget);
        self.detector.set(self.running.detector.clone());
        self.redactor.set(next_redactor);
        (self.source.set_log_filter)(&self.running.log.filter);
        Ok(difference)
    }

    fn note(&self, difference: &Difference) {
        let (live, restart) = (difference.live.join(", "), difference.restart.join(", "));
        tracing::info!(in_force = live, needs_restart = restart, "the configuration was read again");
        {
            let mut report = self.report.lock();
            report.loaded_unix_ns = now().0;
            report.reloads_total += 1;
            report.last_error.clear();
            report.needs_restart.clone_from(&difference.restart);
        }
        if !difference.live.is_empty() {
            self.changes.push(AgentChange {
                subject: "configuration".into(),
                before: "".into(),
                after: text(&live),
                reason: "SIGHUP".into(),
            });
        }
    }
}
