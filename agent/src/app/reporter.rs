//! Takes the status once a second: for the server, and for the file when it says something new.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::app::service_manager::Watchdog;
use crate::status::{INTERVAL, Snapshot, Sources, StatusFile};

/// How old the file may become while nothing but the agent's own cost changes: to replace it makes the file system write.
const FILE_AGE_MAX: Duration = Duration::from_secs(5);

/// The thread that does it.
#[derive(Debug)]
pub(crate) struct Reporter {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// Takes a first status at once, then one a second.
    pub(crate) fn start(
        mut sources: Sources,
        file: StatusFile,
        mut watchdog: Watchdog,
    ) -> std::io::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let first = Arc::new(sources.snapshot());
        let mut is_writable = true;
        write(&file, &first, &mut is_writable);
        let (mut written, mut written_at) = (Arc::clone(&first), Instant::now());
        let (news, latest) = watch::channel(first);
        let (stop, stopped) = sync_channel(1);
        let thread = Builder::new().name("status".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                let snapshot = Arc::new(sources.snapshot());
                if written_at.elapsed() >= FILE_AGE_MAX || !snapshot.says_the_same(&written) {
                    write(&file, &snapshot, &mut is_writable);
                    (written, written_at) = (Arc::clone(&snapshot), Instant::now());
                }
                watchdog.look(&snapshot);
                news.send_replace(snapshot);
            }
            let mut last = sources.snapshot();
            last.stopped = true;
            write(&file, &last, &mut is_writable);
        })?;
        Ok((Self { stop, thread }, latest))
    }

    /// Writes the last status and ends.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the status thread panicked");
        }
    }
}

/// Writes the file; says so only when it begins to fail.
fn write(file: &StatusFile, snapshot: &Snapshot, was_writable: &mut bool) {
    let result = file.write(snapshot);
    if let Err(error) = &result
        && *was_writable
    {
        tracing::warn!(%error, "the status cannot be written");
    }
    *was_writable = result.is_ok();
}
