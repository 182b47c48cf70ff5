//! Telling systemd how the agent is: ready, alive, stopping (`sd_notify(3)`).
//!
//! Alive means progress: the main task runs, the status can be taken (which takes the locks of all parts), and the pipeline
//! takes what is in its queue. When one of them stands still, systemd is not told, and restarts the agent.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::status::Snapshot;

/// Where systemd listens; `@` begins an abstract name.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// How long the main task and the pipeline may stand still.
const STANDSTILL_MAX: Duration = Duration::from_secs(20);

/// Whoever started the agent, if it wants to be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    beats: Arc<AtomicU64>,
}

impl ServiceManager {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let socket = std::env::var_os(SOCKET_VARIABLE).and_then(|name| match connect(name.as_bytes()) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told anything");
                None
            }
        });
        Self { socket, beats: Arc::default() }
    }

    /// The start is over.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The stop has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The main task runs.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// What looks for progress.
    pub(crate) fn watchdog(&self) -> Watchdog {
        let now = Instant::now();
        Watchdog { manager: self.clone(), beats: (0, now), handled: (0, now) }
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, message, "the service manager was not told");
        }
    }
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        path => socket.connect(std::ffi::OsStr::from_bytes(path))?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Tells the service manager that the agent is alive for as long as there is progress.
#[derive(Debug)]
pub(crate) struct Watchdog {
    manager: ServiceManager,
    /// What was seen last, and when it was first seen.
    beats: (u64, Instant),
    handled: (u64, Instant),
}

impl Watchdog {
    /// After each status.
    pub(crate) fn look(&mut self, snapshot: &Snapshot) {
        let queued = snapshot.pipeline.queued;
        if self.is_progress(
            self.manager.beats.load(Ordering::Relaxed),
            queued,
            snapshot.pipeline.events,
            Instant::now(),
        ) {
            self.manager.tell("WATCHDOG=1");
        } else {
            tracing::error!(queued, "no progress: the service manager is not told that the agent is alive");
        }
    }

    fn is_progress(&mut self, beats: u64, queued: u64, handled: u64, now: Instant) -> bool {
        if beats != self.beats.0 {
            self.beats = (beats, now);
        }
        if handled != self.handled.0 || queued == 0 {
            self.handled = (handled, now);
        }
        [self.beats.1, self.handled.1].into_iter().all(|since| now.duration_since(since) < STANDSTILL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("picket-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().as_bytes().to_vec()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into_bytes()),
        ] {
            let socket = Some(Arc::new(connect(&address).unwrap()));
            let manager = ServiceManager { socket, beats: Arc::default() };
            manager.ready();
            assert_eq!(received(&listener), "READY=1");
            manager.beat();
            manager.watchdog().look(&Snapshot::default());
            assert_eq!(received(&listener), "WATCHDOG=1");
            manager.stopping();
            assert_eq!(received(&listener), "STOPPING=1");
        }
    }

    #[test]
    fn standing_still_is_no_life() {
        let mut watchdog = ServiceManager::default().watchdog();
        let begin = Instant::now();
        let later = begin + STANDSTILL_MAX;
        assert!(watchdog.is_progress(1, 5, 10, begin));
        assert!(watchdog.is_progress(2, 5, 11, later), "both went on");
        assert!(!watchdog.is_progress(3, 5, 11, later + STANDSTILL_MAX), "the pipeline takes nothing");
        assert!(watchdog.is_progress(4, 0, 11, later + STANDSTILL_MAX), "there is nothing to take");
        assert!(!watchdog.is_progress(4, 0, 11, later + STANDSTILL_MAX * 2), "the main task stands still");
    }
}
