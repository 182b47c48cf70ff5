//! The whole loop of Picket on this machine, with real parts and real events.
//!
//! ```text
//! server + agent (separate processes) ─▶ enrol ─▶ round one ─▶ delivered, stored ─▶ labelled from the script's truth
//!   ─▶ data sets ─▶ four algorithms, side by side ─▶ the best pushed, in force on the agent ─▶ server stopped
//!   ─▶ round two: the agent judges alone ─▶ server again ─▶ caught up ─▶ checks
//! ```
//!
//! Figures are reported as they are seen; a check that fails makes the exit code 1.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::demo::console::Console;
use crate::demo::options::Options;
use crate::demo::summary::Summary;

pub mod alerts;
pub mod checks;
pub mod console;
pub mod detection;
pub mod interrupt;
pub mod learn;
pub mod options;
pub mod play;
pub mod run;
pub mod summary;

/// Exit code when something kept the demo from running.
const EXIT_INTERNAL: u8 = 70;

/// Runs the demo: 0 when every check holds, 1 when one does not, 70 when it could not be run.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let console = Console::new();
    let mut summary = Summary { seed: options.seed, ..Summary::default() };
    let outcome = run::run(&options, &console, &mut summary);
    console.finish();
    summary.seconds.insert("total".to_owned(), console.seconds());
    if let Err(error) = &outcome {
        eprintln!("\nerror: {error}");
    }
    summary.passed = outcome.is_ok() && !summary.checks.is_empty() && summary.checks.iter().all(|check| check.holds);
    print!("{}", checks::report(&summary));
    if let Err(error) = write_summary(options.summary.as_ref(), &summary) {
        eprintln!("error: the summary cannot be written: {error}");
        return ExitCode::from(EXIT_INTERNAL);
    }
    match (outcome, summary.passed) {
        (Err(_), _) => ExitCode::from(EXIT_INTERNAL),
        (Ok(()), true) => ExitCode::SUCCESS,
        (Ok(()), false) => ExitCode::FAILURE,
    }
}

fn write_summary(path: Option<&PathBuf>, summary: &Summary) -> std::io::Result<()> {
    match path {
        Some(path) => std::fs::write(path, serde_json::to_vec_pretty(summary)?),
        None => Ok(()),
    }
}
