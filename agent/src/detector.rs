//! The detector: features, score, alert.
