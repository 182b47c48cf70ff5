//! Logs go to standard error: text on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use crate::config::{LogConfig, LogFormat, log_filter};

/// Changes what is logged.
pub(super) type SetLogFilter = Box<dyn Fn(&str) + Send>;

/// Begins to log; gives what changes the filter later. Does nothing when this process logs already.
pub(super) fn begin(config: &LogConfig) -> SetLogFilter {
    let terminal = io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    // The configuration was checked; a filter that cannot be used all the same is the default one.
    let filter = log_filter(&config.filter).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, handle) = reload::Layer::new(filter);
    // A log that cannot be written (its disk is full) must not end what it logs: by default the failure is printed,
    // and that printing panics.
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal).log_internal_errors(false);
    // Fails when the process has a subscriber: then it logs there.
    let begun = if json {
        tracing_subscriber::registry().with(filter).with(lines.json()).try_init().is_ok()
    } else {
        tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok()
    };
    if begun {
        // A panic must not break the log's form; those inside the buffer's store are caught and dealt with.
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            tracing::error!(thread = thread.name().unwrap_or("?"), panic = %panic, "panic");
        }));
    }
    Box::new(move |filter| {
        let result = log_filter(filter).map(|filter| handle.reload(filter));
        if !matches!(result, Ok(Ok(()))) {
            tracing::warn!(filter, "the log's filter could not be changed");
        }
    })
}
