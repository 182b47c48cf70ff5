//! `picket-agent doctor`.

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::run::{RunArguments, variables};
use crate::cli::{complain, exit};
use crate::config::Config;
use crate::doctor::{self, Area, Check, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    agent: RunArguments,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t = DoctorOutput::Table)]
    output: DoctorOutput,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DoctorOutput {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
}

pub(super) fn doctor(arguments: DoctorArguments) -> ExitCode {
    let config = match Config::load(&arguments.agent.into_overrides(), variables()) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return exit::config(&error);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error);
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let checks = runtime.block_on(doctor::examine(&config));
    let text = match arguments.output {
        DoctorOutput::Table => checks.iter().map(line).collect::<String>(),
        DoctorOutput::Json => {
            let lines = checks.iter().map(|check| serde_json::to_string(check).map(|line| line + "\n"));
            match lines.collect::<Result<String, _>>() {
                Ok(text) => text,
                Err(error) => {
                    complain(&error);
                    return ExitCode::from(exit::INTERNAL);
                }
            }
        }
    };
    // Fails when nobody reads it any more.
    std::io::stdout().write_all(text.as_bytes()).ok();
    ExitCode::from(code(&checks))
}

fn line(check: &Check) -> String {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Warn => "warn",
        Outcome::Fail => "FAIL",
    };
    let escaped = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let advice = match check.advice.as_str() {
        "" => String::new(),
        advice => format!("{:<24} → {}\n", "", escaped(advice)),
    };
    format!("{outcome:<5} {:<18} {}\n{advice}", check.name, escaped(&check.found))
}

/// Of the worst of what is wrong: the identity is needed for the server, and the host for both.
fn code(checks: &[Check]) -> u8 {
    let fails = |area| checks.iter().any(|check| check.outcome == Outcome::Fail && check.area == area);
    if fails(Area::Identity) {
        exit::IDENTITY
    } else if fails(Area::Server) {
        exit::UNREACHABLE
    } else if fails(Area::Host) {
        exit::FINDINGS
    } else {
        0
    }
}
