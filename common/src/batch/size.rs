//! What an event takes at most in a batch and at least in memory; the same sums on both sides, so that a decoder never
//! refuses what an encoder made.

use crate::event::{ByteString, Event, LimitError};

/// Most bytes of the columns for one event beside its strings: fewer than 30 values of at most 10 bytes.
const EVENT_ENCODED_BYTES_MAX: usize = 300;
/// Most bytes of the columns for a string beside its content: in a list, a length and a reference.
const STRING_ENCODED_BYTES_MAX: usize = 10;

/// What one event takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchedSize {
    /// In the columns, at most.
    pub(super) encoded_bytes_max: usize,
    /// Its strings in memory, decoded.
    pub(super) string_memory_bytes: usize,
}

impl BatchedSize {
    pub(super) fn of(event: &Event) -> Result<Self, LimitError> {
        let size = event.size()?;
        Ok(Self {
            encoded_bytes_max: EVENT_ENCODED_BYTES_MAX + size.strings * STRING_ENCODED_BYTES_MAX + size.string_bytes,
            string_memory_bytes: size.strings * size_of::<ByteString>() + size.string_bytes,
        })
    }
}
