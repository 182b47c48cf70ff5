//! Whole numbers in the order of values.

/// A whole number for each finite value, in the order of the values; both zeros are one value.
#[inline]
pub(super) fn key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    // All bits of a negative number, the sign of another.
    let flipped = ((bits as i32) >> 31) as u32 | 1 << 31;
    bits ^ flipped
}

/// The finite value with this [`key`], if there is one.
pub(super) fn value_with(key: u32) -> Option<f32> {
    let bits = if key >> 31 == 1 { key ^ 1 << 31 } else { !key };
    let value = f32::from_bits(bits);
    // Of the zeros only the positive one has a key.
    (value.is_finite() && self::key(value) == key).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_values() {
        let values = [f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 0.5, 1.0, f32::MAX];
        assert!(values.is_sorted_by(|a, b| key(*a) < key(*b)));
        assert_eq!(key(0.0), key(-0.0));
        assert!(values.iter().all(|value| value_with(key(*value)) == Some(*value)));
        let none = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(key).into_iter().chain([0, u32::MAX, key(0.0) - 1]);
        assert!(none.into_iter().all(|key| value_with(key).is_none()));
    }
}
