//! The command line of picket-agent.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::doctor::DoctorArguments;
use crate::cli::enroll::EnrollArguments;
#[cfg(target_os = "linux")]
use crate::cli::install::{InstallArguments, UninstallArguments};
use crate::cli::replay::ReplayArguments;
use crate::cli::run::RunArguments;
use crate::cli::score::ScoreArguments;
use crate::cli::status::StatusArguments;
use crate::own_program::OwnProgram;

mod doctor;
mod enroll;
mod exit;
#[cfg(target_os = "linux")]
mod install;
mod log;
mod replay;
mod run;
mod score;
mod status;
#[cfg(test)]
mod tests;

/// The Picket agent: sees what happens on this host, keeps it, delivers it, and scores it on the spot.
#[derive(Debug, Parser)]
#[command(name = "picket-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Observe, buffer, deliver and score until SIGTERM or SIGINT.
    Run(RunArguments),
    /// Play a recording through everything that an event goes through: scored, buffered, delivered where this host has an
    /// identity. No other sensor runs. Ends by itself, with an identity once the server has everything.
    Replay(ReplayArguments),
    /// Get this host an identity with a join token.
    Enroll(EnrollArguments),
    /// Show how the agent is doing. Exit code 0: well, 1: degraded or not running, 3: no agent has run there.
    Status(StatusArguments),
    /// Look at everything the agent depends on, and say what to do. Exit code 0: it works, 1: something on this host is
    /// wrong, 3: the configuration, 4: the identity, 5: the server cannot be reached.
    Doctor(DoctorArguments),
    /// Score recorded events with a model, offline. Exit code 1: there are findings.
    Score(ScoreArguments),
    /// Put the agent on this host: program, systemd unit, configuration, state folder. Again: nothing changes.
    #[cfg(target_os = "linux")]
    Install(InstallArguments),
    /// Take it away again. Configuration, identity and events stay without --purge.
    #[cfg(target_os = "linux")]
    Uninstall(UninstallArguments),
    /// Load eBPF programs for the agent that started this.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    EbpfLoad {
        /// Which.
        #[arg(required = true)]
        objects: Vec<String>,
    },
}

/// Where an agent keeps everything.
#[derive(Debug, clap::Args)]
struct StateDirArgument {
    /// Everything the agent keeps is below this folder.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/picket")]
    state_dir: PathBuf,
}

/// Runs picket-agent with these arguments (the first is the program's name) and returns its exit code: 0 ok, 1
/// findings or degraded, 2 bad input, 3 configuration, 4 identity, 5 server unreachable, 70 and more internal.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    main_of(OwnProgram::default(), arguments)
}

/// As [`main`], of a program that is the agent only in one of its roles.
pub fn main_of(own_program: OwnProgram, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Fails when nobody reads it any more.
            usage.print().ok();
            return exit::usage(&usage);
        }
    };
    match arguments.command {
        Command::Run(arguments) => run::run(arguments, own_program),
        Command::Replay(arguments) => replay::replay(arguments, own_program),
        Command::Enroll(arguments) => enroll::enroll(arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Score(arguments) => score::score(&arguments),
        #[cfg(target_os = "linux")]
        Command::Install(arguments) => install::install(&arguments),
        #[cfg(target_os = "linux")]
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        #[cfg(target_os = "linux")]
        Command::EbpfLoad { objects } => ebpf_load(&objects),
    }
}

#[cfg(target_os = "linux")]
fn ebpf_load(objects: &[String]) -> ExitCode {
    match crate::sensor::ebpf::helper::run(objects) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit::BAD_INPUT)
        }
    }
}

/// Says why a command failed, on standard error.
fn complain(error: &dyn std::error::Error) {
    eprintln!("picket-agent: {}", crate::error_text::chain(error));
}
