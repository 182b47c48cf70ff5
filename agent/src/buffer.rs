//! The buffer on disk.
