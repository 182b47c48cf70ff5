//! Batches in, acknowledgements out.
