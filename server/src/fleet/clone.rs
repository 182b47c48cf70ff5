//! Whether two agents use one identity: pure.
//!
//! An agent says with the first report of each stream which *life* it is in: its epoch (its start) and the number of the
//! connection within it. On one host lives only grow: an agent begins a new epoch with each start, after the one before
//! has ended, and numbers its connections. So whoever arrives with a life that is not later than one that was seen is
//! *stale*: a message that was under way for long, or a second agent.
//!
//! A process that has ended sends nothing more, so what is stale once may be a late message; what is stale again, on
//! another connection, is alive. An agent that is refused as stale connects again within its back-off, so a clone is
//! known after seconds. A restart, a crash, a reconnection never arrive stale twice.
//!
//! A machine that was set back to a snapshot of a running agent looks the same, and is meant to: its sequence numbers
//! are in use for other events.

use std::time::{Duration, Instant};

/// How long a stale arrival counts.
pub const STALE_WINDOW: Duration = Duration::from_secs(600);
/// Stale arrivals of one earlier epoch that prove a second agent.
pub const STALE_EARLIER_EPOCH: usize = 2;
/// Stale arrivals of the running epoch that do (one agent's connections may overtake each other).
pub const STALE_SAME_EPOCH: usize = 3;
/// Most stale arrivals remembered.
const REMEMBERED_MAX: usize = 16;

/// One connection of one life of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// When the agent started.
    pub epoch: u64,
    /// The connection within it, from 1; 0: the agent does not say.
    pub connection: u64,
}

/// What an arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// As it should be.
    Later,
    /// A late message, or a second agent.
    Stale,
    /// A second agent.
    Clone {
        /// The epoch seen again.
        epoch: u64,
        /// The latest one.
        latest: u64,
    },
}

/// The lives of one host's agent.
#[derive(Debug, Default)]
pub(super) struct Lives {
    latest: Option<Life>,
    stale: Vec<(Instant, u64)>,
}

impl Lives {
    /// Takes the first report of a stream.
    pub(super) fn arrive(&mut self, life: Life, now: Instant) -> Arrival {
        let Some(latest) = self.latest else {
            self.latest = Some(life);
            return Arrival::Later;
        };
        let is_silent = life.epoch == latest.epoch && (life.connection == 0 || latest.connection == 0);
        if life > latest || is_silent {
            self.latest = Some(life.max(latest));
            return Arrival::Later;
        }
        self.stale.retain(|(seen, _)| now.saturating_duration_since(*seen) < STALE_WINDOW);
        if self.stale.len() >= REMEMBERED_MAX {
            self.stale.remove(0);
        }
        self.stale.push((now, life.epoch));
        let again = self.stale.iter().filter(|(_, epoch)| *epoch == life.epoch).count();
        let enough = if life.epoch == latest.epoch { STALE_SAME_EPOCH } else { STALE_EARLIER_EPOCH };
        if again < enough {
            return Arrival::Stale;
        }
        Arrival::Clone { epoch: life.epoch, latest: latest.epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(epoch: u64, connection: u64) -> Life {
        Life { epoch, connection }
    }

    #[test]
    fn restarts_crashes_and_reconnections_are_no_clones() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        for epoch in 1..200 {
            for connection in 1..5 {
                assert_eq!(lives.arrive(life(epoch, connection), now), Arrival::Later);
            }
            // The last message of the life before comes late, once.
            if epoch > 1 {
                assert_eq!(lives.arrive(life(epoch - 1, 4), now), Arrival::Stale, "epoch {epoch}");
            }
        }
    }

    #[test]
    fn agents_that_do_not_number_their_connections_reconnect_as_they_like() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        for _ in 0..50 {
            assert_eq!(lives.arrive(life(7, 0), now), Arrival::Later);
        }
        assert_eq!(lives.arrive(life(8, 0), now), Arrival::Later);
    }

    #[test]
    fn an_earlier_life_that_comes_again_is_a_clone() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        assert_eq!(lives.arrive(life(5, 1), now), Arrival::Later);
        assert_eq!(lives.arrive(life(6, 1), now), Arrival::Later);
        assert_eq!(lives.arrive(life(5, 2), now), Arrival::Stale);
        assert_eq!(lives.arrive(life(5, 3), now), Arrival::Clone { epoch: 5, latest: 6 });
    }

    #[test]
    fn two_that_share_even_the_epoch_are_known_by_their_connections() {
        // A machine was copied while its agent ran: both go on counting from the same number, and each cuts the other off.
        let (mut lives, now) = (Lives::default(), Instant::now());
        let mut seen = Vec::new();
        for connection in 8..14 {
            for _agent in 0..2 {
                seen.push(lives.arrive(life(7, connection), now));
            }
        }
        let clones = seen.iter().filter(|arrival| matches!(arrival, Arrival::Clone { epoch: 7, latest: 7 })).count();
        assert!(clones > 0, "{seen:?}");
    }

    #[test]
    fn what_was_stale_long_ago_is_forgotten() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        assert_eq!(lives.arrive(life(6, 1), now), Arrival::Later);
        assert_eq!(lives.arrive(life(5, 1), now), Arrival::Stale);
        assert_eq!(lives.arrive(life(5, 2), now + STALE_WINDOW), Arrival::Stale);
    }
}
