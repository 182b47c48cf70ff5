//! What a sensor sends, counted.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use picket_common::event::{EventBody, LossReason, LossStage, Origin, Timestamp};

use crate::sensor::{Observation, ObservationSink, SharedRedactor};

/// Most observations that are held back to be sent together.
const HELD_MAX: usize = 256;

/// What one sensor has done so far.
#[derive(Debug, Default)]
pub(super) struct SensorCounters {
    events: AtomicU64,
    lost: AtomicU64,
}

impl SensorCounters {
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// One sensor's way out.
#[derive(Debug)]
pub(super) struct Reporter<S> {
    sender: S,
    counters: Arc<SensorCounters>,
    origin: Origin,
    /// Takes secrets out of command lines, unless the configuration says not to.
    redactor: SharedRedactor,
    /// What is held back; `None`: nothing is to be.
    held: RefCell<Option<Vec<Observation>>>,
}

impl<S: ObservationSink> Reporter<S> {
    pub(super) fn new(sender: S, counters: Arc<SensorCounters>, origin: Origin, redactor: SharedRedactor) -> Self {
        Self { sender, counters, origin, redactor, held: RefCell::default() }
    }

    /// Sends an observation, without the secrets in it.
    pub(super) fn send(&self, time: Timestamp, mut body: EventBody) {
        if let EventBody::ProcessStart(start) = &mut body
            && let Some(redactor) = self.redactor.get()
        {
            redactor.redact(&mut start.arguments);
        }
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        let observation = Observation { time, origin: self.origin, body };
        match &mut *self.held.borrow_mut() {
            None => self.sender.send(observation),
            Some(held) => {
                held.push(observation);
                if held.len() >= HELD_MAX {
                    self.sender.send_all(held);
                }
            }
        }
    }

    /// Runs `tell`; what is sent meanwhile is handed over together at its end.
    ///
    /// For a burst of records, within one turn: what is held back is in no account yet.
    pub(super) fn together<T>(this: &mut T, of: impl Fn(&mut T) -> &Self, tell: impl FnOnce(&mut T)) {
        of(this).held.replace(Some(Vec::new()));
        tell(this);
        let reporter = of(this);
        if let Some(mut held) = reporter.held.take() {
            reporter.sender.send_all(&mut held);
        }
    }

    /// Reports `count` messages of the kernel that were lost; none is not worth a report.
    pub(super) fn lost(&self, count: u64) {
        self.lost_because(LossReason::QueueFull, count);
    }

    /// Reports `count` events that a limit on their rate left out.
    pub(super) fn throttled(&self, count: u64) {
        self.lost_because(LossReason::Throttled, count);
    }

    /// Reports `count` events that could not be seen or sent.
    pub(super) fn lost_because(&self, reason: LossReason, count: u64) {
        if count > 0 {
            self.counters.lost.fetch_add(count, Ordering::Relaxed);
            self.sender.lost(LossStage::Sensor, reason, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_common::event::SensorLoss;
    use picket_common::id::Epoch;

    use super::*;
    use crate::config::live::Live;
    use crate::sensor::test_sink::TestSink;

    fn some_body() -> EventBody {
        let (stage, reason) = (LossStage::Sensor, LossReason::QueueFull);
        EventBody::SensorLoss(SensorLoss { stage, reason, count: 1, epoch: Epoch(1) })
    }

    #[test]
    fn what_is_told_together_is_handed_over_at_the_end_or_when_it_is_much() {
        let sink = TestSink::default();
        let reporter = Reporter::new(sink.clone(), Arc::default(), Origin::AgentEbpf, Arc::new(Live::new(None)));
        let mut sensor = (reporter, 0);
        let tell = |sensor: &mut (Reporter<TestSink>, i64), count: usize| {
            for _ in 0..count {
                sensor.1 += 1;
                sensor.0.send(Timestamp(sensor.1), some_body());
            }
        };
        let times = || sink.observations().iter().map(|observation| observation.time.0).collect::<Vec<_>>();
        tell(&mut sensor, 1);
        assert_eq!(times(), [1], "alone: at once");
        Reporter::together(
            &mut sensor,
            |sensor| &sensor.0,
            |sensor| {
                tell(sensor, HELD_MAX - 1);
                assert_eq!(times().len(), 1, "held back");
                tell(sensor, 2);
                assert_eq!(times().len(), 1 + HELD_MAX, "no more than so many are");
            },
        );
        tell(&mut sensor, 1);
        assert!(times().into_iter().eq(1..=HELD_MAX as i64 + 3), "{:?}", times());
        assert_eq!(sensor.0.counters.events(), HELD_MAX as u64 + 3);
    }
}
