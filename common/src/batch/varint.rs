//! Protobuf's variable-length integers: seven bits a byte, least significant first.

/// Longest encoding of a `u64`, in bytes.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`; returns how many bytes that took.
pub(super) fn put(into: &mut Vec<u8>, value: u64) -> usize {
    if value < 0x80 {
        into.push(low_byte(value));
        return 1;
    }
    let mut rest = value;
    let mut bytes = 1;
    while rest >= 0x80 {
        into.push(low_byte(rest) | 0x80);
        rest >>= 7;
        bytes += 1;
    }
    into.push(low_byte(rest));
    bytes
}

/// How many bytes [`put`] takes for `value`.
pub(super) fn encoded_len(value: u64) -> usize {
    // One byte for each started group of seven significant bits.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Takes a value off the front of `bytes`; `None` when it is cut short or exceeds 64 bits.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for index in 0..VARINT_BYTES_MAX {
        let byte = *bytes.get(index)?;
        let bits = u64::from(byte & 0x7f);
        if index == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            *bytes = bytes.get(index + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Maps small negative numbers to small positive ones: 0, -1, 1, -2 … become 0, 1, 2, 3 …
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn low_byte(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                assert_eq!(put(&mut bytes, value), bytes.len());
                assert_eq!(encoded_len(value), bytes.len());
                let mut rest = bytes.as_slice();
                assert_eq!(take(&mut rest), Some(value));
                assert!(rest.is_empty());
                assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None, "cut short");
            }
        }
        for value in [0, 1, -1, 63, -64, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(take(&mut [0xff; 9].iter().copied().chain([0x01]).collect::<Vec<_>>().as_slice()), Some(u64::MAX));
        assert_eq!(take(&mut [0xff; 9].iter().copied().chain([0x02]).collect::<Vec<_>>().as_slice()), None);
        assert_eq!(take(&mut [0x80; 11].as_slice()), None);
    }
}
