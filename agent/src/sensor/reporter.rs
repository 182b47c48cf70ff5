//! What a sensor sends, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use picket_common::event::{EventBody, LossReason, LossStage, Origin, Timestamp};

use crate::sensor::{Observation, ObservationSink, SharedRedactor};

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
}

impl<S: ObservationSink> Reporter<S> {
    pub(super) fn new(sender: S, counters: Arc<SensorCounters>, origin: Origin, redactor: SharedRedactor) -> Self {
        Self { sender, counters, origin, redactor }
    }

    /// Sends an observation, without the secrets in it.
    pub(super) fn send(&self, time: Timestamp, mut body: EventBody) {
        if let EventBody::ProcessStart(start) = &mut body
            && let Some(redactor) = self.redactor.get()
        {
            redactor.redact(&mut start.arguments);
        }
        self.counters.events.fetch_add(1, Ordering::Relaxed);
        self.sender.send(Observation { time, origin: self.origin, body });
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
