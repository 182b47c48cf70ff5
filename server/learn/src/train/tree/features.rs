//! Which features are looked at for a split.

use crate::random::SplitMix64;

/// Hands out features for one split after the other.
pub(super) struct FeatureSampler {
    features: Vec<usize>,
    wanted: usize,
}

/// The features of one split.
pub(super) struct LookedAt<'a> {
    sampler: &'a mut FeatureSampler,
    handed_out: usize,
    counted: usize,
}

impl FeatureSampler {
    /// So many of the features that tell rows apart, for each split.
    pub(super) fn new(feature_count: usize, wanted: usize) -> Self {
        Self { features: (0..feature_count).collect(), wanted }
    }

    /// For the next split.
    pub(super) fn begin(&mut self) -> LookedAt<'_> {
        LookedAt { sampler: self, handed_out: 0, counted: 0 }
    }
}

impl LookedAt<'_> {
    /// The next feature: in random order, or in order where all are wanted.
    pub(super) fn next(&mut self, random: &mut SplitMix64) -> Option<usize> {
        let FeatureSampler { features, wanted } = &mut *self.sampler;
        if self.counted >= *wanted || self.handed_out >= features.len() {
            return None;
        }
        let index = self.handed_out;
        if *wanted < features.len() {
            let other = index + random.below(features.len() - index);
            features.swap(index, other);
        }
        self.handed_out += 1;
        Some(features[index])
    }

    /// The last one tells the rows apart.
    pub(super) fn counts(&mut self) {
        self.counted += 1;
    }
}
