//! What a model that was fitted anew on all rows had scored before, when it had not seen the held-out ones.
//!
//! `<state>/models/<SHA-256>.held-out`: threshold, number of rows, score of each row of the data set's test part in its
//! order (`f64`, `u64`, `f64` each, little-endian), then the SHA-256 of all that.

use picket_common::id::Digest;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// Scores of held-out rows.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutScores {
    /// The threshold of the model that scored.
    pub threshold: f64,
    /// The score of each row.
    pub scores: Vec<f64>,
}

impl HeldOutScores {
    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + 8 * self.scores.len() + DIGEST_BYTES);
        bytes.extend(self.threshold.to_le_bytes());
        bytes.extend((self.scores.len() as u64).to_le_bytes());
        self.scores.iter().for_each(|score| bytes.extend(score.to_le_bytes()));
        let digest = Digest::of(&bytes);
        bytes.extend(digest.as_bytes());
        bytes
    }

    /// Reads a file's content; nothing when it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
        if Digest::of(content).as_bytes() != digest {
            return None;
        }
        let (threshold, rest) = content.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (scores, rest) = rest.as_chunks::<8>();
        let is_whole = rest.is_empty() && scores.len() as u64 == u64::from_le_bytes(*count);
        is_whole.then(|| Self {
            threshold: f64::from_le_bytes(*threshold),
            scores: scores.iter().map(|score| f64::from_le_bytes(*score)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back_bit_for_bit_and_damage_is_seen() {
        let scores = HeldOutScores { threshold: 0.1, scores: vec![0.0, 1.0 / 3.0, 1.0] };
        let bytes = scores.to_bytes();
        assert_eq!(HeldOutScores::from_bytes(&bytes), Some(scores));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(HeldOutScores::from_bytes(&changed), None, "{place}");
            assert_eq!(HeldOutScores::from_bytes(&bytes[..place]), None, "{place}");
        }
    }
}
