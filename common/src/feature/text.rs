//! Measures of byte strings.

/// A 64-bit hash that is the same everywhere: FNV-1a, finished with the mixer of SplitMix64. Not meant to withstand an
/// attacker who picks his strings; what it feeds only says how often something was seen.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

/// The hash of two hashes, in this order.
pub(super) fn hash_pair(first: u64, second: u64) -> u64 {
    mix(first.rotate_left(32) ^ mix(second))
}

/// A bijection that spreads every input bit over all output bits (the finalizer of SplitMix64).
pub(super) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How often each byte occurs.
pub(super) struct Histogram {
    counts: [u16; 256],
    total: u32,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: [0; 256], total: 0 }
    }

    pub(super) fn add(&mut self, byte: u8) {
        let count = &mut self.counts[usize::from(byte)];
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut histogram = Self::new();
        bytes.iter().for_each(|byte| histogram.add(*byte));
        histogram
    }

    pub(super) fn total(&self) -> u64 {
        u64::from(self.total)
    }

    /// How many bytes satisfy the condition.
    pub(super) fn count(&self, condition: impl Fn(u8) -> bool) -> u64 {
        (0..=u8::MAX).filter(|byte| condition(*byte)).map(|byte| u64::from(self.counts[usize::from(byte)])).sum()
    }

    /// Shannon entropy in bits per byte; `None` of nothing.
    pub(super) fn entropy(&self) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let total = f64::from(self.total);
        let mut sum = 0.0;
        for count in self.counts.iter().filter(|count| **count > 1) {
            let count = f32::from(*count);
            sum += f64::from(count) * f64::from(libm::log2f(count));
        }
        Some((libm::log2(total) - sum / total).max(0.0))
    }
}
