//! The account of one epoch: where every event of its sensors went.
//!
//! Terms, all counting events of one epoch
//! * `accepted`: observations the sensors handed over (ledger).
//! * `sensor_lost`: events the sensors reported as lost before they could hand them over.
//! * `framed`: accepted observations that went into a batch.
//! * `delivered`: framed events whose batch the server acknowledged.
//! * `booked`: losses, by stage and reason. Each is announced to the server once, by a `SensorLoss` event. It is
//!   `pending` until that event is in a durable batch, and in `announced` once the server acknowledged that batch.
//!
//! The invariants, once an epoch has ended:
//! ```text
//! accepted + sensor_lost = framed + booked(sensor, pipeline)
//! framed                 = delivered + waiting in the buffer + booked(buffer, server)
//! booked                 = pending + in batches that wait in the buffer + announced
//! ```
//! While the epoch runs, the first line lacks what is in the queue and in the open batch. The agent's own events
//! (`AgentStart`, `SensorLoss`) are in none of these numbers.

//!
//! The chain's part of it (see `picket_common::chain`) counts batches:
//! `batches = batches_delivered + batches_lost + waiting in the buffer`.

use picket_common::chain::{self, ChainHead, ChainPlace, LostSpan};
use picket_common::event::{LossReason, LossStage};
use picket_common::id::{BatchSequence, Digest, Epoch};

use crate::pipeline::loss::{LOSS_TABLE_BYTES, LossTable};
use crate::pipeline::lost_batches::{LOST_BATCHES_BYTES, LostBatches};

const WORDS_BYTES: usize = 64;
const LINK_BYTES: usize = 32;
const TABLES_AT: usize = WORDS_BYTES + LINK_BYTES;
const LOST_AT: usize = TABLES_AT + 3 * LOSS_TABLE_BYTES;
/// Bytes of the stored form.
pub(crate) const ACCOUNT_BYTES: usize = LOST_AT + LOST_BATCHES_BYTES;

/// See the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochAccount {
    /// Which epoch.
    pub epoch: Epoch,
    /// Observations the sensors handed over.
    pub accepted: u64,
    /// Events the sensors reported as lost.
    pub sensor_lost: u64,
    /// Batches made; also the next batch sequence number.
    pub batches: u64,
    /// Accepted observations that went into a batch.
    pub framed: u64,
    /// Of these, acknowledged by the server.
    pub delivered: u64,
    /// Losses of every kind.
    pub booked: LossTable,
    /// Booked, not yet in a durable batch.
    pub pending: LossTable,
    /// Booked, and the server acknowledged the event that says so.
    pub announced: LossTable,
    /// The epoch this one's chain continues; 0: none.
    pub previous_epoch: Epoch,
    /// The last batch's link, or the chain's beginning.
    pub link: Digest,
    /// Batches the server acknowledged.
    pub batches_delivered: u64,
    /// Batches that were given up.
    pub batches_lost: LostBatches,
}

impl EpochAccount {
    /// The account of an epoch that begins.
    pub fn new(epoch: Epoch) -> Self {
        Self::after(epoch, None)
    }

    /// The account of an epoch that begins after another one.
    pub fn after(epoch: Epoch, previous: Option<&ChainHead>) -> Self {
        Self {
            epoch,
            accepted: 0,
            sensor_lost: 0,
            batches: 0,
            framed: 0,
            delivered: 0,
            booked: LossTable::default(),
            pending: LossTable::default(),
            announced: LossTable::default(),
            previous_epoch: previous.map_or(Epoch(0), |head| head.epoch),
            link: chain::beginning(epoch, previous),
            batches_delivered: 0,
            batches_lost: LostBatches::default(),
        }
    }

    /// The end of the chain so far.
    pub fn chain_head(&self) -> ChainHead {
        ChainHead { epoch: self.epoch, batches: self.batches, link: self.link }
    }

    /// Batches that are neither acknowledged nor given up.
    pub fn batches_waiting(&self) -> u64 {
        self.batches.saturating_sub(self.batches_delivered + self.batches_lost.total())
    }

    /// Adds a batch to the chain. The numbers that were skipped are those of batches the disk did not take.
    pub fn extend_chain(&mut self, sequence: u64, frame: &[u8]) -> ChainPlace {
        if let Some(last) = sequence.checked_sub(1).filter(|last| *last >= self.batches) {
            self.batches_lost.add(LostSpan { first: self.batches, last, batches: sequence - self.batches });
        }
        let place = ChainPlace {
            sequence: BatchSequence(sequence),
            previous: self.link,
            batches_lost: self.batches_lost.total(),
        };
        self.link = chain::link(self.epoch, &place, frame);
        self.batches = self.batches.max(sequence + 1);
        place
    }

    /// Everything that happened as far as the sensors know: what must be found again as rows or losses.
    pub fn generated(&self) -> u64 {
        self.accepted + self.sensor_lost
    }

    /// Framed events that are neither acknowledged nor lost: they wait in the buffer.
    pub fn waiting(&self) -> u64 {
        let gone = self.booked.of_stage(LossStage::Buffer) + self.booked.of_stage(LossStage::Server);
        self.framed.saturating_sub(self.delivered + gone)
    }

    /// Accepted or reported, but neither framed nor booked: in the queue or the open batch while the epoch runs, lost
    /// with the process once it has ended.
    pub fn in_flight(&self) -> u64 {
        let lost_before = self.booked.of_stage(LossStage::Sensor) + self.booked.of_stage(LossStage::Pipeline);
        self.generated().saturating_sub(self.framed + lost_before)
    }

    /// Whether the server knows where everything of this epoch went.
    pub fn is_settled(&self) -> bool {
        self.generated() == self.delivered + self.announced.total() && self.booked == self.announced
    }

    /// Books a loss and leaves it pending.
    pub fn book(&mut self, stage: LossStage, reason: LossReason, count: u64) {
        self.booked.add(stage, reason, count);
        self.pending.add(stage, reason, count);
    }

    /// Takes over the intake's counters and books the losses among them that are not booked yet.
    pub fn take_intake(&mut self, accepted: u64, losses: &LossTable, sensor_lost: u64) {
        self.accepted = self.accepted.max(accepted);
        self.sensor_lost = self.sensor_lost.max(sensor_lost);
        for (stage, reason, count) in losses.minus(&self.booked).entries() {
            self.book(stage, reason, count);
        }
    }

    /// Everything that waited in the buffer is gone, the announcements of losses among it too.
    pub fn lose_buffer(&mut self) {
        let waiting = self.waiting();
        self.booked.add(LossStage::Buffer, LossReason::StoreDamaged, waiting);
        self.pending = self.booked.minus(&self.announced);
    }

    /// The store is gone, and every batch that waited in it.
    pub fn lose_store(&mut self) {
        self.lose_buffer();
        self.batches_lost.add_unknown(self.batches, self.batches_waiting());
    }

    /// The epoch has ended: what was on its way inside the process was lost with it.
    pub fn close(&mut self) {
        // Accounts can be ahead of a ledger that did not survive.
        let known = self.framed + self.booked.of_stage(LossStage::Sensor) + self.booked.of_stage(LossStage::Pipeline);
        self.accepted = self.accepted.max(known.saturating_sub(self.sensor_lost));
        self.book(LossStage::Pipeline, LossReason::AgentKilled, self.in_flight());
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ACCOUNT_BYTES);
        for value in [
            self.epoch.0,
            self.accepted,
            self.sensor_lost,
            self.batches,
            self.framed,
            self.delivered,
            self.previous_epoch.0,
            self.batches_delivered,
        ] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(self.link.as_bytes());
        for table in [&self.booked, &self.pending, &self.announced] {
            table.encode(&mut bytes);
        }
        self.batches_lost.encode(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ACCOUNT_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let table = |index: usize| {
            let at = TABLES_AT + index * LOSS_TABLE_BYTES;
            bytes.get(at..at + LOSS_TABLE_BYTES).and_then(|table| table.try_into().ok()).map(LossTable::decode)
        };
        Some(Self {
            epoch: Epoch(word(0)?),
            accepted: word(8)?,
            sensor_lost: word(16)?,
            batches: word(24)?,
            framed: word(32)?,
            delivered: word(40)?,
            booked: table(0)?,
            pending: table(1)?,
            announced: table(2)?,
            previous_epoch: Epoch(word(48)?),
            batches_delivered: word(56)?,
            link: Digest::from_bytes(bytes.get(WORDS_BYTES..TABLES_AT)?.try_into().ok()?),
            batches_lost: LostBatches::decode(bytes.get(LOST_AT..)?.try_into().ok()?)?,
        })
    }
}
