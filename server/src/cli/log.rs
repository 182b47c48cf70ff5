//! Logs go to standard error: text on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::{LogConfig, LogFormat};

/// Begins to log. Does nothing when this process logs already. An error: `log.filter` is none.
pub(super) fn begin(config: &LogConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).parse(&config.filter)?;
    let terminal = io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    // A log that cannot be written (its disk is full) must not end what it logs: by default the failure is printed,
    // and that printing panics.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(terminal)
        .log_internal_errors(false);
    // Fails when the process has a subscriber: then it logs there.
    if json {
        subscriber.json().try_init().ok()
    } else {
        subscriber.try_init().ok()
    };
    Ok(())
}
