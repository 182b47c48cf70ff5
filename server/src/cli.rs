//! The command line of picket-server.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::{Server, StartError};
use crate::config::{Config, ConfigError, Overrides};

mod exit;
mod log;
mod signals;

/// Stack of each thread: an unoptimised build's query planner recurses deeply.
const THREAD_STACK_BYTES: usize = 8 * 1024 * 1024;

/// The Picket server: takes events in, keeps them, learns from their labels and gives agents models.
#[derive(Debug, Parser)]
#[command(name = "picket-server", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve(ServeArguments),
}

#[derive(Debug, clap::Args)]
struct ServeArguments {
    /// Everything the server keeps is below this folder.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Configuration file [default: /etc/picket/server.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where agents connect, host:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    agent_address: Option<String>,
    /// Where operators connect, host:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
}

/// Why the server ended otherwise than asked to.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("configuration: `log.filter`: {0}")]
    LogFilter(#[from] tracing_subscriber::filter::ParseError),
    #[error("cannot start the threads of the server: {0}")]
    Runtime(std::io::Error),
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Failure(#[from] crate::app::TaskFailure),
}

/// Runs picket-server with these arguments (the first is the program's name) and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Arguments { command: Command::Serve(arguments) } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Fails when nobody reads it any more.
            usage.print().ok();
            return exit::usage(&usage);
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                // There is no log yet.
                ServeError::Config(_) | ServeError::LogFilter(_) => eprintln!("picket-server: {error}"),
                error => tracing::error!(%error, "picket-server ends"),
            }
            exit::code(&error)
        }
    }
}

fn serve(arguments: ServeArguments) -> Result<(), ServeError> {
    let config = Config::load(&arguments.into_overrides(), variables())?;
    log::begin(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        // First of all, so that a signal during the start is not lost.
        let signal = signals::stop().map_err(ServeError::Signals)?;
        let server = Server::start(config).await?;
        server.run(signal).await?;
        Ok(())
    })
}

impl ServeArguments {
    fn into_overrides(self) -> Overrides {
        let flags = [
            ("--state-dir", "server.state_dir", self.state_dir),
            ("--agent-address", "agent_listener.address", self.agent_address),
            ("--admin-address", "admin_listener.address", self.admin_address),
        ];
        let flags = flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect();
        Overrides { config: self.config, flags }
    }
}

/// The environment; a variable that is not text is none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn flags_become_settings() {
        let line = ["picket-server", "serve", "--state-dir", "/s", "--admin-address", "127.0.0.1:0", "--config", "/c"];
        let Arguments { command: Command::Serve(arguments) } = Arguments::try_parse_from(line).unwrap();
        let overrides = arguments.into_overrides();
        assert_eq!(overrides.config, Some(PathBuf::from("/c")));
        let flags = [
            ("--state-dir", "server.state_dir", "/s".to_owned()),
            ("--admin-address", "admin_listener.address", "127.0.0.1:0".to_owned()),
        ];
        assert_eq!(overrides.flags, flags);
    }

    /// What `serve` ends with, given a state folder, a configuration and more flags.
    fn exit_code(state: &Path, config: &str, flags: &[&str]) -> u8 {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("server.toml");
        std::fs::write(&path, format!("log.filter = 'off'\n{config}")).unwrap();
        let line = ["picket-server", "serve", "--state-dir", state.to_str().unwrap()];
        let line = line.into_iter().chain(["--config", path.to_str().unwrap()]).chain(flags.iter().copied());
        let Arguments { command: Command::Serve(arguments) } = Arguments::try_parse_from(line).unwrap();
        exit::number(&serve(arguments).unwrap_err())
    }

    #[test]
    fn each_mistake_has_its_exit_code() {
        let state = tempfile::TempDir::new().unwrap();
        let state = state.path();
        assert_eq!(exit_code(state, "[ingest]\nagent_burst = 1", &[]), 3);
        assert_eq!(exit_code(state, "log = 1", &[]), 3);
        assert_eq!(exit_code(state, "", &["--agent-address", "here"]), 3);
        assert_eq!(exit_code(Path::new("/proc/none"), "", &[]), 3);

        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        assert_eq!(exit_code(state, "", &["--agent-address", &taken]), 3);
        let free = ["--agent-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"];
        assert_eq!(exit_code(state, "pki.server_names = ['not a name']", &free), 3);

        std::fs::remove_dir_all(state.join("pki")).unwrap();
        std::fs::write(state.join("ca.pem"), "").unwrap();
        assert_eq!(exit_code(state, "", &free), 4);
    }

    #[test]
    fn a_wrong_command_line_is_bad_input_and_help_is_not() {
        let code = |line: &[&str]| format!("{:?}", main(line.iter().map(OsString::from)));
        assert_eq!(code(&["picket-server", "--help"]), format!("{:?}", ExitCode::SUCCESS));
        for line in [&["picket-server"][..], &["picket-server", "explode"], &["picket-server", "serve", "--no"]] {
            assert_eq!(code(line), format!("{:?}", ExitCode::from(2)), "{line:?}");
        }
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
