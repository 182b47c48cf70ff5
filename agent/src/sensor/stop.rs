//! The end of all sensors: told at once to those that wait for something else.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Raised once, seen by every clone.
#[derive(Clone, Debug)]
pub(crate) struct StopSignal(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    is_raised: AtomicBool,
    /// Becomes readable, and stays so, when the other end is shut.
    seen: UnixStream,
    raised: UnixStream,
}

impl StopSignal {
    /// # Errors
    /// When the system gives no more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (seen, raised) = UnixStream::pair()?;
        Ok(Self(Arc::new(Signal { is_raised: AtomicBool::new(false), seen, raised })))
    }

    /// Wakes up everybody who waits, now and later.
    pub(crate) fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Release);
        // Fails when it was shut before.
        self.0.raised.shutdown(Shutdown::Both).ok();
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Acquire)
    }

    /// Waits until there is something to read, the stop, or for `timeout`; says whether there is something to read.
    ///
    /// # Errors
    /// When the descriptor cannot be waited for.
    pub(crate) fn wait_for(&self, descriptor: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
        let mut descriptors = [
            PollFd::from_borrowed_fd(descriptor, PollFlags::IN),
            PollFd::from_borrowed_fd(self.0.seen.as_fd(), PollFlags::IN),
        ];
        poll(&mut descriptors, timeout)?;
        Ok(!descriptors[0].revents().is_empty())
    }

    /// Waits for the stop, at most for `time`.
    pub(crate) fn sleep(&self, time: Duration) {
        // A descriptor of its own can be waited for; if not, the caller looks again too early.
        poll(&mut [PollFd::from_borrowed_fd(self.0.seen.as_fd(), PollFlags::IN)], time).ok();
    }
}

fn poll(descriptors: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match rustix::event::poll(descriptors, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn whoever_waits_is_told_of_the_stop_at_once_and_ever_after() {
        let stop = StopSignal::new().unwrap();
        let (quiet, _other) = UnixStream::pair().unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!stop.wait_for(quiet.as_fd(), LONG).unwrap()));
            scope.spawn(|| stop.sleep(LONG));
            stop.raise();
        });
        stop.raise();
        stop.sleep(LONG);
        assert!(stop.is_raised());
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn what_can_be_read_is_told_from_a_timeout() {
        let stop = StopSignal::new().unwrap();
        let (source, mut writer) = UnixStream::pair().unwrap();
        assert!(!stop.wait_for(source.as_fd(), Duration::from_millis(1)).unwrap());
        writer.write_all(b"x").unwrap();
        assert!(stop.wait_for(source.as_fd(), LONG).unwrap());
        assert!(!stop.is_raised());
    }
}
