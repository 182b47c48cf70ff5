//! Reasons for models in which every feature works together with every other.
//!
//! From the row in which everything stands at the mean, the features take their values one by one; what a step changes is
//! the feature's. That depends on the order, so that the mean over several orders is taken: Shapley values by sampled
//! permutations (Castro, Gómez, Tejada 2009), each followed by its reverse (antithetic; Mitchell et al. 2022). Whatever
//! the orders, the contributions add up to the difference from the baseline, but for rounding. For a weighted sum every
//! order gives the same, and the values are exact.

use crate::model::limits::{FEATURES_MAX, UNITS_MAX};
use crate::model::network::Units;
use crate::model::scaling::Scaling;
use crate::model::{Contribution, Vector};

/// Permutations; each is taken in both directions.
const PERMUTATIONS: u64 = 4;

/// A model whose first layer adds up what each feature gives.
pub(super) trait Stepwise {
    /// What the first layer holds when everything stands at the mean. `units` are zero.
    fn begin(&self, units: &mut Units);

    /// A feature's standardised value changes.
    fn step(&self, units: &mut Units, feature: usize, from: f32, to: f32);

    /// The log-odds.
    fn finish(&self, units: &Units) -> f64;
}

/// `into` holds one entry per feature, in order.
pub(super) fn explain(model: &impl Stepwise, scaling: &[Scaling], vector: Vector<'_>, into: &mut [Contribution]) {
    // A vector has at most so many features: nothing is allocated.
    let (mut values, mut order, mut count) = ([0.0; FEATURES_MAX], [0_usize; FEATURES_MAX], 0);
    for (feature, (value, scaling)) in values.iter_mut().zip(scaling).enumerate() {
        *value = scaling.of(vector, feature);
        if *value != 0.0 {
            order[count] = feature;
            count += 1;
        }
    }
    let order = &mut order[..count];
    let mut base = [0.0; UNITS_MAX];
    model.begin(&mut base);
    let start = model.finish(&base);
    let mut walk = |order: &mut dyn Iterator<Item = &usize>| {
        let (mut units, mut before) = (base, start);
        for feature in order {
            model.step(&mut units, *feature, 0.0, values[*feature]);
            let after = model.finish(&units);
            if let Some(entry) = into.get_mut(*feature) {
                entry.contribution += after - before;
            }
            before = after;
        }
    };
    for permutation in 0..PERMUTATIONS {
        shuffle(order, permutation);
        walk(&mut order.iter());
        walk(&mut order.iter().rev());
    }
    for entry in into {
        entry.contribution /= (2 * PERMUTATIONS) as f64;
    }
}

/// The same permutation for the same number, everywhere (SplitMix64).
fn shuffle(items: &mut [usize], number: u64) {
    let mut state = number;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // Features are at most a few thousand: the bias does not matter.
        items.swap(last, (z % (last as u64 + 1)) as usize);
    }
}
