//! The frame: a fixed header, then the compressed columns.

use crate::batch::BatchHeader;
use crate::batch::error::BatchError;
use crate::batch::limits::{
    BATCH_COMPRESSED_BYTES_MAX, BATCH_DECOMPRESSED_BYTES_MAX, BATCH_EVENTS_MAX, COMPRESSION_RATIO_FREE_BYTES,
    COMPRESSION_RATIO_MAX,
};
use crate::batch::version::Version;
use crate::id::{BatchSequence, Epoch, Sequence};

/// Length of the header.
pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"PKTB";
/// What the checksum covers starts after it.
const CHECKED_FROM: usize = 8;
/// Codec 1: one zstd frame.
const CODEC_ZSTD: u8 = 1;

/// Fills in the header at the front of `frame`, which has [`HEADER_BYTES`] of room before its payload.
pub(super) fn write_header(frame: &mut [u8], header: &BatchHeader) {
    let mut at = CHECKED_FROM;
    let mut put = |bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&[Version::LATEST.number(), CODEC_ZSTD, 0, 0]);
    put(&header.compressed_bytes.to_le_bytes());
    put(&header.decompressed_bytes.to_le_bytes());
    put(&header.event_count.to_le_bytes());
    put(&header.epoch.0.to_le_bytes());
    put(&header.batch_sequence.0.to_le_bytes());
    put(&header.first_event_sequence.0.to_le_bytes());
    let checksum = crc32c::crc32c(&frame[CHECKED_FROM..]);
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
}

/// A frame whose header is right.
pub(super) struct OpenFrame<'a> {
    pub(super) version: Version,
    pub(super) header: BatchHeader,
    /// Compressed.
    pub(super) payload: &'a [u8],
}

/// Reads and checks the header.
pub(super) fn open(frame: &[u8]) -> Result<OpenFrame<'_>, BatchError> {
    let (mut header, payload) = frame
        .split_at_checked(HEADER_BYTES)
        .ok_or(BatchError::Truncated { bytes: frame.len(), header_bytes: HEADER_BYTES })?;
    if take::<4>(&mut header) != MAGIC {
        return Err(BatchError::NotABatch);
    }
    within("compressed bytes", payload.len(), BATCH_COMPRESSED_BYTES_MAX)?;
    let stored = u32::from_le_bytes(take(&mut header));
    let computed = crc32c::crc32c(&frame[CHECKED_FROM..]);
    if stored != computed {
        return Err(BatchError::Checksum { stored, computed });
    }
    let [version, codec, reserved @ ..] = take::<4>(&mut header);
    let version = Version::from_number(version)
        .ok_or(BatchError::UnsupportedVersion { version, supported: Version::LATEST.number() })?;
    if codec != CODEC_ZSTD {
        return Err(BatchError::UnsupportedCodec { codec, supported: CODEC_ZSTD });
    }
    if reserved != [0; 2] {
        return Err(BatchError::Header("its reserved bytes are not zero"));
    }
    let header = BatchHeader {
        compressed_bytes: u32::from_le_bytes(take(&mut header)),
        decompressed_bytes: u32::from_le_bytes(take(&mut header)),
        event_count: u32::from_le_bytes(take(&mut header)),
        epoch: Epoch(u64::from_le_bytes(take(&mut header))),
        batch_sequence: BatchSequence(u64::from_le_bytes(take(&mut header))),
        first_event_sequence: Sequence(u64::from_le_bytes(take(&mut header))),
    };
    check(&header, payload.len())?;
    Ok(OpenFrame { version, header, payload })
}

fn check(header: &BatchHeader, payload_bytes: usize) -> Result<(), BatchError> {
    if header.compressed_bytes as usize != payload_bytes {
        return Err(BatchError::Header("its compressed length is not that of the payload"));
    }
    let decompressed_bytes = header.decompressed_bytes as usize;
    within("decompressed bytes", decompressed_bytes, BATCH_DECOMPRESSED_BYTES_MAX)?;
    if decompressed_bytes > COMPRESSION_RATIO_FREE_BYTES {
        within(
            "decompressed bytes for each compressed one",
            decompressed_bytes / payload_bytes.max(1),
            COMPRESSION_RATIO_MAX,
        )?;
    }
    within("events", header.event_count as usize, BATCH_EVENTS_MAX)?;
    if header.event_count == 0 {
        return Err(BatchError::Header("it has no events"));
    }
    // The number after the last event must exist too: readers keep it as "next expected".
    if header.first_event_sequence.0.checked_add(u64::from(header.event_count)).is_none() {
        return Err(BatchError::Header("its event numbers overflow"));
    }
    Ok(())
}

fn within(what: &'static str, value: usize, limit: usize) -> Result<(), BatchError> {
    if value > limit {
        return Err(BatchError::TooLarge { what, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Takes `N` bytes off a header, whose length was checked as a whole.
fn take<const N: usize>(header: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (front, rest) = header.split_at(N);
    bytes.copy_from_slice(front);
    *header = rest;
    bytes
}
