//! `picket-agent replay`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::End;
use crate::cli::complain;
use crate::cli::run::{self, RunArguments};
use crate::config::Config;
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
    let only_this = move |config: &mut Config| {
        config.sensor = SensorConfig { replay: Some(replay.clone()), ..SensorConfig::all_off() };
    };
    run::start(run, own_program, End::Replayed, only_this, |state_dir| match status::read(state_dir) {
        Ok(reading) => println!("{}", summary(&reading.snapshot)),
        Err(error) => complain(&error),
    })
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
