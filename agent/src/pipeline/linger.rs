//! How long an open batch waits for more events to share it: little latency when it is quiet, large batches when it is not.
//!
//! * After a quiet while, in which no batch was closed, only a tenth of the configured age: a lone event, with what belongs
//!   to it, is on its way at once.
//! * Otherwise the configured age: what comes steadily shares batches, and the disk is asked to sync a few times a second
//!   and not more.
//! * Longer while the writer is behind (see [`crate::pipeline::writer`]): a batch that waits in line may as well be filled.
//!   Full batches are closed whatever their age.

use std::time::{Duration, Instant};

/// Which part of the age a batch waits after a quiet while.
const QUIET_PART: u32 = 10;

/// See the module documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    age: Duration,
    last_closed: Option<Instant>,
}

impl Linger {
    /// With batches of at most `age`.
    pub(super) fn new(age: Duration) -> Self {
        Self { age, last_closed: None }
    }

    /// A batch was closed.
    pub(super) fn close(&mut self, now: Instant) {
        self.last_closed = Some(now);
    }

    /// When a batch is due that was opened at this moment.
    pub(super) fn due(&self, opened: Instant) -> Instant {
        let is_quiet = self.last_closed.is_none_or(|closed| opened.saturating_duration_since(closed) >= self.age);
        opened + if is_quiet { self.age / QUIET_PART } else { self.age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(200);

    /// When batches are closed that hold events of these moments (milliseconds), and with how many.
    fn closes(events: impl IntoIterator<Item = u64>) -> Vec<(u64, usize)> {
        let begin = Instant::now();
        let mut linger = Linger::new(AGE);
        let mut closed = Vec::new();
        let mut open: Option<(Instant, usize)> = None;
        let at = |millis| begin + Duration::from_millis(millis);
        let mut close = |linger: &mut Linger, (opened, count): (Instant, usize)| {
            let due = linger.due(opened);
            linger.close(due);
            closed.push(((due - begin).as_millis() as u64, count));
        };
        for event in events {
            if let Some(batch) = open.take_if(|(opened, _)| linger.due(*opened) <= at(event)) {
                close(&mut linger, batch);
            }
            open.get_or_insert((at(event), 0)).1 += 1;
        }
        if let Some(batch) = open {
            close(&mut linger, batch);
        }
        closed
    }

    #[test]
    fn a_lone_event_hardly_waits() {
        assert_eq!(closes([0, 5, 1_000, 3_000]), [(20, 2), (1_020, 1), (3_020, 1)]);
    }

    #[test]
    fn what_comes_steadily_shares_batches() {
        let closed = closes((0..1_000).map(|at| at * 2));
        assert_eq!(closed[..3], [(20, 10), (220, 100), (420, 100)]);
        assert!(closed.len() <= 11, "{closed:?}");
    }

    #[test]
    fn whatever_comes_there_are_not_many_batches() {
        for step in 1..600 {
            let closed = closes((0..).map(|at| at * step).take_while(|at| *at < 60_000));
            assert!(closed.len() <= 301, "{} batches a minute with an event every {step} ms", closed.len());
        }
    }
}
