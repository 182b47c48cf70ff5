//! The model registry.
