//! Batches, good and bad.

use bytes::Bytes;
use picket_common::batch::{BatchBuilder, limits};
use picket_common::event::{ByteString, Event, EventBody, Origin, ProcessExit, ProcessId, Timestamp};
use picket_common::id::{BatchSequence, Epoch, EventKey, Sequence};

/// Makes the batches of one epoch, one after the other.
pub(crate) struct Frames {
    epoch: Epoch,
    batch: u64,
    event: u64,
}

impl Frames {
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch: Epoch(epoch), batch: 0, event: 0 }
    }

    /// The next batch, of this many events.
    pub(crate) fn next(&mut self, events: u64) -> Bytes {
        let mut builder = BatchBuilder::new();
        for _ in 0..events {
            builder.push(&event(EventKey { epoch: self.epoch, sequence: Sequence(self.event) })).unwrap();
            self.event += 1;
        }
        let frame = builder.finish(self.epoch, BatchSequence(self.batch)).unwrap();
        self.batch += 1;
        frame.into()
    }
}

fn event(key: EventKey) -> Event {
    let start_time = Timestamp(1_800_000_000_000_000_000);
    let exit = ProcessExit {
        process: ProcessId { pid: 42, start_time },
        executable: ByteString::from(&b"/bin/true"[..]),
        exit_code: Some(0),
        signal: None,
        duration_ns: Some(1_000),
        cpu_time_ns: None,
    };
    Event { key, time: start_time, origin: Origin::Replay, body: EventBody::ProcessExit(exit) }
}

/// The frame with the checksum that its bytes have.
pub(super) fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
    frame
}

/// A small frame that says truly how large it becomes: as large as is allowed, from far too little.
pub(super) fn bomb() -> Vec<u8> {
    let mut frame = Frames::new(9).next(1).to_vec();
    // A zstd frame of blocks that each repeat one byte: window 4 MiB, then 32 blocks of 128 KiB.
    let mut payload = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x60];
    const BLOCKS: u32 = 32;
    const BLOCK_BYTES: u32 = 128 * 1024;
    for block in 1..=BLOCKS {
        let header = (BLOCK_BYTES << 3) | (1 << 1) | u32::from(block == BLOCKS);
        payload.extend_from_slice(&header.to_le_bytes()[..3]);
        payload.push(0);
    }
    assert_eq!((BLOCKS * BLOCK_BYTES) as usize, limits::BATCH_DECOMPRESSED_BYTES_MAX);
    frame.truncate(48);
    frame[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    frame[16..20].copy_from_slice(&(BLOCKS * BLOCK_BYTES).to_le_bytes());
    frame.extend_from_slice(&payload);
    with_checksum(frame)
}
