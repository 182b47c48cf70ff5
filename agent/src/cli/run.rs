//! `picket-agent run`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::reload::ReloadSource;
use crate::app::{self, AppError, End, Invocation};
use crate::cli::{complain, exit, log};
use crate::config::{Config, Overrides};
use crate::own_program::OwnProgram;

#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// Everything the agent keeps is below this folder.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/picket/agent.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server, host:port, instead of the one given at enrolment.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
}

impl RunArguments {
    pub(super) fn into_overrides(self) -> Overrides {
        let state_dir = self.state_dir.map(|path| path.display().to_string());
        let flags = [("--state-dir", "agent.state_dir", state_dir), ("--server", "uplink.server", self.server)];
        let flags = flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect();
        Overrides { config: self.config, flags }
    }
}

pub(super) fn run(arguments: RunArguments, own_program: OwnProgram) -> ExitCode {
    let overrides = arguments.into_overrides();
    let config_path = overrides.config.clone().unwrap_or_else(|| PathBuf::from(crate::config::DEFAULT_PATH));
    let config = match Config::load(&overrides, variables()) {
        Ok(config) => config,
        Err(error) => {
            // There is no log yet.
            complain(&error);
            return exit::config(&error);
        }
    };
    let set_log_filter = log::begin(&config.log);
    let source = ReloadSource { load: Box::new(move || Config::load(&overrides, variables())), set_log_filter };
    ended(app::run(config, source, Invocation { own_program, config_path }, End::Asked))
}

/// The exit code of an agent that has ended.
pub(super) fn ended(result: Result<(), AppError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = crate::error_text::chain(&error), "picket-agent ends");
            exit::app(&error)
        }
    }
}

/// The environment; a variable that is not text is none of ours.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
