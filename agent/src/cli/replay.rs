//! `picket-agent replay`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::reload::ReloadSource;
use crate::app::{self, End, Invocation};
use crate::cli::run::{RunArguments, ended, variables};
use crate::cli::{complain, exit, log};
use crate::config::{Config, ConfigError, Overrides};
use crate::own_program::OwnProgram;
use crate::sensor::config::{REPLAY_EVENTS_PER_SECOND_MAX, ReplayConfig, ReplayTime, SensorConfig};
use crate::status::{self, Snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArguments {
    /// The recording: events, one JSON object a line, as `picket-agent score` reads them.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// As fast as this; 0: as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(REPLAY_EVENTS_PER_SECOND_MAX)))]
    events_per_second: u32,
    /// Shift the events' times so that the first happens now, instead of leaving them as recorded.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    run: RunArguments,
}

pub(super) fn replay(arguments: ReplayArguments, own_program: OwnProgram) -> ExitCode {
    let ReplayArguments { recording, events_per_second, now, run } = arguments;
    let replay = ReplayConfig {
        path: recording,
        events_per_second,
        loops: 1,
        stop_after_events: 0,
        time: if now { ReplayTime::Shifted } else { ReplayTime::Original },
        number_pids: false,
    };
    let overrides = run.into_overrides();
    let config_path = overrides.config.clone().unwrap_or_else(|| PathBuf::from(crate::config::DEFAULT_PATH));
    let load = move || load(&overrides, &replay);
    let config = match load() {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return exit::config(&error);
        }
    };
    let state_dir = config.agent.state_dir.clone();
    let set_log_filter = log::begin(&config.log);
    let source = ReloadSource { load: Box::new(load), set_log_filter };
    let result = app::run(config, source, Invocation { own_program, config_path }, End::Replayed);
    if result.is_ok() {
        match status::read(&state_dir) {
            Ok(reading) => println!("{}", summary(&reading.snapshot)),
            Err(error) => complain(&error),
        }
    }
    ended(result)
}

/// The agent's configuration with this one sensor.
fn load(overrides: &Overrides, replay: &ReplayConfig) -> Result<Config, ConfigError> {
    let mut config = Config::load(overrides, variables())?;
    config.sensor = SensorConfig { replay: Some(replay.clone()), ..SensorConfig::all_off() };
    Ok(config)
}

fn summary(snapshot: &Snapshot) -> String {
    let waiting: u64 = snapshot.epochs.iter().map(|epoch| epoch.waiting).sum();
    let delivered =
        snapshot.epochs.iter().find(|epoch| epoch.epoch == snapshot.epoch).map_or(0, |epoch| epoch.delivered);
    let lost: u64 = snapshot.events_lost.values().sum();
    format!(
        "{} events played, {} alerts; {delivered} delivered, {waiting} in the buffer, {lost} lost",
        snapshot.events_accepted, snapshot.alerts_total
    )
}
