//! Logs go to standard error: text on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

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
    let filter = log_filter(&config.filter).unwrap_or_default();
    // A log that cannot be written (its disk is full) must not end what it logs: by default the failure is printed,
    // and that printing panics.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(terminal)
        .log_internal_errors(false);
    // Fails when the process has a subscriber: then it logs there.
    let (begun, set_filter) = if json {
        let subscriber = subscriber.json().with_filter_reloading();
        let handle = subscriber.reload_handle();
        (subscriber.try_init().is_ok(), setter(handle))
    } else {
        let subscriber = subscriber.with_filter_reloading();
        let handle = subscriber.reload_handle();
        (subscriber.try_init().is_ok(), setter(handle))
    };
    if begun {
        // A panic must not break the log's form; those inside the buffer's store are caught and dealt with.
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            tracing::error!(thread = thread.name().unwrap_or("?"), panic = %panic, "panic");
        }));
    }
    set_filter
}

fn setter<S: 'static>(handle: Handle<EnvFilter, S>) -> SetLogFilter {
    Box::new(move |filter| {
        let result = log_filter(filter).map(|filter| handle.reload(filter));
        if !matches!(result, Ok(Ok(()))) {
            tracing::warn!(filter, "the log's filter could not be changed");
        }
    })
}
