//! What the accounts need to know about a batch, kept beside it in the buffer as its tag.
//!
//! Layout, little-endian: version u8, epoch u64, sensor events u32, time u64, place in the chain (sequence u64, lost u64, link
//! before 32), then for each announced loss epoch u64, stage u8, reason u8, count u64. The buffer's checksum covers it.

use picket_common::chain::ChainPlace;
use picket_common::event::{LossReason, LossStage, SensorLoss};
use picket_common::id::{BatchSequence, Digest, Epoch};

use crate::pipeline::loss::{reason_index, stage_index};

const VERSION: u8 = 2;
const HEADER_BYTES: usize = 69;
const LOSS_BYTES: usize = 18;

/// Most `SensorLoss` events in one batch, so that a tag stays small; the rest waits for the next one.
pub(crate) const LOSSES_PER_BATCH_MAX: usize = 64;
const _: () = assert!(HEADER_BYTES + LOSSES_PER_BATCH_MAX * LOSS_BYTES <= crate::buffer::TAG_BYTES_MAX);

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchTag {
    /// The epoch of the batch's events.
    pub epoch: Epoch,
    /// How many of its events came from sensors.
    pub sensor_events: u32,
    /// When it was closed, nanoseconds since 1970.
    pub closed_unix_ns: u64,
    /// Where it stands in its epoch's chain.
    pub chain: ChainPlace,
    /// The losses its `SensorLoss` events announce.
    pub losses: Vec<SensorLoss>,
}

impl BatchTag {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.losses.len() * LOSS_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.extend(self.sensor_events.to_le_bytes());
        bytes.extend(self.closed_unix_ns.to_le_bytes());
        bytes.extend(self.chain.sequence.0.to_le_bytes());
        bytes.extend(self.chain.batches_lost.to_le_bytes());
        bytes.extend(self.chain.previous.as_bytes());
        for loss in &self.losses {
            bytes.extend(loss.epoch.0.to_le_bytes());
            bytes.extend([code(stage_index(loss.stage)), code(reason_index(loss.reason))]);
            bytes.extend(loss.count.to_le_bytes());
        }
        bytes
    }

    /// `None` for what is not a tag, or one of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, losses) = bytes.split_at_checked(HEADER_BYTES)?;
        if header[0] != VERSION || losses.len() % LOSS_BYTES != 0 {
            return None;
        }
        Some(Self {
            epoch: Epoch(u64::from_le_bytes(header[1..9].try_into().ok()?)),
            sensor_events: u32::from_le_bytes(header[9..13].try_into().ok()?),
            closed_unix_ns: u64::from_le_bytes(header[13..21].try_into().ok()?),
            chain: ChainPlace {
                sequence: BatchSequence(u64::from_le_bytes(header[21..29].try_into().ok()?)),
                batches_lost: u64::from_le_bytes(header[29..37].try_into().ok()?),
                previous: Digest::from_bytes(header[37..69].try_into().ok()?),
            },
            losses: losses.chunks_exact(LOSS_BYTES).map(decode_loss).collect::<Option<_>>()?,
        })
    }
}

fn decode_loss(bytes: &[u8]) -> Option<SensorLoss> {
    Some(SensorLoss {
        epoch: Epoch(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)),
        stage: *LossStage::ALL.get(usize::from(*bytes.get(8)?))?,
        reason: *LossReason::ALL.get(usize::from(*bytes.get(9)?))?,
        count: u64::from_le_bytes(bytes.get(10..18)?.try_into().ok()?),
    })
}

/// Stages and reasons are a handful; the stored codes are their places in `ALL`.
fn code(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip_with_every_stage_and_reason() {
        let mut losses = Vec::new();
        for stage in LossStage::ALL {
            for reason in LossReason::ALL {
                losses.push(SensorLoss { stage, reason, count: losses.len() as u64 + 1, epoch: Epoch(99) });
            }
        }
        let chain = ChainPlace { sequence: BatchSequence(5), previous: Digest::of(b"before"), batches_lost: 2 };
        let tag = BatchTag { epoch: Epoch(100), sensor_events: 4_000, closed_unix_ns: 7, chain, losses };
        assert_eq!(BatchTag::decode(&tag.encode()), Some(tag.clone()));
        assert_eq!(BatchTag::decode(&tag.encode()[..68]), None);
        assert_eq!(BatchTag::decode(b""), None);
    }
}
