//! The batch.
