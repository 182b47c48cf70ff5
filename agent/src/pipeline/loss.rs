//! Losses by stage and reason.

use picket_common::event::{LossReason, LossStage};

/// Room for reasons in the stored form, so that one more does not change the layout.
const REASONS_MAX: usize = 10;
/// Bytes of the stored form.
pub(crate) const LOSS_TABLE_BYTES: usize = LossStage::ALL.len() * REASONS_MAX * 8;

/// How many events were lost, by stage and reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTable([[u64; REASONS_MAX]; LossStage::ALL.len()]);

impl LossTable {
    /// One cell.
    pub fn get(&self, stage: LossStage, reason: LossReason) -> u64 {
        self.0[stage_index(stage)][reason_index(reason)]
    }

    /// Adds to one cell.
    pub fn add(&mut self, stage: LossStage, reason: LossReason, count: u64) {
        let cell = &mut self.0[stage_index(stage)][reason_index(reason)];
        *cell = cell.saturating_add(count);
    }

    /// Adds all cells of another table.
    pub fn add_all(&mut self, other: &Self) {
        for (stage, reason, count) in other.entries() {
            self.add(stage, reason, count);
        }
    }

    /// What this table has more than `other`, cell by cell; never below zero.
    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = *self;
        for (row, other_row) in difference.0.iter_mut().zip(&other.0) {
            for (cell, other_cell) in row.iter_mut().zip(other_row) {
                *cell = cell.saturating_sub(*other_cell);
            }
        }
        difference
    }

    /// All cells of one stage together.
    pub fn of_stage(&self, stage: LossStage) -> u64 {
        self.0[stage_index(stage)].iter().sum()
    }

    /// All cells together.
    pub fn total(&self) -> u64 {
        LossStage::ALL.into_iter().map(|stage| self.of_stage(stage)).sum()
    }

    /// The cells that are not zero.
    pub fn entries(&self) -> impl Iterator<Item = (LossStage, LossReason, u64)> + '_ {
        let cells = LossStage::ALL.into_iter().flat_map(|stage| LossReason::ALL.map(|reason| (stage, reason)));
        cells.map(|(stage, reason)| (stage, reason, self.get(stage, reason))).filter(|(_, _, count)| *count > 0)
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        for cell in self.0.iter().flatten() {
            into.extend(cell.to_le_bytes());
        }
    }

    pub(crate) fn decode(bytes: &[u8; LOSS_TABLE_BYTES]) -> Self {
        let mut table = Self::default();
        for (cell, value) in table.0.iter_mut().flatten().zip(bytes.as_chunks::<8>().0) {
            *cell = u64::from_le_bytes(*value);
        }
        table
    }
}

/// `stage/reason`, the key of a loss in reports.
pub fn loss_name(stage: LossStage, reason: LossReason) -> String {
    format!("{}/{}", stage.name(), reason.name())
}

pub(crate) fn stage_index(stage: LossStage) -> usize {
    match stage {
        LossStage::Sensor => 0,
        LossStage::Pipeline => 1,
        LossStage::Buffer => 2,
        LossStage::Server => 3,
    }
}

pub(crate) fn reason_index(reason: LossReason) -> usize {
    match reason {
        LossReason::QueueFull => 0,
        LossReason::AgentKilled => 1,
        LossReason::BufferFull => 2,
        LossReason::WriteFailed => 3,
        LossReason::StoreDamaged => 4,
        LossReason::Rejected => 5,
        LossReason::Throttled => 6,
        LossReason::LogRotated => 7,
        LossReason::Degraded => 8,
    }
}
