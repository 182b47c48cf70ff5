//! How far the process sensor has come, for sensors whose records are about its processes.
//!
//! Each sensor has a ring buffer of its own: that a process connects can be read before that it started. Who has such
//! records waits until the process sensor has told of everything that was recorded before.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// How long is waited at most: then the process sensor is far behind, and records are used with what is known.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often is looked.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// One for all sensors of an agent.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessProgress(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// The process sensor's ring buffer; without, it has none, and there is nothing to wait for.
    ring: OnceLock<OwnedFd>,
    /// How many turns have begun and ended that emptied the ring buffer: odd within one.
    turns: AtomicU64,
}

impl ProcessProgress {
    /// The process sensor reads this ring buffer.
    pub(super) fn follow(&self, ring: impl AsFd) {
        // Without a descriptor for it nobody waits: a process may then be named by its number only.
        if let Ok(ring) = ring.as_fd().try_clone_to_owned() {
            self.0.ring.set(ring).ok();
        }
    }

    /// Before the first record of a turn is taken.
    pub(super) fn turn_begins(&self) {
        if !is_within_turn(self.0.turns.load(Ordering::SeqCst)) {
            self.0.turns.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// After the last record was told. When the ring buffer was not emptied, the turn goes on.
    pub(super) fn turn_ends(&self, emptied: bool) {
        if emptied && is_within_turn(self.0.turns.load(Ordering::SeqCst)) {
            self.0.turns.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until everything that is recorded by now is told, within reason.
    pub(super) fn wait_until_told(&self) {
        let Some(ring) = self.0.ring.get() else { return };
        // A turn that begins from now on takes what is recorded by now.
        let begun = self.0.turns.load(Ordering::SeqCst);
        let told = begun + if is_within_turn(begun) { 3 } else { 2 };
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            // Taken records are out of the ring buffer before they are told: the order of the two questions matters.
            let is_empty = !has_records(ring);
            let turns = self.0.turns.load(Ordering::SeqCst);
            if turns >= told || is_empty && !is_within_turn(turns) || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

fn is_within_turn(turns: u64) -> bool {
    turns % 2 == 1
}

/// Whether a ring buffer has records; also when that cannot be known.
fn has_records(ring: &OwnedFd) -> bool {
    let mut descriptors = [PollFd::new(ring, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut descriptors, Some(&at_once)).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket stands for the ring buffer: it has records while something can be read.
    fn followed() -> (ProcessProgress, UnixStream, UnixStream) {
        let (ring, records) = UnixStream::pair().unwrap();
        let progress = ProcessProgress::default();
        progress.follow(&ring);
        (progress, ring, records)
    }

    fn waits(progress: &ProcessProgress) -> bool {
        let begun = Instant::now();
        progress.wait_until_told();
        begun.elapsed() >= WAIT_MAX
    }

    #[test]
    fn nothing_is_waited_for_without_a_ring_buffer_or_records() {
        assert!(!waits(&ProcessProgress::default()));
        let (progress, _ring, _records) = followed();
        assert!(!waits(&progress));
    }

    #[test]
    fn what_is_recorded_or_taken_is_waited_for_until_it_is_told() {
        let (progress, mut ring, mut records) = followed();
        records.write_all(b"1").unwrap();
        assert!(waits(&progress), "recorded");
        progress.turn_begins();
        ring.read_exact(&mut [0]).unwrap();
        assert!(waits(&progress), "taken");
        progress.turn_ends(false);
        assert!(waits(&progress), "there may be more");
        progress.turn_begins();
        progress.turn_ends(true);
        assert!(!waits(&progress), "told");
    }

    #[test]
    fn records_that_never_cease_are_not_waited_for() {
        let (progress, _ring, mut records) = followed();
        records.write_all(b"1").unwrap();
        progress.turn_begins();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| waits(&progress));
            // The turn that ran already may have passed by what is waited for; the one after it has not.
            while !waiter.is_finished() {
                progress.turn_ends(true);
                progress.turn_begins();
                std::thread::yield_now();
            }
            assert!(!waiter.join().unwrap());
        });
    }
}
