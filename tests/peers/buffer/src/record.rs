//! Values that say which key they belong to and whether they are whole, and a small generator of random numbers.

/// A value of `bytes` (at least 16) for `key`: key, CRC-32C of the rest, and bytes that do not compress.
pub fn value(key: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(key ^ 0x9e37_79b9_7f4a_7c15);
    let mut body = Vec::with_capacity(bytes);
    while body.len() < bytes.max(16) - 12 {
        body.extend(random.next().to_le_bytes());
    }
    body.truncate(bytes.max(16) - 12);
    let crc = crc32c::crc32c(&[&key.to_le_bytes()[..], &body].concat());
    [&key.to_le_bytes()[..], &crc.to_le_bytes(), &body].concat()
}

/// Whether `value` is what [`value`] made for `key`.
pub fn is_intact(key: u64, value: &[u8]) -> bool {
    let Some((head, body)) = value.split_at_checked(12) else { return false };
    let crc = crc32c::crc32c(&[&key.to_le_bytes()[..], body].concat());
    head[..8] == key.to_le_bytes() && head[8..] == crc.to_le_bytes()
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
