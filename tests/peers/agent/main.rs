//! The agent beside other collectors of processes and connections, each in turn under the same load.
//!
//! `tests/peers/run agent` prepares everything and runs this; see there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use picket_tests::demo::interrupt;

use crate::collector::Collector;
use crate::control_group::ControlGroup;
use crate::measurement::{Best, Plan};

mod audit;
mod bpftrace;
mod collector;
mod control_group;
mod measurement;
mod picket;
mod report;
#[path = "../../load/storm.rs"]
#[allow(dead_code, reason = "the load test needs more of it")]
mod storm;
mod tshark;

/// What to compare, and how long.
#[derive(Debug, Parser)]
struct Options {
    /// The picket-agent to measure.
    #[arg(long)]
    agent: PathBuf,
    /// Where the peers are, and where everything is written.
    #[arg(long)]
    work: PathBuf,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each collector's turn comes. Of all turns, the one that cost least counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each load lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Process starts a second, while that is the load.
    #[arg(long, default_value_t = 500)]
    starts_per_second: u32,
    /// Connections a second, while that is the load.
    #[arg(long, default_value_t = 1_000)]
    connections_per_second: u32,
    /// How long nothing is done, for the cost of idling.
    #[arg(long, default_value_t = 20)]
    idle_seconds: u32,
    /// Collectors to compare, instead of all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("collectors see processes and connections of others only as root".to_owned());
    }
    let plan = Plan {
        work: options.work.clone(),
        seconds: options.seconds,
        starts_per_second: options.starts_per_second,
        connections_per_second: options.connections_per_second,
        idle: Duration::from_secs(options.idle_seconds.into()),
        load_group: ControlGroup::make("load")?,
    };
    plan.load_group.take(std::process::id())?;
    interrupt::watch(vec![picket::folder(&options.work)]).map_err(|error| error.to_string())?;
    let mut collectors: Vec<Box<dyn Collector>> = vec![
        Box::new(picket::Picket::prepare(&options.agent, &options.work)?),
        Box::new(audit::Audit::raw(&options.work)),
        Box::new(audit::Audit::laurel(&options.work)),
        Box::new(bpftrace::Bpftrace::new(&options.work)),
        Box::new(tshark::Tshark::new(&options.work)),
    ];
    let wanted = |name: &str| name == picket::NAME || options.only.is_empty() || options.only.iter().any(|n| n == name);
    collectors.retain(|collector| wanted(collector.name()));

    let mut alone = Best::default();
    let mut results: Vec<(&'static str, Result<Best, String>)> =
        collectors.iter().map(|collector| (collector.name(), Ok(Best::default()))).collect();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}: nothing", options.rounds);
        alone.take(&plan.turn(None, round)?);
        for (collector, (name, result)) in collectors.iter_mut().zip(&mut results) {
            let Ok(best) = result else { continue };
            eprintln!("round {round} of {}: {name}", options.rounds);
            match plan.turn(Some(&mut **collector), round) {
                Ok(turn) => best.take(&turn),
                Err(reason) => *result = Err(reason),
            }
        }
    }
    drop(plan);
    report::print(&alone, &results, options.json);
    Ok(())
}
