//! When a sensor looks after its tables and counts what was lost.

use std::time::{Duration, Instant};

/// How long after records came, and as long as there is something to follow up.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often while nothing happens: nothing can be lost then, and each look wakes a processor up.
const QUIET_INTERVAL: Duration = Duration::from_secs(5);

/// The next time.
#[derive(Debug)]
pub(super) struct Maintenance {
    due: Instant,
}

impl Maintenance {
    /// The first one comes soon.
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + INTERVAL }
    }

    /// Records came.
    pub(super) fn hasten(&mut self) {
        self.due = self.due.min(Instant::now() + INTERVAL);
    }

    /// How long until it is due.
    pub(super) fn patience(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Whether it is time.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// It was done, and there may be something to follow up.
    pub(super) fn done(&mut self, has_more: bool) {
        self.due = Instant::now() + if has_more { INTERVAL } else { QUIET_INTERVAL };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_seldom_while_nothing_happens_and_soon_after_something_did() {
        let mut maintenance = Maintenance { due: Instant::now() };
        assert!(maintenance.is_due());
        maintenance.done(false);
        assert!(!maintenance.is_due() && maintenance.patience() > INTERVAL);
        maintenance.hasten();
        assert!(maintenance.patience() <= INTERVAL);
        let soon = maintenance.due;
        maintenance.hasten();
        assert_eq!(maintenance.due, soon, "more records do not put it off");
        maintenance.done(true);
        assert!(maintenance.patience() <= INTERVAL, "there is something to follow up");
    }
}
