//! Where sensors hand over: counts first, queues second, never waits.

use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::event::{ByteString, EventBody, LossReason, LossStage};

use crate::pipeline::ledger::{IntakeCounters, Ledger};
use crate::pipeline::queue::{QueueGauge, QueueLimits, QueueReceiver, QueueSender, Weigh, queue};
use crate::sensor::{Observation, ObservationSink};

/// Most observations between the sensors and the pipeline.
const QUEUE_ITEMS_MAX: usize = 32_768;
/// Most bytes of them.
const QUEUE_BYTES_MAX: usize = 12 * 1024 * 1024;

/// The sensors' end. Cheap to clone.
#[derive(Clone)]
pub struct SensorSender {
    queue: QueueSender<Observation>,
    intake: Intake,
}

/// The counters of what the sensors handed over.
#[derive(Clone)]
pub struct Intake {
    ledger: Arc<Mutex<Ledger>>,
    queue: QueueGauge,
}

/// Makes the way from the sensors to the pipeline.
pub(crate) fn intake(ledger: Ledger) -> (SensorSender, QueueReceiver<Observation>) {
    let (sender, receiver) = queue(QueueLimits { items: QUEUE_ITEMS_MAX, bytes: QUEUE_BYTES_MAX });
    let intake = Intake { ledger: Arc::new(Mutex::new(ledger)), queue: sender.gauge() };
    (SensorSender { queue: sender, intake }, receiver)
}

impl SensorSender {
    /// The counters behind this sender.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }
}

impl Intake {
    /// The counters now.
    pub fn counters(&self) -> IntakeCounters {
        *self.ledger.lock().counters()
    }

    /// How often the ledger could not be written.
    pub fn write_failures(&self) -> u64 {
        self.ledger.lock().write_failures()
    }

    /// Observations in the queue.
    pub fn queued(&self) -> usize {
        self.queue.items()
    }
}

impl ObservationSink for SensorSender {
    /// Counts the observation in the ledger, then queues it, or drops and counts it when the queue is full. The
    /// agent's own event bodies are not observations and are passed over.
    fn send(&self, observation: Observation) {
        self.send_all(&mut vec![observation]);
    }

    fn send_all(&self, observations: &mut Vec<Observation>) {
        observations.retain(|observation| {
            !matches!(observation.body, EventBody::AgentStart(_) | EventBody::AgentChange(_) | EventBody::SensorLoss(_))
        });
        if observations.is_empty() {
            return;
        }
        // Counted and queued under one lock: no durable batch can hold what the ledger does not.
        let mut ledger = self.intake.ledger.lock();
        ledger.accept(observations.len() as u64);
        let dropped = observations.drain(..).filter_map(|observation| self.queue.try_send(observation).err()).count();
        if dropped > 0 {
            ledger.drop_accepted(dropped as u64);
        }
    }

    /// Only two places can lose an event before the pipeline has it: the kernel (stage sensor) and a sensor's own
    /// queue (stage pipeline, queue full). Anything else is counted as the former.
    fn lost(&self, stage: LossStage, reason: LossReason, count: u64) {
        let stage = match (stage, reason) {
            (LossStage::Pipeline, LossReason::QueueFull) => LossStage::Pipeline,
            _ => LossStage::Sensor,
        };
        if count > 0 {
            self.intake.ledger.lock().report(stage, reason, count);
        }
    }
}

impl Weigh for Observation {
    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + body_bytes(&self.body)
    }
}

/// About how much memory a body takes beside the event itself.
pub(crate) fn body_bytes(body: &EventBody) -> usize {
    let heap = match body {
        EventBody::ProcessStart(start) => {
            let strings: usize = start.arguments.iter().chain(&start.ancestors).map(|text| text.len() + 16).sum();
            let texts = [&start.executable, &start.working_directory, &start.cgroup, &start.script];
            size_of_val(&**start) + strings + texts.map(ByteString::len).into_iter().sum::<usize>()
        }
        EventBody::ProcessExit(exit) => exit.executable.len(),
        EventBody::ConnectionOpen(connection) | EventBody::ConnectionListen(connection) => {
            size_of_val(&**connection) + connection.executable.len()
        }
        EventBody::ConnectionSummary(summary) => size_of_val(&**summary) + summary.close.connection.executable.len(),
        EventBody::ConnectionClose(close) => size_of_val(&**close) + close.connection.executable.len(),
        EventBody::Authentication(authentication) => {
            let texts = [&authentication.user_name, &authentication.service, &authentication.command];
            size_of_val(&**authentication) + texts.map(ByteString::len).into_iter().sum::<usize>()
        }
        EventBody::FileActivity(file) => {
            size_of_val(&**file) + file.path.len() + file.new_path.len() + file.executable.len()
        }
        EventBody::DnsActivity(dns) => {
            let answers: usize = dns.answers.iter().map(|text| text.len() + 16).sum();
            size_of_val(&**dns) + answers + dns.name.len() + dns.executable.len()
        }
        EventBody::KernelActivity(kernel) => size_of_val(&**kernel) + kernel.object.len() + kernel.executable.len(),
        EventBody::SensorLoss(_) => 0,
        EventBody::AgentStart(start) => size_of_val(&**start) + 64 * start.sensors.len(),
        EventBody::AgentChange(change) => size_of_val(&**change) + change.reason.len(),
    };
    // What the allocator adds.
    heap + 64
}
