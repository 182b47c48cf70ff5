//! What of a new configuration a running agent can take up, and what needs a restart.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::config::Config;

/// Keys that take effect while the agent runs, and sections of which every key does (with a dot at the end).
pub const LIVE_KEYS: [&str; 7] = [
    "budget.",
    "detector.alert_file_bytes_max",
    "detector.alert_reasons_max",
    "detector.alert_repeats_max",
    "log.filter",
    "sensor.process.redact_arguments",
    "sensor.process.redact_patterns",
];

/// How a new configuration differs from the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that can take effect at once.
    pub live: Vec<String>,
    /// Keys that need a restart.
    pub restart: Vec<String>,
}

/// Compares what is in force with what is to be.
pub fn difference(running: &Config, next: &Config) -> Difference {
    let (running, next) = (keys(running), keys(next));
    let mut difference = Difference::default();
    let all: std::collections::BTreeSet<&String> = running.keys().chain(next.keys()).collect();
    for key in all.into_iter().filter(|key| running.get(*key) != next.get(*key)) {
        if is_live(key) {
            difference.live.push(key.clone());
        } else {
            difference.restart.push(key.clone());
        }
    }
    difference
}

/// `running` with everything of `next` that takes effect at once.
pub fn merged(running: &Config, next: &Config) -> Config {
    let mut merged = running.clone();
    merged.budget = next.budget;
    merged.detector.alert_file_bytes_max = next.detector.alert_file_bytes_max;
    merged.detector.alert_reasons_max = next.detector.alert_reasons_max;
    merged.detector.alert_repeats_max = next.detector.alert_repeats_max;
    merged.log.filter.clone_from(&next.log.filter);
    merged.sensor.process.redact_arguments = next.sensor.process.redact_arguments;
    merged.sensor.process.redact_patterns.clone_from(&next.sensor.process.redact_patterns);
    merged
}

fn is_live(key: &str) -> bool {
    LIVE_KEYS.iter().any(|live| key == *live || (live.ends_with('.') && key.starts_with(live)))
}

/// Every key with its value, dotted.
fn keys(config: &Config) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    // A configuration that was read from TOML can be written as such.
    collect(Table::try_from(config).unwrap_or_default(), "", &mut keys);
    keys
}

fn collect(table: Table, prefix: &str, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => collect(inner, &path, into),
            value => {
                into.insert(path, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_live_key_exists_and_is_taken_over_and_nothing_else() {
        let running = Config::default();
        let known = keys(&running);
        for live in LIVE_KEYS {
            assert!(known.keys().any(|key| key.starts_with(live)), "{live}");
        }
        // Change every key there is.
        let mut next = running.clone();
        next.budget.cpu_percent_max += 1;
        next.budget.window_ms += 1;
        next.detector.alert_file_bytes_max += 1;
        next.detector.alert_reasons_max += 1;
        next.detector.alert_repeats_max += 1;
        next.log.filter = "debug".to_owned();
        next.sensor.process.redact_arguments = false;
        next.sensor.process.redact_patterns = vec!["x".to_owned()];
        let only_live = next.clone();
        next.buffer.bytes_max += 1;
        next.uplink.server = "elsewhere:1".to_owned();
        let found = difference(&running, &next);
        assert_eq!(found.restart, ["buffer.bytes_max", "uplink.server"]);
        assert_eq!(
            found.live,
            [
                "budget.cpu_percent_max",
                "budget.window_ms",
                "detector.alert_file_bytes_max",
                "detector.alert_reasons_max",
                "detector.alert_repeats_max",
                "log.filter",
                "sensor.process.redact_arguments",
                "sensor.process.redact_patterns"
            ]
        );
        assert_eq!(merged(&running, &next), only_live);
        assert_eq!(difference(&running, &running), Difference::default());
    }
}
