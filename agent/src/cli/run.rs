//! `picket-agent run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::app::reload::ReloadSource;
use crate::app::{self, End, Invocation};
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
    start(arguments, own_program, End::Asked, |_| {}, |_| {})
}

/// Runs an agent whose configuration, whenever it is read, `adjust` has the last word on. `ended` is told the state folder
/// of one that ended well.
pub(super) fn start(
    arguments: RunArguments,
    own_program: OwnProgram,
    end: End,
    adjust: impl Fn(&mut Config) + Send + 'static,
    ended: impl FnOnce(&Path),
) -> ExitCode {
    let overrides = arguments.into_overrides();
    let config_path = overrides.config.clone().unwrap_or_else(|| PathBuf::from(crate::config::DEFAULT_PATH));
    let load = move || {
        let mut config = Config::load(&overrides, variables())?;
        adjust(&mut config);
        Ok(config)
    };
    let config = match load() {
        Ok(config) => config,
        Err(error) => {
            // There is no log yet.
            complain(&error);
            return exit::config(&error);
        }
    };
    let state_dir = config.agent.state_dir.clone();
    let set_log_filter = log::begin(&config.log);
    let source = ReloadSource { load: Box::new(load), set_log_filter };
    match app::run(config, source, Invocation { own_program, config_path }, end) {
        Ok(()) => {
            ended(&state_dir);
            ExitCode::SUCCESS
        }
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
