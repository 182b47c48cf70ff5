//! SIGTERM, SIGINT and SIGHUP.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To stop.
    Stop,
    /// To read the configuration again.
    Reload,
}

/// The signals that ask the agent for something.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they do not end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Ask {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => {
                tracing::info!("asked to read the configuration again");
                return Ask::Reload;
            }
        };
        tracing::info!(signal = name, "asked to stop");
        Ask::Stop
    }

    /// Waits for the next one that asks to stop; `reload` runs for each that asks for that.
    pub(crate) async fn until_stop(&mut self, mut reload: impl FnMut()) {
        while self.next().await == Ask::Reload {
            reload();
        }
    }
}
