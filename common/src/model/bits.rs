//! Numbers that are not whole bytes, lowest bit first.

/// The most bits that are written or read at once.
const BITS_MAX: u32 = 57;

/// Bits that are needed to tell `count` things apart.
pub(super) fn width(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// Appends bits.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    /// Bits of `pending`, fewer than 8.
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `bits` of a number that has no higher ones.
    pub(super) fn put(&mut self, number: u64, bits: u32) {
        debug_assert!(bits < BITS_MAX && number >> bits == 0);
        self.pending |= number << self.pending_bits;
        self.pending_bits += bits;
        while self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Appends a number above zero: the place of its highest bit in `prefix` bits, then the bits below that.
    pub(super) fn put_number(&mut self, number: u64, prefix: u32) {
        let below = number.max(1).ilog2();
        self.put(u64::from(below), prefix);
        self.put(number & ((1 << below) - 1), below);
    }

    /// What was written, zeros up to a whole byte.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Takes bits from the front; nothing when there are not enough.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits taken.
    taken: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Whole bytes taken.
    pub(super) fn offset(&self) -> usize {
        self.taken / 8
    }

    /// At most [`BITS_MAX`] bits.
    #[inline]
    pub(super) fn take(&mut self, bits: u32) -> Option<u64> {
        debug_assert!(bits <= BITS_MAX);
        if self.taken + bits as usize > 8 * self.bytes.len() {
            return None;
        }
        let rest = self.bytes.get(self.taken / 8..)?;
        let word = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            last
        });
        let word = u64::from_le_bytes(word) >> (self.taken % 8);
        self.taken += bits as usize;
        Some(word & ((1 << bits) - 1))
    }

    /// What [`BitWriter::put_number`] wrote; at most 6 bits of prefix.
    #[inline]
    pub(super) fn take_number(&mut self, prefix: u32) -> Option<u64> {
        let below = u32::try_from(self.take(prefix)?).ok().filter(|below| *below < BITS_MAX)?;
        Some(1 << below | self.take(below)?)
    }

    /// Whether nothing is left but zeros up to a whole byte.
    pub(super) fn is_at_end(&self) -> bool {
        let left = 8 * self.bytes.len() - self.taken;
        left < 8 && self.bytes.last().is_none_or(|last| left == 0 || last >> (8 - left) == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn widths() {
        assert_eq!([0, 1, 2, 3, 4, 5, 256, 257].map(width), [0, 0, 1, 2, 2, 3, 8, 9]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fields in prop::collection::vec((any::<u64>(), 0u32..=48, any::<bool>()), 0..40)
        ) {
            let mut writer = BitWriter::default();
            let cut = |number: u64, bits: u32| number & ((1 << bits) - 1);
            for (number, bits, plain) in &fields {
                let number = cut(*number, *bits);
                if *plain { writer.put(number, *bits) } else { writer.put_number(number.max(1), 6) }
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for (number, bits, plain) in &fields {
                let number = cut(*number, *bits);
                if *plain {
                    prop_assert_eq!(reader.take(*bits), Some(number));
                } else {
                    prop_assert_eq!(reader.take_number(6), Some(number.max(1)));
                }
            }
            prop_assert_eq!(reader.offset() + usize::from(!reader.taken.is_multiple_of(8)), bytes.len());
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn nothing_is_read_beyond_the_end(bytes in prop::collection::vec(any::<u8>(), 0..12), bits in 0u32..=57) {
            let mut reader = BitReader::new(&bytes);
            let whole = (8 * bytes.len()).checked_div(bits as usize).unwrap_or(3);
            for _ in 0..whole {
                prop_assert!(reader.take(bits).is_some());
            }
            prop_assert_eq!(reader.take(bits).is_none(), bits > 0);
        }
    }
}
