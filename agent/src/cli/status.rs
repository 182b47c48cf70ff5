//! `picket-agent status`.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{StateDirArgument, complain, exit};
use crate::status::{self, ReadError, print};

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    state: StateDirArgument,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Table)]
    output: StatusOutput,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum StatusOutput {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

pub(super) fn status(arguments: &StatusArguments) -> ExitCode {
    let reading = match status::read(&arguments.state.state_dir) {
        Ok(reading) => reading,
        Err(error) => {
            complain(&error);
            return ExitCode::from(match error {
                ReadError::NoAgent { .. } => exit::CONFIGURATION,
                ReadError::File { .. } => exit::INTERNAL,
            });
        }
    };
    let text = match arguments.output {
        StatusOutput::Table => print::table(&reading),
        StatusOutput::Json => match serde_json::to_value(&reading.snapshot) {
            Ok(mut value) => {
                value["running"] = Value::Bool(reading.is_running);
                format!("{value:#}\n")
            }
            Err(error) => {
                complain(&error);
                return ExitCode::from(exit::INTERNAL);
            }
        },
    };
    // Fails when nobody reads it any more.
    std::io::stdout().write_all(text.as_bytes()).ok();
    let is_healthy = reading.is_running && reading.snapshot.degraded.is_empty();
    if is_healthy { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDINGS) }
}
